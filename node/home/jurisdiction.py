"""Jurisdiction presets: TOML files with a policy for each sensitivity and kind of modality, and the reason for it.

They are technical defaults to start from, not legal advice. Four are shipped; an operator may print one, edit the copy
and name its path in config.toml.
"""

from dataclasses import dataclass
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.bounds import MAX_DELTA, MAX_EPSILON, MIN_DELTA, MIN_EPSILON
from ...protocol.learning import MODALITY_KINDS, POLICIES, SENSITIVITIES
from .. import toml
from ..privacy.policy import Bound

FOLDER = Path(__file__).parent / "jurisdictions"
GUIDE = "docs/cli.md"
LIFETIMES = ("federation",)  # over all that a member ever publishes there; no ε is given back


@dataclass(frozen=True, slots=True)
class Rule:
    """A preset's rule for one sensitivity or kind of modality, and its legal basis."""

    bound: Bound
    lifetime: str
    reason: str


@dataclass(frozen=True, slots=True)
class Jurisdiction:
    """A preset. `sensitivities` and `kinds` have those that differ from `default`."""

    name: str
    title: str
    caveat: str
    default: Rule
    sensitivities: dict[str, Rule]
    kinds: dict[str, Rule]

    def rule(self, kind: str, sensitivity: str = "") -> Rule:
        """Return the rule for a modality: by its sensitivity if it declares one with a rule here, else by its kind."""
        return self.sensitivities.get(sensitivity, self.kinds.get(kind, self.default))


def shipped() -> tuple[str, ...]:
    """Return the names of the presets that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def text(name: str) -> str:
    """Return a shipped preset's file unchanged. Raises UsageError."""
    if name not in shipped():
        raise UsageError(f"there is no jurisdiction preset {name!r}", f"Shipped are {', '.join(shipped())}.")
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def load(reference: str, folder: Path) -> Jurisdiction:
    """Read a shipped preset by its name, or a file by its path (it ends in .toml), relative to `folder`.

    Raises UsageError, naming the file, the key and the allowed values.
    """
    if not reference.endswith(".toml"):
        return parse(text(reference), reference)
    advice = "`collegium privacy presets NAME > FILE.toml` writes one to start from."
    return _jurisdiction(toml.read(folder / Path(reference).expanduser(), advice, GUIDE, links=False))


def parse(source_text: str, source: str) -> Jurisdiction:
    """Read a preset's text; `source` names it in errors. Raises UsageError."""
    return _jurisdiction(toml.parse(source_text, source, GUIDE))


def _jurisdiction(top: toml.Table) -> Jurisdiction:
    name, title, caveat = (top.take(key, _words) for key in ("name", "title", "caveat"))
    default, sensitivities, kinds = _rule(top.table("default")), top.table("sensitivity", {}), top.table("kinds", {})
    top.done()
    sensitivities.only(*SENSITIVITIES)
    kinds.only(*MODALITY_KINDS)
    rules = ({key: _rule(table.table(key)) for key in list(table.raw)} for table in (sensitivities, kinds))
    return Jurisdiction(name, title, caveat, default, *rules)


def _rule(table: toml.Table) -> Rule:
    policy, lifetime = (
        table.take("policy", toml.one_of(*POLICIES)),
        table.take("lifetime", toml.one_of(*LIFETIMES), LIFETIMES[0]),
    )
    epsilon = delta = 0
    if policy == "dp":
        epsilon = int(table.take("epsilon", toml.between(MIN_EPSILON, MAX_EPSILON)) * 1000 + 1e-6)
        delta = int(table.take("delta", toml.between(MIN_DELTA, MAX_DELTA)) * 1e9 + 1e-6)
    elif table.raw.keys() & {"epsilon", "delta"}:
        raise table.fail(f'an ε or δ, but the policy is "{policy}"', 'Only "dp" has them.')
    reason = table.take("reason", _words)
    table.done()
    return Rule(Bound(policy, epsilon, delta), lifetime, reason)


def _words(value: object) -> str:
    if type(value) is not str or not value.strip() or len(value) > 4096:
        raise ValueError("a text in quotes: a preset says what it is and why")
    return value
