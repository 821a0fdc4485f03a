"""Checks of other members' claimed ε against their spend statements, apart from this node's own training.

The learner never sees them. A separate process with limits computes them in batches, without haste: the spend statement
of a member's next update covers the same training runs. A claim that is too low is logged, never refused.
"""

import json
import os
import sys
from collections.abc import Sequence
from subprocess import DEVNULL

import structlog
import trio

from ...protocol.claims import Claim
from ...protocol.components import MILLION
from ...protocol.update import UpdateHeader

log = structlog.get_logger(__name__)

GATHER = 60.0  # seconds: spend statements that come within this time are computed by one process
LONGEST = 600.0  # seconds that a process may take on a busy machine; its CPU time is bounded by itself
COMMAND = (sys.executable, "-P", "-m", "collegium.node.privacy.recompute")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class SpendStatements:
    """The last spend statement of each member that is not recomputed yet; `run` recomputes them."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = list(command)
        self._waiting: dict[bytes, UpdateHeader] = {}
        self._more = trio.Event()

    def add(self, header: UpdateHeader) -> None:
        """Take a header that passed `check_header`; it replaces a waiting one of its author."""
        self._waiting[header.author] = header
        self._more.set()

    async def run(self) -> None:
        """Recompute until cancelled."""
        while True:
            await self._more.wait()
            await trio.sleep(GATHER)
            self._more = trio.Event()
            batch, self._waiting = self._waiting, {}
            await self.check(list(batch.values()))

    async def check(self, headers: Sequence[UpdateHeader]) -> None:
        """Recompute the claims of `headers`, the shortest first, and log those that are too low or too costly."""
        open_ = [(header.author, claim) for header in headers for claim in header.claims if claim.events]
        open_.sort(key=lambda pair: len(pair[1].events))
        while open_:
            answers = await self._answers([claim for _, claim in open_])
            for (author, claim), epsilon in zip(open_, answers, strict=False):
                if claim.epsilon < epsilon:
                    log.warning(
                        "a member claims less ε than its training runs compose to",
                        member=author,
                        modality=claim.modality,
                        claimed=claim.epsilon / 1000,
                        recomputed=epsilon / 1000,
                    )
            if len(answers) < len(open_):
                author, claim = open_[len(answers)]
                log.warning(
                    "a member's spend statement could not be recomputed",
                    member=author,
                    modality=claim.modality,
                    reason="it takes too much time or memory, or the process ended",
                )
            open_ = open_[len(answers) + 1 :]

    async def _answers(self, claims: Sequence[Claim]) -> list[int]:
        """Return ε of the first claims, in thousandths: of all, unless the process ended early."""
        lines = [
            json.dumps(
                {
                    "events": [[d.sample_rate / MILLION, d.noise_multiplier / MILLION, d.count] for d in claim.events],
                    "delta": claim.delta / 1e9,
                }
            )
            for claim in claims
        ]
        output = b""
        try:
            with trio.move_on_after(LONGEST):
                done = await trio.run_process(
                    self._command,
                    stdin=("\n".join(lines) + "\n").encode(),
                    capture_stdout=True,
                    stderr=DEVNULL,
                    check=False,
                    env=os.environ | ONE_THREAD,
                )
                output = done.stdout
        except OSError as error:
            log.warning("spend statements cannot be recomputed", reason=str(error))
        # A line that was cut short has no end.
        return [int(line) for line in output.decode(errors="replace").split("\n")[:-1][: len(claims)]]
