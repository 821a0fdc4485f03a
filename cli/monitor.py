"""`node status --check` and `doctor --check`: one line and an exit code, as monitoring plugins give them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from ..crypto.errors import CollegiumError, OperatorError, UnreachableError
from .output import emit

if TYPE_CHECKING:
    from ..node.home.paths import Home

OK, WARNING, CRITICAL = 0, 1, 2
WORDS = {OK: "ok", WARNING: "warning", CRITICAL: "critical"}
PROBE, BUSY = 1.0, 5.0  # seconds for an answer that costs the daemon nothing; where it is known not to be stopped
STUCK = (
    "`kill -CONT PID` lets a stopped process go on. Else look at its disk; `collegium node stop --force` kills it:"
    " nothing is lost."
)


@dataclass(slots=True)
class Verdict:
    """What a monitor is told: the worst code, and everything that was found, each with its code."""

    fine: str = ""
    found: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, code: int, said: str, advice: str = "") -> None:
        """Add one finding."""
        self.found.append((code, said, advice))

    @property
    def code(self) -> int:
        """The exit code."""
        return max((code for code, _, _ in self.found), default=OK)

    def tell(self, as_json: bool) -> None:
        """Print one line and end with the code."""
        worst = sorted(self.found, key=lambda one: -one[0])
        line = "; ".join(said.rstrip(".") for _, said, _ in worst) or self.fine
        found: Any = {
            "verdict": WORDS[self.code],
            "exit_code": self.code,
            "line": line,
            "found": [{"verdict": WORDS[code], "found": said, "advice": advice} for code, said, advice in worst],
        }
        emit(found, as_json, lambda out: out.print(f"{WORDS[self.code]}: {line}", soft_wrap=True))
        if self.code:
            raise typer.Exit(self.code)


def hanging(home: "Home") -> str:
    """Return how a daemon that runs here hangs; "" if it answers, starts, stops or is not there.

    A daemon that ended has let go of the directory's lock, a hanging one holds it. One that was stopped by a signal is
    told at once where the system says so, one that is only busy has time to answer.
    """
    from ..node.control.client import Client
    from ..node.home.lock import running

    pid = running(home)
    if not pid:
        return ""
    state = _state(pid)
    if state in {"T", "t"}:
        return f"the daemon (pid {pid}) hangs: its process was stopped by a signal"
    patience = BUSY if state else PROBE
    try:
        Client(home, timeout=patience, grace=0.2).get("/health")
    except UnreachableError as error:
        if error.message.endswith("does not answer") and running(home) == pid:
            return f"the daemon (pid {pid}) does not answer within {patience:g} s: it hangs"
    except CollegiumError:
        pass  # of an older release: it answers
    return ""


def check(home: "Home") -> Verdict:
    """Look at a node as a monitor does. Raises nothing that an operator could mend: it is critical."""
    from ..node.home.lock import running
    from ..node.views import Level
    from .node import look

    verdict = Verdict()
    if running(home) is None:
        verdict.add(CRITICAL, "the daemon does not run", "Start it: collegium node start.")
        return verdict
    hangs = hanging(home)
    if hangs:
        verdict.add(CRITICAL, hangs, STUCK)
        return verdict
    try:
        found = look(home)
    except CollegiumError as error:
        verdict.add(CRITICAL, *_said(error))
        return verdict
    if found["live"] is None:
        verdict.add(WARNING, "the daemon is starting or stopping, and does not answer yet")
        return verdict
    for note in found["findings"]:
        if note["level"] != Level.INFO:  # nobody has to come for that
            code = CRITICAL if note["level"] == Level.CRITICAL else WARNING
            verdict.add(code, note["found"], note["advice"])
    name = found["member"]["name"] if found["member"] else "the node"
    rounds = max((c["round"] for c in found["components"]), default=0)
    near = len(found["live"]["connected"])
    verdict.fine = f"{name} runs, height {found['height']}, round {rounds}, connected to {near}"
    return verdict


def _said(error: CollegiumError) -> tuple[str, str]:
    return (error.message, error.advice) if isinstance(error, OperatorError) else (str(error), "")


def _state(pid: int) -> str:
    """Return the state of a process as the kernel has it; "" where that cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
