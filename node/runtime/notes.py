"""What this node keeps about rounds, beside the ledger: when it trained and folded, who was missing, bytes so far."""

import time
from collections.abc import Iterable, Iterator, Mapping

import trio

from ..core import events as ev
from ..network import Counters
from ..patience import in_thread
from ..store.database import Store


class Notes:
    """Facts by (component, round), merged with what is known, in the database."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._noting = trio.Lock()

    async def add(self, facts: Mapping[tuple[str, int], Mapping[str, object]], height: int) -> None:
        """Add facts by (component, round), all in one write. `height`: of the ledger, where no fact says it."""

        def write() -> None:
            notes = []
            for (component, round_), more in facts.items():
                known = self.store.notes(component=component, since=round_, limit=1_000_000)
                before = next((note for note in known if note.round == round_), None)
                at = int(str(more.get("height", before.height if before else height)))
                notes.append((component, round_, at, {**(before.data if before else {}), **more}))
            self.store.put_round_notes(notes)

        if facts:
            async with self._noting:  # read, merge, write: one at a time
                await in_thread(write)


def facts_of(closes: Iterable[ev.Notice], counters: Counters) -> Iterator[tuple[tuple[str, int], dict[str, object]]]:
    """What there is to note of rounds that were closed: hundreds in one step of a node that catches up."""
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
