"""The control API's interface to a running daemon, and the facts that it takes for the views."""

import shutil
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from ...protocol.charter import Charter
from ...protocol.membership import Invitation
from ...protocol.signing import Signed
from ..core.events import Event, ProposeMotion
from ..core.offers import own_reason
from ..core.state import NodeState
from ..home.config import Config
from ..home.declared import data_warnings
from ..home.invitations import IssuedInvitation
from ..home.paths import Home
from ..home.peers import load_peers
from ..home.quiet import QuietHours
from ..home.scheduled import Scheduled
from ..network.counters import Counters
from ..store.database import Store
from ..unlearning.students import Seen
from ..views.context import Context, InFlight, Live
from ..views.note import Note, NoteKind


class Admission(Protocol):
    """The part of node/runtime's Admission that is shown or commanded here."""

    @property
    def issued(self) -> tuple[IssuedInvitation, ...]:
        """The invitations that this node gave out."""
        ...

    def state(self, issued: IssuedInvitation) -> str:
        """How the application stands that came by one."""
        ...

    def motion_for(self, issued: IssuedInvitation) -> ProposeMotion:
        """The motion to admit its applicant."""
        ...

    def invite(
        self, name: str, addresses: tuple[str, ...], days: float, key: str, hold: bool, charter: bool
    ) -> Awaitable[Signed[Invitation]]:
        """Give one out."""
        ...

    def withdraw(self, token_key: str) -> Awaitable[None]:
        """Admit no applicant by it any more."""
        ...


class LearnerStatus(Protocol):
    """The learner worker as it is shown: "starting", "ready", "training", "failed", "waiting" or "off",
    and why."""

    state: str
    detail: str
    device: str
    left_out: int
    consents: dict[str, int] | None
    students: int | None
    labelled: dict[str, int]
    progress: tuple[int, int]
    cut: dict[str, int]


class Network(Protocol):
    """The part of node/network that is shown or commanded here."""

    @property
    def counters(self) -> Counters:
        """Bytes on the wire."""
        ...

    def addresses(self) -> list[str]:
        """Multiaddrs that others can dial."""
        ...

    def neighbours(self) -> frozenset[bytes]:
        """Members that a connection is held with."""
        ...

    def why(self, peer: bytes) -> str:
        """Why no connection is held with a peer."""
        ...

    def connect(self, address: str) -> Awaitable[bytes]:
        """Dial an address; return the member's key."""
        ...


class Daemon(Protocol):
    """A running node. node/runtime's Runtime is one; tests make others."""

    @property
    def founding(self) -> Charter:
        """The federation's founding charter."""
        ...

    @property
    def charter(self) -> Charter:
        """The charter in force."""
        ...

    @property
    def home(self) -> Home:
        """The node's directory."""
        ...

    @property
    def config(self) -> Config:
        """The configuration that it started with."""
        ...

    @property
    def core(self) -> NodeState:
        """The state machine; read on the daemon's own thread only."""
        ...

    @property
    def store(self) -> Store:
        """The database; any thread may read."""
        ...

    @property
    def network(self) -> Network:
        """The network."""
        ...

    @property
    def learner(self) -> LearnerStatus:
        """The learner worker."""
        ...

    @property
    def started(self) -> float:
        """Unix time of the start."""
        ...

    @property
    def data_missing(self) -> str:
        """Why the data folder, which was there at the start, cannot be read now, or ""."""
        ...

    @property
    def title(self) -> str:
        """How this node asked to be called, where it came by an invitation."""
        ...

    @property
    def admission(self) -> Admission:
        """Invitations and applications."""
        ...

    def submit(self, event: Event) -> None:
        """Hand an event to the core."""
        ...

    def look(self, *subjects: str) -> Awaitable[Seen]:
        """Return whether students are known here, and the updates that used their data."""
        ...

    def exclude(self, *subjects: str) -> Awaitable[Seen]:
        """Leave students out from now on; return the updates that used their data."""
        ...

    def put_off(self, at: int, pause: bool, /, *students: Sequence[str]) -> Awaitable[Seen]:
        """Leave students out from now on, each by all its ids; withdraw what used their data at a Unix time."""
        ...

    def cancel(self, *subjects: str) -> Awaitable[tuple[int, int]]:
        """Take back withdrawals to come; return how many, and how many students are let in again."""
        ...

    @property
    def scheduled(self) -> tuple[Scheduled, ...]:
        """The withdrawals of students' updates that are still to come."""
        ...

    def request_stop(self) -> None:
        """Stop in good order."""
        ...

    def refresh_peers(self) -> None:
        """Take the operator's peers into the address book again."""
        ...


