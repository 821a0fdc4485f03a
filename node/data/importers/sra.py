"""SciEntsBank and Beetle (SemEval-2013 Task 7, Dzikovska et al. 2013): grading short answers."""

import re
from pathlib import Path

from ....crypto.errors import CorruptError
from . import sra_xml
from .common import Importer, Made, Options, Progress, Row, read_rows, write_institution

FILE = "sra_3way.csv.gz"
COLUMNS = ("corpus", "module", "question", "reference_answer", "answer_id", "answer", "label", "split")
PARTS = ("train", "test-unseen-answers", "test-unseen-questions", "test-unseen-domains")
LABELS = ("contradictory", "incorrect", "correct")
# Balanced by the number of answers in train and test-unseen-answers: 2,747 and 2,762.
GROUPS = {"a": ("FN", "ME", "MS", "PS", "SE"), "b": ("EM", "II", "LF", "LP", "MX", "ST", "VB")}
_BEETLE_STUDENT = re.compile(r"\.(sbjb?\d+)-")


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write SciEntsBank as two groups of modules or a folder for each module, and Beetle as one more institution."""
    parts: dict[str, list[Row]] = {}
    rows = read_rows(source / FILE, COLUMNS) if (source / FILE).is_file() else sra_xml.read(source, FILE)
    for number, row in enumerate(rows, 2):
        if None in (row["answer_id"], row["module"]) or row["label"] not in LABELS:
            what = (
                f"answer {number - 1} of {source} has no id or module, or a label that is none of {', '.join(LABELS)}"
            )
            raise CorruptError(what, "Fetch the source again, with labels in three ways.")
        if row["corpus"] == "beetle":
            name, subject, side = "beetle", _beetle_student(row), ""
        elif row["split"] == "train" or row["split"] == f"test-{options.test}":
            name = _institution(row["module"], options.by)
            subject = f"{row['module']}.{_student(row)}"
            side = "train" if row["split"] == "train" else "test"
        elif row["split"] in PARTS:
            continue  # another test part than the one that was asked for
        else:
            what = f"answer {number - 1} of {source} is of no known part: its split is none of {', '.join(PARTS)}"
            raise CorruptError(what, "Fetch the source again, or correct its column split.")
        texts = {key: row[key] for key in ("question", "reference_answer", "answer")}
        parts.setdefault(name, []).append(
            {"record": row["answer_id"], "student": subject, **texts, "grade": row["label"], "side": side}
        )
    sides = {row["side"] for name, part in parts.items() if name != "beetle" for row in part}
    needed = {"train", "test"} if options.split == "official" else {"train"}
    bank = any(row["corpus"] != "beetle" for row in rows)
    if not parts or (bank and not needed <= sides):
        wanted = "train" if "train" not in sides else f"test-{options.test}"
        there = sorted({str(row["split"]) for row in rows if row["corpus"] != "beetle"})
        what = f"{source} has no SciEntsBank answer of the part {wanted!r}"
        holds = f"It has {', '.join(there[:8])}. " if there else ""
        raise CorruptError(what, f"{holds}Fetch the whole source, or choose another part by --test.")
    made = []
    for number, (name, rows) in enumerate(sorted(parts.items())):
        progress("writing", number, len(parts))
        head, split = (BEETLE, BEETLE_SPLIT) if name == "beetle" else SCIENTSBANK[options.split]
        write_institution(out / name, {"answers": rows}, head + BODY + split)
        made.append((name, out / name))
    return made


IMPORTER = Importer(
    "short answers to science questions: contradictory, incorrect or correct",
    run,
    {
        "by": ("group", "module"),
        "test": ("unseen-answers", "unseen-questions"),
        "split": ("official", "student"),
    },
)


def _institution(module: str, by: str) -> str:
    group = next((name for name, modules in GROUPS.items() if module in modules), None)
    if group is None:
        raise CorruptError(f"the source has an unknown module {module!r}", "Fetch the source again.")
    return f"scientsbank-{group if by == 'group' else module.lower()}"


def _student(row: Row) -> str:
    parts = str(row["answer_id"]).split(".")
    if len(parts) < 3:
        raise CorruptError("the name of a SciEntsBank answer has fewer than three parts", "Fetch the source again.")
    return parts[2]


def _beetle_student(row: Row) -> str:
    match = _BEETLE_STUDENT.search(row["answer_id"])
    if match is None:
        raise CorruptError("the name of a Beetle answer has no student in it", "Fetch the source again.")
    return match[1]


SOURCE = "# SemEval-2013 Task 7 (Dzikovska et al. 2013, S13-2045, CC BY-SA 3.0), "
BEETLE = f"""{SOURCE}Beetle.
# Nearly all of the 73 students are in the official train and test parts alike, and a student may not be: all answers
# are taken, and students are held out instead.
format = 1
[unit]
subject = "student"
max_records = 160
"""
BEETLE_SPLIT = """[split]
share = 0.25
salt = "beetle"
"""
_FINDING = """# An answer's name, as in EM.45b.299.1, does not say whether its third part is a student. It may
# well be: in a module it comes back from question to question, more often than by chance, and never twice in one
# question. But then 455 of the 540 answers of the official test part (unseen answers) are by students of train."""
SCIENTSBANK = {
    "official": (
        f"""{SOURCE}SciEntsBank, official split.
{_FINDING}
# Under the official split, therefore, every answer is its own subject: privacy is that of a single answer, and the
# test is one of new answers, not of new students. Import with --split student for the other reading.
format = 1
[unit]
kind = "record"
""",
        """[split]
column = "side"
""",
    ),
    "student": (
        f"""{SOURCE}SciEntsBank, students held out.
{_FINDING}
# Here it counts as a student, within its module; whole students are held out, and the official split is not used.
format = 1
[unit]
subject = "student"
max_records = 32
""",
        """[split]
share = 0.2
salt = "scientsbank"
""",
    ),
}
BODY = """[tables.answers]
path = "answers.parquet"
key = "record"
[[modality]]
name = "answer"
kind = "text"
columns = ["question", "reference_answer", "answer"]
[[task]]
name = "grade"
kind = "multiclass"
column = "grade"
classes = ["contradictory", "incorrect", "correct"]
"""
