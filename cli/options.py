"""Options shared by many commands, and the node's directory that they name."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.errors import UsageError

if TYPE_CHECKING:
    from ..node.home.paths import Home  # commands import it when they run: `--help` must not wait for it

HOME_VARIABLE = "COLLEGIUM_HOME"
DEFAULT_HOME = "~/.collegium"

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help=f"The node's directory [{HOME_VARIABLE}; {DEFAULT_HOME}]."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file, if it is there already.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="A file; its first line is the key's passphrase."),
]


@dataclass(slots=True)
class Settings:
    """The options before the noun: `collegium --home DIR node status`. `named` is the --home of either place."""

    home: Path | None = None
    named: Path | None = None


SETTINGS = Settings()


def home_path(option: Path | None = None) -> Path:
    """Return the node's directory: the command's option, the one before the noun, the environment, the default.

    Raises UsageError if a ~ in it stands for nothing.
    """
    SETTINGS.named = option or SETTINGS.named
    named = option or SETTINGS.home or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{named} cannot be found: there is no home directory", f"Name it by --home or {HOME_VARIABLE}."
        ) from error


def home_of(option: Path | None) -> "Home":
    """Return the paths of the node's directory; it need not exist."""
    from ..node.home.paths import Home

    return Home(home_path(option))


def existing_home(option: Path | None) -> "Home":
    """Return the node's directory. Raises UsageError if there is none."""
    home = home_of(option)
    if not home.root.is_dir():
        raise UsageError(
            f"There is no node in {home.root}", f"Run `collegium init`, or name it by --home or {HOME_VARIABLE}."
        )
    return home


def read_passphrase(path: Path | None) -> str | None:
    """Return the first line of a passphrase file. Raises UsageError."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the passphrase file {path}: {error}", "Name a readable text file.") from error
    if not lines or not lines[0]:
        raise UsageError(f"The passphrase file {path} has an empty first line", "Write the passphrase there.")
    return lines[0]


def key_passphrase(home: "Home", path: Path | None, key: Path | None = None) -> str | None:
    """Return the passphrase of the key in use, or of the file `key`; None if it is not sealed.

    It comes from a file, the environment or, at a terminal, the operator.
    """
    import sys

    from ..node.home import keys

    passphrase = read_passphrase(path) or os.environ.get("COLLEGIUM_PASSPHRASE")
    if passphrase is not None or not keys.needs_passphrase(home, key):
        return passphrase
    if not sys.stdin.isatty():
        raise UsageError(
            f"{key or home.key} is sealed and there is nobody to ask",
            "Give --passphrase-file, or set COLLEGIUM_PASSPHRASE.",
        )
    return str(typer.prompt("Passphrase", hide_input=True, err=True))


def seconds_of(text: str, option: str) -> float:
    """Return a time that is written with its unit (90min, 24h, 7d; 0 for none) in seconds. Raises UsageError."""
    import re

    if text.strip() == "0":
        return 0.0
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*(s|min|h|d)\s*", text)
    if match is None:
        advice = f"Write a number and s, min, h or d: {option} 24h; 0 for none."
        raise UsageError(f"{option} {text!r} is no time", advice)
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86_400}[match[2]]
