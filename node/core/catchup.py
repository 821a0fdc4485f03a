"""Catching up: how far behind this node is, and certified states in place of the history behind them.

Blocks and records come by anti-entropy in bounded answers; each block is durable when it is taken, so an interrupted
catch-up goes on where it stopped. A component's state is taken from a neighbour if a quorum of enough hosts certified
it (G1): a joiner need not replay every update since the start. A node that lacks a few rounds only, one whose state
differed from the certified one, and one in a component with too few hosts compute from the bytes as ever.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...consensus.ledger import ComponentLedger
from . import events as ev
from . import sync

if TYPE_CHECKING:
    from .core import Core

REPLAYED = 3  # rounds of bytes that are rather fetched and folded than taken as a state
TOLD_EVERY = 5000  # milliseconds between two words on progress
WORTH_TELLING = 20  # heights
PATIENCE = 10_000  # milliseconds for the next answer of a neighbour that has more to send


@dataclass(slots=True)
class Progress:
    """How high the neighbours say they are. A liar can only make this node show a wrong goal."""

    heights: dict[bytes, int] = field(default_factory=dict)
    source: bytes = b""
    told: int = -1  # when; -1: not under way
    tried: dict[str, bytes] = field(default_factory=dict)  # component → chain whose state nobody had
    more: int = -PATIENCE  # when a neighbour last sent a part of history and said that there is more
    fetching: dict[str, bytes] = field(default_factory=dict)  # component → chain of the state that is on its way

    def hear(self, peer: bytes, height: int) -> None:
        """A neighbour told its height."""
        self.heights[peer] = height

    def goal(self) -> int:
        """Return the height that the neighbours seem to have."""
        return max(self.heights.values(), default=0)

    def part(self, now: int, heights: int, size: int) -> None:
        """A neighbour sent a part of so many bytes, and has more.

        A liar who says so for ever has no decided blocks to go with it; one who trickles true blocks sends small parts.
        """
        if heights >= WORTH_TELLING and sync.is_part(size):
            self.more = now

    def goes_on(self, now: int) -> bool:
        """Whether the next part is on its way."""
        return 0 <= now - self.more < PATIENCE

    def behind(self, height: int) -> bool:
        """Whether somebody is higher."""
        return self.goal() > height


def tell(core: "Core", peer: bytes, before: int) -> None:
    """Tell how far the catch-up is, every few seconds while it moves from height `before`, and when it is over."""
    progress, height = core.progress, core.ledger.height
    left = progress.heights.get(peer, 0) - height
    if left > 0 and height > before and (progress.told >= 0 or left >= WORTH_TELLING):
        progress.source = peer
        if progress.told < 0 or core._now - progress.told >= TOLD_EVERY:
            progress.told = core._now
            core._notice("catching-up", height=height, of=height + left, source=peer)
    elif left <= 0 and (progress.told >= 0 or height - before >= WORTH_TELLING):
        progress.told, progress.source = -1, b""
        core._notice("caught-up", height=height)


def take_state(core: "Core", component: ComponentLedger, missing: Collection[bytes]) -> bool:
    """Ask for the certified state in place of the bytes that are missing before it; False if they are to be fetched."""
    name, certified = component.name, component.certified
    if certified is None or certified.epoch != component.epoch or not core.ledger.certifiable(component):
        return False
    if name in core.doubted or name in core.halted:
        return False  # it has to be computed again from the bytes
    lacking = [r for r in component.rounds if any(entry.blob in missing for entry in r.entries)]
    before = [round_ for round_ in lacking if round_.number <= certified.round]
    chain = next((round_.chain for round_ in component.rounds if round_.number == certified.round), b"")
    if len(before) <= REPLAYED or core.progress.tried.get(name) == chain:
        return False
    core.progress.fetching[name] = chain
    sources = tuple(host for host in component.hosts if host != core.me)
    core._notice("taking-state", component=name, round=certified.round, instead_of=len(before))
    core._emit(ev.FetchState(name, chain, certified.digest, sources))
    return True


def on_state(core: "Core", event: ev.StateStored | ev.StateMissing) -> None:
    """Fold again: on the state that came, or else from bytes, until a newer state is certified."""
    if core.progress.fetching.get(event.component) != event.chain:
        return
    del core.progress.fetching[event.component]
    if isinstance(event, ev.StateMissing):
        core.progress.tried[event.component] = event.chain
    core.folding.discard(event.component)
