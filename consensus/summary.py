"""A ledger state as canonical bytes, and the digest by which a header names it (G1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from ..protocol.codec import decode, encode
from . import membership
from .ledger import Certified, Ledger, Withdrawn


def state_digest(ledger: Ledger) -> bytes:
    """Return the digest of a ledger state (G1), by which a header names it."""
    return summary_digest(summary(ledger))


def summary_digest(data: bytes) -> bytes:
    """Return the digest of a summary."""
    return digest("ledger", data)


def summary(ledger: Ledger) -> bytes:
    """Return the fields of a ledger state that later blocks depend on, as canonical bytes (`Summary` reads them)."""
    components = [
        [
            c.name,
            c.round,
            c.generation,
            list(c.hosts),
            c.chain,
            [[p.update, p.seq, sorted(p.acks)] for p in c.pending],
            [list(item) for item in c.attests],
            [] if c.certified is None else [c.certified.round, c.certified.generation, c.certified.digest],
            [[e.generation, list(e.blobs)] for e in c.erasures],
        ]
        for _, c in sorted(ledger.components.items())
    ]
    return encode(
        [
            ledger.height,
            [[author, seq, head] for author, (seq, head) in sorted(ledger.heads.items())],
            list(ledger.members),
            [
                [author, list(offer.components), [[entry.component, entry.why] for entry in offer.idle]]
                for author, offer in sorted(ledger.offers.items())
            ],
            components,
            [w.summary() for w in ledger.withdrawn],
            list(ledger.expelled),
            *(membership.summary(ledger.roll) or ([[], []] if ledger.charter.number else [])),
            *_charter(ledger),
        ]
    )


def _charter(ledger: Ledger) -> list[object]:
    """Return the charter in force with what it means for older rounds; empty before the first amendment.

    The bytes, not their digest: whoever has a summary that a cosigned header names has the charter in force as well.
    """
    if not ledger.charter.number:
        return []
    parts = [
        [c.name, c.reach, [list(pair) for pair in c.rules]]
        for _, c in sorted(ledger.components.items())
        if c.rules or c.reach > 1
    ]
    return [ledger.charter.encoded, parts]


@dataclass(frozen=True, slots=True)
class ComponentSummary:
    """One component in a summary."""

    name: str
    round: int
    generation: int
    hosts: tuple[bytes, ...]
    chain: bytes
    attests: tuple[tuple[int, int, bytes, bytes], ...]
    certified: Certified | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The part of a ledger state that an outsider needs, from the summary that a cosigned header names."""

    height: int
    components: Mapping[str, ComponentSummary]
    withdrawn: tuple[Withdrawn, ...]
    successors: Mapping[bytes, bytes]
    names: Mapping[bytes, str]  # of the seats that changed since the charter
    charter: bytes = b""  # in force, for protocol.amendment.read; empty if it is the founding one
    rules: Mapping[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)  # set by amendments, by component

    @classmethod
    def read(cls, data: bytes, limit: int) -> "Summary":
        """Read the bytes of `summary`. Raises RemoteProtocolError("invalid" | as `decode`)."""
        raw: Any = decode(data, limit)
        try:
            height, _heads, _members, _offers, components, withdrawn, _expelled, *roll = raw
            summaries = {}
            for name, number, generation, hosts, chain, _pending, attests, certified, _erasures in components:
                done = Certified(*certified) if certified else None
                listed = tuple((r, e, host, state) for r, e, host, state in attests)
                summaries[name] = ComponentSummary(name, number, generation, tuple(hosts), chain, listed, done)
            seats = roll[0] if roll else []
            successors = {key: after for key, _, _, _, _, _, after in seats if after}
            names = {key: name for key, name, *_ in seats}
            charter, changed = (bytes(roll[2]), roll[3]) if len(roll) > 2 else (b"", [])
            voted = {name: tuple((int(first), str(rule)) for first, rule in pairs) for name, _reach, pairs in changed}
            taken = tuple(Withdrawn.read(row) for row in withdrawn)
            return cls(height, summaries, taken, successors, names, charter, voted)
        except (TypeError, ValueError) as error:
            raise RemoteProtocolError("invalid", "not a summary of a ledger") from error
