"""`node status --check` and `doctor --check`: one line and an exit code, as monitoring plugins give them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from ..crypto.errors import CollegiumError, OperatorError
from .options import existing_home
from .output import emit

if TYPE_CHECKING:
    from ..node.home.paths import Home

OK, WARNING, CRITICAL = 0, 1, 2
WORDS = {OK: "ok", WARNING: "warning", CRITICAL: "critical"}


@dataclass(slots=True)
class Verdict:
    """What a monitor is told: the worst code, and everything that was found, each with its code."""

    fine: str = ""
    findings: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, code: int, text: str, advice: str = "") -> None:
        """Add one finding."""
        self.findings.append((code, text, advice))

    @property
    def code(self) -> int:
        """The exit code."""
        return max((code for code, _, _ in self.findings), default=OK)

    def tell(self, as_json: bool) -> None:
        """Print one line and end with the code."""
        worst = sorted(self.findings, key=lambda finding: -finding[0])
        line = "; ".join(text.rstrip(".") for _, text, _ in worst) or self.fine
        result: Any = {
            "verdict": WORDS[self.code],
            "exit_code": self.code,
            "line": line,
            "found": [{"verdict": WORDS[code], "found": text, "advice": advice} for code, text, advice in worst],
        }
        emit(result, as_json, lambda out: out.print(f"{WORDS[self.code]}: {line}", soft_wrap=True))
        if self.code:
            raise typer.Exit(self.code)


def silent(home: "Home") -> tuple[int, str, str]:
    """Return why a daemon that runs here does not answer, as a code, a text and advice: it hangs (CRITICAL), or is busy
    (WARNING). OK and "" if it answers, starts, stops or ended."""
    from ..node.control.client import BusyError, Client, HangsError

    try:
        Client(home).probe()
    except (BusyError, HangsError) as error:
        return CRITICAL if isinstance(error, HangsError) else WARNING, error.message, error.advice
    except CollegiumError:
        pass
    return OK, "", ""


def check(home: "Home") -> Verdict:
    """Look at a node as a monitor does. Raises nothing that an operator could mend: it is critical."""
    try:
        return _check(home)
    except CollegiumError as error:
        what, advice = _text_and_advice(error)
    except OSError as error:
        what = f"cannot read {error.filename or home.root}: {error.strerror or error}"
        advice = "Run it as the user that the node runs as."
    verdict = Verdict()
    verdict.add(CRITICAL, what, advice)
    return verdict


def _check(home: "Home") -> Verdict:
    from ..node.home.lock import running
    from ..node.views import Level
    from .node import look

    verdict = Verdict()
    existing_home(home.root)
    if running(home) is None:
        verdict.add(CRITICAL, "the daemon does not run", "Start it: collegium node start.")
        return verdict
    code, why, advice = silent(home)
    if code:
        verdict.add(code, why, advice)
        return verdict
    status = look(home)
    if status["live"] is None:
        verdict.add(WARNING, "the daemon is starting or stopping, and does not answer yet")
        return verdict
    for note in status["findings"]:
        if note["level"] != Level.INFO:  # nobody has to come for that
            code = CRITICAL if note["level"] == Level.CRITICAL else WARNING
            verdict.add(code, note["found"], note["advice"])
    name = status["member"]["name"] if status["member"] else "the node"
    rounds = max((c["round"] for c in status["components"]), default=0)
    near = len(status["live"]["connected"])
    verdict.fine = f"{name} runs, height {status['height']}, round {rounds}, connected to {near}"
    return verdict


def _text_and_advice(error: CollegiumError) -> tuple[str, str]:
    return (error.message, error.advice) if isinstance(error, OperatorError) else (str(error), "")
