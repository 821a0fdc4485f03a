"""How far behind its neighbours this node is, by their own reports."""

from dataclasses import dataclass, field

from . import sync

WORTH_REPORTING = 20  # heights
PATIENCE = 10_000  # milliseconds to wait for the next answer of a neighbour that has more


@dataclass(slots=True)
class Progress:
    """The heights that neighbours report. A liar can only make this node show a wrong goal."""

    heights: dict[bytes, int] = field(default_factory=dict)
    source: bytes = b""
    reported: int = -1  # milliseconds, of the last progress notice; -1: not under way
    tried: dict[str, bytes] = field(default_factory=dict)  # component → chain of a state that no neighbour had
    more: int = -PATIENCE  # when a neighbour last sent a part of history with `more`
    fetching: dict[str, bytes] = field(default_factory=dict)  # component → chain of the requested state

    def hear(self, peer: bytes, height: int) -> None:
        """Note a neighbour's height."""
        self.heights[peer] = height

    def goal(self) -> int:
        """Return the height that the neighbours seem to have."""
        return max(self.heights.values(), default=0)

    def part(self, now: int, heights: int, size: int) -> None:
        """Note a neighbour's part of this many bytes, with more to follow.

        Liars cannot stall: one who always claims more has no decided blocks for it, one who trickles sends small parts.
        """
        if heights >= WORTH_REPORTING and sync.is_part(size):
            self.more = now

    def goes_on(self, now: int) -> bool:
        """Whether the next part is still expected."""
        return 0 <= now - self.more < PATIENCE

    def behind(self, height: int) -> bool:
        """Whether a neighbour is higher."""
        return self.goal() > height
