"""`collegium data`: check a data folder, propose its dataset.toml, import public data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..node.words import counted
from ..protocol.bounds import MAX_INSTITUTIONS
from .data_init import init
from .files import check_picture, write_new
from .options import HomeOption, JsonOption, existing_home, home_of
from .output import emit, facts, progress, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.data.arrays import Dataset
    from ..node.home.paths import Home
    from ..protocol.charter import Charter

ALIKE = 5  # shown errors with the same advice

app = typer.Typer(help="An institution's data folder.", no_args_is_help=True)
app.command("init")(init)


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that holds dataset.toml.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there is any warning.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw each tabular column by label there.")
    ] = None,
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
        check_picture(plot, ".png")
    known = _federation(home)
    data = load(folder, tolerant=True)
    if known is not None:
        _compare(*known, folder, data)
    entries = read_manifest(folder).modalities
    found: dict[str, Any] = {"folder": str(folder)} | summarise(data, entries)
    if known is not None:
        found["warnings"] = [*found["warnings"], *_declared(*known, found)]
    if plot is not None:
        from ..node.data.plot import draw

        write_new(plot, [draw(data, entries)])
        found["plot"] = str(plot)
        if not as_json:
            say(f"{plot} shows what students have: it stays in this house, as the data do.")
    emit(found, as_json, lambda out: _show(out, found))
    if found["problems"]:
        raise typer.Exit(3)
    if strict and found["warnings"]:
        raise typer.Exit(1)


def _federation(home: Path | None) -> "tuple[Home, Charter] | None":
    """Return the node's directory and its charter; None where there is none."""
    from ..node.verify import read_charter

    place = home_of(home)
    if home is not None:
        existing_home(home)
    if not (place.config.exists() and place.charter.exists()):
        return None
    return place, read_charter(place.charter)[0]


def _compare(place: "Home", charter: "Charter", folder: Path, data: "Dataset") -> None:
    """Compare the folder with the charter as the node's learner does. Raises UsageError."""
    from ..node.home import config as settings
    from ..node.home.declared import check_folder

    try:
        check_folder(settings.load(place.config), charter, folder, data)
    except UsageError as error:
        advice = f"{error.advice} The charter is {place.charter}."
        raise UsageError(error.message, advice.strip()) from error


def _declared(place: "Home", charter: "Charter", found: dict[str, Any]) -> list[str]:
    """Return warnings where the counts are far from the declarations of config.toml."""
    from ..node.home import config as settings
    from ..node.home.declared import data_warnings

    labels = {task["name"]: task["labelled"] for task in found["tasks"]}
    warnings = data_warnings(settings.load(place.config), charter, found["subjects"], labels)
    return [f"{what}. {advice}" for what, advice in warnings]


def _show(out: "Console", found: dict[str, Any]) -> None:
    each = found["records_per_subject"]
    facts(
        out,
        [
            ("folder", found["folder"]),
            ("subjects", f"{found['subjects']}, {found['held_out_subjects']} of them held out"),
            ("records", f"{found['records']}, {found['held_out_records']} of them held out"),
            ("for each subject", f"{each['min']} to {counted(each['max'], 'record')}, median {each['median']:g}"),
            ("filtered", f"{counted(found['filtered_records'], 'record does', 'records do')} not pass keep"),
            ("empty rows", ", ".join(f"{number} in {name}" for name, number in found["empty_rows"].items()) or "0"),
            ("left out", f"{found['left_out_subjects']} with a cell that cannot be used"),
        ],
    )
    out.print()
    rows = [
        (m["name"], m["kind"], m["width"] or None, m["length"], m["present"], m["missing"], f"{m['mean_steps']:g}")
        for m in found["modalities"]
    ]
    table(out, ("modality", "kind", "width", "length", "present", "missing", "mean steps"), rows, empty="")
    out.print()
    tasks = [
        (task["name"], task["kind"], task["labelled"], task["labelled_held_out"], _classes(task))
        for task in found["tasks"]
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
        for group in found["groups"]
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
        for column in found["columns"]
        if any(column[what] for what in ("missing", "unreadable", "other", "below", "above"))
    ]
    if columns:
        out.print()
        names = ("column", "of", "values", "empty", "unreadable", "not declared", "below low", "above high")
        table(out, names, columns, empty="")
    for warning in found["warnings"]:
        out.print(f"warning: {warning}")
    alike: dict[str, list[str]] = {}
    for problem in found["problems"]:
        alike.setdefault(problem["advice"], []).append(problem["text"])
    shown = 0
    for advice, texts in alike.items():
        for text in texts[:ALIKE]:
            out.print(f"error: {text}. {advice}")
        shown += len(texts[:ALIKE])
    if found["problem_count"] > shown:
        out.print(f"error: {found['problem_count'] - shown} more such cells (--json lists {len(found['problems'])})")
    out.print()
    out.print(_verdict(found))


def _verdict(found: dict[str, Any]) -> str:
    errors, warnings = found["problem_count"], len(found["warnings"])
    if errors:
        count = found["left_out_subjects"]
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="oulad, sra, onestopenglish, omniglot or fsdd.")],
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
            help="Number of institutions (onestopenglish, omniglot, fsdd).",
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
    found = {"importer": name, "institutions": [{"name": each, "folder": str(folder)} for each, folder in made]}
    rows = [(each, str(folder)) for each, folder in made]
    emit(found, as_json, lambda console: table(console, ("institution", "folder"), rows, empty=""))
    if not as_json:
        say("Look at each with `collegium data check FOLDER`.")
