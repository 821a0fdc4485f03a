"""A charter's components and recipe, from a preset or a model file."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..crypto.errors import UsageError
from ..node.blueprint import PRESETS

if TYPE_CHECKING:
    from ..protocol.components import ComponentSpec
    from ..protocol.learning import Learning

ROUNDS = 20


def components(
    preset: str | None,
    model: Path | None,
    budget: "tuple[float, float, int | None]",
    *,
    dp: bool,
    institutions: int,
    rule: str | None,
    usual: str,
    seed: bytes,
) -> "tuple[tuple[ComponentSpec, ...], Learning, float]":
    """Return the specs, the learning map and the students of a typical member, of a preset or a model file.

    The budget is of ε, δ and rounds; `usual` is the rule where neither the option nor the file names one.
    """
    from dataclasses import replace

    from ..node.blueprint.declare import read_model
    from ..node.blueprint.presets import RECIPES
    from ..node.blueprint.presets import preset as recipe
    from ..node.blueprint.recipe import Budget, charter_parts
    from .learners import try_models

    epsilon, delta, rounds = budget
    if model is None:
        if preset is None:
            raise UsageError(
                "No model is given",
                "Give --model FILE (`collegium charter model FOLDER` prints one for your data), or --preset"
                f" {' or '.join(PRESETS)}.",
            )
        specs, learning = recipe(
            preset,
            budget=Budget(epsilon, delta, rounds or ROUNDS) if dp else None,
            rounds=rounds or ROUNDS,
            institutions=institutions,
            rule=rule or usual,
            base_seed=seed,
            statistic=True,
        )
        return specs, learning, RECIPES[preset].students / institutions
    if preset is not None:
        raise UsageError("--preset and --model do not go together", "Give one of them.")
    declared = read_model(model)
    try_models(declared.models)
    planned = rounds or declared.rounds or ROUNDS
    specs, learning = charter_parts(
        declared.recipe,
        Budget(epsilon, delta, planned) if dp else None,
        min_updates=min(2, institutions),
        rule=rule or declared.rule or usual,
        base_seed=seed,
    )
    return specs, replace(learning, planned_rounds=planned), declared.recipe.students
