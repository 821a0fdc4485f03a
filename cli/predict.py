"""`collegium predict`: predictions of the federation's model for records in this institution's data layout."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, assert_never

import typer

from ..crypto.errors import UsageError
from ..node.words import counted
from ..protocol.bounds import MAX_SEED
from ..protocol.component_names import ComponentKind, of_kind
from .files import check_new, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import Progress, emit, progress, say

if TYPE_CHECKING:
    from ..node.home.paths import Home
    from ..node.learner.answers import HomeLayer, Predicted, TaskPrediction, TaskReport
    from ..node.learner.messages import Predict
    from ..node.verify import Model

DRAFT = "draft for a teacher"
UNSURE = ("regression", "generate")  # they have no probabilities
DIGITS = 6  # decimals of a probability or a value, in the table all of them: 0.000034, never 3.4e-05
OPENING = "starting a learner on the own data"
PREDICTING = "predicting"
EVALUATING = "evaluating on the own held-out records"


def predict(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet with the columns of the unit table.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT.csv", help="Write there instead of standard output.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="T", help="Only this task.")] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="By the shared model alone, without this institution's home layer.")
    ] = False,
    tenure_mean: Annotated[
        bool, typer.Option("--tenure-mean", help="By the mean of the states at the end of each member's tenure.")
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="SEED", min=0, max=MAX_SEED, help="Write texts by chance, from this seed."),
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict every task for the records of a file, with the last certified states. A daemon may run or not."""
    from ..node.learner.messages import Predict
    from ..node.metrics import nearly_certain
    from ..node.verify import home_model, tenure_means
    from ..node.views.worth import certain, no_better, too_certain

    node_home = existing_home(home)
    if not file.exists():
        raise UsageError(f"There is no {file}", "Name a CSV or Parquet file.")
    if not (file.is_file() or file.is_dir()):
        advice = "Name a CSV or Parquet file. What comes through a pipe or from a device, write into a file first."
        raise UsageError(f"{file} is neither a file nor a folder", advice)
    if out is not None:
        check_new(out, force=force)
    with progress(as_json) as step:
        model = home_model(node_home, from_bytes=False, progress=step)
        if not model.trained:
            raise UsageError("No round is closed yet: there are no states", "Wait for the first round: `round list`.")
        learning = model.report.charter.learning
        written = [task.name for task in learning.writers.values() if task.carrier in model.components]
        tasks = sorted([*of_kind(ComponentKind.HEAD, model.components), *written])
        if task is not None and task not in tasks:
            raise UsageError(f"there is no task {task!r} here", f"Known here: {', '.join(tasks)}.")
        if sample is not None and not ({task} if task is not None else set(tasks)) & set(written):
            raise UsageError("--sample, and no text is written", "Leave it out.")
        memories = tenure_means(node_home, model, progress=step) if tenure_mean else {}
        used = {name: (memories[name] if memories else c).state for name, c in model.components.items()}
        states = {name: state.astype("<i4").tobytes() for name, state in used.items()}
        request = Predict(states, str(file.absolute()), not shared, task, sample)
        answer, own = _ask(node_home, model, request, step)
    chosen = {name: answer.tasks[name] for name in sorted(answer.tasks)}
    columns, rows = _table(answer.records, chosen)
    missing = _records_without(answer)
    result: dict[str, Any] = {
        "records": len(rows),
        "home_layer": {name: asdict(layer) for name, layer in sorted(answer.home_layer.items())},
        "block": {"height": model.report.ledger.height, "id": model.report.ledger.block.hex()},
        "components": {
            name: {"round": c.round, "generation": c.generation, "digest": c.digest.hex(), "state": c.label}
            for name, c in model.components.items()
        },
        "missing": missing,
        "without_consent": answer.without_consent,
        "held_out": {name: own[name].n for name in chosen if name in own},
        "no_better": {name: why for name in chosen if name in own and (why := no_better(own[name].metrics))},
        "certain": {
            name: certain(prediction.scores) for name, prediction in chosen.items() if prediction.kind not in UNSURE
        },
        "nearly_certain": {
            name: nearly_certain(prediction.scores)
            for name, prediction in chosen.items()
            if prediction.kind not in UNSURE
        },
    }
    seats = model.report.ledger.roll.seats
    if memories:
        result["tenure_mean"] = {
            name: {
                "digest": memory.digest.hex(),
                "ends": [{"name": seats[key].name, "key": key.hex(), "round": memory.ends[key]} for key in memory.ends],
            }
            for name, memory in memories.items()
        }
    drafts = [name for name in chosen if name in written]
    if drafts:
        result["drafts"] = dict.fromkeys(drafts, DRAFT)
    if not as_json:
        for name in drafts:
            say(f"{name}: each text is a {DRAFT}. It can be wrong, and may repeat a student's error as a fact.")
        for name, c in model.components.items():
            say(f"{name}: round {c.round}, generation {c.generation}, {c.label}, digest {c.digest.hex()[:16]}")
        for name, memory in memories.items():
            ends = ", ".join(sorted(f"{seats[key].name} round {number}" for key, number in memory.ends.items()))
            what = f"the mean of the states at the end of tenures ({ends})" if ends else "the state itself"
            say(f"{name}: {what}, digest {memory.digest.hex()[:16]}")
        if answer.without_consent:
            say(f"{counted(answer.without_consent, 'student is', 'students are')} not predicted: they do not consent")
        for name in chosen:
            say(f"{name}: {_at_home(answer.home_layer.get(name))}")
        for name, count in missing.items():
            where = "all" if count == len(rows) else f"{count} of {len(rows)}"
            say(f"{name}: missing in {where} records")
        for name, reasons in result["no_better"].items():
            say(f"warning: {name} is no better than a constant on the held-out records here: {'; '.join(reasons)}")
        for name, count in result["nearly_certain"].items():
            if doubt := too_certain(count, len(rows), name):
                say(f"warning: {doubt}")
    separator, decimal, encoding = _spelling(node_home)
    if out is not None:
        text = io.StringIO(newline="")
        _write(text, columns, rows, separator, decimal)
        write_new(out, [text.getvalue().encode(encoding)], force=force)
    elif not as_json:
        _write(sys.stdout, columns, rows, separator, decimal)
    if as_json:
        result |= (
            {"out": str(out)}
            if out is not None
            else {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}
        )
        emit(result, as_json, lambda _: None)


