"""When an update is sent: at a time that does not reveal the duration of its training run (G6).

That duration depends on the drawn students' records, and no budget accounts for it. So an update waits until a fixed
time after the start of its training. If training takes longer, that time doubles for good: others see one doubling. The
time before training (the learner was busy) is rounded up to QUANTUM.
"""

from math import ceil

import trio

QUANTUM = 0.1  # seconds; the shortest duration that a training run shows
SHARE = 4  # an update waits for at most 1/SHARE of the round's deadline; longer training is visible


class Pace:
    """The duration that every training run shows, in seconds; `deadline` is the round's."""

    def __init__(self, deadline: float) -> None:
        self.quantum = min(QUANTUM, deadline / 64)
        self.most = deadline / SHARE
        self.level = self.quantum

    def leaves(self, elapsed: float, training: float) -> float:
        """Return the second after its request at which to send an update that is ready after `elapsed` seconds.

        `training` of these were training; an impossible value counts as all. Never less than `elapsed`.
        """
        if not 0.0 <= training <= elapsed:
            training = elapsed
        while self.level < min(training, self.most):
            self.level = min(2.0 * self.level, self.most)
        waited = ceil((elapsed - training) / self.quantum) * self.quantum
        return max(elapsed, waited + self.level)

    async def wait(self, asked: float, training: float) -> None:
        """Wait until an update that was requested at `asked` (trio's clock) and is ready now may be sent."""
        await trio.sleep_until(asked + self.leaves(trio.current_time() - asked, training))
