"""`collegium data init`: a dataset.toml, from what the tables of a folder hold and what a person states."""

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..node.words import counted
from .data_asking import proposal_by_asking
from .data_words import SHOWN, absent, absent_text, described, split
from .files import check_new, write_new
from .options import ForceOption, JsonOption
from .output import emit, facts, progress, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.data.look import Look
    from ..node.data.propose import Choice, Proposal


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that holds your tables.")],
    key: Annotated[str, typer.Option("--key", metavar="COLUMN", help="The column that names a student.")] = "",
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="COLUMN", help="A column to predict; or COLUMN=WORD,WORD, of two words the first is yes."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="A column to leave out.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: write what is proposed, marked to be checked.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write there [FOLDER/dataset.toml].")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Propose a dataset.toml from the tables of a folder, ask for bounds, levels and tasks, and write it.

    Nothing is fitted to the data: bounds are what you state. What was seen is shown here, in round steps. A file that
    is there is replaced only with --force.
    """
    from ..node.data.dataset_toml import dataset_toml
    from ..node.data.manifest import MANIFEST, parse_manifest
    from ..node.data.survey import survey

    file = out or folder / MANIFEST
    if folder.is_dir():
        check_new(file, force=force)
    with progress(as_json) as step:
        surveyed = survey(folder, step or (lambda _what, _done, _total: None))
    tasks = dict(_task_stated(surveyed.looks, column) for column in task or ())
    if yes:
        proposal = _proposed(surveyed.looks, key, tasks, ignore or ())
    elif sys.stdin.isatty():
        proposal = proposal_by_asking(surveyed.looks, key, tasks, ignore or ())
    else:
        raise _nobody(surveyed.looks, key, tasks, ignore or ())
    proposal.persons.left.update(surveyed.left)
    _sound(proposal)
    text = dataset_toml(proposal, folder, salt=str(date.today().year))
    parse_manifest(text, folder)  # never write what `data check` would refuse
    write_new(file, [text.encode()], force=force)
    answer = _answer(proposal, folder, file)
    emit(answer, as_json, lambda console: _show(console, proposal, answer))
    if not as_json:
        unstated = sum(choice.open for choice in proposal.choices)
        if unstated:
            say(f"{unstated} bounds, levels or classes are stated by nobody yet: look at each in {file}.")
        there = file.parent.resolve() == folder.resolve() and file.name == MANIFEST
        first = "" if there else f"copy it to {folder / MANIFEST}, then "
        say(f"Next: {first}`collegium data check {folder}`. docs/data.md explains every key.")


def _task_stated(looks: "Sequence[Look]", text: str) -> tuple[str, tuple[str, ...]]:
    """Return a task's column, and its words where they are stated."""
    from ..node.data.spelling import clean

    if any(look.seen(clean(text)) for look in looks) or "=" not in text:
        return text, ()
    column, _, words = text.rpartition("=")
    return column, tuple(split(words))


def _proposed(
    looks: "Sequence[Look]", key: str, tasks: dict[str, tuple[str, ...]], ignore: Sequence[str]
) -> "Proposal":
    from ..node.data.propose import label_candidates, propose

    proposal = propose(looks, key, tasks, ignore)
    if not tasks:
        likely = label_candidates(proposal)
        sounds = f" {' and '.join(likely)} may be meant." if likely else ""
        raise UsageError("no column is named as the one to predict", f"Name each: --task COLUMN.{sounds}")
    return proposal


def _nobody(looks: "Sequence[Look]", key: str, tasks: dict[str, tuple[str, ...]], ignore: Sequence[str]) -> UsageError:
    """Return the error where nobody can be asked, with the questions."""
    from ..node.data.propose import label_candidates, propose

    proposal = propose(looks, key, tasks, ignore)
    asked = [] if key else [f"which column names a student ({proposal.persons.subject}?)"]
    if not tasks:
        likely = " or ".join(label_candidates(proposal))
        asked.append(f"which columns are to be predicted{f' ({likely}?)' if likely else ''}")
    bounds = [choice.seen.column for choice in proposal.choices if choice.open and choice.bounds]
    levels = [choice.seen.column for choice in proposal.choices if choice.open and choice.levels]
    asked += [f"the bounds of {', '.join(bounds)}"] if bounds else []
    asked += [f"the words of {', '.join(levels)}"] if levels else []
    advice = (
        "Give --yes and each --task COLUMN to have what is proposed written, marked to be checked. Nothing was done."
    )
    return UsageError(f"There is no terminal to ask at: {'; '.join(asked)}", advice)


