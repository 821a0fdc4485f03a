"""Amendments: what a federation changes in its charter by motion, and the charter that results (G10).

The charter in force is the founding one with the amendments that passed, one after the other. `amended` is pure, and
all members apply it in the ledger fold, so everybody who starts from the founding charter reaches the same one.

    open     components, with their modalities, tasks and floors. They join the model without moving an old output
    retire   components: no round any more. Their states stay in the model, verified, and can be withdrawn from
    close    the rule and the least number of updates by which a component's rounds close
    limits   the numbers of `Rules` that a vote can set; the refold horizon only grows
    recipe   the numbers of `Learning` that a vote can set

Never: the federation's id, its seed, its fault model, and the shape, grid, base or noise of a component that exists.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Annotated

from ..crypto.errors import LocalProtocolError, RemoteProtocolError, UsageError
from ..crypto.hashing import digest
from . import schema
from .bounds import MAX_PACE
from .charter import CHARTER_LIMIT, Charter, check_terms
from .component_names import ComponentKind, parse_name
from .components import ComponentSpec, TensorSpec, base_digest, base_vector
from .learning import Learning, Modality, PrivacyFloor, Task
from .schema import Between, Bytes32, Name, Size

AMENDMENT_LIMIT = 24 << 10  # of a statement: two motions with one each fit into a proof of a fork
MAX_OPENED = 2**26  # parameters that one amendment opens: each member expands their first weights once
MAX_AMENDMENTS = 4096


@dataclass(frozen=True, slots=True)
class Opening:
    """Components that open, with what they need: modalities, their floors, and tasks. Each list sorted by name."""

    modalities: Annotated[tuple[Modality, ...], Size(0, 64)]
    tasks: Annotated[tuple[Task, ...], Size(0, 64)]
    floors: Annotated[tuple[PrivacyFloor, ...], Size(0, 64)]
    components: Annotated[tuple[ComponentSpec, ...], Size(1, 64)]


@dataclass(frozen=True, slots=True)
class Closing:
    """How a component's rounds close from now on."""

    component: Name
    rule: Name
    min_updates: Annotated[int, Between(1, 2**16)]


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers of `Rules` that an amendment sets, all of them, in the same units."""

    round_deadline: Annotated[int, Between(100, 7 * 86_400_000)]
    max_staleness: Annotated[int, Between(0, 8)]
    records_per_height: Annotated[int, Between(1, 2**16)]
    bytes_per_height: Annotated[int, Between(2**16, 2**26)]
    refold_horizon: Annotated[int, Between(1, 2**20)]
    pace: Annotated[int, Between(0, 1000 * MAX_PACE)]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of `Learning` that an amendment sets, all of them, in the same units."""

    steps: Annotated[int, Between(1, 2**20)]
    sample_rate: Annotated[int, Between(1, 1_000_000)]
    recovery_share: Annotated[int, Between(0, 1_000_000)]
    planned_rounds: Annotated[int, Between(1, 2**20)]
    min_students: Annotated[int, Between(0, 2**20)]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an amendment changes: at least one of these. Lists are sorted by component."""

    opening: Annotated[tuple[Opening, ...], Size(0, 1)] = ()
    retire: Annotated[tuple[Name, ...], Size(0, 256)] = ()
    closing: Annotated[tuple[Closing, ...], Size(0, 256)] = ()
    limits: Annotated[tuple[Limits, ...], Size(0, 1)] = ()
    recipe: Annotated[tuple[Recipe, ...], Size(0, 1)] = ()


@dataclass(frozen=True, slots=True)
class Amendment:
    """The statement of a motion to amend. `number` counts amendments from 1: of two open ones, one can pass."""

    federation: Bytes32
    number: Annotated[int, Between(1, MAX_AMENDMENTS)]
    changes: Changes


@dataclass(frozen=True, slots=True)
class VotedRule:
    """A component's rule by amendment. Its spec keeps the one that it opened with: older rounds fold by that."""

    component: Name
    rule: Name


