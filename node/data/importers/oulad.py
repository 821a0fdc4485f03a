"""OULAD (Kuzilek, Hlosta, Zdrahal 2017): pass, withdrawal and grade, predicted at day 56."""

import json
from collections.abc import Mapping, Sequence
from math import log1p
from pathlib import Path

from ....crypto.errors import CorruptError, UsageError
from . import clicks
from .common import Importer, Made, Options, Progress, Row, decimal, one_of, read_rows, whole, write_institution

DAY = 56
MAX_LEN = 12
LAST_WEEK = DAY // 7 - 1  # week w holds the days 7w to 7w + 6: week 8 would look beyond the day
# What the Open University calls each file, and what the R package oulad does; and the columns that are read.
FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "assessment": (
        ("assessments.csv", "assessment.csv.gz"),
        ("code_module", "code_presentation", "id_assessment", "assessment_type", "date", "weight"),
    ),
    "student": (
        ("studentInfo.csv", "student.csv.gz"),
        ("code_module", "code_presentation", "id_student", "gender", "region", "highest_education", "imd_band",
         "age_band", "num_of_prev_attempts", "studied_credits", "disability", "final_result"),
    ),
    "student_assessment": (
        ("studentAssessment.csv", "student_assessment.csv.gz"),
        ("id_assessment", "id_student", "date_submitted", "is_banked", "score"),
    ),
    "student_registration": (
        ("studentRegistration.csv", "student_registration.csv.gz"),
        ("code_module", "code_presentation", "id_student", "date_registration", "date_unregistration"),
    ),
}  # fmt: skip
MODULES = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG")
FOUR = ("AAA", "BBB", "CCC-DDD", "EEE-FFF-GGG")
ACTIVITIES = (
    "homepage", "forumng", "subpage", "url", "resource", "quiz", "oucontent", "glossary", "ouelluminate",
    "oucollaborate",
)  # fmt: skip
GROUPS = ("gender", "disability", "imd_band", "age_band", "region")
GRADES = ("Fail", "Pass", "Distinction")
RESULTS = (*GRADES, "Withdrawn")
SAME = {"Y": "true", "N": "false", "True": "true", "False": "false", "1": "true", "0": "false", "10-20%": "10-20"}


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write one folder for each module, region, presentation of a module, or one of four groups of modules.

    Only students still registered at day 56, and only rows dated at most 56 (later ones leak the outcome); an
    assessment due by then and not handed in is a row without a score. A student of several institutions belongs to the
    one of their first presentation (then alphabetically); their other records are dropped. About a quarter is held out
    or, by split "presentation", who began in the last presentation of their module; others' records there are dropped.
    """
    tables = {}
    for number, (name, (files, columns)) in enumerate(FILES.items()):
        progress("reading", number, len(FILES) + 1)
        tables[name] = read_rows(one_of(source, *files), columns)
    progress("reading", len(FILES), len(FILES) + 1)
    weekly = clicks.read(source, LAST_WEEK)
    left, registered = _registrations(tables["student_registration"])
    students = [row for row in tables["student"] if _still_there(left, _record(row))]
    homes = _homes(students, options.by)
    students = [row for row in students if homes[str(row["id_student"])] == _institution(row, options.by)]
    by_presentation = options.split == "presentation"
    sides = _sides(students, options.by) if by_presentation else {}
    students = [row for row in students if not by_presentation or _record(row) in sides]
    records = [_record(row) for row in students]
    submissions = _submissions(tables["assessment"], tables["student_assessment"], records)
    later = _later_scores(tables["assessment"], tables["student_assessment"])
    weeks = _clicks(weekly, records)
    made = []
    names = sorted(set(homes.values()))
    for number, name in enumerate(names):
        progress("writing", number, len(names))
        own = [row for row in students if homes[str(row["id_student"])] == name]
        keys = {_record(row) for row in own}
        people = [_person(row, registered.get(_record(row))) | {"score": later.get(_record(row))} for row in own]
        if by_presentation:
            people = [person | {"side": sides[person["record"]]} for person in people]
        parts = {
            "students": people,
            "assessments": [row for row in submissions if row["record"] in keys],
            "clicks": [row for row in weeks if row["record"] in keys],
        }
        manifest = _manifest(clicks=bool(parts["clicks"]), by_presentation=by_presentation)
        write_institution(out / name, {part: rows for part, rows in parts.items() if rows}, manifest)
        made.append((name, out / name))
    if not names:
        raise CorruptError(f"{source} has no student registered at day {DAY}", "Fetch the source again.")
    return made


IMPORTER = Importer(
    "students at day 56: pass, withdraw, grade, score",
    run,
    {"by": ("module", "region", "four", "presentation"), "split": ("student", "presentation")},
)


def _institution(row: Row, by: str) -> str:
    if by == "region":
        return str(row["region"]).replace(" ", "-")
    module = str(row["code_module"])
    if by == "presentation":
        return f"{module}-{row['code_presentation']}"
    return module if by == "module" else next((group for group in FOUR if module in group), module)


def _homes(students: Sequence[Row], by: str) -> dict[str, str]:
    homes: dict[str, str] = {}
    for row in sorted(students, key=_time):
        homes.setdefault(str(row["id_student"]), _institution(row, by))
    return homes


def _time(row: Row) -> tuple[str, str]:
    # 2013B (February) comes before 2013J (October): the order of the alphabet is that of time.
    return str(row["code_presentation"]), str(row["code_module"])


def _sides(students: Sequence[Row], by: str) -> dict[str, str]:
    """Return the side of each record: test in the last presentation of a module, for students in no earlier one.

    Of a module with one presentation all are to train on. Raises UsageError if nobody is held out.
    """
    there: dict[str, set[str]] = {}
    for row in students:
        there.setdefault(str(row["code_module"]), set()).add(str(row["code_presentation"]))
    last = {module: max(names) for module, names in there.items() if len(names) > 1}
    if by == "presentation" or not last:
        what = "an institution has one presentation of its module only: by presentation nobody is held out"
        raise UsageError(what, "Import with --by module, region or four, or with --split student.")
    sides: dict[str, str] = {}
    first: dict[str, str] = {}
    for row in sorted(students, key=_time):
        side = "test" if str(row["code_presentation"]) == last.get(str(row["code_module"])) else "train"
        if first.setdefault(str(row["id_student"]), side) == side:
            sides[_record(row)] = side
    return sides


def _record(row: Mapping[str, object]) -> str:
    return f"{row['code_module']}-{row['code_presentation']}-{row['id_student']}"


def _registrations(rows: Sequence[Row]) -> tuple[dict[str, int | None], dict[str, int | None]]:
    """Return the day on which each record left, and that on which it was registered."""
    where = "the table of registrations: date"
    left = {_record(row): whole(row["date_unregistration"], where) for row in rows}
    return left, {_record(row): whole(row["date_registration"], where) for row in rows}


def _still_there(left: Mapping[str, int | None], record: str) -> bool:
    if record not in left:
        raise CorruptError(
            "the table of registrations lacks a student of the table of students", "Fetch the source again."
        )
    day = left[record]
    return day is None or day > DAY


def _person(row: Row, registered: int | None) -> Row:
    if row["final_result"] not in RESULTS:
        raise CorruptError(f"final_result is none of {', '.join(RESULTS)}", "Fetch the source again.")
    return {
        "record": _record(row),
        "id_student": str(row["id_student"]),
        **{name: _text(row[name]) for name in (*LEVELS, "final_result")},
        "previous_attempts": whole(row["num_of_prev_attempts"], "num_of_prev_attempts"),
        "credits": whole(row["studied_credits"], "studied_credits"),
        "registered": registered,
        "grade": row["final_result"] if row["final_result"] in GRADES else None,
    }


def _text(value: object) -> str | None:
    return None if value in (None, "", "?") else SAME.get(str(value), str(value))


def _submissions(assessments: Sequence[Row], rows: Sequence[Row], records: Sequence[str]) -> list[Row]:
    """Return each record's work handed in by the day, and the work due by then and not handed in."""
    about, slots = {row["id_assessment"]: row for row in assessments}, _slots(assessments)
    handed: dict[str, dict[object, Row]] = {record: {} for record in records}
    for row in rows:
        assessment, day = _assessment_of(about, row), whole(row["date_submitted"], "date_submitted")
        record = _record({**assessment, "id_student": row["id_student"]})
        if record in handed and day is not None and day <= DAY:
            handed[record][row["id_assessment"]] = row
    due: dict[str, list[Row]] = {}
    for assessment in assessments:
        presentation = f"{assessment['code_module']}-{assessment['code_presentation']}"
        due.setdefault(presentation, []).append(assessment)
    submissions = []
    for record, done in handed.items():
        for assessment in due.get(record.rpartition("-")[0], ()):
            row, date = done.get(assessment["id_assessment"], {}), whole(assessment["date"], "date of an assessment")
            if row or (date is not None and date <= DAY):
                slot = slots[str(assessment["id_assessment"])]
                submissions.append(_submission(record, assessment, row) | {"slot": slot})
    return submissions


