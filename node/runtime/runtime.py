"""The runtime: takes events to the core and carries out its effects. Disk before network, always (G6, G8).

The class is long because the order of start and stop is: all callbacks of the network, the timers and the control API
end in its one inbox. The work of a callback is in modules of its own.
"""

import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import assert_never

import structlog
import trio

from ...consensus.ledger import Ledger
from ...crypto.errors import CorruptError, RemoteProtocolError, UnreachableError, UsageError
from ...crypto.identity import Identity
from ...protocol.charter import Charter, SignedCharter
from ..core import events as ev
from ..core.contribution import Plan
from ..core.core import handle, load_node, start_node
from ..core.state import Options
from ..home import joining, keys
from ..home.away import hosted_without_data
from ..home.config import Config
from ..home.models import check_models
from ..home.paths import Home
from ..home.policies import declared_lot, policies, wanted_components, why_idle
from ..home.quiet import QuietHours
from ..home.scheduled import Scheduled
from ..network import Callbacks, Network, NetworkConfig, open_network
from ..patience import in_thread, unless_scarce
from ..store.database import Store
from ..unlearning.exclusion import Exclusion
from . import logs, service
from .admission import SYNC_PROTOCOL, Admission
from .awaiting import DataFolder
from .book import AddressBook
from .consenting import keep_consents, look_of
from .dialogue import TELL_PROTOCOL, Dialogue
from .holdings import Holdings
from .jobs import Jobs
from .learner import Learner
from .notes import Notes, facts_of
from .resting import keep_quiet
from .spend_statements import SpendStatements
from .timing import Timers

log = structlog.get_logger(__name__)

INBOX = 20_000  # events in the queue; gossip beyond it is dropped and counted, anti-entropy brings it again
BATCH = 256
FEW_DESCRIPTORS = 512
TEND_EVERY = 5.0  # seconds between checks of this machine's addresses and of waiting applications


