"""Updates in flight: signed headers that no closed round counts yet, found by digest, by place and by bytes."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

from ...protocol.records import Ack
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader

Slot = tuple[bytes, str, int]  # author, component, round


@dataclass(slots=True, eq=False)
class Flight:
    """An update header in flight: from its author's signature to the close that counts or outdates it."""

    header: Signed[UpdateHeader]
    acks: dict[bytes, Ack] = field(default_factory=dict)
    stored: bool = False
    pulling: bool = False
    refused: str = ""
    posted: frozenset[bytes] = frozenset()

    @property
    def slot(self) -> Slot:
        """The place that the update is for."""
        return slot(self.header.value)


def slot(value: UpdateHeader) -> Slot:
    """Return the place that an update is for: one of each is acknowledged."""
    return (value.author, value.component, value.round)


class Flights(MutableMapping[bytes, Flight]):
    """Flights by their headers' digests, in the order in which they became known."""

    def __init__(self) -> None:
        self._all: dict[bytes, Flight] = {}
        self._slots: dict[Slot, list[Flight]] = {}
        self._blobs: dict[bytes, list[Flight]] = {}
        self._authors: dict[bytes, dict[bytes, Flight]] = {}

    def __getitem__(self, key: bytes) -> Flight:
        return self._all[key]

    def __setitem__(self, key: bytes, flight: Flight) -> None:
        if key in self._all:
            del self[key]
        value = flight.header.value
        self._all[key] = flight
        self._slots.setdefault(slot(value), []).append(flight)
        self._blobs.setdefault(value.blob, []).append(flight)
        self._authors.setdefault(value.author, {})[key] = flight

    def __delitem__(self, key: bytes) -> None:
        flight = self._all.pop(key)
        value = flight.header.value
        for index, name in ((self._slots, slot(value)), (self._blobs, value.blob)):
            index[name].remove(flight)  # type: ignore[index]  # each index with its own kind of name
            if not index[name]:  # type: ignore[index]
                del index[name]  # type: ignore[arg-type]
        del self._authors[value.author][key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def at(self, place: Slot) -> list[Flight]:
        """Return the flights for one place: more than one if its author made two."""
        return self._slots.get(place, [])

    def with_bytes(self, blob: bytes) -> list[Flight]:
        """Return the flights that name these bytes."""
        return self._blobs.get(blob, [])

    def of(self, author: bytes) -> list[Flight]:
        """Return an author's flights."""
        return list(self._authors.get(author, {}).values())
