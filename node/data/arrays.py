"""From a data folder to arrays [S, K, ...]: S subjects, K records each, with masks."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError, UsageError
from .entries import Manifest, ModalityEntry
from .manifest import read_manifest
from .modalities import blank, declared_columns, needed, read_modality
from .problems import Findings
from .records import allocate, in_test, read_records
from .tables import column_names
from .tasks import (
    class_count,
    class_names,
    group_levels,
    read_answers,
    read_group,
    read_task,
    ungrouped,
    unlabelled,
    unwritten,
)

__all__ = ["Dataset", "GroupArray", "ModalityArray", "TaskArray", "in_test", "load", "load_file"]

Floats = npt.NDArray[np.float32]
Objects = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class ModalityArray:
    """One modality: `values` [S, K, T, width] float32, zero where there is nothing; `steps` [S, K, T] bool.

    T is 1 for tabular and image, the rows of a series, the frames of audio. For kind "text" T counts segments
    (columns), `width` is 0 and `texts` [S, K, T] holds str, "" where there is nothing; else `texts` is None. Where the
    files of images or sound are kept for a pretrained model, T is 1, `width` 0 and `files` [S, K, 1] holds MediaFile,
    None where there is nothing; else `files` is None.
    """

    name: str
    kind: str
    values: Floats
    steps: npt.NDArray[np.bool_]
    texts: Objects | None
    files: Objects | None = None

    @property
    def width(self) -> int:
        """The number of features of a step."""
        return int(self.values.shape[3])

    @property
    def length(self) -> int:
        """The number of steps T."""
        return int(self.values.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class TaskArray:
    """One task: `labels` [S, K, L] float32, NaN where a record has none.

    L = 1: the class's number for binary (1: one of `positive`), multiclass and ordinal, and for regression the value,
    clamped to [low, high] and scaled to [-1, 1]. Multilabel: L = classes, 1 where a class applies, else 0. `classes` is
    2 for binary and 1 for regression; `class_names` has none for regression; `low` and `high` are 0 for all others.
    Of a text to be written `texts` [S, K] has it ("": none), the label is 1, and `classes` its most tokens.
    """

    name: str
    kind: str
    classes: int
    labels: Floats
    class_names: tuple[str, ...]
    low: float
    high: float
    texts: Objects | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GroupArray:
    """A sensitive attribute, for evaluation by group only: `codes` [S, K] int64 into `levels`, -1 where unknown.

    The last level is "other": whatever dataset.toml does not name.
    """

    name: str
    levels: tuple[str, ...]
    codes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The arrays that an institution trains on. `weights` [S, K] float32 is 1/K_s for each of a subject's K_s records,
    else 0.

    `held_out` [S] bool marks the test subjects. Subjects are in the order of their first record. `records` [S, K] holds
    the records' names, str, "" where there is none. `unread` counts the records beyond max_records, `filtered` those
    that the unit table's filters drop. Subjects who are `left_out` have a cell that cannot be used: no array has them.
    `findings` lists these cells, and the columns' contents.

    No array has who does not consent, either: `consents` counts the subjects by consent (None: dataset.toml names no
    column), `refused` are those without one. Of those who are `unclear` (left out, too) the cells do not say it.
    """

    subjects: tuple[str, ...]
    weights: Floats
    held_out: npt.NDArray[np.bool_]
    modalities: dict[str, ModalityArray]
    tasks: dict[str, TaskArray]
    groups: dict[str, GroupArray]
    records: Objects
    unread: int
    filtered: int
    left_out: tuple[str, ...]
    findings: Findings
    consents: dict[str, int] | None = None
    refused: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()

    @property
    def everybody(self) -> tuple[str, ...]:
        """All ids in the data, with those that no array has."""
        return tuple(dict.fromkeys((*self.subjects, *self.left_out, *self.refused)))

    def without(self, gone: Callable[[str], bool]) -> "Dataset":
        """Return the data without the subjects of whom this is true."""
        rows = np.array([not gone(subject) for subject in self.subjects], dtype=np.bool_)
        if rows.all():
            return self
        return replace(
            self,
            subjects=tuple(subject for subject, stays in zip(self.subjects, rows.tolist(), strict=True) if stays),
            weights=self.weights[rows],
            held_out=self.held_out[rows],
            modalities={
                name: replace(
                    array,
                    values=array.values[rows],
                    steps=array.steps[rows],
                    texts=None if array.texts is None else array.texts[rows],
                    files=None if array.files is None else array.files[rows],
                )
                for name, array in self.modalities.items()
            },
            tasks={
                name: replace(task, labels=task.labels[rows], texts=None if task.texts is None else task.texts[rows])
                for name, task in self.tasks.items()
            },
            groups={name: replace(group, codes=group.codes[rows]) for name, group in self.groups.items()},
            records=self.records[rows],
        )


def load(
    folder: Path,
    *,
    only_modalities: Collection[str] | None = None,
    tolerant: bool = False,
    kept: Collection[str] = (),
    day: date | None = None,
) -> Dataset:
    """Load an institution's data folder; of modalities not in `only_modalities` (if given) nothing is read.

    Of the modalities in `kept` files are checked and kept, for a pretrained model to read. A `tolerant` load, as
    training does it, leaves out each subject with an unusable cell.
    Consents are judged on a `day`, by default today. Raises UsageError or CorruptError, naming file, column and line.
    """
    manifest = read_manifest(folder)
    if only_modalities is not None:
        chosen = tuple(entry for entry in manifest.modalities if entry.name in only_modalities)
        manifest = replace(manifest, modalities=chosen)
    return _assemble(manifest, manifest, Findings(strict=not tolerant), kept, predict=False, day=day)


