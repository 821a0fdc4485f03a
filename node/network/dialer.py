"""Keeps connections up: libp2p never dials again by itself, and forgets addresses after two minutes."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
import trio

from ...crypto.errors import CollegiumError, OperatorError

log = structlog.get_logger(__name__)

FIRST_BACKOFF = 0.5  # seconds
LAST_BACKOFF = 60.0
STABLE = 10.0  # seconds; a connection that ended sooner counts as a failed dial
DIALS_AT_ONCE = 3
MAX_ADDRESSES = 16  # per peer
MAX_FOUND, MAX_FOUND_ADDRESSES = 1024, 4  # peers announced on this network, and addresses of each
FOUND_FOR = 3600.0  # seconds for which an announced non-member is kept, in case it is admitted meanwhile


@dataclass(slots=True)
class _Peer:
    failures: int = 0
    next_try: float = 0.0
    connected_at: float | None = None
    dialling: bool = False
    error: str = ""  # why the last attempt failed


@dataclass(frozen=True, slots=True)
class _Found:
    addresses: tuple[str, ...]
    at: float


class Dialer:
    """Dials members of the address book, at random, until `wanted` of them are neighbours.

    `dial(address)` connects or raises CollegiumError; the addresses of a peer are tried one at a time.
    """

    def __init__(
        self,
        me: bytes,
        wanted: int,
        dial: Callable[[str], Awaitable[bytes]],
        neighbours: Callable[[], frozenset[bytes]],
        allowed: Callable[[bytes], bool],
    ) -> None:
        self._me = me
        self._wanted = wanted
        self._dial = dial
        self._neighbours = neighbours
        self._allowed = allowed
        self._book: dict[bytes, tuple[str, ...]] = {}
        self._found: dict[bytes, _Found] = {}  # by mDNS, the oldest first
        self._peers: dict[bytes, _Peer] = {}
        self._wake = trio.Event()

    def set_book(self, book: Mapping[bytes, Sequence[str]]) -> None:
        """Replace the address book; the record of failures stays."""
        self._book = {peer: tuple(addresses)[:MAX_ADDRESSES] for peer, addresses in book.items() if peer != self._me}
        peers = self._book.keys() | self._found.keys()
        self._peers = {peer: state for peer, state in self._peers.items() if peer in peers or state.dialling}
        self._wake.set()

    def found(self, peer: bytes, addresses: Sequence[str]) -> None:
        """Someone on this network announced itself; it is dialled if it is allowed and there is room.

        Keys are free to make, so strangers can announce thousands: they are kept for a while only, in case one is
        admitted meanwhile, and the oldest of them goes first.
        """
        if peer == self._me:
            return
        self._found.pop(peer, None)
        self._found[peer] = _Found(tuple(addresses)[:MAX_FOUND_ADDRESSES], trio.current_time())
        if len(self._found) > MAX_FOUND:
            oldest = next((key for key in self._found if not self._is_known(key)), next(iter(self._found)))
            del self._found[oldest]
        self._wake.set()

    def _is_known(self, peer: bytes) -> bool:
        return peer in self._book or self._allowed(peer)

    def _announced_addresses(self, peer: bytes) -> tuple[str, ...]:
        discovered = self._found.get(peer)
        return discovered.addresses if discovered is not None else ()

    def _expire(self, now: float) -> None:
        """Forget non-members that announced themselves long ago. Members stay: each announces itself once."""
        for peer in [peer for peer, discovered in self._found.items() if now - discovered.at > FOUND_FOR]:
            if not self._is_known(peer):
                del self._found[peer]
                self._peers.pop(peer, None)

    def reset(self, peer: bytes | None = None) -> None:
        """Forget failures, of one peer or all, and try again now."""
        for key, state in self._peers.items():
            if peer is None or key == peer:
                state.failures, state.next_try = 0, 0.0
        self._wake.set()

    def connected(self, peer: bytes) -> None:
        """A connection is up."""
        state = self._state(peer)
        state.connected_at, state.error = trio.current_time(), ""

    def disconnected(self, peer: bytes) -> None:
        """The last connection is gone: dial again, at once if it had been stable."""
        state = self._state(peer)
        since, state.connected_at = state.connected_at, None
        if since is not None and trio.current_time() - since >= STABLE:
            state.failures, state.next_try = 0, trio.current_time() + random.uniform(0, FIRST_BACKOFF)  # noqa: S311
        else:
            self._note_failure(state)
        self._wake.set()

    def why(self, peer: bytes) -> str:
        """Return why there is no connection with a peer: the last dial's error with advice, or why none was made."""
        if not (self._book.get(peer) or self._found.get(peer)):
            return "no address of it is known. Add one: collegium peer add MEMBER ADDRESS."
        state = self._peers.get(peer)
        if state is not None and state.error:
            return state.error
        if len(self._neighbours()) >= self._wanted:
            return f"not dialled: this node keeps {self._wanted} connections ([node] max_neighbours), and has them"
        return "not dialled yet" if state is None or not state.dialling else "being dialled"

    def _state(self, peer: bytes) -> _Peer:
        return self._peers.setdefault(peer, _Peer())

    def _note_failure(self, state: _Peer) -> None:
        wait = min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(state.failures, 16))
        state.failures += 1
        state.next_try = trio.current_time() + wait * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    async def run(self) -> None:
        """Dial for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                pause = self._start_dials(nursery)
                with trio.move_on_after(pause):
                    await self._wake.wait()

    def _start_dials(self, nursery: trio.Nursery) -> float:
        """Start what is due; the seconds until something else can be."""
        now = trio.current_time()
        self._expire(now)
        addresses = {
            peer: tuple(dict.fromkeys((*self._announced_addresses(peer), *self._book.get(peer, ()))))
            for peer in self._found.keys() | self._book.keys()
        }
        neighbours = self._neighbours()
        dialling = sum(state.dialling for state in self._peers.values())
        room = min(self._wanted - len(neighbours) - dialling, DIALS_AT_ONCE - dialling)
        candidates = [
            peer
            for peer, listed in addresses.items()
            if listed and peer not in neighbours and self._allowed(peer) and not self._state(peer).dialling
        ]
        due = [peer for peer in candidates if self._peers[peer].next_try <= now]
        random.shuffle(due)
        for peer in due[: max(room, 0)]:
            self._peers[peer].dialling = True
            nursery.start_soon(self._try, peer, addresses[peer])
        later = [self._peers[peer].next_try - now for peer in candidates if self._peers[peer].next_try > now]
        return max(0.01, min([*later, 1.0])) if room > 0 else 1.0

    async def _try(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        state = self._state(peer)
        try:
            for address in addresses:
                try:
                    if await self._dial(address) == peer:
                        return
                    state.error = f"{address} is another node's. Check the address."
                except CollegiumError as error:
                    state.error = _sentence(error)
                    log.debug("dial failed", peer=peer.hex()[:16], address=address, error=str(error))
            self._note_failure(state)
        except Exception as error:  # noqa: BLE001 - one bad address may not stop the dialer
            log.error("dial failed unexpectedly", peer=peer.hex()[:16], error=repr(error))
            self._note_failure(state)
        finally:
            state.dialling = False
            self._wake.set()


def _sentence(error: CollegiumError) -> str:
    if not isinstance(error, OperatorError):
        return str(error)
    return f"{error.message}. {error.advice[:1].upper()}{error.advice[1:]}" if error.advice else error.message
