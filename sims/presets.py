"""Recipes that work: component specs and learning maps for `digits` and `oulad`, with noise calibrated to an ε.

The figures of each recipe were chosen on a validation part of training data; tests/sims/test_presets.py runs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, prod, sqrt

from ..crypto.errors import UsageError
from ..node.privacy.accountant import MILLION, calibrate, split_noise
from ..protocol.components import ComponentSpec, TensorSpec, base_digest, base_vector
from ..protocol.learning import Learning, Modality, PrivacyFloor, Task

RECOVERY_SHARE = 250_000  # millionths of ε kept for the rounds after a withdrawal (DESIGN.md section 9)
GRID_SHARE = 8  # the grid step is at most this part of the noise's standard deviation (section 5)
FREE_STEP_LOG2 = 12  # grid of a federation without DP: 16 bits reach ±8
NO_SEED = bytes(32)


@dataclass(frozen=True, slots=True)
class Part:
    """A component before its noise is known. `tensors` are (name, shape, bound in millionths)."""

    name: str
    architecture: str
    tensors: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: `students` is N̂ of a typical institution of `institutions`; learning rates by whether DP is on."""

    modalities: tuple[Modality, ...]
    tasks: tuple[Task, ...]
    parts: tuple[Part, ...]
    students: int
    steps: int
    sample_rate: int
    clip_norm: int
    learning_rate: int
    free_learning_rate: int
    width: int


def preset(
    name: str,
    *,
    dp: bool,
    epsilon: float,
    delta: float,
    rounds: int,
    institutions: int,
    rule: str = "mean",
    base_seed: bytes = NO_SEED,
) -> tuple[tuple[ComponentSpec, ...], Learning]:
    """Return the specs and the learning map of "digits" or "oulad".

    With `dp`, noise is calibrated so that `rounds` rounds with all components engaged cost at most the part of
    `epsilon` that is not kept for recovery, at `delta` (a multiple of 1e-9); ε is rounded down to thousandths.
    `institutions` sets the typical size by which the grid is chosen, and the least number of updates in a round.
    Raises UsageError for an unknown name or budget.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown preset {name!r}", f"Choose one of {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    milli, billionths = floor(epsilon * 1000), floor(delta * 1e9 + 1e-6)
    if dp and (milli < 1 or not 0 < billionths < 10**9):
        raise UsageError(
            f"ε = {epsilon} and δ = {delta} are no budget", "Choose ε of at least 0.001, δ from 1e-9 to 1."
        )
    noises: tuple[int, ...] = (0,) * len(recipe.parts)
    if dp:
        spent = milli * (MILLION - RECOVERY_SHARE) // MILLION / 1000
        noise = calibrate(spent, billionths / 1e9, recipe.sample_rate / MILLION, rounds * recipe.steps)
        # a_c = C_c √(u_c d_c) with equal clip norms and, before anything is learned, equal utilities.
        noises = split_noise(noise, [sqrt(_dimension(part.tensors)) for part in recipe.parts])
    lot = recipe.sample_rate / MILLION * recipe.students / institutions
    specs = tuple(
        _spec(recipe, part, sigma, lot=lot, rule=rule, institutions=institutions, base_seed=base_seed)
        for part, sigma in zip(recipe.parts, noises, strict=True)
    )
    policy = "dp" if dp else "open"
    floors = tuple(
        PrivacyFloor(modality.name, policy, milli if dp else 0, billionths if dp else 0)
        for modality in recipe.modalities
    )
    learning = Learning(
        recipe.modalities, recipe.tasks, floors, recipe.steps, recipe.sample_rate, RECOVERY_SHARE, rounds
    )
    return specs, learning


def _spec(
    recipe: Recipe, part: Part, noise: int, *, lot: float, rule: str, institutions: int, base_seed: bytes
) -> ComponentSpec:
    rate = recipe.learning_rate if noise else recipe.free_learning_rate
    step_log2, width = FREE_STEP_LOG2, 16
    if noise:
        deviation = rate / MILLION * noise / MILLION * recipe.clip_norm / MILLION * sqrt(recipe.steps) / lot
        step_log2, width = max(0, ceil(-log2(deviation / GRID_SHARE))), recipe.width
    return ComponentSpec(
        name=part.name,
        architecture=part.architecture,
        tensors=part.tensors,
        step_log2=step_log2,
        width=width,
        rule=rule,
        min_updates=min(2, institutions),
        clip_norm=recipe.clip_norm,
        noise_multiplier=noise,
        learning_rate=rate,
        base=base_digest(base_vector(base_seed, part.name, part.tensors)),
    )


def _dimension(tensors: Sequence[TensorSpec]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)


def _tanh(width: int, hidden: int, *more: TensorSpec) -> tuple[TensorSpec, ...]:
    """Glorot and Bengio's (2010) uniform bound for the weights, zero for the bias."""
    bound = round(sqrt(6.0 / (width + hidden)) * MILLION)
    return (TensorSpec("project.weight", (hidden, width), bound), TensorSpec("project.bias", (hidden,), 0), *more)


def _head(classes: int, hidden: int) -> tuple[TensorSpec, ...]:
    return (TensorSpec("linear.weight", (classes, hidden), 0), TensorSpec("linear.bias", (classes,), 0))


DIGITS = Recipe(
    modalities=(Modality("image", "image", 64, 1),),
    tasks=(Task("digit", "multiclass", 10, ("image",)),),
    parts=(
        Part("encoder/image", "linear-tanh", _tanh(64, 32)),
        Part("head/digit", "linear", _head(10, 32)),
    ),
    students=1348,
    steps=8,
    sample_rate=500_000,
    clip_norm=1_000_000,
    learning_rate=1_000_000,
    free_learning_rate=2_000_000,
    width=8,
)

OULAD = Recipe(
    modalities=(Modality("demographics", "tabular", 45, 1), Modality("assessments", "series", 13, 12)),
    tasks=(Task("pass", "binary", 2, ("assessments", "demographics")),),
    parts=(
        Part("encoder/assessments", "attention-pool", _tanh(
            13, 16, TensorSpec("score.weight", (1, 16), 0), TensorSpec("missing.weight", (16, 1), 0))),
        Part("encoder/demographics", "linear-tanh", _tanh(45, 16)),
        Part("head/pass", "linear", _head(2, 16)),
    ),
    students=12_550,
    steps=8,
    sample_rate=100_000,
    clip_norm=1_000_000,
    learning_rate=2_000_000,
    free_learning_rate=2_000_000,
    width=16,
)  # fmt: skip

RECIPES = {"digits": DIGITS, "oulad": OULAD}