def _ask(
    home: "Home", model: "Model", request: "Predict", progress: Progress | None
) -> "tuple[Predicted, dict[str, TaskReport]]":
    """Return the predictions, and the evaluation of the tasks on this node's own held-out records."""
    from ..node.learner.messages import Evaluate
    from .learners import own_learner

    def step(what: str, done: int = 0) -> None:
        if progress is not None:
            progress(what, done, done)  # its duration is unknown

    advice = "Set [data] path: its dataset.toml says what the columns of a file mean."
    step(OPENING)
    from ..node.home import config as settings

    at_home = request.home_layer and settings.load(home.config).learning.home_layer
    request = replace(request, home_layer=at_home)
    with own_learner(home, model, advice, home_layer=at_home) as learner:
        step(OPENING, 1)
        step(PREDICTING)
        if progress is not None:
            learner.told = lambda done, total: progress(PREDICTING, done, total)
        answer = learner.ask(request)
        learner.told = None
        step(PREDICTING, 1)
        step(EVALUATING)
        own = learner.ask(Evaluate(request.states, home_layer=at_home))
        return answer, {**own.tasks, **own.home_layer}


def _at_home(layer: "HomeLayer | None") -> str:
    """Return which model a task is predicted by, in words."""
    from ..node.learner.answers import MIN_RECALIBRATED, MIN_STACKED

    if layer is None:
        return "by the shared model alone"
    own = f"{layer.students} own students with a label"
    match layer.form:
        case "stacked":
            return f"with the home layer, which learned from {own}"
        case "recalibrated" if layer.students < MIN_STACKED:
            return f"recalibrated by {own}; the home layer learns more from {MIN_STACKED} on"
        case "recalibrated":
            return f"recalibrated by {own}; more of the home layer was no better"
        case "adapted":
            return f"by a private adapter, which learned from {layer.students} own students"
        case "" if layer.students < MIN_RECALIBRATED:
            return f"by the shared model alone: {own}, and the home layer needs {MIN_RECALIBRATED}"
        case "":
            return f"by the shared model alone: a home layer of {own} was no better"
        case _:
            assert_never(layer.form)


def _records_without(answer: "Predicted") -> dict[str, int]:
    """Return the number of records without each modality, where there are any."""
    count = len(answer.records)
    without = {name: count - there for name, there in answer.modalities.items()}
    return {name: lacking for name, lacking in without.items() if lacking}


def _table(records: Sequence[str], tasks: "Mapping[str, TaskPrediction]") -> tuple[list[str], list[list[object]]]:
    """Return columns and rows: the record, and for each task the prediction and the probability of each class."""
    columns = ["record"]
    for name, prediction in tasks.items():
        if prediction.texts:
            columns.append(f"{name} ({DRAFT})")
            continue
        columns += [name, *(f"{name}:{label}" for label in prediction.classes)]
    rows: list[list[object]] = [[record] for record in records]
    for prediction in tasks.values():
        if prediction.texts:
            for row, text in zip(rows, prediction.texts, strict=True):
                row.append(text)
            continue
        for row, scores in zip(rows, prediction.scores, strict=True):
            if prediction.kind == "regression":
                row.append(round(scores[0], DIGITS))
                continue
            row += [_predicted_label(prediction, scores), *(round(score, DIGITS) for score in scores)]
    return columns, rows


def _predicted_label(prediction: "TaskPrediction", scores: Sequence[float]) -> str:
    classes = prediction.classes
    if prediction.kind == "multilabel":
        return ";".join(label for label, score in zip(classes, scores, strict=True) if score > 0.5)
    return str(classes[scores.index(max(scores))])


def _spelling(home: "Home") -> tuple[str, str, str]:
    """Return the separator and the decimal sign that dataset.toml declares for the unit table, and the file's encoding.

    That is UTF-8, with the mark by which spreadsheets recognise it where the table itself is in another encoding.
    """
    from ..node.data.manifest import MANIFEST, read_manifest
    from ..node.home import config as settings

    folder = settings.load(home.config).data.path
    if folder is None or not (folder / MANIFEST).exists():  # an operator's own learner may read other formats
        return ",", ".", "utf-8"
    manifest = read_manifest(folder)
    unit = manifest.tables[manifest.unit_table]
    return unit.separator, unit.decimal, "utf-8" if unit.encoding == "utf-8" else "utf-8-sig"


def _write(stream: TextIO, columns: list[str], rows: list[list[object]], separator: str, decimal: str) -> None:
    writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [f"{cell:.{DIGITS}f}".replace(".", decimal) if isinstance(cell, float) else cell for cell in row]
        for row in rows
    )
