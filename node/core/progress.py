"""How far behind its neighbours this node is, by what they say."""

from dataclasses import dataclass, field

from . import sync

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
