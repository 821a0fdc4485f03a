"""The runtime: takes events to the core and carries out its effects. Disk before network, always (G6, G8)."""

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import structlog
import trio

from ...consensus.ledger import Ledger
from ...consensus.membership import earlier
from ...crypto.errors import (
    CollegiumError,
    CorruptError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
    UsageError,
)
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.charter import Charter, SignedCharter, load_file, unsigned_members
from ...protocol.claims import NO_EPSILON
from ...protocol.components import MILLION, state_digest
from ...protocol.records import GENESIS
from ...protocol.signing import Signed
from ...protocol.update import (
    Declared,
    Engaged,
    UpdateHeader,
    check_norm,
    least_lot,
    payload,
    read_payload,
    within_norm,
)
from ..core import events as ev
from ..core.catchup import in_flight
from ..core.contribution import Plan
from ..core.core import handle, load_node, start_node
from ..core.messages import SYNC_LIMIT, SyncRequest
from ..core.state import Options
from ..core.sync import answer
from ..core.timers import Timer
from ..core.updates import needed
from ..home import joining, keys, lock
from ..home.addresses import published
from ..home.config import Config
from ..home.config import load as load_config
from ..home.paths import Home
from ..home.peers import load_peers
from ..home.policies import declared_lot, policies, wanted_components, why_idle
from ..home.students import NONE, RESTORE, Excluded, Manifests, Seen, exclude, load_excluded
from ..learner.protocol import Message
from ..network import Network, NetworkConfig, open_network
from ..network.identity import parse_address, peer_id
from ..scarce import is_scarce, raise_limit
from ..store.blobs import Blobs
from ..store.database import Store
from ..store.errors import disk_errors
from ..store.files import sync_folder
from ..store.states import States
from . import folding, logs
from .awaiting import held_before, missing_data, wait_for_data
from .door import SYNC_PROTOCOL, Door
from .evaluation import metric_rows
from .exchange import Exchange
from .learner import Learner, LearnerError
from .pace import Pace
from .patience import in_thread, unless_scarce
from .receipts import Receipts

log = structlog.get_logger(__name__)

TELL_PROTOCOL = "/collegium/tell/1"
INBOX = 20_000  # events that may wait; gossip beyond is dropped and counted, anti-entropy brings it again
BATCH = 256
LEFT_OUT = "left-out"  # the flag of how many students are left out, and forgotten by private components
FEW_DESCRIPTORS = 512
TEND_EVERY = 5.0  # seconds between two looks at this machine's addresses and at applications that wait