def load_file(
    folder: Path, file: Path, *, only_modalities: Collection[str] | None = None, kept: Collection[str] = ()
) -> Dataset:
    """Load records to predict: from one CSV or Parquet file with the columns of the unit table, or a folder like it.

    `folder` holds the dataset.toml that says what the columns mean. All subjects are held out, no record is cut off.
    The subject's column, labels and groups may be missing; a modality is missing for every record if its table or all
    of its columns are, and an error if some are. Files named by the table lie beside `file`. Raises UsageError or
    CorruptError.
    """
    declared = read_manifest(folder)
    if only_modalities is not None:
        chosen = tuple(entry for entry in declared.modalities if entry.name in only_modalities)
        declared = replace(declared, modalities=chosen)
    if file.is_dir():
        tables = {
            name: replace(entry, path=file / entry.path.relative_to(folder), given=True)
            for name, entry in declared.tables.items()
        }
        manifest = replace(declared, folder=file, tables=tables)
    else:
        unit = replace(declared.tables[declared.unit_table], path=file, given=True)
        manifest = replace(declared, folder=file.parent, tables={declared.unit_table: unit})
    return _assemble(manifest, declared, Findings(), kept, predict=True)


def _assemble(
    manifest: Manifest,
    declared: Manifest,
    findings: Findings,
    kept: Collection[str],
    *,
    predict: bool,
    day: date | None = None,
) -> Dataset:
    """Read everything; to `predict`, modalities not in `manifest` or its files are missing, with `declared` widths."""
    records = read_records(manifest, findings, predict=predict, day=day)

    def there(table: str, column: str) -> bool:
        return not predict or column in _columns(manifest, table)

    modalities = {}
    for entry in manifest.modalities:
        if not predict or _has(manifest, declared, entry):
            arrays = read_modality(manifest, entry, records, findings, lenient=predict, keep=entry.name in kept)
        else:
            arrays = blank(declared, entry, records.shape, keep=entry.name in kept)
        modalities[entry.name] = ModalityArray(entry.name, entry.kind, *arrays)
    tasks = {}
    for task in manifest.tasks:
        present, texts = there(task.table, task.column), None
        if task.kind == "generate":
            texts = unwritten(task, records.shape)
            if present:
                texts = read_answers(manifest, task, records, findings, lenient=predict)
            labels = np.where(texts == "", np.nan, 1.0).astype(np.float32)[:, :, None]
        elif present:
            labels = read_task(manifest, task, records, findings, lenient=predict)
        else:
            labels = unlabelled(task, records.shape)
        tasks[task.name] = TaskArray(
            task.name, task.kind, class_count(task), labels, class_names(task), task.low, task.high, texts
        )
    groups = {}
    for column in manifest.groups:
        present = there(manifest.groups_table, column.name)
        if present:
            codes = read_group(manifest, column, records, findings, lenient=predict)
        else:
            codes = ungrouped(column, records.shape)
        groups[column.name] = GroupArray(column.name, group_levels(column), codes)
    weights = allocate(records.shape, 0.0, np.float32, "the table of records")
    names = allocate(records.shape, "", np.object_, "the table of records")
    for name, index in records.places.items():
        if index[0] >= 0:
            names[index] = name
            weights[index] = 1.0 / records.counts[index[0]]
    spoiled = records.spoiled.tolist()
    left_out = tuple(name for name, out in zip(records.subjects, spoiled, strict=True) if out)
    if len(left_out) == len(records.subjects):
        problem = findings.problems[0]
        raise CorruptError(f"no subject can be read: {problem.text}", problem.advice)
    data = Dataset(
        records.subjects, weights, records.held_out, modalities, tasks, groups, names, records.unread,
        records.filtered, left_out, findings,
    )  # fmt: skip
    if (consents := records.consents) is not None:
        refused, unclear = (
            tuple(name for name, out in zip(records.subjects, mask.tolist(), strict=True) if out)
            for mask in (consents.without, consents.unreadable)
        )
        data = replace(data, consents=consents.counts(), refused=refused, unclear=unclear)
    return data.without(frozenset((*left_out, *data.refused)).__contains__)


def _columns(manifest: Manifest, table: str) -> list[str]:
    entry = manifest.tables.get(table)
    return column_names(entry) if entry is not None and entry.path.is_file() else []


def _has(manifest: Manifest, declared: Manifest, entry: ModalityEntry) -> bool:
    """Return whether the tables to predict have a modality. Raises UsageError if they have a part of its columns only.

    A column that another modality reads too does not count, unless this one has no other.
    """
    names = _columns(manifest, entry.table)
    wanted = _needed(declared, entry)
    others = {name for other in declared.modalities if other is not entry and other.table == entry.table
              for name in _needed(declared, other)}  # fmt: skip
    own = [name for name in wanted if name not in others] or wanted
    if not set(own) & set(names):
        return False
    path = manifest.tables[entry.table].path
    missing = [name for name in wanted if name not in names]
    if missing:
        advice = "Add them, with empty cells where a record has no value, or leave out all columns of the modality."
        raise UsageError(f"{path}: modality {entry.name!r} lacks {_listed(missing)}", advice)
    extra = [column.name for column in declared_columns(manifest, entry) if column.name not in wanted]
    if extra:
        expected = f"{len(wanted)} columns {entry.prefix}0, {entry.prefix}1, ..."
        advice = f"Remove or rename the others: the data here have {expected}"
        raise UsageError(f"{path}: modality {entry.name!r} does not know {_listed(extra)}", advice)
    return True


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:12])
    what = "column" if len(columns) == 1 else "columns"
    return f"{what} {shown}" + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def _needed(declared: Manifest, entry: ModalityEntry) -> list[str]:
    return list(dict.fromkeys([*needed(entry), *(column.name for column in declared_columns(declared, entry))]))
