"""Updates' bytes and components' states on this node's disk: fetched, checked, folded, copied, erased."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from ...consensus.components import Round, State
from ...crypto.errors import CorruptError, RemoteProtocolError, UnreachableError
from ...protocol.components import state_digest
from ...protocol.records import GENESIS
from ...protocol.update import check_norm, least_lot, read_payload
from ..core import events as ev
from ..core.state import NodeState
from ..core.updates import needed
from ..home.config import Config
from ..home.paths import Home
from ..network import Network
from ..patience import in_thread
from ..scarce import is_scarce
from ..store.blobs import Blobs
from ..store.states import States
from . import folding
from .exchange import Exchange, Held
from .notes import Notes

log = structlog.get_logger(__name__)


class Holdings:
    """This node's bytes and states, and the jobs that change them. `network` is set when it is open."""

    network: Network

    def __init__(
        self, home: Home, config: Config, core: NodeState, notes: Notes, submit: Callable[[ev.Event], None]
    ) -> None:
        self.config, self.core, self.notes, self.submit = config, core, notes, submit
        self.blobs, self.states = Blobs(home.blobs), States(home.states)
        self.exchange = Exchange(self.states, lambda: Held(core.specs, core.held, self._horizon))
        self._pulling: set[bytes] = set()

    @property
    def _horizon(self) -> int:
        return self.core.charter.rules.refold_horizon

    def state_at(self, name: str, rounds: Sequence[Round], chain: bytes) -> State:
        """Return a component's state after the rounds up to `chain`. Raises MissingBlobsError."""
        return folding.state_at(self.core.specs[name], rounds, chain, self.blobs, self.states)

    def blob_path(self, digest: bytes) -> tuple[Path, int] | None:
        """Return the file of these bytes and its size; None if they are not here."""
        size = self.blobs.size(digest)
        return self.exchange.locate(self.core.ledger, digest) if size is None else (self.blobs.path(digest), size)

    async def pull(self, pull: ev.Pull) -> None:
        """Get an update's bytes, check them, and notify the core."""
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
                except (CorruptError, KeyError) as error:  # damaged on this disk: fetched again
                    log.error("bytes damaged on disk", reason=str(error))
                    self.submit(ev.BlobRefused(pull.blob, "unavailable"))
                    return
            self.submit(ev.BlobStored(pull.blob))
        finally:
            self._pulling.discard(pull.blob)

    def _check_bytes(self, pull: ev.Pull) -> None:
        assert pull.header is not None
        spec = self.core.specs[pull.header.component]
        values = read_payload(self.blobs.get(pull.blob), pull.header, spec)
        check_norm(values, pull.header, spec, least_lot(self.core.charter.learning))

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

    async def fold(self, fold: ev.Fold) -> None:
        """Compute a component's state after these rounds, store it, and notify the core."""
        spec = self.core.specs[fold.component]
        if fold.fresh:  # from the bytes, or from the state that replaces pruned bytes
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
        if self.config.storage.prune and ledger.certifiable(
            component
        ):  # other hosts certified the state that replaces them
            pruned = await in_thread(folding.prune, spec, rounds, self._horizon, self.blobs, self.states)
            if pruned:
                log.info("old bytes pruned that no withdrawal can reach", component=fold.component, count=pruned)
        chain = fold.rounds[-1].chain if fold.rounds else GENESIS
        digest = state_digest(fold.component, state)
        drift = folding.movement(spec, state)
        self.submit(ev.Folded(fold.component, fold.round, fold.generation, chain, digest, saturated, drift))
        log.info("folded", component=fold.component, round=fold.round, generation=fold.generation, digest=digest)
        if fold.rounds:
            facts: dict[str, object] = {"folded_at": time.time(), "digest": digest.hex()}
            await self.notes.add({(fold.component, fold.round): facts}, ledger.height)

    async def take_state(self, fetch: ev.FetchState) -> None:
        """Get a certified state from a neighbour, and notify the core."""
        rounds = self.core.ledger.components[fetch.component].rounds
        round_ = next((r.number for r in rounds if r.chain == fetch.chain), 0)
        taken = await self.exchange.take(self.network, fetch, round_)
        event = ev.StateStored if taken else ev.StateMissing
        self.submit(event(fetch.component, fetch.chain))

    async def erase(self, erase: ev.Erase, forget: Callable[[set[bytes]], None]) -> None:
        """Delete bytes without a reference, older states, and (`forget`) manifests of runs that are gone."""
        in_flight = set(self.core.in_flight)  # on the core's own thread

        def delete() -> int:
            forget(in_flight)
            for name in self.core.held:
                self.states.prune(name, folding.kept(self.core.ledger.components[name].rounds, self._horizon))
            return self.blobs.delete(erase.blobs)

        count = await in_thread(delete)
        log.info("bytes erased that nothing refers to any more", count=count)

    def sweep(self) -> None:
        """Delete blobs without a reference, left by a crash between a certificate and the erasure it allows."""
        gone = self.blobs.sweep(needed(self.core))
        if gone:
            log.info("swept unreferenced bytes", count=gone)