@dataclass(frozen=True)
class AmendedCharter(Charter):
    """A charter in force after `passed` amendments. `founding` is the federation's id.

    `peak_rate` is the highest sample rate ever in force (millionths): spend statements hold runs of all times.
    """

    founding: Bytes32
    passed: Annotated[int, Between(1, MAX_AMENDMENTS)]
    gone: Annotated[tuple[Name, ...], Size(0, 4096)]
    voted: Annotated[tuple[VotedRule, ...], Size(0, 4096)]
    peak_rate: Annotated[int, Between(1, 1_000_000)]

    @cached_property
    def federation(self) -> bytes:
        """The federation id: that of the founding charter, for ever."""
        return self.founding

    @property
    def number(self) -> int:
        """The number of amendments that passed."""
        return self.passed

    @cached_property
    def retired(self) -> frozenset[str]:
        """The components that have no round any more."""
        return frozenset(self.gone)

    @property
    def widest_rate(self) -> int:
        """The highest sample rate that was ever in force, in millionths."""
        return self.peak_rate

    @cached_property
    def _voted(self) -> dict[str, str]:
        return {entry.component: entry.rule for entry in self.voted}

    def rule(self, name: str) -> str:
        """Return the rule by which a component's next round closes. Raises KeyError."""
        return self._voted.get(name) or self.specs[name].rule

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes, which the ledger's digest covers; `read` reads them."""
        return schema.dump(self)

    @cached_property
    def digest(self) -> bytes:
        """The digest of the charter in force, 32 bytes."""
        return digest("charter-in-force", self.encoded)


def read(data: bytes, founding: Charter) -> Charter:
    """Return the charter in force from `encoded`; b"" stands for the founding one. Raises RemoteProtocolError."""
    if not data:
        return founding
    charter = schema.load(AmendedCharter, data, CHARTER_LIMIT)
    if charter.founding != founding.federation:
        raise RemoteProtocolError("wrong-federation", "the charter in force is another federation's")
    return charter


@lru_cache(maxsize=256)
def load(statement: bytes, federation: bytes) -> Amendment:
    """Return the amendment of a motion. Raises RemoteProtocolError("wrong-federation" | "invalid" | as `load`)."""
    amendment = schema.load(Amendment, statement, AMENDMENT_LIMIT)
    if amendment.federation != federation:
        raise RemoteProtocolError("wrong-federation", "the amendment is another federation's")
    return amendment


@lru_cache(maxsize=64)
def amended(charter: Charter, statement: bytes) -> AmendedCharter:
    """Return the charter in force after this amendment passes.

    Raises RemoteProtocolError("amendment-number" | "amendment-void", with the reason | as `load`).
    """
    amendment = load(statement, charter.federation)
    if amendment.number != charter.number + 1:
        raise RemoteProtocolError("amendment-number", f"{amendment.number} after {charter.number} amendments")
    changes = amendment.changes
    _need(changes != Changes(), "it changes nothing")
    try:
        result = _with_parts(charter, changes)
        for opening in changes.opening:
            result = _opened(result, opening)
        check_terms(result)
        _need(len(result.encoded) <= CHARTER_LIMIT, "the charter would be too large")
    except (UsageError, LocalProtocolError) as error:  # the latter: a list of the charter would be too long
        raise RemoteProtocolError("amendment-void", str(error)) from error
    before = _same(charter)
    _need(replace(result, passed=before.passed, peak_rate=before.peak_rate) != before, "it changes nothing")
    return result


def _need(holds: bool, problem: str) -> None:
    if not holds:
        raise RemoteProtocolError("amendment-void", problem)


def _same(charter: Charter) -> AmendedCharter:
    """Return a charter as one that was amended, to see what an amendment changes."""
    if isinstance(charter, AmendedCharter):
        return charter
    parts = {field.name: getattr(charter, field.name) for field in fields(Charter)}
    return AmendedCharter(
        **parts, founding=charter.federation, passed=1, gone=(), voted=(), peak_rate=charter.widest_rate
    )


