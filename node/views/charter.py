"""The charter in force: how it came to be what it is, and what one charter has otherwise than another (G10)."""

from collections.abc import Iterable, Iterator

from ...crypto.errors import UsageError
from ...protocol.amendment import Changes, Limits, Recipe, amended
from ...protocol.charter import Charter
from ...protocol.components import MILLION, ComponentSpec
from ..architectures import words
from ..words import lasting
from .context import Context
from .shapes_charter import AmendmentShown, CharterHistory, Difference

TIMES = {"round_deadline", "pace"}  # in milliseconds
MILLIONTHS = {"sample_rate", "recovery_share"}


def charter_at(context: Context, height: int | None) -> Charter:
    """Return the charter by which the block at a height is judged; None: the next one. Raises UsageError."""
    top = context.ledger.height
    if height is not None and not 1 <= height <= top + 1:
        raise UsageError(f"There is no block {height} here", f"The last one is {top}, and the next one {top + 1}.")
    charter = context.founding
    for passed, statement in context.ledger.amendments:
        if height is None or passed < height:
            charter = amended(charter, statement)
    return charter


def charter_history(context: Context) -> CharterHistory:
    """Return the amendments in force, in order, each with what it changed."""
    charter, shown = context.founding, list[AmendmentShown]()
    for height, statement in context.ledger.amendments:
        after = amended(charter, statement)
        shown.append(
            {
                "number": after.number,
                "passed_at_height": height,
                "in_force_from_height": height + 1,
                "charter": after.digest.hex(),
                "changes": differences(charter, after),
            }
        )
        charter = after
    return {
        "federation": context.founding.federation.hex(),
        "founding": context.founding.digest.hex(),
        "height": context.ledger.height,
        "in_force": charter.digest.hex(),
        "amendments": shown,
    }


def differences(before: Charter, after: Charter) -> list[Difference]:
    """Return what the second charter has otherwise than the first, in a fixed order."""
    return [{"what": what, "before": old, "after": new} for what, old, new in _differ(before, after)]


def _differ(before: Charter, after: Charter) -> Iterator[tuple[str, str | None, str | None]]:
    for what, old, new in (
        ("modality", {m.name: m for m in before.learning.modalities}, {m.name: m for m in after.learning.modalities}),
        ("task", {t.name: t for t in before.learning.tasks}, {t.name: t for t in after.learning.tasks}),
    ):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield f"{what} {name}", _part(old.get(name)), _part(new.get(name))
    for name in sorted(before.specs.keys() | after.specs.keys()):
        yield from _component(before, after, name)
    yield from _numbers(before.rules, after.rules, Limits.__slots__)
    yield from _numbers(before.learning, after.learning, Recipe.__slots__)
    for name in sorted({f.modality for f in before.learning.floors} & {f.modality for f in after.learning.floors}):
        if before.learning.floor(name) != after.learning.floor(name):
            yield f"floor of {name}", str(before.learning.floor(name)), str(after.learning.floor(name))


def number_differences(before: Charter, changes: Changes) -> Iterator[tuple[str, str, str]]:
    """Return the limits and the parts of the recipe that an amendment changes: name, before, after."""
    for limits in changes.limits:
        yield from _numbers(before.rules, limits, Limits.__slots__)
    for recipe in changes.recipe:
        yield from _numbers(before.learning, recipe, Recipe.__slots__)


def _numbers(before: object, after: object, names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield name.replace("_", " "), _value(name, old), _value(name, new)


def _value(name: str, value: object) -> str:
    """Return a limit or a part of the recipe as the other commands say it."""
    if type(value) is not int:
        return str(value)
    if name in TIMES:
        return lasting(value / 1000)
    return f"{value / MILLION:g}" if name in MILLIONTHS else str(value)


def _component(before: Charter, after: Charter, name: str) -> Iterator[tuple[str, str | None, str | None]]:
    old, new = before.component(name), after.component(name)
    if old is None or new is None:
        yield (
            f"component {name}",
            None if old is None else _spec(before, old),
            None if new is None else _spec(after, new),
        )
        return
    if before.rule(name) != after.rule(name):
        yield f"rule of {name}", before.rule(name), after.rule(name)
    if old.min_updates != new.min_updates:
        yield f"min_updates of {name}", str(old.min_updates), str(new.min_updates)
    if (name in before.retired) != (name in after.retired):
        yield f"rounds of {name}", "open", "retired"


def _part(part: object) -> str | None:
    if part is None:
        return None
    kind, modalities = getattr(part, "kind", ""), getattr(part, "modalities", None)
    if modalities is not None:
        return f"{kind}, {getattr(part, 'classes', 0)} classes, reads {', '.join(modalities)}"
    sensitivity = f", {sensitivity}" if (sensitivity := getattr(part, "sensitivity", "")) else ""
    return f"{kind}{sensitivity}, width {getattr(part, 'width', 0)}, length {getattr(part, 'length', 0)}"


def _spec(charter: Charter, spec: ComponentSpec) -> str:
    noise = f"noise {spec.noise_multiplier / 1e6:g}" if spec.noise_multiplier else "no noise"
    learns = ", ".join(sorted(charter.learning.upstream(spec.name)))
    return f"{words(spec.architecture)}, {spec.dimension} parameters, {noise}, learns from {learns}"
