"""The ledger's state after the agreed records. Types only; `fold` has the transitions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeVar, assert_never

from ..crypto.hashing import digest
from ..crypto.merkle import EMPTY, Frontier
from ..protocol.blocks import quorum
from ..protocol.charter import Charter
from ..protocol.records import GENESIS, MODES, SCOPES, Mode, Offer, Scope, WithdrawalStatement
from ..protocol.update import UpdateHeader
from . import membership
from .components import Entry, Round
from .membership import Roll

NOT_YET = 2**63 - 1  # the feed position of an update that is in no record yet
T = TypeVar("T")


# called for every entry of every list
@lru_cache(maxsize=1024)
def _map(pairs: tuple[tuple[str, int], ...]) -> dict[str, int]:
    return dict(pairs)


@dataclass(frozen=True, slots=True)
class Erasure:
    """Blobs to delete everywhere once a state of at least this generation is certified."""

    generation: int
    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A withdrawal in force: the covered updates in this author's feed up to `through` no longer count.

    `rounds`: by component, the last closed round when it took effect. `since`: by component, the first round that it
    reaches; older rounds are beyond the charter's `refold_horizon`. `motion`: the digest of its motion, or b"".
    """

    author: bytes
    through: int
    mode: Mode
    height: int
    carrier: bytes
    rounds: tuple[tuple[str, int], ...] = ()
    scope: Scope = "all"
    components: tuple[str, ...] = ()
    first: int = 0
    last: int = 0
    updates: tuple[bytes, ...] = ()
    since: tuple[tuple[str, int], ...] = ()
    motion: bytes = b""

    def covers(self, component: str, number: int, entry: Entry) -> bool:
        """Whether it removes this entry from round `number` of a component."""
        since, last = _map(self.since).get(component), _map(self.rounds).get(component, 0)
        if since is None or not since <= number <= last:
            return False
        return self.mode == "rewind" or self._counts(component, number, entry)

    def bars(self, component: str, author: bytes, seq: int, number: int, update: bytes) -> bool:
        """Whether it voids an update that no round counted: one of the future, or one in flight when it took effect."""
        last = self.closed(component)
        if self.mode == "rewind":
            return component in _map(self.since) and number <= last + 1
        if author != self.author or not names(self, component, number, update):
            return False
        return seq <= self.through or number <= last + 1

    def closed(self, component: str) -> int:
        """Return a component's last closed round when it took effect; -1 if the component opened later."""
        return _map(self.rounds).get(component, -1)

    def _counts(self, component: str, number: int, entry: Entry) -> bool:
        return (
            entry.author == self.author and entry.seq <= self.through and names(self, component, number, entry.update)
        )

    def summary(self) -> list[object]:
        """Return the fields that later blocks depend on, for the ledger's digest."""
        scope = [self.scope, list(self.components), self.first, self.last, list(self.updates)]
        pairs = [[list(pair) for pair in self.rounds], [list(pair) for pair in self.since]]
        return [self.author, self.through, self.mode, self.motion, *pairs, *scope]

    @classmethod
    def read(cls, row: Any) -> "Withdrawn":
        """Read a `summary`, which has no height and no carrier. Raises TypeError or ValueError."""
        author, through, mode, motion, rounds, since, scope, components, first, last, updates = row
        pairs = [tuple((str(name), int(number)) for name, number in column) for column in (rounds, since)]
        return cls(
            author=bytes(author),
            through=int(through),
            mode=_of(MODES, mode),
            height=0,
            carrier=b"",
            rounds=pairs[0],
            scope=_of(SCOPES, scope),
            components=tuple(components),
            first=int(first),
            last=int(last),
            updates=tuple(updates),
            since=pairs[1],
            motion=bytes(motion),
        )


def _of(values: Mapping[str, T], text: str) -> T:
    """Return the value of this name. Raises ValueError."""
    if text not in values:
        raise ValueError(f"{text!r} is none of {', '.join(values)}")
    return values[text]


def names(terms: WithdrawalStatement | Withdrawn, component: str, number: int, update: bytes) -> bool:
    """Whether the scope of checked terms names this update, counted in or meant for round `number` of a component."""
    scope = SCOPES[terms.scope]
    match scope:
        case "all":
            return True
        case "components":
            return component in terms.components
        case "rounds":
            return component in terms.components and terms.first <= number <= terms.last
        case "updates":
            return update in terms.updates
        case _:
            assert_never(scope)


