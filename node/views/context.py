"""The sources of views, and their names for members and times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...consensus.fold import fold_block
from ...consensus.ledger import Ledger, genesis
from ...crypto.errors import CorruptError, RemoteProtocolError
from ...protocol.charter import Charter
from ..core.reasons import Reason
from ..core.state import PAUSED_FLAG
from ..home.quiet import QuietHours
from ..home.scheduled import Scheduled
from ..store.database import Store
from .note import Note
from .shapes import MemberName


@dataclass(frozen=True, slots=True)
class InFlight:
    """An update in flight: signed by its author, not counted yet."""

    author: bytes
    component: str
    round: int
    acks: int
    stored: bool
    refused: str


@dataclass(frozen=True, slots=True)
class Live:
    """Facts that only a running daemon knows. Times are Unix seconds."""

    started: float
    addresses: tuple[str, ...]
    neighbours: frozenset[bytes]
    max_neighbours: int
    received: int
    sent: int
    signing: bool
    reports: int
    contributing: bool
    exhausted: str
    forecast: Mapping[str, tuple[int, Mapping[str, int]]]
    learner: str
    learner_detail: str
    learner_device: str
    learner_left_out: int
    learner_progress: tuple[int, int]
    learner_cut: Mapping[str, int]
    learner_warnings: tuple[Note, ...]  # differences between declarations and data
    training: int | None
    view: int | None
    folded: Mapping[str, tuple[int, int, bytes, bytes]]
    in_flight: tuple[InFlight, ...]
    refused: Mapping[str, int]
    learner_consents: Mapping[str, int] | None = None  # students by consent; None: nobody asks
    goal: int = 0  # the target height of a catch-up, from `source`; 0: none is under way
    source: bytes = b""
    idle: Mapping[str, Reason] = field(default_factory=dict)  # hosted components that are not trained, with the reason
    taking: tuple[str, ...] = ()  # components whose certified state is being fetched
    # Pending applications for this node's operator: chosen name, the invitation's id and name, key.
    held: tuple[tuple[str, str, str, bytes], ...] = ()
    unreached: Mapping[bytes, str] = field(default_factory=dict)  # members without a connection, and the reason
    # Own records that this disk lacked at the start and peers had, by kind: an old copy of the home was put back.
    returned: Mapping[str, int] = field(default_factory=dict)
    removals_unknown: bool = False  # nothing is trained until `collegium unlearn resume`
    halted: tuple[str, ...] = ()  # components whose state here differs from the certified one, recomputed as well
    free: int | None = None  # bytes free on the disk of the home
    data_missing: str = ""  # the reason why the data folder, which was there at the start, cannot be read now


@dataclass(frozen=True, slots=True)
class Context:
    """The sources of views. `me` is this node's key if it is known; `added` the operator's own peer addresses.

    `hosted`, `followed` and `withheld` are those of node/home/policies.py; None: not known.
    """

    founding: Charter
    ledger: Ledger
    store: Store
    me: bytes | None = None
    live: Live | None = None
    added: tuple[str, ...] = ()
    published: frozenset[int] = frozenset()
    hosted: tuple[str, ...] | None = None
    followed: tuple[str, ...] | None = None
    withheld: Mapping[str, str] | None = None
    paused: bool = False  # by its operator: nothing is trained until `collegium node resume`
    quiet: QuietHours = field(default_factory=QuietHours)  # of its configuration
    scheduled: tuple[Scheduled, ...] = ()  # withdrawals of students' updates that are still to come
    unmatched: tuple[str, ...] = ()  # patterns of `engage` in config.toml that match no component
    title: str = ""  # the name in this node's application, if it joined by invitation

    @property
    def charter(self) -> Charter:
        """The charter in force."""
        return self.ledger.charter

    def member(self, key: bytes) -> MemberName:
        """Return a member as {"name", "key"}."""
        seat = self.ledger.roll.seats.get(key)
        asked = self.title if key == self.me else ""
        return {"name": seat.name if seat is not None else asked or key.hex()[:16], "key": key.hex()}

    def is_quiet(self) -> bool:
        """Whether this node is in its quiet hours now."""
        return self.quiet.at(datetime.now())

    def quiet_until(self) -> str:
        """Return when its quiet hours next begin or end, in words."""
        change = self.quiet.change(datetime.now())
        return "–" if change is None else local(change)

    def members(self, keys: object) -> list[MemberName]:
        """Return members, in order of name."""
        assert isinstance(keys, set | frozenset | tuple | list)
        return sorted((self.member(key) for key in keys), key=lambda shown: shown["name"])


def offline(charter: Charter, store: Store, **facts: object) -> Context:
    """Return the context of a store without a daemon: its blocks are folded again.

    Raises CorruptError if they do not fold.
    """
    snapshot = store.snapshot()
    ledger = genesis(charter)
    for stored in snapshot.blocks:
        try:
            ledger = fold_block(ledger, stored.block, stored.records, trusted=True)
        except RemoteProtocolError as error:
            raise CorruptError(
                f"The database {store.path} does not fold at height {stored.block.height}: {error}",
                "Restore a backup of this node's directory; `collegium ledger verify` says more.",
            ) from error
    paused = bool(snapshot.flags.get(PAUSED_FLAG, 0))
    return Context(charter, ledger, store, published=snapshot.published, paused=paused, **facts)  # type: ignore[arg-type] # by name


def local(moment: datetime) -> str:
    """Return a time of this machine's zone in words: "Mon 2026-09-07 18:00 CEST"."""
    return f"{moment.astimezone():%a %Y-%m-%d %H:%M %Z}"


def moment(seconds: float | None) -> str | None:
    """Return Unix seconds as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
