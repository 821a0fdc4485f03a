"""Why a record gets its result, on the page, for one role. It changes nothing, and shows data of persons."""

import json
from collections.abc import Sequence

from ....crypto.errors import UsageError
from ...explaining import ROLES, Explanation, html, pieces, written
from ..blocks import Block, Table, Words
from ..source import Source
from .steps import Fields, File, Outcome, Plan, Step, Tell

QUALITY = "/quality"


def explain(source: Source, fields: Fields) -> Step:
    """Ask whether to explain a file's results, or one, to a role."""
    explains, file = source.explains, fields.get("file").strip()
    if explains is None:
        raise UsageError("This page explains nothing", "Use the command: collegium explain FILE --role ROLE.")
    role = next((role for role in ROLES if role == fields.get("role")), None)
    if role is None or not file:
        raise UsageError("A file and a role are needed", "Give the path of a table on this machine, and who reads it.")
    task, record = fields.get("task").strip() or None, fields.get("record").strip() or None
    command = f"collegium explain FILE --role {role}"

    def do(_tell: Tell) -> Outcome:
        made = explains(file, role, task, record)
        text = _json(made)
        return Outcome(
            f"Why: {made.proof.task}, for: {role}",
            (),
            command,
            QUALITY,
            blocks(made),
            (
                File("explanation.json", text, "the explanation as a file, to be verified by another member"),
                File("explanation.html", html(made).encode(), "the same as a page, to be printed"),
            ),
        )

    return Plan(
        "Explain results?",
        f"Explain results to this reader: {role}?",
        (
            "It shows what this role may see, and no more. A person's explanation has that person's own data.",
            "It starts a learner, and takes seconds. Nothing is changed, and nothing leaves this machine.",
        ),
        "Explain",
        command,
        do,
        QUALITY,
    )


def blocks(explanation: Explanation) -> Sequence[Block]:
    """Return an explanation as blocks; the words before a table are its caption."""
    made: list[Block] = []
    for piece in pieces(explanation):
        if isinstance(piece, str):
            made.append(Words(piece))
            continue
        before = made.pop() if made else None
        caption = before.text if isinstance(before, Words) else ""
        made.append(Table(caption, piece[0], piece[1], "None."))
    return made


def _json(made: Explanation) -> bytes:
    return (json.dumps(written(made), indent=2, ensure_ascii=False) + "\n").encode()
