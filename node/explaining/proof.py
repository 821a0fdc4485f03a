"""An explanation as a file: what a role sees, and what another node needs to compute it again.

`proof` names the federation, the height, the round, generation and digest of every component's state, the method, the
seed of the federation's first weights and projections, and the digest of the records' contents. No value of a student
is in it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...crypto.errors import CorruptError, UsageError
from ..learner.answers import Explained
from ..verify import Model
from .roles import ROLES, Role

FORMAT = 1
CLOSE = 1e-6  # by which a figure of another machine may differ
LIMIT = 64 << 20
ADVICE = "Ask whoever made it for the file that `collegium explain --out` wrote."


@dataclass(frozen=True, slots=True)
class Proof:
    """What an explanation is made of. `components` has of each state its round, generation and digest (hex)."""

    role: Role
    task: str
    record: str | None
    federation: str
    height: int
    block: str
    components: dict[str, tuple[int, int, str]]
    method: str
    seed: str
    records: str

    @property
    def at(self) -> dict[str, tuple[int, int]]:
        """Return the rounds and generations of the states."""
        return {name: (number, generation) for name, (number, generation, _) in self.components.items()}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an explanation is made of, what it says, and what holds `here` alone (roles.py)."""

    proof: Proof
    says: Mapping[str, Any]
    here: Mapping[str, Any] | None = None


def proof_of(role: Role, task: str, record: str | None, model: Model, explained: Explained) -> Proof:
    """Return what an explanation by this model is made of."""
    report = model.report
    return Proof(
        role,
        task,
        record,
        report.ledger.federation.hex(),
        report.ledger.height,
        report.ledger.block.hex(),
        {name: (c.round, c.generation, c.digest.hex()) for name, c in sorted(model.components.items())},
        explained.method,
        report.charter.seed.hex(),
        explained.digest.hex(),
    )


def written(made: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON."""
    proof = made.proof
    components = {
        name: {"round": number, "generation": generation, "digest": digest}
        for name, (number, generation, digest) in proof.components.items()
    }
    return {
        "explanation": FORMAT,
        "role": proof.role,
        "task": proof.task,
        "record": proof.record,
        "says": dict(made.says),
        "here": None if made.here is None else dict(made.here),
        "proof": {
            "federation": proof.federation,
            "height": proof.height,
            "block": proof.block,
            "components": components,
            "method": proof.method,
            "seed": proof.seed,
            "records": proof.records,
        },
    }


def read(file: Path) -> Explanation:
    """Read an explanation. Raises UsageError, CorruptError."""
    if not file.is_file():
        raise UsageError(f"There is no file {file}", "Name the file of an explanation.")
    if file.stat().st_size > LIMIT:
        raise UsageError(f"{file} is too large for an explanation", ADVICE)
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        if whole["explanation"] != FORMAT:
            what = f"{file}: explanation format {whole['explanation']!r} is not known"
            raise UsageError(what, "Install a newer Collegium.")
        made, role = whole["proof"], next(role for role in ROLES if role == whole["role"])
        components = {
            str(name): (int(one["round"]), int(one["generation"]), str(one["digest"]))
            for name, one in made["components"].items()
        }
        record = None if whole["record"] is None else str(whole["record"])
        texts = [str(made[name]) for name in ("federation", "block", "method", "seed", "records")]
        federation, block, method, seed, records = texts
        proof = Proof(
            role, str(whole["task"]), record, federation, int(made["height"]), block, components, method, seed, records
        )
        return Explanation(proof, dict(whole["says"]))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration, RecursionError) as error:
        raise CorruptError(f"{file} is no explanation, or a damaged one", ADVICE) from error


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs between an explanation and what this node computes, in sentences; `largest` of all figures."""

    differences: tuple[str, ...]
    figures: int
    largest: float


def compare(theirs: Explanation, ours: Explanation) -> Compared:
    """Hold an explanation against this node's own. Another height alone is no difference: states decide. What holds
    `here` alone is not compared.
    """
    there, here = theirs.proof, ours.proof
    found: list[str] = []
    if there.seed != here.seed:
        found.append(f"its seed is {there.seed[:16]}, the charter here has {here.seed[:16]}")
    if there.method != here.method:
        found.append(f"it was made by {there.method}, this version uses {here.method}")
    for name in sorted(there.components.keys() | here.components.keys()):
        one, other = there.components.get(name), here.components.get(name)
        if one is None or other is None:
            found.append(f"{name}: {'this node' if other is None else 'whoever made it'} does not hold it")
        elif one != other:
            found.append(
                f"{name}: its state is of round {one[0]}, generation {one[1]}, digest {one[2][:16]}; here it is of"
                f" round {other[0]}, generation {other[1]}, digest {other[2][:16]}"
            )
    if there.records != here.records:
        found.append("the records are not those that were explained: a value of them differs")
    figures, largest = 0, 0.0
    for where, one, other in _pairs(theirs.says, ours.says, ""):
        if _number(one) and _number(other):
            figures, largest = figures + 1, max(largest, abs(one - other))
            if not abs(one - other) <= CLOSE:
                found.append(f"{where} is {one!r} in it, and {other!r} here")
        elif one != other or type(one) is not type(other):
            found.append(f"{where} is another one here")
    return Compared(tuple(found), figures, largest)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pairs(one: Any, other: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the leaves of two JSON values side by side, None for one that is missing."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys([*one, *other]):
            yield from _pairs(one.get(name), other.get(name), f"{where} {name}".strip())
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True), start=1):
            yield from _pairs(left, right, f"{where} {number}")
    else:
        yield where, one, other