def _with_parts(charter: Charter, changes: Changes) -> AmendedCharter:
    """Apply everything but the opening: that is checked against what is in force with it."""
    specs, retired = dict(charter.specs), set(charter.retired)
    voted = {entry.component: entry.rule for entry in _same(charter).voted}
    _need(list(changes.retire) == sorted(set(changes.retire)), "retired components are not sorted, or one is twice")
    for name in changes.retire:
        _need(name in specs, f"there is no component {name}")
        _need(name not in retired, f"component {name} is retired already")
    names = [entry.component for entry in changes.closing]
    _need(names == sorted(set(names)), "components are not sorted, or one is there twice")
    for entry in changes.closing:
        spec = specs.get(entry.component)
        if spec is None:
            raise RemoteProtocolError("amendment-void", f"there is no component {entry.component}")
        _need(not spec.is_statistic, f"{entry.component} is a statistic: its rule is a sum")
        _need(entry.component not in retired | set(changes.retire), f"{entry.component} has no rounds any more")
        specs[entry.component] = replace(spec, min_updates=entry.min_updates)
        # A rule that was voted once stays written, even if it is the first one again: rounds between had another.
        if entry.rule != spec.rule or entry.component in voted:
            voted[entry.component] = entry.rule
    rules, learning = charter.rules, charter.learning
    for limits in changes.limits:
        # Whoever contributed under a horizon may withdraw within it.
        _need(limits.refold_horizon >= rules.refold_horizon, "the refold horizon can only grow")
        rules = replace(rules, **{name: getattr(limits, name) for name in Limits.__slots__})
    for recipe in changes.recipe:
        learning = replace(learning, **{name: getattr(recipe, name) for name in Recipe.__slots__})
    return replace(
        _same(charter),
        rules=rules,
        components=tuple(spec for _, spec in sorted(specs.items())),
        learning=learning,
        passed=charter.number + 1,
        gone=tuple(sorted(retired | set(changes.retire))),
        voted=tuple(VotedRule(name, rule) for name, rule in sorted(voted.items())),
        peak_rate=max(charter.widest_rate, learning.sample_rate),
    )


def _opened(charter: AmendedCharter, opening: Opening) -> AmendedCharter:
    """Add components. Whatever is added belongs to a modality or task that is new, or begins as exactly nothing."""
    learning, specs = charter.learning, charter.specs
    for parts, have in (
        (opening.modalities, {m.name for m in learning.modalities}),
        (opening.tasks, {task.name for task in learning.tasks}),
        (opening.components, set(specs)),
    ):
        names = [part.name for part in parts]
        _need(names == sorted(set(names)), "what opens is not sorted by name, or one is there twice")
        _need(not have & set(names), f"{', '.join(sorted(have & set(names)))}: there is one of that name")
    _need(
        [floor.modality for floor in opening.floors] == [m.name for m in opening.modalities],
        "the floors are not those of the modalities that open",
    )
    _need(sum(spec.dimension for spec in opening.components) <= MAX_OPENED, "it opens too many parameters at once")
    fresh = {m.name for m in opening.modalities} | {task.name for task in opening.tasks}
    used = {parse_name(spec.name).of for spec in opening.components}
    idle = fresh - used - {name for task in opening.tasks for name in task.modalities}
    _need(not idle, f"{', '.join(sorted(idle))}: no component of it opens, and no task reads it")
    for spec in opening.components:
        _need(_moves_nothing(spec, fresh), f"{spec.name} would move outputs of the model as it is")
        # Who has the pretrained model compares the base of what starts from it: every member's learner does.
        known = spec.starts_pretrained or _base_digest(charter.seed, spec.name, spec.tensors) == spec.base
        _need(known, f"{spec.name}: its base does not match")
    return replace(
        charter,
        components=tuple(sorted((*charter.components, *opening.components), key=lambda spec: spec.name)),
        learning=extended(learning, opening),
    )


def extended(learning: Learning, opening: Opening) -> Learning:
    """Return the learning part with what opens: modalities, tasks and floors after those that are there."""
    return replace(
        learning,
        modalities=(*learning.modalities, *opening.modalities),
        tasks=(*learning.tasks, *opening.tasks),
        floors=(*learning.floors, *opening.floors),
    )


def _moves_nothing(spec: ComponentSpec, fresh: Iterable[str]) -> bool:
    """Whether the model with this component gives the old tasks the same logits, to the bit.

    Old tasks read old modalities only, so components of new ones are no part of their passes. A statistic has
    predictions of its own. A skip or an adapter adds its output, which is zero where its weights begin at zero.
    """
    name = parse_name(spec.name)
    if name.of in fresh and name.kind is not ComponentKind.BACKBONE:
        return True
    added = name.kind in (ComponentKind.SKIP, ComponentKind.ADAPTER) and all(t.bound == 0 for t in spec.tensors)
    return added or name.kind is ComponentKind.STATISTIC


@lru_cache(maxsize=1024)
def _base_digest(seed: bytes, name: str, tensors: tuple[TensorSpec, ...]) -> bytes:
    return base_digest(base_vector(seed, name, tensors))
