"""`collegium data`: check a data folder, propose its dataset.toml, import public data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import OperatorError, UsageError
from ..node.words import consents, counted, of_kind
from ..protocol.bounds import MAX_INSTITUTIONS
from .data_init import init
from .files import check_picture, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home, home_of
from .output import emit, facts, progress, say, table
from .read import charter_in_force

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.data.arrays import Dataset, ModalityArray, TaskArray
    from ..node.home.paths import Home
    from ..node.pretrained.script import Script
    from ..protocol.charter import Charter

ALIKE = 5  # shown errors with the same advice

app = typer.Typer(help="An institution's data folder.", no_args_is_help=True)
app.command("init")(init)


@app.command("check")
def check(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="The folder that holds dataset.toml [the home's].")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there is any warning.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw each tabular column by label there.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read all of a data folder, as training does, and report its content and problems. Nothing is written.

    If the node's directory has a charter, the folder is compared with it, as the learner does, and the counts with the
    declarations of config.toml. Exit 3 if a cell cannot be used: training leaves its student out. Exit 2 if the node
    could not train on this folder.
    """
    from ..node.data.arrays import load
    from ..node.data.manifest import read_manifest
    from ..node.data.summary import summarise

    if plot is not None:
        check_picture(plot, ".png", force=force)
    federation = _federation(home)
    folder = folder or _own_folder(home)
    data = load(folder, tolerant=True)
    if federation is not None:
        _compare(*federation, folder, data)
    entries = read_manifest(folder).modalities
    cut = {} if federation is None else _cut(*federation, data)
    summary: dict[str, Any] = {"folder": str(folder)} | summarise(data, entries, cut)
    if federation is not None:
        summary["warnings"] = [*summary["warnings"], *_declared(*federation, summary)]
    if plot is not None:
        from ..node.data.plot import draw

        write_new(plot, [draw(data, entries)], force=force)
        summary["plot"] = str(plot)
        if not as_json:
            say(f"{plot} shows what students have: it stays in this house, as the data do.")
    emit(summary, as_json, lambda out: _show(out, summary))
    if summary["problems"]:
        raise typer.Exit(3)
    if strict and summary["warnings"]:
        raise typer.Exit(1)


def _own_folder(home: Path | None) -> Path:
    """Return the data folder of a node's directory. Raises UsageError if it names none."""
    from ..node.home import config as settings

    config = existing_home(home).config
    folder = settings.load(config).data.path
    if folder is None:
        raise UsageError(f"{config} names no data folder", "Name the folder that holds dataset.toml.")
    return folder


def _federation(home: Path | None) -> "tuple[Home, Charter] | None":
    """Return the node's directory and the charter in force there; None where there is none."""
    node_home = home_of(home)
    if home is not None:
        existing_home(home)
    if not (node_home.config.exists() and node_home.charter.exists()):
        return None
    return node_home, charter_in_force(node_home)


def _compare(home: "Home", charter: "Charter", folder: Path, data: "Dataset") -> None:
    """Compare the folder with the charter as the node's learner does. Raises UsageError."""
    from ..node.home import config as settings
    from ..node.home.declared import check_folder

    try:
        check_folder(settings.load(home.config), charter, folder, data)
    except UsageError as error:
        advice = f"{error.advice} The charter is {home.charter}."
        raise UsageError(error.message, advice.strip()) from error