class Runtime:
    """One node's daemon. Made by `serve`; the control API reads its attributes and calls submit and request_stop."""

    def __init__(
        self, home: Home, config: Config, charter: Charter, signed: SignedCharter, identity: Identity, store: Store
    ) -> None:
        self.home, self.config, self.founding, self.signed_charter = home, config, charter, signed
        self.identity, self.store = identity, store
        self.started = time.time()
        self.dropped = 0
        self.network: Network
        self._inbox: deque[ev.Event] = deque()
        self._wake = trio.Event()
        self._stop = trio.Event()
        self._control_open = trio.Event()
        self._control_closed = trio.Event()
        self.timers = Timers(self.submit)
        self.begins_anew = False  # a new key, or data that came: the daemon restarts with it
        self._nursery: trio.Nursery
        self._turn = trio.Lock()
        self.data = DataFolder(config, lambda: self.core.charter)
        missing = self.data.missing
        snapshot = store.snapshot()
        invitation = joining.load(home)
        self.title = "" if invitation is None else invitation.name
        self.quiet_hours = QuietHours(config.learning.quiet_hours)

        def options(ledger: Ledger) -> Options:
            hosted, followed = (
                (hosted_without_data(config, ledger.charter, snapshot, identity.public_key), ())
                if missing
                else wanted_components(config, ledger.charter)
            )
            plan = Plan(
                engage=tuple(config.learning.engage),
                lot=max(1000, declared_lot(config)),
                rounds=config.learning.rounds,
                policies=policies(config, ledger.charter),
            )
            return Options(
                hosted=hosted,
                followed=followed,
                addresses=tuple(config.node.advertise)[:8],
                idle=why_idle(config, ledger.charter),
                quiet=self.quiet_hours.at(datetime.now()),
                plan=plan,
                propose_ms=config.timing.propose_ms,
                idle_ms=config.timing.idle_ms,
                sync_ms=config.timing.sync_ms,
            )

        self.core = load_node(charter, identity, options, snapshot)
        self._was_member = identity.public_key in self.core.ledger.roll.seats
        self.admission = Admission(self, identity, signed)
        self.book = AddressBook(home, config, self.core)
        self.notes = Notes(store)
        self.holdings = Holdings(home, config, self.core, self.notes, self.submit)
        times = config.unlearning.schedule
        self.exclusion = Exclusion(home, store, self.core, lambda: self.jobs.reopen(), times)  # noqa: PLW0108 - made below
        self.look, self.exclude = self.exclusion.look, self.exclusion.exclude  # part of control/facts.py `Daemon`
        self.put_off, self.cancel = self.exclusion.put_off, self.exclusion.cancel  # as well
        self.jobs = Jobs(home, config, self.core, self.holdings, self.notes, self.exclusion, self.submit, missing)
        self.spend_statements = SpendStatements()
        self.dialogue = Dialogue(self.core, store, self._turn, self.submit)

    @property
    def charter(self) -> Charter:
        """The charter in force."""
        return self.core.charter

    @property
    def learner(self) -> Learner:
        """The learner worker."""
        return self.jobs.learner

    @property
    def scheduled(self) -> tuple[Scheduled, ...]:
        """The withdrawals of students' updates that are still to come."""
        return self.exclusion.schedule.requests

    @property
    def data_missing(self) -> str:
        """The reason why data that were there at the start cannot be read now."""
        return self.data.gone

    # ---- what others call

    def submit(self, event: ev.Event) -> None:
        """Hand an event to the core; it is handled in order, soon."""
        self._inbox.append(event)
        self._wake.set()

    def refresh_peers(self) -> None:
        """Take the operator's peers and the members' seats and offers into the address book again."""
        self.book.refresh(self.network)

    def request_stop(self) -> None:
        """Stop the daemon in good order."""
        self._stop.set()

    # ---- running

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run until stopped, or until a fault that only a restart can mend (a full disk, say)."""
        config = NetworkConfig(
            seed=self.identity.seed,
            listen=tuple(self.config.node.listen),
            topic=f"collegium/{self.core.federation.hex()[:16]}",
            mdns=self.config.node.mdns,
            max_neighbours=self.config.node.max_neighbours,
        )
        async with (
            open_network(
                config,
                Callbacks(
                    self.book.allows,
                    self._on_gossip,
                    self._on_peer,
                    {SYNC_PROTOCOL: self.dialogue.serve_sync, TELL_PROTOCOL: self._hear},
                    self.holdings.blob_path,
                    self.admission.handlers,
                ),
            ) as self.network,
            trio.open_nursery() as self._nursery,
        ):
            self.holdings.network = self.dialogue.network = self.network
            nursery = self._nursery
            if not self.config.node.advertise:
                self.core.options = replace(self.core.options, addresses=self.book.own(self.network))
            nursery.start_soon(self._serve_control)
            nursery.start_soon(self.learner.run)
            nursery.start_soon(self.spend_statements.run)
            nursery.start_soon(self._watch_signals)
            nursery.start_soon(service.keep_told, self._control_open)
            self.holdings.sweep()
            self.refresh_peers()
            await self._step(lambda: start_node(self.core, _now()))
            await in_thread(self.exclusion.forget_manifests, set(self.core.in_flight))
            nursery.start_soon(self._work)
            nursery.start_soon(self._tend)
            if self.data.missing:
                nursery.start_soon(self._await_data)
            nursery.start_soon(self._watch_notes)
            nursery.start_soon(keep_quiet, self.quiet_hours, self.submit)
            nursery.start_soon(self.exclusion.carry_out, self.submit)
            nursery.start_soon(keep_consents, look_of(self.config), self.jobs.asks_consents, self.jobs.reopen)
            self._follow_key()
            log.info(
                "node started",
                member=self.identity.public_key,
                federation=self.core.federation,
                height=self.core.ledger.height,
                addresses=self.network.addresses(),
            )
            started()
            await self._stop.wait()
            log.info("node stops")
            if not self.begins_anew:
                service.notify(service.STOPPING)
            with trio.move_on_after(2):  # let the answer to the stop request get out
                await self._control_closed.wait()
            nursery.cancel_scope.cancel()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._inbox:
                batch = [self._inbox.popleft() for _ in range(min(BATCH, len(self._inbox)))]
                before = (self.core.ledger.height, self.core.signing)
                await self._step(partial(handle, self.core, batch, _now()))
                if (self.core.ledger.height, self.core.signing) != before:
                    with unless_scarce():
                        self._follow_key()
                    self.refresh_peers()
                    await self.network.enforce_gate()
                await trio.lowlevel.checkpoint()

    async def _tend(self) -> None:
        while True:
            await self.admission.maintain()
            changed = self.book.changed(self.network)
            if changed:
                log.info("addresses changed", addresses=list(changed))
                self.submit(ev.Readdressed(changed))
            await self.data.look()
            logs.tell_repeats(log)
            with unless_scarce():
                invitation = joining.load(self.home)
                if invitation is not None and invitation.member and self.core.me not in self.core.ledger.roll.seats:
                    # That peer lets this node in when the members have admitted it.
                    self.network.backoff_reset(invitation.member)
            await trio.sleep(TEND_EVERY)

    async def _watch_notes(self) -> None:
        from .watching import watch  # noqa: PLC0415 - as for the control API

        await watch(self)

    async def _await_data(self) -> None:
        await self.data.wait()
        log.info("the data are there; the daemon begins anew with them", folder=str(self.config.data.path))
        self.begins_anew = True
        self.request_stop()

    def _follow_key(self) -> None:
        """Restart with the new key as soon as the ledger has it.

        Restart also when this key replaced a lost one: that key's spending is read from its updates (G6).
        """
        seat = self.core.ledger.roll.seats.get(self.identity.public_key)
        if seat is not None and seat.predecessor and not self._was_member:
            log.warning("this node took a member's place", member=seat.name, old=seat.predecessor, height=seat.since)
            self.begins_anew = True
            self.request_stop()
        if seat is not None and seat.successor and keys.adopt_next(self.home, seat.successor):
            log.warning("this member has changed to its new key", old=seat.key, new=seat.successor, height=seat.until)
            self.begins_anew = True
            self.request_stop()

    async def _step(self, think: Callable[[], list[ev.Effect]]) -> None:
        # No request is answered from the core's memory until that state is on disk (G8).
        async with self._turn:
            effects = think()
            await self._store_puts(effects)
        for effect in effects:
            await self._carry_out(effect)
        closes = [effect for effect in effects if isinstance(effect, ev.Notice) and effect.event == "round-closed"]
        if closes:
            await self.notes.add(dict(facts_of(closes, self.network.counters)), self.core.ledger.height)

    async def _store_puts(self, effects: list[ev.Effect]) -> None:
        puts = [effect.put for effect in effects if isinstance(effect, ev.Persist)]
        if puts:
            # If this fails, nothing of the batch leaves the node: the error ends the daemon, stored rows stay.
            await in_thread(self.store.apply, puts)

    async def _carry_out(self, effect: ev.Effect) -> None:
        nursery = self._nursery
        match effect:
            case ev.Persist():
                pass  # `_store_puts` has stored it, before everything else of its batch
            case ev.Publish():
                if effect.to in self.network.neighbours():
                    nursery.start_soon(self.dialogue.tell, effect)
                else:
                    await self.network.publish(effect.data)
            case ev.Sync():
                nursery.start_soon(self.dialogue.sync, effect)
            case ev.SetTimer():
                self.timers.set(effect, nursery)
            case ev.Pull():
                nursery.start_soon(self._guarded, partial(self.holdings.pull, effect))
            case ev.Fold():
                nursery.start_soon(self._guarded, partial(self.holdings.fold, effect))
            case ev.FetchState():
                nursery.start_soon(self.holdings.take_state, effect)
            case ev.CheckBudget():
                nursery.start_soon(self.jobs.check_budget, effect)
            case ev.CheckSpendStatement():
                self.spend_statements.add(effect.header)
            case ev.Train():
                nursery.start_soon(self.jobs.train, effect)
            case ev.Evaluate():
                nursery.start_soon(self.jobs.evaluate, effect)
            case ev.Erase():
                nursery.start_soon(self._guarded, partial(self.holdings.erase, effect, self.exclusion.forget_manifests))
            case ev.Amended():
                nursery.start_soon(self._configure, effect.charter)
            case ev.OpenLearner():
                nursery.start_soon(self.jobs.reopen)
            case ev.Notice():
                getattr(log, effect.level)(effect.event, **effect.fields)
            case _:
                assert_never(effect)

    async def _configure(self, charter: Charter) -> None:
        """Find out which components of an amended charter this institution has data for, as at a start."""
        config = self.config
        try:
            if self.data.missing or self.data.gone:
                raise UsageError("the data folder cannot be read now", "The daemon takes them when it starts again.")
            await in_thread(check_models, config, charter)
            hosted, followed = await in_thread(wanted_components, config, charter)
            in_force = policies(config, charter)
        except (CorruptError, UsageError) as error:  # what it held before goes on
            log.error("new components are not taken", reason=error.message, advice=error.advice)
            return
        if charter is self.core.charter:  # else a later amendment has asked again
            self.submit(ev.Configured(hosted, followed, why_idle(config, charter), in_force))

    async def _guarded(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job: an error about bytes from outside ends the job, an error of this disk the daemon."""
        try:
            await job()
        except (RemoteProtocolError, UnreachableError) as error:
            log.warning("job failed", error=str(error))

    async def _serve_control(self) -> None:
        # Imported here, when the node already runs: the network starts first.
        from ..control.server import serve_control  # noqa: PLC0415

        try:
            await serve_control(self, self._stop, self._control_open)
        finally:
            self._control_closed.set()

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP and logs.reopen():
                    log.info("log reopened")
                else:  # without a log file it is the terminal that went
                    self.request_stop()

    # ---- network

    async def _hear(self, peer: bytes, data: bytes) -> bytes:
        self._on_gossip(peer, data)
        return b""

    def _on_gossip(self, forwarder: bytes, data: bytes) -> None:
        if len(self._inbox) >= INBOX:
            self.dropped += 1
            if self.dropped == 1 or self.dropped % 10_000 == 0:
                log.warning("gossip dropped, this node cannot keep up", count=self.dropped)
            return
        self.submit(ev.Gossip(forwarder, data))

    def _on_peer(self, peer: bytes, connected: bool) -> None:
        seat = self.core.ledger.roll.seats.get(peer)
        log.info("peer connected" if connected else "peer lost", peer=peer, name=seat.name if seat else "")
        near, members = len(self.network.neighbours()), self.core.ledger.members
        needed = min(self.core.ledger.quorum - 1, self.config.node.max_neighbours)
        if not connected and near == needed - 1 and self.identity.public_key in members:
            log.warning("too few members connected for a quorum", connected=near, members=len(members), needed=needed)
        self.submit(ev.PeerUp(peer) if connected else ev.PeerDown(peer))


def _now() -> int:
    return time.monotonic_ns() // 1_000_000
