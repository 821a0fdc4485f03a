"""A proposal as the text of `dataset.toml`, with comments on what a person has still to check."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from .entries import TableEntry
from .manifest import MAX_TEXTS
from .propose import Choice, Proposal
from .sensitive import ascii_of, biometric

SIZE = 64  # pixels to which pictures are made
SHARE = 0.25
UNSTATED = "stated by nobody yet: check"
WIDE = 100  # characters of a line before its comment
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def text_of(value: str) -> str:
    """Return a text as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def number_of(value: float) -> str:
    """Return a number as TOML writes it."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


def name_of(column: str, taken: Iterable[str] = (), default: str = "column") -> str:
    """Return a name for a modality or task, which have letters, digits, - and _ alone."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_of(column)).strip("-_").lower()[:48] or default
    used, free, number = set(taken), name, 2
    while free in used:
        free, number = f"{name}-{number}", number + 1
    return free


def dataset_toml(proposal: Proposal, folder: Path, *, salt: str) -> str:
    """Return the file. `salt` is of the split."""
    persons = proposal.persons
    lines = [
        "# Written by `collegium data init`; docs/data.md explains every key. Then:",
        f"#     collegium data check {shlex.quote(str(folder)) if str(folder).isprintable() else 'FOLDER'}",
        "# Bounds, levels and classes are what you state, not what the data hold, and the same in every school of a",
        "# federation. Round numbers that are wide enough for any student of any year reveal nothing of yours.",
        "format = 1",
        "",
        *_line_with_note("[unit]", "whom privacy protects: one student, however many rows"),
        f"subject = {text_of(persons.subject)}",
        f"table = {text_of(persons.unit.entry.name)}",
    ]
    if proposal.max_records > 1:
        what = f"of a student; more are not read. {UNSTATED[0].upper()}{UNSTATED[1:]}"
        lines += _line_with_note(f"max_records = {proposal.max_records}", what)
    for look in proposal.tables:
        lines += ["", *_table(proposal, look.entry, folder)]
    lines += _modalities(proposal)
    lines += _tasks(proposal)
    lines += _groups(proposal)
    lines += [
        "",
        *_line_with_note("[split]", "who is held out, to measure on"),
        f"share = {SHARE}",
        f"salt = {text_of(salt)}",
    ]
    left = [f"{choice.seen.column!r} of {choice.seen.table}: {choice.why}" for choice in proposal.used("out")]
    left += [f"{name}: {why}" for name, why in persons.left.items()]
    if left:
        lines += ["", "# Left out:", *(f"# - {line}" for line in left)]
    return "\n".join(lines) + "\n"


def _line_with_note(line: str, note: str) -> list[str]:
    """Return a line with a comment: beside it, or above where it is long."""
    if not note:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return [f"{line:<32} # {note}"] if len(line) + len(note) < WIDE else [f"{indent}# {note}", line]


def _table(proposal: Proposal, entry: TableEntry, folder: Path) -> list[str]:
    name = entry.name if _BARE.fullmatch(entry.name) else text_of(entry.name)
    path = entry.path.relative_to(folder).as_posix()
    lines = [f"[tables.{name}]", f"path = {text_of(path)}", f"key = {text_of(proposal.persons.key)}"]
    if entry.separator != ",":
        lines.append(f"separator = {text_of(entry.separator)}")
    if entry.decimal != ".":
        lines.append(f"decimal = {text_of(entry.decimal)}")
    if entry.encoding != "utf-8":
        note = "" if entry.encoding == "utf-16" else "guessed: the file does not say. Look at words with accents"
        lines += _line_with_note(f"encoding = {text_of(entry.encoding)}", note)
    if codes := proposal.missing[entry.name]:
        lines += _line_with_note(f"missing_values = {_list(codes)}", f"they mean an empty cell; {UNSTATED}")
    return lines


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(map(text_of, words)) + "]"


def _state(choice: Choice) -> str:
    """Return the comment on a value that a person has to state."""
    notes = [UNSTATED] if choice.open else []
    seldom = choice.seen.rare and choice.levels and choice.seen.kind == "levels"
    if seldom and choice.use == "task" and not choice.stated:
        notes.append(
            "words that occur seldom are not shown (…): add those that you mean, or their students are left out"
        )
    elif seldom and not choice.stated:
        notes.append("words that occur seldom are not shown (…), and count as other")
    return "; ".join(notes)


def _column(choice: Choice) -> list[str]:
    name = text_of(choice.seen.column)
    if choice.bounds is None:
        return _line_with_note(f"    {{ name = {name}, levels = {_list(choice.levels)} }},", _state(choice))
    low, high = map(number_of, choice.bounds)
    missing = ", missing = true" if choice.seen.missing or choice.seen.unfit else ""
    return _line_with_note(f"    {{ name = {name}, low = {low}, high = {high}{missing} }},", _state(choice))