def _sound(proposal: "Proposal") -> None:
    from ..node.data.propose import check_something_left, label_candidates

    check_something_left(proposal)
    proposal.notes += [
        f"{column} sounds like a label, and is a feature: --ignore it if it is known only when the task's label is"
        for column in label_candidates(proposal)
    ]
    for choice in proposal.used("feature", "task", "group"):
        if choice.stated and choice.levels and (found := absent(proposal.look(choice), choice, choice.levels)):
            proposal.notes.append(absent_text(choice, choice.levels, found))
    for choice in proposal.used("task"):
        if choice.stated and choice.levels:
            others = proposal.look(choice).others(choice.seen.column, choice.levels)
            if others:
                proposal.notes.append(
                    f"{choice.seen.column}: {counted(others, 'cell holds another word', 'cells hold other words')} than"
                    f" {', '.join(choice.levels)}: their students would be left out. Name every word, or correct them"
                )
    proposal.notes += [
        f"{choice.seen.column}: {counted(choice.seen.unfit, 'cell is no number', 'cells are no numbers')}; `data check`"
        " names each"
        for choice in proposal.used("feature", "task")
        if choice.bounds and choice.seen.unfit
    ]
    proposal.notes += [
        f"{choice.seen.column}: {counted(choice.seen.rare_cells, 'cell holds a rare word', 'cells hold rare words')},"
        " not declared"
        for choice in proposal.used("feature", "task", "group")
        if choice.levels and choice.seen.rare and choice.seen.kind == "levels" and not choice.stated
    ]


def _answer(proposal: "Proposal", folder: Path, file: Path) -> dict[str, Any]:
    persons = proposal.persons
    return {
        "folder": str(folder),
        "file": str(file),
        "unit": {"table": persons.unit.entry.name, "subject": persons.subject, "max_records": proposal.max_records},
        "tables": [
            {
                "name": look.entry.name,
                "path": look.entry.path.name,
                "key": persons.key,
                "rows": look.table.rows,
                "separator": look.entry.separator,
                "decimal": look.entry.decimal,
                "encoding": look.entry.encoding,
            }
            for look in proposal.tables
        ],
        "columns": [
            {
                "table": choice.seen.table,
                "column": choice.seen.column,
                "here": described(choice.seen),
                "use": choice.use,
                "kind": choice.task,
                "why": choice.why,
                "low": choice.bounds[0] if choice.bounds else None,
                "high": choice.bounds[1] if choice.bounds else None,
                "levels": list(choice.levels),
                "stated": not choice.open,
            }
            for choice in proposal.choices
        ],
        "left_out": [{"file": name, "why": why} for name, why in persons.left.items()],
        "notes": proposal.notes,
        "next": f"collegium data check {folder}",
    }


def _show(out: "Console", proposal: "Proposal", answer: dict[str, Any]) -> None:
    unit = answer["unit"]
    facts(
        out,
        [
            ("written", answer["file"]),
            ("tables", ", ".join(f"{written['path']} ({_written(written)})" for written in answer["tables"])),
            ("a student is", f"{unit['subject']} of table {unit['table']}"),
        ],
    )
    out.print()
    rows = [
        (choice.seen.table, choice.seen.column, described(choice.seen), _use(choice)) for choice in proposal.choices
    ]
    table(out, ("table", "column", "here", "becomes"), rows, empty="")
    for left in answer["left_out"]:
        out.print(f"left out: {left['file']}: {left['why']}")
    for note in answer["notes"]:
        out.print(f"note: {note}")


def _written(entry: dict[str, Any]) -> str:
    if not entry["path"].endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        return counted(entry["rows"], "row")
    sign = {"\t": "tab"}.get(entry["separator"], entry["separator"])
    return f"{counted(entry['rows'], 'row')}; separator {sign} decimal {entry['decimal']} encoding {entry['encoding']}"


def _use(choice: "Choice") -> str:
    from ..node.data.dataset_toml import number_of

    if choice.use == "out":
        return f"left out: {choice.why}"
    words = {"key": "the key", "subject": "the student", "time": "the order of rows", "group": "a group to evaluate by"}
    text = words.get(choice.use, choice.use if choice.use != "task" else f"task, {choice.task}")
    if choice.bounds:
        text += f", {number_of(choice.bounds[0])} to {number_of(choice.bounds[1])}"
    elif choice.levels:
        more = len(choice.levels) - SHOWN
        text += f": {', '.join(choice.levels[:SHOWN])}" + (f" and {more} more" if more > 0 else "")
    return text
