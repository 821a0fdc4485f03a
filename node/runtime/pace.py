"""When an update leaves: at a time that does not tell how long its training took (G6).

How long a training run takes depends on the records of those who were drawn, and no budget is charged for it. So an
update waits for a fixed time from the beginning of its training. Where a training takes longer, that time doubles, for
good: what others can see of it is that it doubled, once. What came before (the learner was busy) is rounded up to
QUANTUM.
"""

from math import ceil

import trio

QUANTUM = 0.1  # seconds; the least that a training seems to take
SHARE = 4  # of the round's deadline an update waits for one part at most; a longer training shows


class Pace:
    """The time that every training seems to take, in seconds; `deadline` is the round's."""

    def __init__(self, deadline: float) -> None:
        self.quantum = min(QUANTUM, deadline / 64)
        self.most = deadline / SHARE
        self.level = self.quantum

    def leaves(self, elapsed: float, training: float) -> float:
        """Return at which second after its request an update leaves that is ready after `elapsed` of them.

        `training` of these it was trained for (what cannot be: all). Never less than `elapsed`.
        """
        if not 0.0 <= training <= elapsed:
            training = elapsed
        while self.level < min(training, self.most):
            self.level = min(2.0 * self.level, self.most)
        waited = ceil((elapsed - training) / self.quantum) * self.quantum
        return max(elapsed, waited + self.level)

    async def wait(self, asked: float, training: float) -> None:
        """Wait until an update may leave that was asked for at `asked` (trio's clock) and is ready now."""
        await trio.sleep_until(asked + self.leaves(trio.current_time() - asked, training))
