"""The data of an audit: one institution's students are shared out anew into members, non-members and canaries.

A *canary* is a student whose label was replaced by a wrong one. *Planted* ones are trained on; their *references*,
chosen alike, are mislabelled too and never trained on, so that what a planted one shows beyond them is memory.
"""

import random
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ...crypto.errors import UsageError
from ...node.data.manifest import MANIFEST
from ..learn.bench import data_folder
from ..learn.datasets import prepare_digits
from ..learn.studies import study, work_folder

INSTITUTIONS = 4  # that share the digits
ALPHA = 1.0  # of their Dirichlet split by label
MAX_PLANTED = 24
MIN_STUDENTS = 40  # of the withdrawn member's
DIGITS = tuple(str(n) for n in range(10))


@dataclass(frozen=True, slots=True)
class Source:
    """A data set: task and metric, the unit table with the columns of subject and label, and what a wrong label is."""

    name: str
    unit: str
    task: str
    metric: str
    table: str
    subject: str
    label: str
    wrong: Callable[[str, random.Random], str]
    member: str  # the member that withdraws by default
    group: str = ""  # a column of groups to report by


def _other_digit(label: str, source: random.Random) -> str:
    return source.choice([digit for digit in DIGITS if digit != label])


def _other_result(label: str, _: random.Random) -> str:
    return "Fail" if label in ("Pass", "Distinction") else "Pass"


SOURCES = {
    "digits": Source("digits", "image", "digit", "accuracy", "digits", "image", "digit", _other_digit, "institution-1"),
    "oulad": Source(
        "oulad", "student", "pass", "AUC", "students", "id_student", "final_result", _other_result, "AAA", "gender"
    ),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """The institutions' folders, and how the withdrawn member's subjects are shared out.

    `candidates` are those whose membership is guessed; `chosen` of them are trained on, and so are the `planted`.
    """

    source: Source
    others: Mapping[str, Path]
    member: str
    folder: Path  # the member's data as they were
    candidates: tuple[str, ...]
    chosen: frozenset[str]
    planted: frozenset[str]
    references: frozenset[str]
    wrong: Mapping[str, str]  # a canary's label
    levels: Mapping[str, str]  # of everybody else's subjects, in the column of groups

    @property
    def trained(self) -> int:
        """How many students the member trains on."""
        return len(self.chosen) + len(self.planted)

    def write(self, out: Path, chosen: Collection[str]) -> Path:
        """Write the member's data with these candidates and the planted canaries to train on, all others held out."""
        shutil.copytree(self.folder, out)
        source = self.source
        table = pyarrow.parquet.read_table(out / f"{source.table}.parquet")
        subjects = [str(value) for value in table.column(source.subject).to_pylist()]
        labels = table.column(source.label).to_pylist()
        labels = [self.wrong.get(name, label) for name, label in zip(subjects, labels, strict=True)]
        inside = set(chosen) | self.planted
        split = ["train" if name in inside else "test" for name in subjects]
        column = table.column_names.index(source.label)
        table = table.set_column(column, source.label, pa.array(labels, table.schema.field(column).type))
        pyarrow.parquet.write_table(table.append_column("split", pa.array(split)), out / f"{source.table}.parquet")
        text = (out / MANIFEST).read_text(encoding="utf-8")
        text, count = re.subn(r'\[split\]\nshare = [0-9.]+\nsalt = "[^"]*"\n', '[split]\ncolumn = "split"\n', text)
        assert count == 1, "the importers write one split by salt"
        (out / MANIFEST).write_text(text, encoding="utf-8")
        return out


def prepare(name: str, work: Path, member: str | None, seed: int) -> Ground:
    """Make the data of an audit under `work`. Raises UsageError for a data set or member that there is not."""
    if name not in SOURCES:
        raise UsageError(f"there is no data set {name!r} to audit with", f"Choose one of {', '.join(SOURCES)}.")
    source = SOURCES[name]
    if name == "digits":
        folders = {path.name: path for path in prepare_digits(work / "source", INSTITUTIONS, ALPHA, seed)}
    else:
        folders = {
            key: folders_of[0] for key, folders_of in study(name).institutions(data_folder(), work_folder()).items()
        }
    member = member or source.member
    if member not in folders:
        raise UsageError(f"{name} has no institution {member!r}", f"Choose one of {', '.join(sorted(folders))}.")
    table = pyarrow.parquet.read_table(folders[member] / f"{source.table}.parquet")
    labels: dict[str, Any] = {
        str(subject): label
        for subject, label in zip(
            table.column(source.subject).to_pylist(), table.column(source.label).to_pylist(), strict=True
        )
    }
    pool = sorted(labels)
    if len(pool) < MIN_STUDENTS:
        raise UsageError(f"{member} has {len(pool)} {source.unit}s: too few to audit", "Name another --member.")
    chance = random.Random(f"{seed} {name} {member}")  # noqa: S311 - a simulation, labelled so
    chance.shuffle(pool)
    planted = min(MAX_PLANTED, len(pool) // 12)
    canaries, candidates = pool[: 4 * planted], pool[4 * planted :]
    return Ground(
        source,
        {key: path for key, path in sorted(folders.items()) if key != member},
        member,
        folders[member],
        tuple(candidates),
        frozenset(candidates[: len(candidates) // 2]),
        frozenset(canaries[:planted]),
        frozenset(canaries[planted:]),
        {subject: source.wrong(str(labels[subject]), chance) for subject in canaries},
        {} if not source.group else _levels(source, [path for key, path in sorted(folders.items()) if key != member]),
    )


def _levels(source: Source, folders: Sequence[Path]) -> dict[str, str]:
    levels: dict[str, str] = {}
    for folder in folders:
        table = pyarrow.parquet.read_table(folder / f"{source.table}.parquet")
        pairs = zip(table.column(source.subject).to_pylist(), table.column(source.group).to_pylist(), strict=True)
        levels |= {str(subject): str(level) for subject, level in pairs}
    return levels
