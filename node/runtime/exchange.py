"""Component states from node to node: files of the states folder, sent as bulk bytes under names of their own."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from ...consensus.components import State
from ...consensus.ledger import Ledger
from ...crypto.errors import RemoteProtocolError, UnreachableError
from ...crypto.hashing import digest
from ...protocol.components import ComponentSpec, state_digest
from ..core import events as ev
from ..network import Network
from ..patience import in_thread
from ..store.errors import disk_errors
from ..store.states import States, file_size
from . import folding

log = structlog.get_logger(__name__)


def state_name(component: str, chain: bytes) -> bytes:
    """Return the name by which a neighbour requests a state."""
    return digest("state-file", component.encode(), chain)


@dataclass(frozen=True, slots=True)
class Held:
    """What this node holds under the charter in force: components, their specs, and the refold horizon in rounds."""

    specs: Mapping[str, ComponentSpec]
    names: Collection[str]
    horizon: int


class Exchange:
    """Serves this node's states, and fetches others'."""

    def __init__(self, states: States, held: Callable[[], Held]) -> None:
        self._states, self._held_now = states, held
        self._names: dict[bytes, tuple[str, bytes]] = {}
        self._height = -1

    def locate(self, ledger: Ledger, name: bytes) -> tuple[Path, int] | None:
        """Return the file of a requested state, and its size in bytes."""
        if ledger.height != self._height:
            self._height, held = ledger.height, self._held_now()
            self._names = {
                state_name(component, chain): (component, chain)
                for component in held.names
                for chain in folding.kept(ledger.components[component].rounds, held.horizon)
            }
        key = self._names.get(name)
        return None if key is None else self._states.find(*key)

    async def take(self, network: Network, fetch: ev.FetchState, round_: int) -> bool:
        """Copy a state from any neighbour, going on where an earlier attempt stopped; False if none has it.

        It is stored only with the certified digest (G1); its size is known before a byte is requested (G9).
        """
        spec = self._held_now().specs[fetch.component]
        size = file_size(spec.words)
        neighbours = network.neighbours()
        for peer in [*(peer for peer in fetch.sources if peer in neighbours), *(neighbours - set(fetch.sources))]:
            try:
                await self._copy(network, peer, fetch, size)
            except UnreachableError:
                continue
            except RemoteProtocolError as error:
                if error.reason != "blob-unknown":
                    log.warning("state refused", peer=peer, component=fetch.component, reason=error.reason)
                continue
            state = await in_thread(self._states.received, fetch.component, fetch.chain)
            if state is None or state.size != spec.words or _differs(fetch, state):
                log.warning("state refused", peer=peer, component=fetch.component, reason="not the certified state")
                continue
            await in_thread(self._states.put, fetch.component, round_, fetch.chain, state)
            log.info("state taken", component=fetch.component, round=round_, source=peer, size=size)
            return True
        return False

    async def _copy(self, network: Network, peer: bytes, fetch: ev.FetchState, size: int) -> None:
        path = await in_thread(self._states.incoming, fetch.component, fetch.chain)
        with disk_errors(path), await in_thread(lambda: path.open("ab")) as file:
            if file.tell() > size:
                file.truncate(0)
            name = state_name(fetch.component, fetch.chain)

            def write(chunk: bytes) -> None:
                file.write(chunk)

            await network.fetch(peer, name, size, write, file.tell())


def _differs(fetch: ev.FetchState, state: State) -> bool:
    return state_digest(fetch.component, state) != fetch.digest
