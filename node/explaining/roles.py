"""What each role sees of explanations. No field of one role is a field of another.

| | student | guardian | instructor | administrator |
|---|---|---|---|---|
| of whom | oneself | one child | the class | all records of the file, as means |
| result | `result`, `chances` | `outcome` | `results`: how many, from 50 students on | – |
| features | `yours`: own values, what each counts | `for`, `against`: names | `weighs`: means from 50 students on | – |
| what could be changed | `changes`, of no trait | – | – | – |
| traits of the person | one's own, never as a change | – | – | – |
| the model | – | – | – | `modalities`, `components`, `contributors`, `gap` |

Beside it all but an instructor are told `here`: what this institution's home layer makes of it. No other node can
compute that again, so it is not compared.

Of a text that is written a teacher sees `draft` and `moved`: which sentences moved it. It is a draft: no student and no
guardian is shown one.

A trait is a column that dataset.toml declares `immutable`, names under [sensitive], or whose name says that it is one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never, get_args

from ...crypto.errors import UsageError
from ...protocol.learning import GENERATE
from ..learner.answers import Explained, FeatureEffect, RecordExplained
from ..store.observations import MIN_CELL

Role = Literal["student", "guardian", "instructor", "administrator"]
ROLES: tuple[Role, ...] = get_args(Role)
OF_ONE: frozenset[Role] = frozenset({"student", "guardian"})
NAMED = 3  # features for and against a result, in a guardian's page
LITTLE = 0.01  # of all effects: a feature that counts less is not named to a guardian
Body = dict[str, Any]


def of_one(role: Role, kind: str) -> bool:
    """Whether a role's explanation of such a task is of one record alone. Raises UsageError: not for this role."""
    if kind == GENERATE and role in OF_ONE:
        raise UsageError(
            "A text that is written is a draft, and for a teacher to read first", "Explain it with --role instructor."
        )
    return role in OF_ONE or (kind == GENERATE and role == "instructor")


@dataclass(frozen=True, slots=True)
class Contributor:
    """A member, and its place among the variants of each record."""

    name: str
    key: bytes


def view(role: Role, explained: Explained, contributors: Sequence[Contributor] = ()) -> Body:
    """Return what a role sees, as JSON. A person's, and a draft's, is of the first record, which is the only one."""
    match role:
        case "student":
            return _student(explained, explained.records[0])
        case "guardian":
            return _guardian(explained.records[0])
        case "instructor" if explained.kind == GENERATE:
            return _draft(explained.records[0])
        case "instructor":
            return _instructor(explained.records)
        case "administrator":
            return _administrator(explained.records, contributors)
        case _:
            assert_never(role)


def _student(explained: Explained, record: RecordExplained) -> Body:
    named = len(explained.classes) == len(record.scores)
    return {
        "result": record.result,
        "chances": dict(zip(explained.classes, record.scores, strict=True)) if named else {},
        "yours": [
            {
                "modality": one.modality,
                "feature": one.name,
                "value": one.value,
                "fixed": one.trait,
                "effect": one.effect,
            }
            for one in record.features
        ],
        "changes": [{"feature": one.name, "to": one.value, "then": one.result} for one in record.changes],
    }


def _guardian(record: RecordExplained) -> Body:
    all_of_it = sum(abs(one.effect) for one in record.features)
    open_ones = [one for one in record.features if not one.trait and abs(one.effect) >= LITTLE * all_of_it]
    ordered = sorted(open_ones, key=lambda one: -abs(one.effect))

    def names(chosen: Iterable[FeatureEffect]) -> list[str]:
        return list(dict.fromkeys(one.name for one in chosen))[:NAMED]

    return {
        "outcome": record.result,
        "for": names(one for one in ordered if one.effect > 0.0),
        "against": names(one for one in ordered if one.effect < 0.0),
    }


def _instructor(records: Sequence[RecordExplained]) -> Body:
    students = {one.student for one in records}
    sizes = _students_by(records, lambda one: one.result)
    hidden = {result for result, size in sizes.items() if size < MIN_CELL}
    if len(hidden) == 1 and len(sizes) > 1:  # it would follow by subtraction
        hidden.add(min(sizes.keys() - hidden, key=lambda result: (sizes[result], result)))
    weights: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in records:
        for one in record.features:
            if not one.trait:
                of_it = weights.setdefault((one.modality, one.name), {})
                of_it.setdefault(record.student, []).append(abs(one.effect))
    return {
        "students": len(students) if len(students) >= MIN_CELL else None,
        "results": {result: None if result in hidden else size for result, size in sorted(sizes.items())}
        if len(students) >= MIN_CELL
        else {},
        "weighs": [
            {"modality": modality, "name": name, "mean": _mean(map(_mean, of_it.values()))}
            for (modality, name), of_it in weights.items()
            if len(of_it) >= MIN_CELL
        ],
    }


def here(role: Role, explained: Explained) -> Body | None:
    """Return what this institution's home layer adds, for a role; None where there is none, or nothing to tell."""
    told = [record.at_home for record in explained.records if record.at_home is not None]
    if not told or role == "instructor":
        return None
    return {"adds": _mean(one.adds for one in told)} if role == "administrator" else {"result": told[0].result}


def _draft(record: RecordExplained) -> Body:
    return {
        "draft": record.result,
        "moved": [{"passage": one.name, "text": one.value, "nats": one.effect} for one in record.features],
    }


def _students_by(records: Iterable[RecordExplained], key: Callable[[RecordExplained], str]) -> Mapping[str, int]:
    return Counter(cell for cell, _ in {(key(one), one.student) for one in records})


def _administrator(records: Sequence[RecordExplained], contributors: Sequence[Contributor]) -> Body:
    return {
        "explained": len(records),
        "modalities": _means([one.modalities for one in records]),
        "components": _means([one.components for one in records]),
        "contributors": [
            {
                "member": one.name,
                "key": one.key.hex(),
                "share": _mean(record.score - record.variants[place] for record in records),
                "moves": _mean(abs(record.score - record.variants[place]) for record in records),
            }
            for place, one in enumerate(contributors)
        ],
        "gap": max(abs(record.gap) for record in records),
    }


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of what each part adds, over all records; a record without it has zero."""
    names = sorted({name for one in values for name in one})
    return {name: sum(one.get(name, 0.0) for one in values) / len(values) for name in names}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
