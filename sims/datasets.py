"""Real data, split into institutions: one folder with `dataset.toml` each (DESIGN.md section 12)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..crypto.errors import UsageError

DIGITS_LEAST = 40  # images an institution has at least
OULAD_DAY = 56
OULAD_MAX_LEN = 12
OULAD_FILES = ("assessment", "student", "student_assessment", "student_registration")

Row = dict[str, object]


def prepare_digits(folder: Path, institutions: int, alpha: float, seed: int) -> list[Path]:
    """Write scikit-learn's 1,797 digits (8 × 8 pixels of 0 to 16), split by label from Dirichlet(`alpha`).

    Every image is its own subject: the writers are not named in the source. About a quarter is held out by salt.
    Returns the institutions' folders. Raises UsageError if the images do not suffice for `institutions`.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  # a second that OULAD need not pay

    source = load_digits()
    if not 1 <= institutions <= len(source.target) // (2 * DIGITS_LEAST):
        raise UsageError(f"{institutions} institutions cannot share {len(source.target)} digits", "Ask for 1 to 22.")
    owner = _dirichlet(source.target, institutions, alpha, np.random.default_rng(seed))
    folders = []
    for number in range(institutions):
        rows = np.flatnonzero(owner == number)
        table = {"image": pa.array([f"digit-{row:04d}" for row in rows.tolist()])}
        table |= {f"pixel{pixel}": pa.array(source.data[rows, pixel].astype(np.uint8)) for pixel in range(64)}
        table["digit"] = pa.array([str(label) for label in source.target[rows].tolist()])
        path = folder / f"institution-{number + 1}"
        _write(path, {"digits": pa.table(table)}, DIGITS_TOML)
        folders.append(path)
    return folders


