"""Commands that messages propose, as they have to be typed here: with the `--home` that this command was given.

Messages write `collegium node start`, wherever they come from. All output to people passes `at_home` (output.py, and
errors in main.py). A command for somebody else's machine is written by `elsewhere`, or without the word "collegium".
"""

import re
import shlex
from pathlib import Path

from .options import SETTINGS

WITHOUT_HOME = (
    "bench",
    "charter model",
    "data import",
    "data init",
    "demo",
    "man",
    "node restore",
    "privacy audit",
    "privacy presets",
    "sim",
    "unlearn audit",
)
_COMMAND = re.compile(
    rf"\bcollegium (?!(?:{'|'.join(WITHOUT_HOME)})\b)"
    r"(?=(?:charter|component|dashboard|data|doctor|init|join|ledger|model|node|peer|predict|privacy|rehearse|round|unlearn)\b)"
)
_ELSEWHERE = "collegium\N{NO-BREAK SPACE}"


def at_home(text: str, folder: Path | None = None) -> str:
    """Return a message with `--home` in each command that it proposes: of `folder`, else the one that was given."""
    named = folder or SETTINGS.named
    if named is not None:
        option = f"collegium --home {shlex.quote(str(named))} "
        text = _COMMAND.sub(lambda _: option, text)
    return text.replace(_ELSEWHERE, "collegium ")


def elsewhere(text: str) -> str:
    """Return a message whose commands are for another machine, or for anybody: `at_home` leaves them as they are."""
    return text.replace("collegium ", _ELSEWHERE)