def _slots(assessments: Sequence[Row]) -> dict[str, str]:
    """Return the slot of each assessment: its type and its number, by the day on which it is due, in its presentation.

    So the first tutor-marked assessment of one presentation has the place of that of another one.
    """
    slots, numbers = {}, dict[str, int]()
    due = [whole(row["date"], "date of an assessment") for row in assessments]
    for place in sorted(range(len(due)), key=lambda place: (due[place] is None, due[place] or 0, place)):
        row = assessments[place]
        kind = f"{row['code_module']} {row['code_presentation']} {row['assessment_type']}"
        numbers[kind] = numbers.get(kind, 0) + 1
        slots[str(row["id_assessment"])] = f"{row['assessment_type']} {numbers[kind]}"
    return slots


def _assessment_of(about: Mapping[object, Row], row: Row) -> Row:
    if row["id_assessment"] not in about:
        raise CorruptError("the table of assessments lacks one that students handed in", "Fetch the source again.")
    return about[row["id_assessment"]]


def _submission(record: str, assessment: Row, row: Row) -> Row:
    day, due = whole(row.get("date_submitted"), "date_submitted"), whole(assessment["date"], "date of an assessment")
    return {
        "record": record,
        "day": due if day is None else day,
        "score": decimal(row.get("score"), "score"),
        "weight": decimal(assessment["weight"], "weight"),
        "type": _text(assessment["assessment_type"]),
        "late": None if day is None or due is None else day - due,
        "banked": _text(row.get("is_banked")),
    }


