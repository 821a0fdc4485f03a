"""Recipes that work: component specs and learning maps for `digits` and `oulad`, with noise calibrated to an ε.

The figures of each recipe were chosen on a validation part of training data (tests/node/blueprint/test_presets.py).
"""

from dataclasses import replace

from ...crypto.errors import UsageError
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning, Modality, Task
from . import PRESETS, parts
from .parts import encoder, head
from .recipe import GRID_SHARE, NO_SEED, RECOVERY_SHARE, Budget, Recipe, charter_parts

__all__ = ["GRID_SHARE", "NO_SEED", "RECIPES", "RECOVERY_SHARE", "preset"]


def preset(
    name: str,
    *,
    budget: Budget | None,
    rounds: int,
    institutions: int,
    rule: str = "mean",
    base_seed: bytes = NO_SEED,
    statistic: bool = False,
) -> tuple[tuple[ComponentSpec, ...], Learning]:
    """Return the specs and the learning map of a recipe of RECIPES.

    Noise is calibrated to `budget` (blueprint/recipe.py); None: no noise. `institutions` sets the
    typical size by which the grid is chosen, and the least number of updates in a round. With `statistic`, a head that
    is a sum is beside the trained one (protocol/statistics.py). Raises UsageError for an unknown name or budget.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown preset {name!r}", f"Choose one of {', '.join(RECIPES)}.")
    template = RECIPES[name]
    every = (*template.parts, *((SUMS[name],) if statistic else ()))
    recipe = replace(template, parts=every, students=template.students / institutions)
    specs, learning = charter_parts(
        recipe,
        budget,
        min_updates=min(2, institutions),
        rule=rule,
        base_seed=base_seed,
    )
    return specs, replace(learning, planned_rounds=rounds)


IMAGE = Modality("image", "image", 64, 1)
DIGIT = Task("digit", "multiclass", 10, ("image",))
DIGITS = Recipe(
    modalities=(IMAGE,),
    tasks=(DIGIT,),
    parts=(
        encoder(IMAGE, 32, "linear-tanh", missing=False),
        head(DIGIT, 32),
    ),
    students=1348,
    steps=8,
    sample_rate=500_000,
    clip_norm=1_000_000,
    learning_rate=1_000_000,
    free_learning_rate=2_000_000,
    width=8,
)

DEMOGRAPHICS, ASSESSMENTS = Modality("demographics", "tabular", 10, 1), Modality("assessments", "series", 13, 12)
PASS = Task("pass", "binary", 2, ("assessments", "demographics"))
OULAD = Recipe(
    modalities=(DEMOGRAPHICS, ASSESSMENTS),
    tasks=(PASS,),
    parts=(
        encoder(ASSESSMENTS, 16, "attention-pool"),
        encoder(DEMOGRAPHICS, 16, "linear-tanh", missing=False),
        head(PASS, 16),
    ),
    students=12_550,
    steps=8,
    sample_rate=100_000,
    clip_norm=1_000_000,
    learning_rate=2_000_000,
    free_learning_rate=2_000_000,
    width=16,
)

RECIPES = dict(zip(PRESETS, (DIGITS, OULAD), strict=True))
# Of a thousand and some images in ten classes the noise leaves the class means; of 12,550 students it leaves all of G.
SUMS = {
    "digits": parts.statistic(DIGIT, (IMAGE,), "prototypes"),
    "oulad": parts.statistic(PASS, (DEMOGRAPHICS, ASSESSMENTS), "ridge"),
}