def _dirichlet(
    labels: npt.NDArray[np.int64], institutions: int, alpha: float, source: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the owner of each image. Those with too few take from the one that has most, so that all can train."""
    owner = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = source.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(source.dirichlet(np.full(institutions, alpha)))[:-1]
        for number, part in enumerate(np.split(rows, (shares * len(rows)).astype(np.int64))):
            owner[part] = number
    while (counts := np.bincount(owner, minlength=institutions)).min() < DIGITS_LEAST:
        given = source.choice(np.flatnonzero(owner == counts.argmax()), DIGITS_LEAST - counts.min(), replace=False)
        owner[given] = counts.argmin()
    return owner


DIGITS_TOML = """# scikit-learn's digits (UCI "Optical Recognition of Handwritten Digits"). The source does not name
# the writers, so the unit of privacy is the single image.
format = 1
[unit]
kind = "record"
[tables.digits]
path = "digits.parquet"
key = "image"
[[modality]]
name = "image"
kind = "image"
prefix = "pixel"
low = 0
high = 16
[[task]]
name = "digit"
kind = "multiclass"
column = "digit"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[split]
share = 0.25
salt = "digits"
"""


def prepare_oulad(source: Path, folder: Path, institutions: int) -> list[tuple[str, Path]]:
    """Write OULAD for the task `pass` at day 56, one institution a module (7), or AAA, BBB and two groups (4).

    `source` is the folder `oulad/` of the shared data. Only students still registered at day 56, and only rows dated
    at most 56 (later ones leak the outcome); an assessment due by then and not handed in is a row without a score.
    A student of several institutions belongs to the one of their first presentation (then alphabetically); their other
    records are dropped. About a quarter of the students is held out.
    Returns (name, folder) pairs. Raises UsageError if a file is missing or `institutions` is neither 4 nor 7.
    """
    groups = _oulad_groups(institutions)
    tables = {name: _read(source / f"{name}.csv.gz") for name in OULAD_FILES}
    left = {_record(row): row["date_unregistration"] for row in tables["student_registration"]}
    registered = {_record(row): row["date_registration"] for row in tables["student_registration"]}
    students = [row for row in tables["student"] if _still_there(left[_record(row)])]
    home = _homes(students, groups)
    students = [row for row in students if home[str(row["id_student"])] == groups[str(row["code_module"])]]
    submissions = _submissions(tables["assessment"], tables["student_assessment"], [_record(row) for row in students])
    made = []
    for name in sorted(set(groups.values())):
        own = [row for row in students if groups[str(row["code_module"])] == name]
        keys = {_record(row) for row in own}
        people = [_person(row, registered[_record(row)]) for row in own]
        scores = [row for row in submissions if row["record"] in keys]
        path = folder / name
        _write(
            path, {"students": pa.Table.from_pylist(people), "assessments": pa.Table.from_pylist(scores)}, OULAD_TOML
        )
        made.append((name, path))
    return made


def _oulad_groups(institutions: int) -> dict[str, str]:
    modules = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG")
    if institutions == len(modules):
        return {module: module for module in modules}
    if institutions == 4:
        four = ("AAA", "BBB", "CCC-DDD", "EEE-FFF-GGG")
        return {module: next(group for group in four if module in group) for module in modules}
    raise UsageError(f"OULAD for {institutions} institutions", "Ask for 7 (a module each) or 4.")


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        raise UsageError(f"{path} does not exist", "Set COLLEGIUM_DATA to the folder that holds oulad/.")
    rows: list[Row] = pyarrow.csv.read_csv(path).to_pylist()
    return rows


def _record(row: Mapping[str, object]) -> str:
    return f"{row['code_module']}-{row['code_presentation']}-{row['id_student']}"


def _still_there(left: object) -> bool:
    return not isinstance(left, int) or left > OULAD_DAY


def _homes(students: Sequence[Row], groups: Mapping[str, str]) -> dict[str, str]:
    homes: dict[str, str] = {}
    # 2013B (February) comes before 2013J (October): the order of the alphabet is that of time.
    for row in sorted(students, key=lambda row: (str(row["code_presentation"]), str(row["code_module"]))):
        homes.setdefault(str(row["id_student"]), groups[str(row["code_module"])])
    return homes


def _person(row: Row, registered: object) -> Row:
    return {
        "record": _record(row),
        "id_student": str(row["id_student"]),
        **{name: _text(row[name]) for name in (*OULAD_LEVELS, "final_result")},
        "previous_attempts": row["num_of_prev_attempts"],
        "credits": row["studied_credits"],
        "registered": registered,
    }


def _text(value: object) -> str | None:
    return None if value in (None, "", "?") else str(value).lower() if isinstance(value, bool) else str(value)


def _submissions(assessments: Sequence[Row], rows: Sequence[Row], records: Sequence[str]) -> list[Row]:
    """Return what each record handed in by the day, and what was due by then and not handed in."""
    about = {row["id_assessment"]: row for row in assessments}
    handed: dict[str, dict[object, Row]] = {record: {} for record in records}
    for row in rows:
        assessment, day = about[row["id_assessment"]], row["date_submitted"]
        record = _record({**assessment, "id_student": row["id_student"]})
        if record in handed and isinstance(day, int) and day <= OULAD_DAY:
            handed[record][row["id_assessment"]] = row
    due: dict[str, list[Row]] = {}
    for assessment in assessments:
        presentation = f"{assessment['code_module']}-{assessment['code_presentation']}"
        due.setdefault(presentation, []).append(assessment)
    found = []
    for record, done in handed.items():
        for assessment in due[record.rpartition("-")[0]]:
            row, date = done.get(assessment["id_assessment"], {}), assessment["date"]
            if row or (isinstance(date, int) and date <= OULAD_DAY):
                found.append(_submission(record, assessment, row))
    return found


def _submission(record: str, assessment: Row, row: Row) -> Row:
    day, due = row.get("date_submitted"), assessment["date"]
    return {
        "record": record,
        "day": due if day is None else day,
        "score": row.get("score"),
        "weight": assessment["weight"],
        "type": _text(assessment["assessment_type"]),
        "late": day - due if isinstance(day, int) and isinstance(due, int) else None,
        "banked": _text(row.get("is_banked")),
    }


def _write(folder: Path, tables: Mapping[str, pa.Table], manifest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    (folder / "dataset.toml").write_text(manifest, encoding="utf-8")


OULAD_LEVELS: dict[str, tuple[str, ...]] = {
    "gender": ("F", "M"),
    "region": (
        "East Anglian Region", "East Midlands Region", "Ireland", "London Region", "North Region",
        "North Western Region", "Scotland", "South East Region", "South Region", "South West Region", "Wales",
        "West Midlands Region", "Yorkshire Region",
    ),
    "highest_education": (
        "No Formal quals", "Lower Than A Level", "A Level or Equivalent", "HE Qualification",
        "Post Graduate Qualification",
    ),
    "imd_band": (
        "0-10%", "10-20", "20-30%", "30-40%", "40-50%", "50-60%", "60-70%", "70-80%", "80-90%", "90-100%",
    ),
    "age_band": ("0-35", "35-55", "55<="),
    "disability": ("false", "true"),
}  # fmt: skip

_DEMOGRAPHICS = ",\n".join(
    f"  {{ name = {json.dumps(name)}, levels = {json.dumps(levels)} }}" for name, levels in OULAD_LEVELS.items()
)
OULAD_TOML = f"""# OULAD (Kuzilek, Hlosta, Zdrahal 2017, CC BY 4.0), task `pass` at day {OULAD_DAY}: students
# still registered then, rows dated at most {OULAD_DAY}. A student of several institutions is kept at the first one
# only. An assessment that was due by then and is not handed in is a row without a score, dated when it was due.
format = 1
[unit]
subject = "id_student"
table = "students"
max_records = 4
[tables.students]
path = "students.parquet"
key = "record"
[tables.assessments]
path = "assessments.parquet"
key = "record"
[[modality]]
name = "demographics"
kind = "tabular"
table = "students"
columns = [
{_DEMOGRAPHICS},
  {{ name = "previous_attempts", low = 0, high = 4 }},
  {{ name = "credits", low = 0, high = 240 }},
  {{ name = "registered", low = -200, high = 56, missing = true }},
]
[[modality]]
name = "assessments"
kind = "series"
table = "assessments"
time = "day"
until = {OULAD_DAY}
max_len = {OULAD_MAX_LEN}
columns = [
  {{ name = "score", low = 0, high = 100, missing = true }},
  {{ name = "weight", low = 0, high = 30 }},
  {{ name = "type", levels = ["TMA", "CMA", "Exam"] }},
  {{ name = "late", low = -30, high = 30, missing = true }},
  {{ name = "day", low = -30, high = 56 }},
  {{ name = "banked", levels = ["false", "true"] }},
]
[[task]]
name = "pass"
kind = "binary"
column = "final_result"
positive = ["Pass", "Distinction"]
[split]
share = 0.25
salt = "oulad"
"""