class Runtime:
    """One node's daemon. Made by `serve`; the control API reads its attributes and calls submit and request_stop."""

    def __init__(
        self, home: Home, config: Config, charter: Charter, signed: SignedCharter, identity: Identity, store: Store
    ) -> None:
        self.home, self.config, self.charter, self.signed_charter = home, config, charter, signed
        self.identity, self.store = identity, store
        self.blobs, self.states = Blobs(home.blobs), States(home.states)
        self.started = time.time()
        self.dropped = 0
        self.network: Network
        self._inbox: deque[ev.Event] = deque()
        self._wake = trio.Event()
        self._stop = trio.Event()
        self._control_closed = trio.Event()
        self._timers: dict[Timer, trio.CancelScope] = {}
        self._pulling: set[bytes] = set()
        self._asking: set[bytes] = set()
        self._book: dict[bytes, tuple[str, ...]] = {}
        self._named: tuple[str, ...] = ()
        self._introducers: frozenset[bytes] = frozenset()
        self.moved = False  # to a new key, or to data that came: the daemon begins anew with it
        self._nursery: trio.Nursery
        self._noting = trio.Lock()
        self._turn = trio.Lock()
        self._specs = {spec.name: spec for spec in charter.components}
        self._horizon = charter.rules.refold_horizon
        plan = Plan(
            engage=tuple(config.learning.engage),
            lot=max(1000, declared_lot(config)),
            rounds=config.learning.rounds,
            policies=policies(config, charter),
        )
        snapshot, self._missing = store.snapshot(), missing_data(config)
        known = joining.load(home)
        self.title = "" if known is None else known.name
        self.data_missing = ""  # why the data, which were there at the start, cannot be read now
        hosted, followed = (
            (held_before(config, charter, snapshot, identity.public_key), ())
            if self._missing
            else wanted_components(config, charter)
        )
        options = Options(
            hosted=hosted,
            followed=followed,
            addresses=tuple(config.node.advertise)[:8],
            idle=why_idle(config, charter),
            plan=plan,
            propose_ms=config.timing.propose_ms,
            idle_ms=config.timing.idle_ms,
            sync_ms=config.timing.sync_ms,
        )
        self.core = load_node(charter, identity, options, snapshot)
        self._was_member = identity.public_key in self.core.ledger.roll.seats
        self.door = Door(self, identity, signed)
        self.exchange = Exchange(self.states, self._specs, self.core.held, self._horizon)
        self._evaluated: ev.Evaluate | None = None
        self._personalised = (0, 0)  # the last epoch and round that private components were trained at
        self._personalising = trio.Lock()
        self.manifests = Manifests(self.home)
        self._reopening = False
        self._excluding = trio.Lock()
        self._everybody: frozenset[str] | None = None  # in the data, left out or not; told by the learner
        if not self._excluded()[1]:  # a crash came in between
            self._forget_private()
        self.learner = Learner(
            config.learning.learner,
            self._opening(),
            self._on_learner_ready,
            lambda: self.submit(ev.LearnerLost()),
            self._missing,
        )
        self.receipts = Receipts()
        self.pace = Pace(self.charter.rules.round_deadline / 1000)

    def _opening(self) -> Message | None:
        if not self.config.data.path or self._missing:
            return None
        return {
            "data": str(self.config.data.path),
            "components": [schema.to_map(spec) for spec in self.charter.components],
            "learning": schema.to_map(self.charter.learning),
            "base_seed": self.charter.seed,
            "hosted": list(self.core.held),
            "withheld": list(self.core.withheld),
            "models": {name: str(path) for name, path in self.config.models.folders},
            "cache": str(self.home.embeddings),
            "purge": True,  # the cache is this home's alone: who left the data leaves it too
            "private": str(self.home.private) if self.config.learning.private else None,
            "private_adapter": self.config.learning.adapter,
            "seed": None,
            "excluded": self._excluded()[0].as_message(),
        }

    # ---- what others call

    def submit(self, event: ev.Event) -> None:
        """Hand an event to the core; it is handled in order, soon."""
        self._inbox.append(event)
        self._wake.set()

    def request_stop(self) -> None:
        """Stop the daemon in good order."""
        self._stop.set()

    def refresh_peers(self) -> None:
        """Take the operator's peers and the members' seats and offers into the address book again."""
        core, me = self.core, self.identity.public_key
        book: dict[bytes, list[str]] = {key: list(seat.addresses) for key, seat in core.ledger.roll.seats.items()}
        for author, offer in core.ledger.offers.items():
            book.setdefault(author, [])[:0] = offer.addresses
        named = self._read_named()
        for address in named:
            key = _key_of(address)
            if key is not None:
                book.setdefault(key, []).insert(0, address)
        # A node that is not up to date may know none of today's members: whom its operator named is let in until then.
        self._introducers = frozenset(key for address in named if (key := _key_of(address)) is not None)
        gone = me in core.ledger.roll.seats and me not in core.ledger.members
        found = {
            key: tuple(dict.fromkeys(_with_peer(address, key) for address in addresses))
            for key, addresses in book.items()
            if key != me and addresses and self._may(key) and not gone
        }
        if found != self._book:
            self._book = found
            self.network.set_address_book(found)

    def _addresses(self) -> tuple[str, ...]:
        """Return what this node's offer tells the others to dial."""
        others = (a for key, seat in self.core.ledger.roll.seats.items() if key != self.core.me for a in seat.addresses)
        return published(self.network.addresses(), others)[:8]

    def _read_named(self) -> tuple[str, ...]:
        """Return the addresses that the operator named, as last read while there is no descriptor for the files."""
        with unless_scarce():
            known = joining.load(self.home)
            self._named = (*self.config.peers.addresses, *load_peers(self.home), *(known.addresses if known else ()))
        return self._named

    def _may(self, key: bytes) -> bool:
        """Whether a connection with this key is allowed."""
        return key in self.core.ledger.members or (not self.core.signing and key in self._introducers)

    # ---- running

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run until stopped or until a fault from which only a restart leads on (a full disk, say)."""
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
                allowed=self._may,
                on_gossip=self._on_gossip,
                on_peer=self._on_peer,
                rpc_handlers={SYNC_PROTOCOL: self._serve_sync, TELL_PROTOCOL: self._hear},
                blob_path=self._blob_path,
                guest_handlers=self.door.handlers,
            ) as self.network,
            trio.open_nursery() as self._nursery,
        ):
            nursery = self._nursery
            if not self.config.node.advertise:
                self.core.options = replace(self.core.options, addresses=self._addresses())
            nursery.start_soon(self._serve_control)
            nursery.start_soon(self.learner.run)
            nursery.start_soon(self.receipts.run)
            nursery.start_soon(self._watch_signals)
            self._sweep()
            self.refresh_peers()
            await self._step(lambda: start_node(self.core, _now()))
            await in_thread(self._forget_manifests, set(self.core.flights))
            nursery.start_soon(self._work)
            nursery.start_soon(self._tend)
            if self._missing:
                nursery.start_soon(self._await_data)
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
            with trio.move_on_after(2):  # let the answer to whoever asked us to stop get out
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
            await self.door.tend()
            self._readdress()
            await self._look_for_data()
            logs.tell_repeats(log)
            with unless_scarce():
                known = joining.load(self.home)
                if known is not None and known.member and self.core.me not in self.core.ledger.roll.seats:
                    self.network.backoff_reset(known.member)  # it lets this node in when the members have admitted it
            await trio.sleep(TEND_EVERY)

    async def _look_for_data(self) -> None:
        """Notice a data folder that has gone since the start, or is back."""
        if self._missing:
            return
        found = await in_thread(missing_data, self.config)
        if found and found != self.data_missing:
            log.warning("the data folder is not there any more", reason=found)
        elif self.data_missing and not found:
            log.info("the data folder is back", folder=str(self.config.data.path))
        self.data_missing = found

    async def _await_data(self) -> None:
        await wait_for_data(self.config, self.charter)
        log.info("the data are there; the daemon begins anew with them", folder=str(self.config.data.path))
        self.moved = True
        self.request_stop()

    def _follow_key(self) -> None:
        """Take up the new key as soon as the members have it in their ledger.

        And begin anew when this key took a lost one's place: what that one spent is read from its updates (G6).
        """
        seat = self.core.ledger.roll.seats.get(self.identity.public_key)
        if seat is not None and seat.predecessor and not self._was_member:
            log.warning("this node took a member's place", member=seat.name, old=seat.predecessor, height=seat.since)
            self.moved = True
            self.request_stop()
        if seat is not None and seat.successor and keys.adopt_next(self.home, seat.successor):
            log.warning("this member has moved to its new key", old=seat.key, new=seat.successor, height=seat.until)
            self.moved = True
            self.request_stop()

    async def _step(self, think: Callable[[], list[ev.Effect]]) -> None:
        # Nobody is answered from the core's memory until what it holds is on disk (G8).
        async with self._turn:
            effects = think()
            await self._store_puts(effects)
        for effect in effects:
            await self._carry_out(effect)
        await self._note(dict(self._closes(effects)))

    async def _store_puts(self, effects: list[ev.Effect]) -> None:
        puts = [effect.put for effect in effects if isinstance(effect, ev.Persist)]
        if puts:
            # If this fails nothing of the batch leaves the node: the error ends the daemon, what is stored stays.
            await in_thread(self.store.apply, puts)

    async def _carry_out(self, effect: ev.Effect) -> None:
        nursery = self._nursery
        match effect:
            case ev.Persist():
                pass  # `_store_puts` has stored it, before everything else of its batch
            case ev.Publish():
                if effect.to in self.network.neighbours():
                    nursery.start_soon(self._tell, effect)
                else:
                    await self.network.publish(effect.data)
            case ev.Sync():
                nursery.start_soon(self._sync, effect)
            case ev.SetTimer():
                self._set_timer(effect)
            case ev.Pull():
                nursery.start_soon(self._guarded, partial(self._pull, effect))
            case ev.Fold():
                nursery.start_soon(self._guarded, partial(self._fold, effect))
            case ev.FetchState():
                nursery.start_soon(self._take_state, effect)
            case ev.CheckBudget():
                nursery.start_soon(self._check_budget, effect)
            case ev.CheckReceipt():
                self.receipts.add(effect.header)
            case ev.Train():
                nursery.start_soon(self._train, effect)
            case ev.Evaluate():
                nursery.start_soon(self._evaluate, effect)
            case ev.Erase():
                nursery.start_soon(self._guarded, partial(self._erase, effect))
            case ev.Notice():
                getattr(log, effect.level)(effect.event, **effect.fields)
            case _:
                assert_never(effect)

    async def _guarded(self, job: Callable[[], Awaitable[None]]) -> None:
        """Errors of one job about bytes from outside end that job; errors of our disk end the daemon."""
        try:
            await job()
        except (RemoteProtocolError, UnreachableError) as error:
            log.warning("job failed", error=str(error))

    def _set_timer(self, effect: ev.SetTimer) -> None:
        known = self._timers.pop(effect.timer, None)
        if known is not None:
            known.cancel()
        scope = self._timers[effect.timer] = trio.CancelScope()
        self._nursery.start_soon(self._fire, effect, scope)

    async def _fire(self, effect: ev.SetTimer, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(effect.delay / 1000)
            if self._timers.get(effect.timer) is scope:
                del self._timers[effect.timer]
                self.submit(ev.TimerFired(effect.timer))

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self.request_stop()

    # ---- network

    def _readdress(self) -> None:
        """Offer new addresses when this machine's have changed: a laptop that moved, a renewed lease.

        A machine without a network has none but its own; it offers nothing new until it is on one again.
        """
        found, known = self._addresses(), self.core.options.addresses
        if self.config.node.advertise or found == known or (set(found) < set(known)):
            return
        log.info("addresses changed", addresses=list(found))
        self.submit(ev.Readdressed(found))

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

    async def _serve_sync(self, _peer: bytes, data: bytes) -> bytes:
        request = schema.load(SyncRequest, data, SyncRequest.LIMIT)
        members = self.core.ledger.members
        async with self._turn:
            flight = in_flight(self.core)
        return await in_thread(answer, request, self.core.federation, self.store, members, flight)

    async def _tell(self, effect: ev.Publish) -> None:
        assert effect.to is not None
        try:
            await self.network.request(effect.to, TELL_PROTOCOL, effect.data, limit=16)
        except (UnreachableError, RemoteProtocolError):
            await self.network.publish(effect.data)

    async def _hear(self, peer: bytes, data: bytes) -> bytes:
        self._on_gossip(peer, data)
        return b""

    async def _sync(self, effect: ev.Sync) -> None:
        if effect.peer in self._asking:
            return
        self._asking.add(effect.peer)
        try:
            data = await self.network.request(effect.peer, SYNC_PROTOCOL, effect.request, limit=SYNC_LIMIT, timeout=30)
            self.submit(ev.SyncReply(effect.peer, data))
        except (UnreachableError, RemoteProtocolError) as error:
            log.debug("sync failed", peer=effect.peer, error=str(error))
        finally:
            self._asking.discard(effect.peer)

    def _blob_path(self, digest: bytes) -> tuple[Path, int] | None:
        size = self.blobs.size(digest)
        return self.exchange.locate(self.core.ledger, digest) if size is None else (self.blobs.path(digest), size)

    async def _pull(self, pull: ev.Pull) -> None:
        if pull.blob in self._pulling:
            return
        self._pulling.add(pull.blob)
        try:
            if not self.blobs.has(pull.blob) and not await self._fetch(pull):
                self.submit(ev.BlobRefused(pull.blob, "unavailable"))
                return
            if pull.header is not None:
                try:
                    await in_thread(self._check_bytes, pull)
                except RemoteProtocolError as error:
                    await in_thread(self.blobs.delete, [pull.blob])
                    self.submit(ev.BlobRefused(pull.blob, error.reason))
                    return
                except (CorruptError, KeyError) as error:  # damaged on our own disk: it is fetched again
                    log.error("bytes damaged on disk", reason=str(error))
                    self.submit(ev.BlobRefused(pull.blob, "unavailable"))
                    return
            self.submit(ev.BlobStored(pull.blob))
        finally:
            self._pulling.discard(pull.blob)

    def _check_bytes(self, pull: ev.Pull) -> None:
        assert pull.header is not None
        spec = self._specs[pull.header.component]
        values = read_payload(self.blobs.get(pull.blob), pull.header, spec)
        check_norm(values, pull.header, spec, least_lot(self.charter.learning))

    async def _fetch(self, pull: ev.Pull) -> bool:
        """Try the likely holders first, then every neighbour; each attempt goes on where the last one stopped."""
        neighbours = self.network.neighbours()
        order = [peer for peer in pull.sources if peer in neighbours]
        order += [peer for peer in neighbours if peer not in order]
        for peer in order:
            try:
                with self.blobs.writer(pull.blob, pull.size) as writer:
                    await self.network.fetch(peer, pull.blob, pull.size, writer.write, writer.offset)
                    await in_thread(writer.commit)
            except UnreachableError:
                continue
            except RemoteProtocolError as error:
                if error.reason == "blob-erased":
                    return False
                if error.reason != "blob-unknown":
                    log.warning("bytes refused", peer=peer, reason=error.reason, blob=pull.blob)
                continue
            except OSError as error:
                if not is_scarce(error):
                    raise
                log.warning("no descriptor for an update's bytes; they are fetched later", blob=pull.blob)
                return False
            return True
        return False

    # ---- folds and the learner

    async def _fold(self, fold: ev.Fold) -> None:
        spec = self._specs[fold.component]
        if fold.fresh:  # from the bytes, or from the state in whose place bytes were pruned
            keep = await in_thread(folding.irreplaceable, fold.rounds, self._horizon, self.blobs)
            await in_thread(self.states.prune, fold.component, keep)
        try:
            state, saturated = await in_thread(folding.compute, spec, fold.rounds, self.blobs, self.states)
        except folding.MissingBlobsError as error:
            self.submit(ev.FoldMissing(fold.component, error.blobs))
            return
        ledger = self.core.ledger
        component = ledger.components[fold.component]
        rounds = component.rounds
        await in_thread(self.states.prune, fold.component, folding.kept(rounds, self._horizon))
        if self.config.storage.prune and ledger.certifiable(component):  # others' word stands for what goes
            pruned = await in_thread(folding.prune, spec, rounds, self._horizon, self.blobs, self.states)
            if pruned:
                log.info("old bytes pruned that no withdrawal can reach", component=fold.component, count=pruned)
        chain = fold.rounds[-1].chain if fold.rounds else GENESIS
        found = state_digest(fold.component, state)
        moved = folding.movement(spec, state)
        self.submit(ev.Folded(fold.component, fold.round, fold.epoch, chain, found, saturated, moved))
        log.info("folded", component=fold.component, round=fold.round, epoch=fold.epoch, digest=found)
        if fold.rounds:
            facts: dict[str, object] = {"folded_at": time.time(), "digest": found.hex()}
            await self._note({(fold.component, fold.round): facts})

    async def _take_state(self, fetch: ev.FetchState) -> None:
        rounds = self.core.ledger.components[fetch.component].rounds
        round_ = next((r.number for r in rounds if r.chain == fetch.chain), 0)
        taken = await self.exchange.take(self.network, fetch, round_)
        event = ev.StateStored if taken else ev.StateMissing
        self.submit(event(fetch.component, fetch.chain))

    async def _note(self, facts: Mapping[tuple[str, int], Mapping[str, object]]) -> None:
        """Add to what this node keeps about rounds, by (component, round): all in one write."""

        def write() -> None:
            notes = []
            for (component, round_), more in facts.items():
                known = self.store.notes(component=component, since=round_, limit=1_000_000)
                before = next((note for note in known if note.round == round_), None)
                height = int(str(more.get("height", before.height if before else self.core.ledger.height)))
                notes.append((component, round_, height, {**(before.data if before else {}), **more}))
            self.store.put_round_notes(notes)

        if facts:
            async with self._noting:  # read, merge, write: one at a time
                await in_thread(write)

    def _on_learner_ready(self, answer: Message) -> None:
        log.info("learner ready", subjects=answer.get("subjects"), held_out=answer.get("held_out"))
        if self._reopening:
            self._personalised = (0, 0)  # they are to be trained again, without who is left out now
        self._reopening = False
        names = answer.get("everybody")
        self._everybody = frozenset(names) if isinstance(names, list) else None
        self.submit(ev.LearnerReady(tuple(answer["components"])))

    async def _check_budget(self, check: ev.CheckBudget) -> None:
        request: Message = {
            "op": "budget",
            "modalities": [
                {
                    "name": reach.modality,
                    "epsilon": reach.epsilon,
                    "delta": reach.delta,
                    "spent": [[draws.sample_rate, draws.noise_multiplier, draws.count] for draws in reach.spent],
                    "components": list(reach.components),
                }
                for reach in check.modalities
            ],
            "components": [
                {
                    "name": part.component,
                    "noise": part.noise_multiplier,
                    "last": part.last,
                    "clip": part.clip_norm,
                    "utility": part.utility,
                    "dimension": part.dimension,
                }
                for part in check.parts
            ],
            "sample_rate": check.sample_rate,
            "steps": check.steps,
            "rounds": check.rounds,
            "lines": check.lines,
            "recovery_share": self.charter.learning.recovery_share,
            "recovery_open": check.recovery,
        }
        try:
            answer = await self.learner.request(request)
            found = answer["modalities"]
            event = ev.BudgetAnswer(
                check.draw,
                bool(answer["allowed"]),
                str(answer["reason"]),
                {name: int(noise) for name, noise in answer["noises"].items()},
                {name: int(decision["after"]) for name, decision in found.items()},
                {
                    reach.modality: int(found[reach.modality]["rounds_left"])
                    for reach in check.modalities
                    if reach.epsilon != NO_EPSILON
                },
            )
        except LearnerError as error:
            self.submit(ev.TrainingFailed(check.draw, f"the accountant did not answer: {error}", not self._reopening))
            return
        except (KeyError, ValueError, TypeError, AttributeError) as error:  # a learner of the operator's own
            self.submit(ev.TrainingFailed(check.draw, f"the accountant's answer cannot be used: {error!r}"))
            return
        if not event.allowed and not check.recovery and self.charter.learning.recovery_share:
            kept = f"{event.reason} ({self.charter.learning.recovery_share / 10_000:g} % kept for recovery rounds)"
            event = replace(event, reason=kept)
        self.submit(event)

    async def _train(self, train: ev.Train) -> None:
        asked = trio.current_time()
        try:
            trained = [(recipe.component, recipe.chain) for recipe in train.recipes]
            states = await self._states([*trained, *train.beside])
            answer = await self.learner.request(
                {
                    "op": "train",
                    "states": states,
                    "engaged": {
                        r.component: {
                            "clip": r.clip_norm / MILLION,
                            "noise": r.noise_multiplier / MILLION,
                            "learning_rate": r.learning_rate / MILLION,
                        }
                        for r in train.recipes
                    },
                    "steps": train.steps,
                    "sample_rate": train.sample_rate / MILLION,
                    "lot": train.lot / 1000,
                }
            )
            blobs = await in_thread(self._pack, train, answer["updates"])
            root = await in_thread(self._manifest, answer.get("subjects"))
        except (LearnerError, folding.MissingBlobsError, UsageError) as error:
            self.submit(ev.TrainingFailed(train.draw, str(error), not self._reopening))
            return
        except (KeyError, ValueError) as error:  # a learner of the operator's own may answer anything
            self.submit(ev.TrainingFailed(train.draw, f"the learner's answer cannot be used: {error!r}"))
            return
        log.info("trained", draw=train.draw, seconds=answer.get("seconds"), saturated=answer.get("saturated"))
        await self.pace.wait(asked, answer.get("seconds"))
        self.submit(ev.Trained(train.draw, blobs, root))
        await self._note({(recipe.component, recipe.round): {"trained_at": time.time()} for recipe in train.recipes})
        await self._personalise(after=train.draw)

    async def _states(self, chains: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
        """Return states as the learner takes them, from (component, chain). Raises MissingBlobsError."""
        states = {}
        for name, chain in chains:
            rounds = self.core.ledger.components[name].rounds
            state = await in_thread(folding.state_at, self._specs[name], rounds, chain, self.blobs, self.states)
            states[name] = folding.state_bytes(state)
        return states

    def _pack(self, train: ev.Train, updates: dict[str, bytes]) -> dict[str, tuple[bytes, int]]:
        blobs = {}
        for recipe in train.recipes:
            spec = self._specs[recipe.component]
            values = np.frombuffer(updates[recipe.component], dtype=spec.integer_type)
            if values.shape != (spec.dimension,):
                raise UsageError(f"the learner returned {values.size} values for {recipe.component}")
            me = self.identity.public_key
            name, noise, clip, rate = recipe.component, recipe.noise_multiplier, recipe.clip_norm, recipe.learning_rate
            declared = Declared(Engaged(name, spec.base, noise, clip, rate), train.steps, train.lot)
            values = within_norm(values, declared, spec, least_lot(self.charter.learning))
            data = payload(self.core.federation, me, recipe.component, recipe.round, values)
            blobs[recipe.component] = (self.blobs.put(data), len(data))
        return blobs

    def _manifest(self, subjects: object) -> bytes:
        """Write down who was drawn, before anything computed from them can leave."""
        if subjects is None:
            return NONE
        if not isinstance(subjects, list) or not all(isinstance(name, str) for name in subjects):
            raise ValueError("subjects is not a list of texts")
        return self.manifests.put(subjects)

    async def _evaluate(self, evaluate: ev.Evaluate) -> None:
        """Evaluate on this node's own held-out subjects; the figures stay here (G6)."""
        if await self._measure(evaluate):
            self._evaluated = evaluate
            await self._personalise()

    async def _measure(self, evaluate: ev.Evaluate) -> bool:
        try:
            states = await self._states((name, chain) for name, _, _, chain in evaluate.states)
            answer = await self.learner.request({"op": "evaluate", "states": states, "split": "held_out"})
            rows = metric_rows(answer, evaluate, time.time())
        except (LearnerError, folding.MissingBlobsError) as error:
            log.warning("evaluation failed", reason=str(error))
            return False
        except (KeyError, ValueError, TypeError, AttributeError) as error:  # a learner of the operator's own
            log.warning("evaluation failed", reason=f"the learner's answer cannot be used: {error!r}")
            return False
        await in_thread(self.store.put_metrics, rows)
        log.info(
            "evaluated",
            rounds={name: round_ for name, round_, _, _ in evaluate.states},
            tasks={name: found.get("value") for name, found in answer["tasks"].items()},
        )
        return True

    async def _personalise(self, after: int | None = None) -> None:
        """Train the private components beside the last evaluated states, when they are due and no draw is under way.

        What they learn stays in the node's home. They are due every `personalise_every` rounds, and after a withdrawal:
        the shared states that they were trained beside are no longer in force then.
        """
        if not self.config.learning.private or self._personalising.locked():
            return
        async with self._personalising:
            evaluated, every = self._evaluated, self.config.learning.personalise_every
            draw = self.core.draw
            if evaluated is None or (draw is not None and draw.number != after):
                return
            round_ = max((round_ for _, round_, _, _ in evaluated.states), default=0)
            epoch = max((epoch for _, _, epoch, _ in evaluated.states), default=0)
            if (epoch, round_ // every) <= (self._personalised[0], self._personalised[1] // every):
                return
            self._personalised = (epoch, round_)
            try:
                states = await self._states((name, chain) for name, _, _, chain in evaluated.states)
                answer = await self.learner.request({"op": "personalise", "states": states})
            except (LearnerError, folding.MissingBlobsError) as error:
                log.warning("private components were not trained", reason=str(error))
                return
            log.info("private components trained", round=round_, parameters=answer.get("parameters"))
            await self._measure(evaluated)

    # ---- housekeeping

    async def exclude(self, subject: str) -> Seen:
        """Leave a student out of all that is trained from now on; return the updates that saw them.

        The worker begins anew without the student, so whatever it was at is thrown away. What private components
        learned is deleted. Raises CorruptError.
        """
        async with self._excluding:  # one at a time: each waits for the draw that it threw away
            found, forgotten = await in_thread(self._excluded)
            if not (found.has(subject) and forgotten):
                await self._begin_without(subject)
            return await self.look(subject)

    async def look(self, subject: str) -> Seen:
        """Return what is known of a student; nothing is changed. Raises CorruptError."""
        # First what is in flight: what a block takes meanwhile is stored already when the stored ones are read.
        flying = [flight.header for flight in self.core.flights.of(self.core.me)]
        return await in_thread(self._seen, subject, flying, self.core.ledger)

    async def _begin_without(self, subject: str) -> None:
        await in_thread(exclude, self.home, subject)
        opening, draw = self._opening(), self.core.draw
        if opening is not None:
            self._reopening = True  # until it is ready: what fails meanwhile is no fault of the learner's
            self.submit(ev.LearnerReady(()))  # no draw is paid for meanwhile, nor ever if it refuses the data
            await self.learner.reopen(opening)
        await in_thread(self._forget_private)
        # Until the core has what the worker had answered already.
        while draw is not None and self.core.draw is not None and self.core.draw.number == draw.number:  # noqa: ASYNC110
            await trio.sleep(0.05)

    def _excluded(self) -> tuple[Excluded, bool]:
        """Return who is left out, and whether private components have forgotten them. Raises CorruptError."""
        found, noted = load_excluded(self.home), self.store.flags().get(LEFT_OUT, 0)
        if len(found.tags) < noted:
            path = self.home.root / "excluded.json"
            raise CorruptError(f"{path} is lost or old: it names {len(found.tags)} students of {noted}", RESTORE)
        return found, len(found.tags) == noted

    def _forget_private(self) -> None:
        """Delete what private components learned with whoever is left out now; note that it is done."""
        folder = self.home.private
        with disk_errors(folder):
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink()
                sync_folder(folder)
        self.store.apply([ev.PutFlag(LEFT_OUT, len(self._excluded()[0].tags))])

    def _seen(self, subject: str, flying: Collection[Signed[UpdateHeader]], ledger: Ledger) -> Seen:
        own = {header.digest: header.value.manifest for header in (*flying, *self._own_headers())}
        mine, components = self._own_keys(ledger), ledger.components.values()
        counted = {e.update for c in components for r in c.rounds for e in r.entries if e.author in mine}
        counted |= {p.update for c in components for p in c.pending if p.author in mine}
        here, saw = set(self.manifests.roots()), self.manifests.of(subject)
        unknown = frozenset(update for update in counted | own.keys() if own.get(update, NONE) not in here)
        seen = unknown.union(update for update, root in own.items() if root in saw)
        in_data = None if self._everybody is None else subject in self._everybody
        return Seen(seen, unknown, in_data, bool(saw), self._excluded()[0].has(subject))

    def _own_keys(self, ledger: Ledger) -> set[bytes]:
        """Return this node's keys: who came back with a new one has no link to its former ones in the roll."""
        here = (self.core.me, *keys.former(self.home))
        return {each for key in here for each in (key, *earlier(ledger.roll, key))}

    def _own_headers(self) -> list[Signed[UpdateHeader]]:
        mine = self._own_keys(self.core.ledger)
        return [header for header in self.store.headers() if header.value.author in mine]

    def _forget_manifests(self, flying: Collection[bytes]) -> None:
        """Delete the manifests of draws of which nothing is in force, in flight, or may come to be."""
        components = self.core.ledger.components
        here = {p.update for c in components.values() for p in c.pending}.union(flying)
        here |= {e.update for c in components.values() for r in c.rounds for e in r.entries}
        own = self._own_headers()
        ahead = [h for h in own if h.value.round > components[h.value.component].round]
        live = {h.value.manifest for h in (*ahead, *(h for h in own if h.digest in here))}
        self.manifests.delete({h.value.manifest for h in own} - live)

    async def _erase(self, erase: ev.Erase) -> None:
        flying = set(self.core.flights)  # on the core's own thread

        def delete() -> int:
            self._forget_manifests(flying)
            for name in self.core.held:
                self.states.prune(name, folding.kept(self.core.ledger.components[name].rounds, self._horizon))
            return self.blobs.delete(erase.blobs)

        count = await in_thread(delete)
        log.info("bytes erased that nothing refers to any more", count=count)

    def _sweep(self) -> None:
        """Delete blobs that nothing refers to: a crash came between a certificate and the erasure it allows."""
        gone = self.blobs.sweep(needed(self.core))
        if gone:
            log.info("swept unreferenced bytes", count=gone)

    def _closes(self, effects: Iterable[ev.Effect]) -> Iterator[tuple[tuple[str, int], dict[str, object]]]:
        """What there is to note of the rounds that were closed: hundreds in one step of a node that catches up."""
        for effect in effects:
            if isinstance(effect, ev.Notice) and effect.event == "round-closed":
                counters = self.network.counters
                facts = {key: _full(value) for key, value in effect.fields.items()}
                facts |= {"closed_at": time.time(), "received": counters.received, "sent": counters.sent}
                yield (str(facts["component"]), int(str(facts["round"]))), facts

    async def _serve_control(self) -> None:
        # Imported here, when the node already runs: its first second belongs to the network.
        from hypercorn.config import Config as ServerConfig  # noqa: PLC0415
        from hypercorn.trio import serve as serve_http  # noqa: PLC0415

        from ..control.app import build  # noqa: PLC0415

        self.home.socket_folder()
        self.home.socket.unlink(missing_ok=True)  # left by a daemon that was killed; we hold the directory's lock
        with socket.socket(socket.AF_UNIX) as listener:
            before = os.umask(0o177)  # only while the file is made: 0600, nobody else may command this node
            try:
                listener.bind(str(self.home.socket))
            finally:
                os.umask(before)
            listener.listen()
            config = ServerConfig()
            config.bind = [f"fd://{listener.detach()}"]
            config.accesslog = config.errorlog = None
            config.graceful_timeout = 0.2
            try:
                # Starlette speaks ASGI; hypercorn's type of it is narrower.
                app: Any = build(self)
                await serve_http(app, config, shutdown_trigger=self._stop.wait)
            finally:
                self._control_closed.set()
                self.home.socket.unlink(missing_ok=True)


def _now() -> int:
    return time.monotonic_ns() // 1_000_000


def _full(value: object) -> object:
    """Like logs.readable, but with whole keys: notes are read by programs."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(_full(key)): _full(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_full(item) for item in value]
    return value


def load(home: Home, passphrase: str | None) -> tuple[Config, Charter, SignedCharter, Identity]:
    """Read what a daemon needs from its directory, with a clear error for whatever is not in order."""
    config = load_config(home.config)
    identity = keys.load(home, passphrase)
    if not home.charter.exists():
        raise UsageError(
            f"there is no charter {home.charter}", "Create one (`collegium charter create`), or copy it there."
        )
    charter, signed = load_file(home.charter.read_bytes(), str(home.charter))
    missing = unsigned_members(charter, signed)
    if missing:
        names = ", ".join(sorted(member.name for member in missing))
        raise RefusedError(
            f"the charter {home.charter} is not signed by {names}", "Let them run `collegium charter sign`."
        )
    if charter.member(identity.public_key) is None and not home.joining.exists() and not home.database.exists():
        raise RefusedError(
            f"this node's key {identity.public_key.hex()[:16]} is not a member of federation {charter.name!r}",
            "Use the key that the charter names, or join by an invitation (`collegium peer join`).",
        )
    if config.learning.contribute and config.data.path and config.learning.lot_size < 1:
        raise UsageError(
            f"{home.config} declares no lot_size of at least 1 under [learning]",
            f"Set it to {charter.learning.sample_rate / 1_000_000:g} (the charter's sample rate) times the number of"
            " students that you expect, rounded; not a count of the data.",
        )
    return config, charter, signed, identity


def serve(
    home: Home, passphrase: str | None, started: Callable[[], None] = lambda: None, log: Path | None = None
) -> None:
    """Run a node's daemon in this process until it is stopped; its log goes to stderr, or to a file that is rotated.

    Raises CollegiumError with advice.
    """
    while _serve(home, passphrase, started, log):
        started = _nothing  # once is enough


def _serve(home: Home, passphrase: str | None, started: Callable[[], None], log_file: Path | None) -> bool:
    """Run the daemon; return whether it is to begin anew, with the key that it moved to or the data that came."""
    config, charter, signed, identity = load(home, passphrase)
    logs.configure(config.log.format, config.log.level, log_file)
    descriptors = raise_limit()
    if descriptors < FEW_DESCRIPTORS:
        log.warning("few open files are allowed", limit=descriptors, advice=f"Allow {FEW_DESCRIPTORS}: ulimit -n.")
    with ExitStack() as stack:
        stack.enter_context(lock.hold(home))
        store = stack.enter_context(Store.open(home.database, charter.federation))
        runtime = Runtime(home, config, charter, signed, identity, store)
        try:
            trio.run(runtime.run, started)
        except BaseExceptionGroup as group:
            raise _first(group) from group
        return runtime.moved


def _nothing() -> None:
    pass


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to tell the operator: the first with advice, else the first."""
    found: list[BaseException] = []
    queue: deque[BaseException] = deque([group])
    while queue:
        error = queue.popleft()
        if isinstance(error, BaseExceptionGroup):
            queue.extend(error.exceptions)
        else:
            found.append(error)
    return next((error for error in found if isinstance(error, CollegiumError)), found[0])


def _key_of(address: str) -> bytes | None:
    with suppress(UsageError):
        return parse_address(address)[2]
    return None


def _with_peer(address: str, key: bytes) -> str:
    return address if "/p2p/" in address else f"{address}/p2p/{peer_id(key)}"
