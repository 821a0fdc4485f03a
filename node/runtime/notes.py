"""This node's own notes on rounds, beside the ledger: times of training and folding, missing members, bytes."""

import time
from collections.abc import Iterable, Iterator, Mapping

import trio

from ..core import events as ev
from ..network import Counters
from ..patience import in_thread
from ..store.database import Store


class Notes:
    """Facts by (component, round) in the database; new ones are merged with stored ones."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._noting = trio.Lock()

    async def add(self, facts: Mapping[tuple[str, int], Mapping[str, object]], height: int) -> None:
        """Add facts by (component, round), all in one write. `height`: the ledger's, for facts without one."""

        def write() -> None:
            notes = []
            for (component, round_), more in facts.items():
                earlier = self.store.notes(component=component, since=round_, limit=1_000_000)
                before = next((note for note in earlier if note.round == round_), None)
                at = int(str(more.get("height", before.height if before else height)))
                notes.append((component, round_, at, {**(before.data if before else {}), **more}))
            self.store.put_round_notes(notes)

        if facts:
            async with self._noting:  # read, merge, write: one at a time
                await in_thread(write)


def facts_of(closes: Iterable[ev.Notice], counters: Counters) -> Iterator[tuple[tuple[str, int], dict[str, object]]]:
    """The facts of closed rounds: hundreds in one step while a node catches up."""
    for notice in closes:
        facts = {key: _full(value) for key, value in notice.fields.items()}
        facts |= {"closed_at": time.time(), "received": counters.received, "sent": counters.sent}
        yield (str(facts["component"]), int(str(facts["round"]))), facts


def _full(value: object) -> object:
    """Like logs.readable, but with whole keys: notes are read by programs."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(_full(key)): _full(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_full(item) for item in value]
    return value
