"""The sources of the study of equity: institutions, what they learn, what it decides, and for whom."""

import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from ...node.blueprint.parts import groups, head, skip
from ...node.blueprint.recipe import Recipe
from ...node.data.importers.common import write_institution
from ...protocol.components import MILLION
from ...protocol.equity import Attribute, Decision, Equity
from ...protocol.learning import Modality, Task
from .studies import Institutions


@dataclass(frozen=True, slots=True)
class Source:
    """Institutions, what they learn, what it decides, and the attributes that are released together."""

    name: str
    institutions: Institutions
    modalities: tuple[Modality, ...]
    task: Task
    rate: float
    decision: Decision
    attributes: tuple[Attribute, ...]
    table: str
    subject: str

    def recipe(self, students: float, equity: Equity) -> Recipe:
        """Return a linear model of the features, as of the study `oulad`, with the release of its groups."""
        widths = {modality.name: modality.width for modality in self.modalities}
        return Recipe(
            modalities=self.modalities,
            tasks=(self.task,),
            parts=(head(self.task, 1), skip(self.task, widths), groups(self.task, equity)),
            students=students,
            steps=20,
            sample_rate=100_000,
            clip_norm=MILLION,
            learning_rate=round(self.rate * MILLION),
            free_learning_rate=round(self.rate * MILLION),
            width=16,
            equity=equity,
        )


def of_oulad(institutions: Institutions) -> list[Source]:
    """Return OULAD's modules, with one attribute at a time and with both in one release."""
    gender = Attribute("gender", ("F", "M"))
    disability = Attribute("disability", ("false", "true"))
    modalities = (Modality("demographics", "tabular", 10, 1), Modality("assessments", "series", 13, 12))
    task = Task("pass", "binary", 2, ("assessments", "demographics"))
    common = Source(
        "oulad", institutions, modalities, task, 4.0, Decision("pass", 500_000, "below"), (gender,), "students",
        "id_student",
    )  # fmt: skip
    return [common, replace(common, attributes=(disability,)), replace(common, attributes=(gender, disability))]


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _shared_out(
    folder: Path, rows: Sequence[Mapping[str, Any]], institution: Callable[[Mapping[str, Any]], int], toml: str
) -> Institutions:
    parts: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(institution(row), []).append(row)
    made: Institutions = {}
    for number, part in sorted(parts.items()):
        path = folder / f"institution-{number + 1}"
        write_institution(path, {"pupils": pa.Table.from_pylist([dict(row) for row in part])}, toml)
        made[path.name] = (path,)
    return made


def of_chem97(data: Path, folder: Path) -> list[Source]:
    """Write 131 authorities in eight groups; a mark of A or B from the earlier marks and the age."""
    rows = [
        {
            "pupil": row["rownames"],
            "authority": int(row["lea"]),
            "gender": row["gender"],
            "gcse": float(row["gcsescore"]),
            "age": float(row["age"]),
            "good": "yes" if int(row["score"]) >= 8 else "no",
        }
        for row in _rows(data / "chem97" / "chem97.csv.gz")
    ]
    made = _shared_out(folder / "chem97", rows, lambda row: int(row["authority"]) % 8, CHEM97_TOML)
    table = Modality("marks", "tabular", 2, 1)
    return [
        Source(
            "chem97", made, (table,), Task("good", "binary", 2, ("marks",)), 4.0, Decision("good", 500_000, "below"),
            (Attribute("gender", ("F", "M")),), "pupils", "pupil",
        )
    ]  # fmt: skip


def of_egsingle(data: Path, folder: Path) -> list[Source]:
    """Write 60 schools in four groups; whether a child is above the median of the year."""
    rows = _rows(data / "egsingle" / "egsingle.csv.gz")
    years: dict[str, list[float]] = {}
    for row in rows:
        years.setdefault(row["year"], []).append(float(row["math"]))
    middle = {year: median(marks) for year, marks in years.items()}
    pupils = [
        {
            "record": row["rownames"],
            "pupil": row["childid"],
            "school": int(row["schoolid"]),
            "female": row["female"],
            "black": row["black"],
            "year": float(row["year"]),
            "grade": float(row["grade"]),
            "retained": float(row["retained"] == "1"),
            "size": float(row["size"]),
            "lowinc": float(row["lowinc"]),
            "mobility": float(row["mobility"]),
            "above": "yes" if float(row["math"]) > middle[row["year"]] else "no",
        }
        for row in rows
    ]
    schools = {school: place for place, school in enumerate(sorted({row["school"] for row in pupils}, key=str))}
    made = _shared_out(folder / "egsingle", pupils, lambda row: schools[row["school"]] % 4, EGSINGLE_TOML)
    table = Modality("marks", "tabular", 6, 1)
    common = Source(
        "egsingle", made, (table,), Task("above", "binary", 2, ("marks",)), 4.0, Decision("above", 500_000, "below"),
        (Attribute("female", ("Female", "Male")),), "pupils", "pupil",
    )  # fmt: skip
    return [common, replace(common, attributes=(Attribute("black", ("0", "1")),))]


CHEM97_TOML = """format = 1
[unit]
subject = "pupil"
[tables.pupils]
path = "pupils.parquet"
key = "pupil"
[[modality]]
name = "marks"
kind = "tabular"
columns = [ { name = "gcse", low = 0, high = 8 }, { name = "age", low = -6, high = 6 } ]
[[task]]
name = "good"
kind = "binary"
column = "good"
positive = ["yes"]
negative = ["no"]
[sensitive]
columns = [ { name = "gender", levels = ["F", "M"] } ]
[split]
share = 0.25
salt = "chem97"
"""
EGSINGLE_TOML = """format = 1
[unit]
subject = "pupil"
[tables.pupils]
path = "pupils.parquet"
key = "record"
[[modality]]
name = "marks"
kind = "tabular"
columns = [
  { name = "year", low = -3, high = 3 }, { name = "grade", low = 0, high = 5 },
  { name = "retained", low = 0, high = 1 }, { name = "size", low = 0, high = 1500 },
  { name = "lowinc", low = 0, high = 100 }, { name = "mobility", low = 0, high = 100 },
]
[[task]]
name = "above"
kind = "binary"
column = "above"
positive = ["yes"]
negative = ["no"]
[sensitive]
columns = [ { name = "female", levels = ["Female", "Male"] }, { name = "black", levels = ["0", "1"] } ]
[split]
share = 0.25
salt = "egsingle"
"""