def context_of(daemon: Daemon) -> Context:
    """Take what views need, at one moment of the daemon's own thread; the result may be read on another."""
    core = daemon.core
    return Context(
        founding=daemon.founding,
        ledger=core.ledger,
        store=daemon.store,
        me=core.me,
        live=_live(daemon),
        added=load_peers(daemon.home),
        hosted=core.hosted,
        followed=core.followed,
        withheld=core.withheld,
        paused=core.paused,
        quiet=QuietHours(daemon.config.learning.quiet_hours),
        scheduled=daemon.scheduled,
        unmatched=tuple(daemon.config.learning.idle_patterns(spec.name for spec in daemon.charter.components)),
        title=daemon.title,
    )


def held(daemon: Daemon) -> list[IssuedInvitation]:
    """Return the invitations whose application waits for this node's operator."""
    return [g for g in daemon.admission.issued if g.hold and daemon.admission.state(g) == "held"]


def _warnings(daemon: Daemon) -> tuple[Note, ...]:
    learner = daemon.learner
    if learner.students is None:
        return ()
    problems = data_warnings(daemon.config, daemon.charter, learner.students, learner.labelled)
    return tuple(Note(NoteKind.DECLARED_OTHERWISE, f"{what}.", advice) for what, advice in problems)


def _live(daemon: Daemon) -> Live:
    core, network = daemon.core, daemon.network
    received, sent = network.counters.snapshot()
    return Live(
        started=daemon.started,
        addresses=tuple(network.addresses()),
        neighbours=network.neighbours(),
        unreached={
            key: network.why(key) for key in core.ledger.members if key != core.me and key not in network.neighbours()
        },
        max_neighbours=daemon.config.node.max_neighbours,
        received=received,
        sent=sent,
        signing=core.signing,
        reports=len(core.reports),
        contributing=core.contributing,
        exhausted=core.exhausted,
        forecast={name: (left, dict(last)) for name, (left, last) in core.forecast.items()},
        learner=daemon.learner.state,
        learner_detail=daemon.learner.detail,
        learner_device=daemon.learner.device,
        learner_left_out=daemon.learner.left_out,
        learner_consents=daemon.learner.consents,
        learner_progress=daemon.learner.progress,
        learner_cut=dict(daemon.learner.cut),
        learner_warnings=_warnings(daemon),
        data_missing=daemon.data_missing,
        halted=tuple(sorted(core.halted)),
        free=shutil.disk_usage(daemon.home.root).free,
        training=core.run.number if core.run is not None else None,
        view=core.agreement.view if core.agreement is not None else None,
        folded=dict(core.folded),
        in_flight=tuple(
            InFlight(
                update.header.value.author,
                update.header.value.component,
                update.header.value.round,
                len(update.acks),
                update.stored,
                update.refused,
            )
            for update in core.in_flight.values()
        ),
        refused=_by_reason(core.refusals),
        returned=dict(core.returned),
        removals_unknown=core.removals_unknown,
        goal=core.progress.goal() if core.progress.reported >= 0 else 0,
        source=core.progress.source,
        idle={name: why for name in core.hosted if (why := own_reason(core, name)) is not None},
        taking=tuple(sorted(core.progress.fetching)),
        held=tuple(
            (person.name, g.token_key[:12], g.name, person.author)
            for g in held(daemon)
            if (person := g.applicant()) is not None
        ),
    )


def _by_reason(refusals: Mapping[tuple[bytes, str], int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for (_, reason), count in refusals.items():
        counts[reason] = counts.get(reason, 0) + count
    return counts
