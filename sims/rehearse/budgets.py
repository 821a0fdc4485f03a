"""The components of a charter under another ε, and what its grid says of the number of students."""

from collections.abc import Sequence
from dataclasses import replace
from math import log10, sqrt

from ...node.blueprint.declare import STUDENTS
from ...node.blueprint.parts import Part
from ...node.blueprint.recipe import GRID_SHARE, Budget, Privacy, Recipe, charter_parts
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Learning


def recalibrated(
    specs: Sequence[ComponentSpec], learning: Learning, students: float, epsilon: float | None
) -> tuple[ComponentSpec, ...]:
    """Return the components with the noise that they need where every modality under dp has this ε; None: no noise.

    `students` is what the charter's author takes a typical member to have: it sets the grid under noise.
    """
    if epsilon is None:
        return tuple(replace(spec, noise_multiplier=0) for spec in specs)
    trained = [spec for spec in specs if not spec.is_statistic]
    recipe = Recipe(
        modalities=learning.modalities,
        tasks=learning.tasks,
        parts=tuple(
            Part(spec.name, spec.architecture, spec.tensors, base=spec.base if spec.starts_pretrained else b"")
            for spec in specs
        ),
        students=students,
        steps=learning.steps,
        sample_rate=learning.sample_rate,
        shards=learning.shards,
        clip_norm=max(spec.clip_norm for spec in trained),
        learning_rate=MILLION,
        free_learning_rate=MILLION,
        width=16,
        equity=next(iter(learning.equity), None),
        rates={spec.name: spec.learning_rate for spec in trained},
        privacy={
            floor.modality: Privacy("dp", epsilon, floor.delta / 1e9) if floor.policy == "dp" else Privacy(floor.policy)
            for floor in learning.floors
        },
    )
    budget = Budget(epsilon, 1e-5, learning.planned_rounds, learning.recovery_share)
    recalibrated_specs, _ = charter_parts(recipe, budget, min_updates=1)
    by_name = {spec.name: spec for spec in recalibrated_specs}
    return tuple(
        replace(
            spec,
            noise_multiplier=by_name[spec.name].noise_multiplier,
            step_log2=spec.step_log2 if spec.is_statistic else by_name[spec.name].step_log2,
        )
        for spec in specs
    )


def implied_students(specs: Sequence[ComponentSpec], learning: Learning) -> int:
    """Return for how many students of a typical member, about, a charter's grid was made.

    A grid step is a power of two, at most a GRID_SHARE of the noise's standard deviation, so the number is known to a
    factor of two. Where nothing is noised the grid says nothing, and a model file's usual number is returned.
    """
    for spec in specs:
        if spec.is_statistic or not spec.noise_multiplier:
            continue
        scale = spec.learning_rate * spec.noise_multiplier * spec.clip_norm / MILLION**3 * sqrt(learning.steps)
        lot = scale * 2.0**spec.step_log2 / (GRID_SHARE * sqrt(2.0))
        students = max(1.0, lot / learning.drawn)
        return int(round(students, -int(log10(students))))
    return STUDENTS
