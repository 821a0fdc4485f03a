"""Jurisdiction presets: TOML files with a policy for each kind of modality and the reason for it.

They are technical defaults to start from, not legal advice. Four are shipped; an operator may print one, edit the copy
and name its path in config.toml.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.bounds import MAX_DELTA, MAX_EPSILON, MIN_DELTA, MIN_EPSILON
from ...protocol.learning import MODALITY_KINDS, POLICIES
from ..store.files import read_limited
from .policy import Bound

FOLDER = Path(__file__).parent / "jurisdictions"
FILE_LIMIT = 64 << 10
LIFETIMES = ("federation",)  # all that a member ever publishes there; nothing gives an ε back
_KEYS = {"policy", "epsilon", "delta", "lifetime", "reason"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a preset asks for one kind of modality, and on what that rests."""

    bound: Bound
    lifetime: str
    reason: str


@dataclass(frozen=True, slots=True)
class Jurisdiction:
    """A preset. `kinds` has those that differ from `default`."""

    name: str
    title: str
    caveat: str
    default: Rule
    kinds: dict[str, Rule]

    def rule(self, kind: str) -> Rule:
        """Return the rule for a kind of modality."""
        return self.kinds.get(kind, self.default)


def shipped() -> tuple[str, ...]:
    """Return the names of the presets that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def text(name: str) -> str:
    """Return a shipped preset's file as it is. Raises UsageError."""
    if name not in shipped():
        raise UsageError(f"there is no jurisdiction preset {name!r}", f"Shipped are {', '.join(shipped())}.")
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def load(reference: str, folder: Path) -> Jurisdiction:
    """Read a shipped preset by its name, or a file by its path (it ends in .toml), relative to `folder`.

    Raises UsageError, naming the file, the key and what is allowed there.
    """
    if not reference.endswith(".toml"):
        return parse(text(reference), reference)
    path = folder / Path(reference).expanduser()
    try:
        data = read_limited(path, FILE_LIMIT)
        if data is None:
            raise UsageError(f"{path} is over {FILE_LIMIT} bytes", "It holds one jurisdiction preset only.")
        return parse(data.decode(), str(path))
    except OSError as error:
        advice = "`collegium privacy presets NAME > FILE.toml` writes one to start from."
        raise UsageError(f"Cannot read the jurisdiction preset {path}: {error.strerror}", advice) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})", "Save it as UTF-8.") from error


def parse(source_text: str, source: str) -> Jurisdiction:
    """Read a preset's text; `source` names it in errors. Unknown keys are errors. Raises UsageError."""
    try:
        found = tomllib.loads(source_text)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is a ValueError
        raise UsageError(f"{source} is not TOML: {error}", "See https://toml.io for how to write it.") from error
    _known(source, "", found, {"name", "title", "caveat", "default", "kinds"})
    kinds = found.get("kinds", {})
    if not isinstance(kinds, dict):
        raise UsageError(f"{source}: kinds must be a table", "Write [kinds.text] and its keys below it.")
    _known(source, "kinds.", kinds, set(MODALITY_KINDS))
    return Jurisdiction(
        _words(source, "name", found.get("name")),
        _words(source, "title", found.get("title")),
        _words(source, "caveat", found.get("caveat")),
        _rule(source, "default", found.get("default")),
        {kind: _rule(source, f"kinds.{kind}", table) for kind, table in kinds.items()},
    )


def _rule(source: str, where: str, table: object) -> Rule:
    if not isinstance(table, dict):
        raise UsageError(f"{source}: there is no table [{where}]", f"Give it {', '.join(sorted(_KEYS))}.")
    _known(source, f"{where}.", table, _KEYS)
    policy, lifetime = table.get("policy"), table.get("lifetime", LIFETIMES[0])
    if policy not in POLICIES:
        raise UsageError(f"{source}: {where}.policy cannot be {policy!r}", f"Allowed is one of {', '.join(POLICIES)}.")
    if lifetime not in LIFETIMES:
        raise UsageError(f"{source}: {where}.lifetime cannot be {lifetime!r}", f"Allowed is {LIFETIMES[0]!r}.")
    epsilon = delta = 0
    if policy == "dp":
        epsilon = int(_number(source, f"{where}.epsilon", table.get("epsilon"), MIN_EPSILON, MAX_EPSILON) * 1000 + 1e-6)
        delta = int(_number(source, f"{where}.delta", table.get("delta"), MIN_DELTA, MAX_DELTA) * 1e9 + 1e-6)
    elif "epsilon" in table or "delta" in table:
        raise UsageError(f'{source}: {where} has an ε or δ, but its policy is "{policy}"', 'Only "dp" has them.')
    return Rule(Bound(policy, epsilon, delta), lifetime, _words(source, f"{where}.reason", table.get("reason")))


def _known(source: str, where: str, table: dict[str, object], keys: set[str]) -> None:
    for key in table:
        if key not in keys:
            raise UsageError(f"{source}: {where}{key} is not known", f"Known there are {', '.join(sorted(keys))}.")


def _words(source: str, where: str, value: object) -> str:
    if type(value) is not str or not value.strip() or len(value) > 4096:
        raise UsageError(f"{source}: {where} must be a text", "A preset says what it is and why.")
    return value


def _number(source: str, where: str, value: object, low: float, high: float) -> float:
    if (type(value) is not int and type(value) is not float) or not low <= value <= high:
        raise UsageError(f"{source}: {where} cannot be {value!r}", f"Allowed is a number from {low:g} to {high:g}.")
    return float(value)
