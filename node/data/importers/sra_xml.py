"""SciEntsBank and Beetle as SemEval-2013 published them: an XML file for each question, in folders that say the part.

Paths are such as `training/3way/sciEntsBank/EM-inv1-45b.xml` and `test/3way/beetle/test-unseen-answers/...xml`.
"""

from pathlib import Path
from xml.etree import ElementTree as ET

from ....crypto.errors import UsageError
from .common import Row, damaged

MAX_BYTES = 16 << 20  # of one question
CORPORA = {"beetle": "beetle", "scientsbank": "sciEntsBank"}


def read(source: Path, other: str) -> list[Row]:
    """Return an answer a row, as the file `other` has them. Raises UsageError (no such files) or CorruptError."""
    names = sorted(path.relative_to(source) for path in source.rglob("*.xml"))
    paths = [name for name in names if "2way" not in name.parts and _part(name) and _corpus(name)]
    if not paths:
        advice = (
            "Name the folder with the published XML, such as training/3way/sciEntsBank/*.xml and"
            " test/3way/sciEntsBank/test-unseen-answers/*.xml, or with that file."
        )
        raise UsageError(f"{source}: {other} or the published XML does not exist", advice)
    return [row for path in paths for row in _question(source, path)]


def _corpus(path: Path) -> str:
    return next((CORPORA[part.lower()] for part in path.parts if part.lower() in CORPORA), "")


def _part(path: Path) -> str:
    for part in reversed(path.parts[:-1]):
        if part.startswith("test-unseen-"):
            return part
        if part.lower() in {"train", "training"}:
            return "train"
    return ""


def _question(source: Path, name: Path) -> list[Row]:
    path = source / name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise damaged(path, f"it has more than {MAX_BYTES >> 20} MiB")
        root = ET.fromstring(path.read_bytes())  # noqa: S314 - expat follows no link and bounds entities
    except (ET.ParseError, OSError) as error:
        raise damaged(path, "it is no XML") from error
    references = root.findall(".//referenceAnswer")
    best = next(
        (answer for answer in references if answer.get("category") == "BEST"), references[0] if references else None
    )
    if root.tag != "question" or best is None:
        raise damaged(path, "it has no question with a reference answer")
    shared = {
        "corpus": _corpus(name),
        "module": root.get("module"),
        "question": _text(root.find("questionText")),
        "reference_answer": _text(best),
        "split": _part(name),
    }
    return [
        {**shared, "answer_id": answer.get("id"), "answer": _text(answer), "label": answer.get("accuracy")}
        for answer in root.findall(".//studentAnswer")
    ]


def _text(element: ET.Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())
