"""Updates in flight: signed headers that no closed round counts yet, found by digest, by key and by bytes."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

from ...protocol.records import Ack
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader

UpdateKey = tuple[bytes, str, int]  # author, component, round


@dataclass(slots=True, eq=False)
class InFlightUpdate:
    """An update in flight: from its author's signature to the close that counts or outdates it."""

    header: Signed[UpdateHeader]
    acks: dict[bytes, Ack] = field(default_factory=dict)
    stored: bool = False
    pulling: bool = False
    refused: str = ""
    posted: frozenset[bytes] = frozenset()

    @property
    def key(self) -> UpdateKey:
        """Author, component and round."""
        return update_key(self.header.value)


def update_key(value: UpdateHeader) -> UpdateKey:
    """Return author, component and round: an honest host acknowledges one update for each."""
    return (value.author, value.component, value.round)


class InFlightUpdates(MutableMapping[bytes, InFlightUpdate]):
    """Updates by their headers' digests, in the order in which they became known."""

    def __init__(self) -> None:
        self._all: dict[bytes, InFlightUpdate] = {}
        self._by_key: dict[UpdateKey, list[InFlightUpdate]] = {}
        self._by_blob: dict[bytes, list[InFlightUpdate]] = {}
        self._by_author: dict[bytes, dict[bytes, InFlightUpdate]] = {}

    def __getitem__(self, key: bytes) -> InFlightUpdate:
        return self._all[key]

    def __setitem__(self, key: bytes, update: InFlightUpdate) -> None:
        if key in self._all:
            del self[key]
        value = update.header.value
        self._all[key] = update
        self._by_key.setdefault(update_key(value), []).append(update)
        self._by_blob.setdefault(value.blob, []).append(update)
        self._by_author.setdefault(value.author, {})[key] = update

    def __delitem__(self, key: bytes) -> None:
        update = self._all.pop(key)
        value = update.header.value
        for index, name in ((self._by_key, update_key(value)), (self._by_blob, value.blob)):
            index[name].remove(update)  # type: ignore[index]  # each index has its own type of key
            if not index[name]:  # type: ignore[index]
                del index[name]  # type: ignore[arg-type]
        del self._by_author[value.author][key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def at(self, key: UpdateKey) -> list[InFlightUpdate]:
        """Return the updates with one key: more than one if its author made two."""
        return self._by_key.get(key, [])

    def with_bytes(self, blob: bytes) -> list[InFlightUpdate]:
        """Return the updates that name these bytes."""
        return self._by_blob.get(blob, [])

    def of(self, author: bytes) -> list[InFlightUpdate]:
        """Return an author's updates."""
        return list(self._by_author.get(author, {}).values())