def modality_names(proposal: Proposal) -> dict[str, list[Choice]]:
    """Return the modalities by name, each with its columns: of a table, numbers and levels are one, texts another."""
    choices: dict[str, list[Choice]] = {}
    for look in proposal.tables:
        table, unit = look.entry.name, look is proposal.persons.unit
        here = [choice for choice in proposal.choices if choice.seen.table == table]
        if features := [choice for choice in here if choice.use == "feature"]:
            choices[name_of("background" if unit else table, choices)] = features
        if texts := [choice for choice in here if choice.use == "text"]:
            choices[name_of(texts[0].seen.column if len(texts) == 1 else "texts", choices, "text")] = texts
        for choice in here:
            if choice.use in {"image", "audio"}:
                choices[name_of(choice.seen.column, choices, choice.use)] = [choice]
    return choices


def _modalities(proposal: Proposal) -> list[str]:
    lines: list[str] = []
    for name, choices in modality_names(proposal).items():
        first = choices[0]
        table, time = first.seen.table, proposal.persons.joined.get(first.seen.table, "")
        kind = first.use if first.use != "feature" else "series" if time else "tabular"
        lines += ["", "[[modality]]", f"name = {text_of(name)}", f"kind = {text_of(kind)}"]
        if table != proposal.persons.unit.entry.name:
            lines.append(f"table = {text_of(table)}")
        if kind == "audio" or any(map(biometric, (name, table, *(choice.seen.column for choice in choices)))):
            note = 'a body or brain is measured: a preset\'s strictest rule. Else "personal" or "mild"'
            lines += _line_with_note('sensitivity = "biometric"', note)
        if kind == "series":
            lines.append(f"time = {text_of(time)}")
            lines += _line_with_note(f"max_len = {proposal.steps[table]}", f"rows; the last ones are kept. {UNSTATED}")
        if first.use == "feature":
            lines += ["columns = [", *(line for choice in choices for line in _column(choice)), "]"]
        elif first.use == "text":
            note = "only the beginning of a long text is read"
            lines += _line_with_note(f"columns = {_list([choice.seen.column for choice in choices])}", note)
            if order := proposal.persons.ordered.get(table):
                lines += _line_with_note(f"order = {text_of(order)}", "of a student's texts, from the oldest on")
                most = proposal.texts.get(table, min(proposal.steps[table], MAX_TEXTS // len(choices)))
                note = "of a student; the last ones are read" + ("" if table in proposal.texts else f". {UNSTATED}")
                lines += _line_with_note(f"texts = {most}", note)
        elif first.seen.kind == "pixels" and first.bounds:
            low, high = map(number_of, first.bounds)
            lines += [f"prefix = {text_of(first.seen.column)}", f"low = {low}", f"high = {high}"]
        elif first.use == "image":
            lines.append(f"file = {text_of(first.seen.column)}")
            lines += _line_with_note(f"size = {SIZE}", "pixels; invert = true where ink is dark")
        elif first.bounds:
            lines += [f"file = {text_of(first.seen.column)}"]
            lines += _line_with_note(f"rate = {first.seen.rates[0]}", "samples a second: of every institution's clips")
            lines += _line_with_note(f"max_seconds = {number_of(first.bounds[1])}", _state(first))
    return lines


def task_names(proposal: Proposal) -> dict[str, Choice]:
    """Return the tasks by name."""
    choices: dict[str, Choice] = {}
    for choice in proposal.used("task"):
        choices[name_of(choice.seen.column, choices, "task")] = choice
    return choices


def _tasks(proposal: Proposal) -> list[str]:
    lines: list[str] = []
    for name, choice in task_names(proposal).items():
        lines += ["", "[[task]]", f"name = {text_of(name)}", f"kind = {text_of(choice.task)}"]
        if choice.seen.table != proposal.persons.unit.entry.name:
            lines.append(f"table = {text_of(choice.seen.table)}")
        lines.append(f"column = {text_of(choice.seen.column)}")
        if choice.task == "binary":
            yes, no = choice.levels
            lines += _line_with_note(f"positive = {_list([yes])}", _state(choice))
            lines.append(f"negative = {_list([no])}")
        elif choice.bounds is not None:
            low, high = map(number_of, choice.bounds)
            lines += [*_line_with_note(f"low = {low}", _state(choice)), f"high = {high}"]
        else:
            order = 'kind = "ordinal" if they have an order: then from the lowest to the highest'
            note = _state(choice) if choice.task == "ordinal" else "; ".join(filter(None, (_state(choice), order)))
            lines += _line_with_note(f"classes = {_list(choice.levels)}", note)
    return lines


def _groups(proposal: Proposal) -> list[str]:
    groups = proposal.used("group")
    if not groups:
        return []
    lines = ["", *_line_with_note("[sensitive]", "groups to evaluate by, never features"), "columns = ["]
    for choice in groups:
        lines += _line_with_note(
            f"    {{ name = {text_of(choice.seen.column)}, levels = {_list(choice.levels)} }},", _state(choice)
        )
    return [*lines, "]"]