@dataclass(frozen=True, slots=True)
class Pending:
    """An update in the ledger that no round has counted yet."""

    update: bytes
    author: bytes
    seq: int
    round: int
    generation: int
    blob: bytes
    size: int
    variance: int
    acks: frozenset[bytes]
    header: UpdateHeader = field(compare=False)  # to judge it again when the charter changes


@dataclass(frozen=True, slots=True)
class Certified:
    """A state digest that a quorum of the component's active hosts attested."""

    round: int
    generation: int
    digest: bytes


@dataclass(frozen=True)
class ComponentLedger:
    """One component in the ledger: `round` is the last closed one.

    `rules`: the rules that amendments set, each with the first round that closes by it. `reach`: the first round that a
    withdrawal can reach, whatever the refold horizon is now: beyond it bytes were deleted before the horizon grew.
    """

    name: str
    round: int = 0
    generation: int = 0
    hosts: tuple[bytes, ...] = ()
    rounds: tuple[Round, ...] = ()
    pending: tuple[Pending, ...] = ()
    attests: tuple[tuple[int, int, bytes, bytes], ...] = ()  # (round, its generation, host, digest), sorted
    certified: Certified | None = None
    erasures: tuple[Erasure, ...] = ()
    rules: tuple[tuple[int, str], ...] = ()
    reach: int = 1

    @property
    def chain(self) -> bytes:
        """The running digest of the frozen lists; it names the state after the last closed round."""
        return self.rounds[-1].chain if self.rounds else GENESIS

    @cached_property
    def counted(self) -> dict[bytes, bytes]:
        """The updates that closed rounds count, by the digest of their bytes."""
        return {entry.blob: entry.update for round_ in self.rounds for entry in round_.entries}

    @cached_property
    def empty(self) -> int:
        """How many closed rounds count nothing (any more)."""
        return sum(not round_.entries for round_ in self.rounds)

    @cached_property
    def _eligible(self) -> dict[tuple[int, int], tuple[Entry, ...]]:
        return {}  # results of `eligible`, by (staleness limit, number of acknowledgements)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that is inert, with the reason's stable name."""

    author: bytes
    seq: int
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger state after a block.

    `charter` is in force for the next block: what its rounds close by, and what its records are judged by. `voted` is
    the one after it, and `passed` its amendment, while a block's records are applied that pass one.
    """

    charter: Charter
    height: int
    block: bytes
    members: tuple[bytes, ...]
    heads: Mapping[bytes, tuple[int, bytes]]
    offers: Mapping[bytes, Offer]
    components: Mapping[str, ComponentLedger]
    withdrawn: tuple[Withdrawn, ...] = ()
    expelled: tuple[bytes, ...] = ()  # by evidence or by motion
    roll: Roll = field(default_factory=lambda: Roll({}))
    tree: Frontier = EMPTY
    refusals: tuple[Refusal, ...] = field(default=(), compare=False)  # of the last block only
    voted: Charter | None = None
    passed: tuple[bytes, ...] = ()  # an amendment and the next may pass in one block
    opened: frozenset[str] = frozenset()  # components that amendments opened
    amendments: tuple[tuple[int, bytes], ...] = ()  # in force: the height of the block that passed it, its statement

    @property
    def federation(self) -> bytes:
        """The federation id."""
        return self.charter.federation

    @property
    def fault_model(self) -> str:
        """The fault model, which no amendment changes."""
        return self.charter.rules.fault_model

    @property
    def quorum(self) -> int:
        """The quorum of members for the next height."""
        return quorum(len(self.members), self.fault_model)

    def host_quorum(self, component: ComponentLedger) -> int:
        """The quorum of a component's active hosts, for acknowledgements and certificates."""
        return quorum(max(1, len(component.hosts)), self.fault_model)

    def certifiable(self, component: ComponentLedger) -> bool:
        """Whether the component has enough hosts for its certificates to mean anything (design.md section 7)."""
        return len(component.hosts) >= (4 if self.fault_model == "byzantine" else 2)


def genesis(charter: Charter) -> Ledger:
    """Return the ledger before the first block, from the founding charter."""
    return Ledger(
        charter=charter,
        height=0,
        block=GENESIS,
        members=tuple(member.key for member in charter.members),
        heads={},
        offers={},
        components={spec.name: ComponentLedger(spec.name) for spec in charter.components},
        roll=membership.founding(charter),
    )


def members_digest(members: Iterable[bytes]) -> bytes:
    """Return the digest by which a header names the members that decide the next height."""
    return digest("members", *sorted(members))