def _later_scores(assessments: Sequence[Row], rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean score of what each record handed in after the day."""
    about = {row["id_assessment"]: row for row in assessments}
    scores: dict[str, list[float]] = {}
    for row in rows:
        day, score = whole(row["date_submitted"], "date_submitted"), decimal(row["score"], "score")
        if day is not None and day > DAY and score is not None:
            record = _record({**_assessment_of(about, row), "id_student": row["id_student"]})
            scores.setdefault(record, []).append(score)
    return {record: sum(values) / len(values) for record, values in scores.items()}


def _clicks(rows: Sequence[Row], records: Sequence[str]) -> list[Row]:
    """Return a row a week for each record of a presentation whose clicks are known: a week without any is one of zeros.

    Before the course begins only weeks with clicks count.
    """
    presentations = {f"{row['code_module']}-{row['code_presentation']}" for row in rows}
    counts: dict[tuple[str, int], dict[str, int]] = {}
    for record in records:
        if record.rpartition("-")[0] in presentations:
            counts |= {(record, week): {} for week in range(LAST_WEEK + 1)}
    wanted = set(records)
    for row in rows:
        record, week = _record(row), row["week"]
        if record in wanted and week <= LAST_WEEK:
            by_activity = counts.setdefault((record, week), {})
            activity = row["activity_type"] if row["activity_type"] in ACTIVITIES else "other"
            by_activity[activity] = by_activity.get(activity, 0) + row["clicks"]
    return [
        {"record": record, "week": week, **{name: log1p(by_activity.get(name, 0)) for name in (*ACTIVITIES, "other")}}
        for (record, week), by_activity in counts.items()
    ]


LEVELS: dict[str, tuple[str, ...]] = {
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


def _manifest(*, clicks: bool, by_presentation: bool) -> str:
    """Return dataset.toml; where no clicks are known the modality is left out, not declared and empty."""
    split = BY_PRESENTATION if by_presentation else BY_STUDENT
    return HEAD + (CLICKS_TABLE if clicks else "") + MODALITIES + SLOTS + (CLICKS if clicks else "") + TASKS + split


_DEMOGRAPHICS = ",\n".join(
    f"  {{ name = {json.dumps(name)}, levels = {json.dumps(levels)} }}"
    for name, levels in LEVELS.items()
    if name not in GROUPS
)
HEAD = f"""# OULAD (Kuzilek, Hlosta, Zdrahal 2017, CC BY 4.0) at day {DAY}: students still registered then, features
# dated at most {DAY}. A student of several institutions is kept at the first one only. An assessment that was due by
# then and is not handed in is a row without a score, dated when it was due. Gender, disability, deprivation band, age
# and region are groups to evaluate by, and no features.
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
"""
CLICKS_TABLE = """[tables.clicks]
path = "clicks.parquet"
key = "record"
"""
MODALITIES = f"""[[modality]]
name = "demographics"
kind = "tabular"
sensitivity = "personal"
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
sensitivity = "mild"
table = "assessments"
time = "day"
until = {DAY}
max_len = {MAX_LEN}
columns = [
  {{ name = "score", low = 0, high = 100, missing = true }},
  {{ name = "weight", low = 0, high = 30 }},
  {{ name = "type", levels = ["TMA", "CMA", "Exam"] }},
  {{ name = "late", low = -30, high = 30, missing = true }},
  {{ name = "day", low = -30, high = 56 }},
  {{ name = "banked", levels = ["false", "true"] }},
]
"""
SLOTS = """[[modality]] # the same, with a place for each assessment: the first tutor-marked one, the second one, ...
name = "slots"
sensitivity = "mild"
kind = "series"
table = "assessments"
time = "day"
until = 56
slot = "slot"
slots = ["TMA 1", "TMA 2", "TMA 3", "CMA 1", "CMA 2", "CMA 3"]
columns = [
  { name = "score", low = 0, high = 100, missing = true },
  { name = "late", low = -30, high = 30, missing = true },
]
"""
CLICKS = f"""[[modality]] # log(1 + clicks) by activity, a row a week; other presentations' clicks are not there
name = "clicks"
kind = "series"
sensitivity = "mild"
table = "clicks"
time = "week"
until = {LAST_WEEK}
max_len = {MAX_LEN}
columns = [
  {{ name = "week", low = -4, high = 8 }},
{"".join(f'  {{ name = "{name}", low = 0, high = 8 }},' + chr(10) for name in (*ACTIVITIES, "other"))}]
"""
TASKS = f"""[[task]]
name = "pass"
kind = "binary"
column = "final_result"
positive = ["Pass", "Distinction"]
negative = ["Fail", "Withdrawn"]
[[task]]
name = "withdraw"
kind = "binary"
column = "final_result"
positive = ["Withdrawn"]
negative = ["Fail", "Pass", "Distinction"]
[[task]] # of those who stayed
name = "grade"
kind = "ordinal"
column = "grade"
classes = {json.dumps(GRADES)}
[[task]] # the mean of what was handed in after day {DAY}
name = "score"
kind = "regression"
column = "score"
low = 0
high = 100
[sensitive]
table = "students"
columns = [
{"".join(f'  {{ name = "{name}", levels = {json.dumps(LEVELS[name])} }},' + chr(10) for name in GROUPS)}]
"""
BY_STUDENT = """[split]
share = 0.25
salt = "oulad"
"""
BY_PRESENTATION = """[split] # who began in the last presentation of their module is held out
column = "side"
"""