def _cut(home: "Home", charter: "Charter", data: "Dataset") -> dict[str, tuple[int, int]]:
    """Return, of each text that a pretrained model here reads, the records that it reads in part and its tokens."""
    from ..node.home import config as settings
    from ..node.pretrained.find import find
    from ..node.pretrained.folder import check
    from ..node.pretrained.script import script_of
    from ..node.pretrained.tokens import cut

    folders = dict(settings.load(home.config).models.folders)
    counted: dict[str, tuple[int, int]] = {}
    for modality in charter.learning.modalities:
        array = data.modalities.get(modality.name)
        if array is None or array.texts is None or not modality.pretrained:
            continue
        (model,) = modality.pretrained
        try:
            folder = find(model.model, folders)
            check(folder, model.digest)
            task = charter.learning.writers.get(modality.name)
            if task is not None:
                counted |= _cut_to_write(script_of(folder, modality, task), array, data.tasks.get(task.name))
                continue
            long = cut(folder, array.texts[array.steps].tolist(), model.max_tokens)
        except OperatorError:
            continue  # the model is not here, or another: `doctor` says so
        if long is not None:
            at = array.steps.copy()
            at[array.steps] = long
            counted[modality.name] = (int(at.any(axis=2).sum()), model.max_tokens)
    return counted


def _cut_to_write(script: "Script", passages: "ModalityArray", task: "TaskArray | None") -> dict[str, tuple[int, int]]:
    """Return the same of a text to write from, and of the text to be written (as "task NAME")."""
    texts = passages.texts
    assert texts is not None
    read = [script.prompt(row)[1] for row in texts[passages.steps.any(axis=2)].tolist()]
    counts = {passages.name: (sum(read), script.read)}
    if task is not None and task.texts is not None:
        written = [script.answer(text)[1] for text in task.texts.reshape(-1).tolist() if text]
        counts[f"task {task.name}"] = (sum(written), script.most)
    return counts


def _declared(home: "Home", charter: "Charter", summary: dict[str, Any]) -> list[str]:
    """Return warnings where the counts are far from the declarations of config.toml."""
    from ..node.home import config as settings
    from ..node.home.declared import data_warnings

    labels = {task["name"]: task["labelled"] for task in summary["tasks"]}
    warnings = data_warnings(settings.load(home.config), charter, summary["subjects"], labels)
    return [f"{what}. {advice}" for what, advice in warnings]


def _show(out: "Console", summary: dict[str, Any]) -> None:
    records = summary["records_per_subject"]
    facts(
        out,
        [
            ("folder", summary["folder"]),
            ("subjects", f"{summary['subjects']}, {summary['held_out_subjects']} of them held out"),
            ("records", f"{summary['records']}, {summary['held_out_records']} of them held out"),
            (
                "for each subject",
                counted(records["max"], "record")
                if records["min"] == records["max"]
                else f"{records['min']} to {counted(records['max'], 'record')}, median {records['median']:g}",
            ),
            ("filtered", f"{counted(summary['filtered_records'], 'record does', 'records do')} not pass keep"),
            ("empty rows", ", ".join(f"{number} in {name}" for name, number in summary["empty_rows"].items()) or "0"),
            ("left out", f"{summary['left_out_subjects']} with a cell that cannot be used"),
            *([("consent", consents(summary["consents"]))] if summary["consents"] else []),
        ],
    )
    out.print()
    rows = [
        (
            m["name"],
            of_kind(m["kind"], m["sensitivity"]),
            m["width"] or None,
            m["length"],
            m["present"],
            m["missing"],
            f"{m['mean_steps']:g}",
        )
        for m in summary["modalities"]
    ]
    table(out, ("modality", "kind", "width", "length", "present", "missing", "mean steps"), rows, empty="")
    out.print()
    tasks = [
        (task["name"], task["kind"], task["labelled"], task["labelled_held_out"], _classes(task))
        for task in summary["tasks"]
    ]
    table(out, ("task", "kind", "labelled", "held out", "classes"), tasks, empty="")
    cells = [
        (
            group["name"],
            cell["level"],
            cell["records"],
            cell["held_out"],
            cell["held_out_subjects"],
            "too small to report" if cell["too_small"] else "",
        )
        for group in summary["groups"]
        for cell in group["cells"]
        if cell["records"]
    ]
    if cells:
        out.print()
        table(out, ("group", "level", "records", "held out", "subjects held out", ""), cells, empty="")
    columns = [
        (
            column["column"],
            column["use"],
            column["values"],
            _words(column["missing"], column["missing_words"]),
            column["unreadable"],
            _words(column["other"], column["words"]),
            column["below"],
            column["above"],
        )
        for column in summary["columns"]
        if any(column[what] for what in ("missing", "unreadable", "other", "below", "above"))
    ]
    if columns:
        out.print()
        names = ("column", "of", "values", "empty", "unreadable", "not declared", "below low", "above high")
        table(out, names, columns, empty="")
    for warning in summary["warnings"]:
        out.print(f"warning: {warning}")
    alike: dict[str, list[str]] = {}
    for problem in summary["problems"]:
        alike.setdefault(problem["advice"], []).append(problem["text"])
    shown = 0
    for advice, texts in alike.items():
        for text in texts[:ALIKE]:
            out.print(f"error: {text}. {advice}")
        shown += len(texts[:ALIKE])
    if summary["problem_count"] > shown:
        out.print(
            f"error: {summary['problem_count'] - shown} more such cells (--json lists {len(summary['problems'])})"
        )
    out.print()
    out.print(_verdict(summary))


