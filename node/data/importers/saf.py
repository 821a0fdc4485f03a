"""SAF (Filighera et al. 2022): answers of students in English and German, with score, verdict and feedback."""

from pathlib import Path

from ....crypto.errors import CorruptError
from .common import Importer, Made, Options, Progress, Row, read_rows, write_institution

FILE = "saf_feedback.csv.gz"
COLUMNS = (
    "split", "lang", "question_id", "question", "reference", "answer_id", "answer", "score", "verdict", "feedback"
)  # fmt: skip
SIDES = {"training": "train", "unseen_answers": "test"}
VERDICTS = ("Incorrect", "Partially correct", "Correct")
HALF = 0.5
# The topics of the English lecture, in two groups with as many answers.
GROUPS = {"a": ("TC", "PE", "DLL", "DLL_v1"), "b": ("LM", "LM_v1", "IPP", "MM")}


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write the German job training, and the English lecture as one institution, or as two by topic."""
    parts: dict[str, list[Row]] = {}
    for number, row in enumerate(read_rows(source / FILE, COLUMNS), 2):
        score = _score(row["score"])
        if row["split"] not in SIDES or row["verdict"] not in VERDICTS or score is None or row["answer_id"] is None:
            what = f"{FILE}: line {number} has no answer_id, or a split, score or verdict that is unknown"
            raise CorruptError(what, "Fetch the source again.")
        name = _institution(row, number, options.by)
        texts = {key: row[key] for key in ("question", "reference", "answer", "feedback")}
        verdict = str(row["verdict"]).lower()
        parts.setdefault(name, []).append(
            {"record": f"{row['split']}-{row['answer_id']}", **texts, "score": score, "verdict": verdict,
             "half": "yes" if score >= HALF else "no", "side": SIDES[str(row["split"])]}
        )  # fmt: skip
    made = []
    for number, (name, rows) in enumerate(sorted(parts.items())):
        progress("writing", number, len(parts))
        write_institution(out / name, {"answers": rows}, MANIFEST)
        made.append((name, out / name))
    return made


IMPORTER = Importer("short answers in English and German: at least half the points", run, {"by": ("topic", "language")})


def _score(text: str | None) -> float | None:
    try:
        score = float(text or "")
    except ValueError:
        return None
    return score if 0.0 <= score <= 1.0 else None


def _institution(row: Row, number: int, by: str) -> str:
    if row["lang"] == "german":
        return "german"
    topic = str(row["question_id"]).partition("_")[2].partition(".")[0]
    group = next((name for name, topics in GROUPS.items() if topic in topics), None)
    if row["lang"] != "english" or group is None:
        raise CorruptError(f"{FILE}: line {number} is of an unknown language or topic", "Fetch the source again.")
    return "english" if by == "language" else f"english-{group}"


MANIFEST = """# SAF (Filighera et al. 2022, 2022.acl-long.587, MIT). The source names no student: the unit of privacy
# is the answer. The held-out answers are the source's unseen ones.
format = 1
[unit]
kind = "record"
[tables.answers]
path = "answers.parquet"
key = "record"
[[modality]]
name = "answer"
kind = "text"
columns = ["question", "reference", "answer"]
[[task]]
name = "half"
kind = "binary"
column = "half"
positive = ["yes"]
negative = ["no"]
[split]
column = "side"
"""
