"""A data folder's contents in figures, with warnings for its owner before training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError
from ..store.observations import MIN_CELL
from ..words import counted
from .arrays import Dataset, GroupArray, ModalityArray, TaskArray
from .entries import ModalityEntry
from .leaks import teach_nothing
from .pieces import pieces
from .problems import ColumnCount, Problem
from .spelling import alike, near_ids

NAMED = 20  # groups of ids that are named
REPEATS = 5  # repeated rows that are named
READ = 126  # words and signs of a text that are read at most: a pretrained model reads 128 tokens, two of them its own
# Words that spreadsheets of schools have in place of an id in a last row.
TOTALS = frozenset({
    "total", "totals", "sum", "average", "mean", "summe", "gesamt", "insgesamt", "mittelwert", "durchschnitt", "somme",
    "moyenne", "suma", "media", "totale", "razem", "średnia", "totaal", "gemiddelde",
})  # fmt: skip


def summarise(
    data: Dataset, entries: Sequence[ModalityEntry] = (), cut: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Any]:
    """Return counts of subjects, records, modalities, tasks and groups, and `warnings`, as plain values for JSON.

    `cut` has the texts whose tokens a model counted: the records that are read in part, and the tokens that are read.
    Those to be written are there as "task NAME".
    Of the modalities that `entries` declare each column is looked at: whether it teaches anything.
    """
    if not data.subjects:
        raise UsageError("nobody consents", f"{_consents(data)}: docs/data.md says which columns and words count.")
    there = data.weights > 0
    per_subject = there.sum(axis=1)
    unfit = _wholly_outside(data.findings.columns.values())
    declared = {entry.name: entry.sensitivity for entry in entries}
    return {
        "subjects": len(data.subjects),
        "records": int(there.sum()),
        "records_per_subject": {
            "min": int(per_subject.min()),
            "median": float(np.median(per_subject)),
            "max": int(per_subject.max()),
        },
        "held_out_subjects": int(data.held_out.sum()),
        "held_out_records": int(per_subject[data.held_out].sum()),
        "unread_records": data.unread,
        "filtered_records": data.filtered,
        "modalities": [
            _modality(modality, int(there.sum())) | {"sensitivity": declared.get(modality.name) or None}
            for modality in data.modalities.values()
        ],
        "tasks": [_task(task, data) for task in data.tasks.values()],
        "groups": [_group(group, data) for group in data.groups.values()],
        "left_out_subjects": len(data.left_out),
        "consents": data.consents,
        "empty_rows": dict(data.findings.empty_rows),
        "columns": [asdict(column) for column in data.findings.columns.values()],
        "near_ids": [list(group) for group in near_ids(data.everybody)],
        "problems": [asdict(problem) for problem in (*data.findings.problems, *data.findings.clashes.values(), *unfit)],
        "problem_count": data.findings.number + len(data.findings.clashes) + len(unfit),
        "warnings": [*_warnings(data, cut or {}), *teach_nothing(data, entries)],
    }


def _consents(data: Dataset) -> str:
    return ", ".join(f"{name} {number}" for name, number in (data.consents or {}).items())


def _modality(modality: ModalityArray, records: int) -> dict[str, Any]:
    present = modality.steps.any(axis=2)
    steps = modality.steps.sum(axis=2)[present]
    return {
        "name": modality.name,
        "kind": modality.kind,
        "width": modality.width,
        "length": modality.length,
        "present": int(present.sum()),
        "missing": records - int(present.sum()),
        "mean_steps": round(float(steps.mean()), 2) if steps.size else 0.0,
    }


def _task(task: TaskArray, data: Dataset) -> dict[str, Any]:
    labelled = _is_labelled(task)
    summary = {
        "name": task.name,
        "kind": task.kind,
        "classes": task.classes,
        "labelled": int(labelled.sum()),
        "labelled_held_out": int(labelled[data.held_out].sum()),
        "counts": dict(zip(task.class_names, _counts(task), strict=True)),
    }
    if task.kind == "regression":
        values = (task.labels[labelled] + 1.0) / 2.0 * (task.high - task.low) + task.low
        summary |= {"low": task.low, "high": task.high, "mean": float(values.mean()) if values.size else None}
    return summary


def _is_labelled(task: TaskArray) -> npt.NDArray[np.bool_]:
    return np.asarray(~np.isnan(task.labels).any(axis=2), dtype=np.bool_)


def _counts(task: TaskArray) -> list[int]:
    """Return how many records each class has; for multilabel they overlap."""
    if task.kind in {"regression", "generate"}:
        return []
    labels = task.labels[_is_labelled(task)]
    if task.kind == "multilabel":
        return [int(number) for number in labels.sum(axis=0)]
    return [int(number) for number in np.bincount(labels[:, 0].astype(np.int64), minlength=task.classes)]


def _group(group: GroupArray, data: Dataset) -> dict[str, Any]:
    there = data.weights > 0
    held_out = there & data.held_out[:, None]
    cells = []
    for number, level in enumerate(group.levels):
        inside = group.codes == number
        few = int((inside & held_out).any(axis=1).sum())  # subjects, as evaluation counts them
        cells.append({"level": level, "records": int((inside & there).sum()),
                      "held_out": int((inside & held_out).sum()), "held_out_subjects": few,
                      "too_small": few < MIN_CELL})  # fmt: skip
    return {"name": group.name, "cells": cells, "unknown": int(((group.codes < 0) & there).sum())}


def near_warnings(data: Dataset) -> list[str]:
    """Name ids that may be one person, written in several ways."""
    groups = near_ids(data.everybody)
    warnings = [
        f"the ids {', '.join(map(repr, group))} differ in case, leading zeros or form only: if they are one person,"
        " write them in one way; until then each has a privacy budget of its own"
        for group in groups[:NAMED]
    ]
    left = len(groups) - NAMED
    return warnings + ([f"{left} more groups of ids differ in case, leading zeros or form only"] if left > 0 else [])


def _all_clamped(column: ColumnCount) -> bool:
    return column.values > 1 and column.below + column.above == column.values


def _wholly_outside(columns: Iterable[ColumnCount]) -> list[Problem]:
    """Return the columns of which no number is within its bounds: clamped, they say nothing. It cannot be meant."""
    return [
        Problem(
            f"column {column.column!r} of table {column.table!r} ({column.use}): all {column.values} numbers are"
            f" outside the declared bounds ({column.below} below low, {column.above} above high)",
            "Every number would be clamped to a bound. Correct low and high, or the unit of the column.",
        )
        for column in columns
        if _all_clamped(column)
    ]


def _of_columns(columns: Iterable[ColumnCount]) -> list[str]:
    warnings = []
    for column in columns:
        where = f"column {column.column!r} of table {column.table!r} ({column.use})"
        for value, number in column.sentinels:
            warnings.append(
                f"{where}: {value} occurs {counted(number, 'time')} outside the bounds and looks like a code for no"
                " value: empty these cells, or name it in missing_values of the table"
            )
        coded = sum(number for _, number in column.sentinels)
        if column.below + column.above > coded and not _all_clamped(column):
            warnings.append(f"{where}: {column.below} below low and {column.above} above high, which are clamped")
        if column.values and column.other == column.values:
            cells = counted(column.values, "cell that is filled holds", "cells that are filled hold")
            meant = "no" if column.use.startswith("task ") else "other"
            warnings.append(
                f"{where}: its {cells} none of the declared words, and so all count as {meant}: write the words of the"
                " column in dataset.toml, or correct the column"
            )
        elif column.other and column.use.startswith("modality "):
            warnings.append(
                f"{where}: {_times(column.other)} none of the levels and counts as other{_words_text(column)}"
            )
    return warnings


def _times(number: int) -> str:
    return counted(number, "cell holds what is", "cells hold what is")


def _words_text(column: ColumnCount) -> str:
    return " (" + ", ".join(f"{word} {number}" for word, number in column.words) + ")" if column.words else ""


def _long_texts(modality: ModalityArray) -> tuple[int, int]:
    """Return how many records have a text that is certainly cut, and how many others one that may be.

    Only a model's tokenizer gives the exact number: a word is a token or several.
    """
    if modality.texts is None:
        return 0, 0
    records = modality.texts.reshape(-1, modality.texts.shape[2])
    longest = [max((len(pieces(text or "")) for text in record), default=0) for record in records]
    return sum(words > READ for words in longest), sum(READ // 2 < words <= READ for words in longest)


def _of_texts(modality: ModalityArray, counted_by_model: tuple[int, int] | None) -> list[str]:
    if counted_by_model is not None:
        number, tokens = counted_by_model
        records = counted(number, "record has", "records have")
        what = f"modality {modality.name!r}: {records} a text of over {tokens} tokens: its end is not read"
        return [what] if number else []
    cut, may_be = _long_texts(modality)
    warnings = []
    if cut:
        warnings.append(
            f"modality {modality.name!r}: {counted(cut, 'record has', 'records have')} a text of over {READ} words and"
            " signs: only its beginning is read (128 tokens by a pretrained model, if it has no max_tokens; `positions`"
            " words by one from scratch)"
        )
    if may_be:
        warnings.append(
            f"modality {modality.name!r}: {counted(may_be, 'record has', 'records have')} a text of over {READ // 2}"
            " words and signs, which may be cut: a pretrained model reads 128 tokens, and a long word is several."
            " `node start` counts them exactly, with the model"
        )
    return warnings


def _lines(pairs: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(f"{line} (as {earlier})" for line, earlier in pairs[:REPEATS])
    return shown + (f" and {len(pairs) - REPEATS} more" if len(pairs) > REPEATS else "")


def _of_answers(task: TaskArray, counted_by_model: tuple[int, int] | None) -> list[str]:
    """Warn of texts to be written that are certainly longer than max_tokens, or may be."""
    if task.texts is None:
        return []
    if counted_by_model is not None:
        number, tokens = counted_by_model
        has = counted(number, "text to be written has", "texts to be written have")
        return [f"task {task.name!r}: {has} over {tokens} tokens: the end is not learned from"] if number else []
    words = [len(pieces(text)) + 1 for text in task.texts.reshape(-1).tolist() if text]  # and the end's sign
    cut, may_be = sum(count > task.classes for count in words), sum(count > task.classes // 2 for count in words)
    what, warnings = f"task {task.name!r}", []
    if cut:
        has = counted(cut, "text to be written has", "texts to be written have")
        warnings.append(f"{what}: {has} over max_tokens = {task.classes} words and signs: the end is not learned from")
    if may_be > cut:
        has = counted(may_be - cut, "text to be written has", "texts to be written have")
        warnings.append(
            f"{what}: {has} over {task.classes // 2} words and signs, and may have over max_tokens = {task.classes}"
            " tokens. `node start` counts them exactly, with the model"
        )
    return warnings


def _warnings(data: Dataset, cut: Mapping[str, tuple[int, int]]) -> list[str]:
    warnings = _of_columns(data.findings.columns.values())
    warnings += near_warnings(data)
    warnings += [
        f"the id {name!r} looks like a row of totals at the end of a table, not a person: remove the row"
        for name in (*data.subjects, *data.left_out)
        if alike(name).rstrip(":") in TOTALS
    ]
    if data.unread:
        warnings.append(
            f"max_records leaves out {counted(data.unread, 'record')}: raise it, or be content with the first ones"
        )
    if data.held_out.all():
        warnings.append("every subject is held out: there is nothing to train on")
    if not data.held_out.any():
        warnings.append("no subject is held out: there is nothing to evaluate on")
    warnings += [
        f"modality {modality.name!r} is missing from every record: look at its table, or leave it out"
        for modality in data.modalities.values()
        if not modality.steps.any()
    ]
    warnings += [
        f"modality {name!r}: {counted(number, 'of the recordings is', 'of the recordings are')} longer than"
        " max_seconds, and cut there"
        for name, number in sorted(data.findings.cut.items())
        if number
    ]
    warnings += [
        f"modality {name!r}: {counted(number, 'of the pictures is', 'of the pictures are')} far from square, and"
        " squeezed into one: crop or pad them if shapes matter"
        for name, number in sorted(data.findings.squeezed.items())
        if number
    ]
    warnings += [
        f"modality {name!r}: {counted(records, 'record has', 'records have')} more texts than are read:"
        f" {counted(texts, 'text is', 'texts are')} left away, the oldest ones. Raise `texts` if they matter"
        for name, (records, texts) in sorted(data.findings.unread_texts.items())
    ]
    warnings += [
        f"modality {name!r}: {file} has {counted(len(pairs), 'row that repeats', 'rows that repeat')} an earlier one of"
        f" the same record, with the same place in the order and the same text: line {_lines(pairs)}. Each is read as a"
        " text of its own: remove it if it was copied by mistake"
        for name, (file, pairs) in sorted(data.findings.repeated.items())
    ]
    for modality in data.modalities.values():
        warnings += _of_texts(modality, cut.get(modality.name))
    for task in data.tasks.values():
        warnings += _of_answers(task, cut.get(f"task {task.name}"))
        labelled = _is_labelled(task)
        if not labelled.any():
            warnings.append(f"task {task.name!r} has no label")
            continue
        for side, chosen in (("train", ~data.held_out), ("test", data.held_out)):
            if chosen.any() and not labelled[chosen].any():
                warnings.append(f"task {task.name!r} has no label in {side}")
        occurring = sum(number > 0 for number in _counts(task))
        if task.kind not in {"regression", "multilabel", "generate"} and occurring == 1:
            warnings.append(f"task {task.name!r} has one class only: nothing can be learnt from it here")
    return warnings