def _verdict(summary: dict[str, Any]) -> str:
    errors, warnings = summary["problem_count"], len(summary["warnings"])
    if errors:
        count = summary["left_out_subjects"]
        left = f"as the folder is now, training leaves out {counted(count, 'subject')}."
        return f"Errors: {errors}, warnings: {warnings}. Correct the errors: {left}"
    if warnings:
        return f"No errors, warnings: {warnings}. A node can train on this folder; read the warnings before."
    return "No errors, no warnings: a node can train on this folder."


def _words(count: int, words: list[tuple[str, int]]) -> str:
    return f"{count}" + (": " + ", ".join(f"{word} {number}" for word, number in words) if words else "")


def _classes(task: dict[str, Any]) -> str:
    if task["kind"] == "regression":
        mean = "" if task["mean"] is None else f", mean {task['mean']:.4g}"
        return f"{task['low']:g} to {task['high']:g}{mean}"
    shown = [f"{name} {count}" for name, count in list(task["counts"].items())[:8]]
    left = len(task["counts"]) - len(shown)
    return ", ".join(shown) + (f", and {left} more" if left else "")


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="oulad, sra, saf, onestopenglish, omniglot, fsdd, eeg.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder with the source's own files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write; must be empty or not exist.")],
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="How to split into institutions. oulad: module, region, four, presentation; sra: group, module.",
        ),
    ] = "",
    institutions: Annotated[
        int,
        typer.Option(
            "--institutions",
            metavar="N",
            min=0,
            max=MAX_INSTITUTIONS,
            help="Number of institutions (onestopenglish, omniglot, fsdd, eeg).",
        ),
    ] = 0,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="How to hold out. oulad: student, presentation; sra: official, student; fsdd: speaker, index.",
        ),
    ] = "",
    unit: Annotated[
        str, typer.Option("--unit", help="The unit of privacy. omniglot: drawer, record; fsdd: speaker, record.")
    ] = "",
    test: Annotated[
        str, typer.Option("--test", help="The official test part of sra: unseen-answers, unseen-questions.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Turn a public data set into data folders, one for each institution. All of them are written, or none."""
    from ..node.data.importers.common import Options
    from ..node.data.importers.registry import run_import

    options = Options(by=by, test=test, split=split, unit=unit, institutions=institutions)
    with progress(as_json) as step:
        made = run_import(name, source, out, options, step or (lambda _what, _done, _total: None))
    result = {
        "importer": name,
        "institutions": [{"name": institution, "folder": str(folder)} for institution, folder in made],
    }
    rows = [(institution, str(folder)) for institution, folder in made]
    emit(result, as_json, lambda console: table(console, ("institution", "folder"), rows, empty=""))
    if not as_json:
        say(f"Look at each, beginning with `collegium data check {made[0][1]}`.")
