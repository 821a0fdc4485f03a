"""An explanation in plain words, as text of 80 columns or as an HTML page. It says what its JSON has, and no more."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any, assert_never

from ..store.observations import MIN_CELL
from .proof import Explanation, Proof

WIDTH = 80
SHOWN = 12  # features
LEAST = 0.005  # of all effects: what counts less is not named
Piece = str | tuple[Sequence[str], Sequence[Sequence[str]]]
"""A paragraph; or a table, as its columns and rows."""

NO_CAUSE = (
    "This is about the model, and not about the world: that it counts something does not say that a change of it would"
    " help, or that it is a cause."
)
PERSON_DECIDES = "The model decides nothing: a person does, who may see it otherwise. You can ask that person why."


def pieces(made: Explanation) -> Iterator[Piece]:
    """Yield an explanation as paragraphs and tables."""
    proof, says, here = made.proof, made.says, made.here
    told = _of_role(proof, says)
    yield next(told)
    if here is not None and "adds" in here:
        yield f"This institution's home layer adds {here['adds']:+.4f}. No other member can compute that again."
    elif here is not None:
        same = "the same" if here["result"] in {says.get("result"), says.get("outcome")} else "another one"
        yield (
            f"Corrected by what this school learned from its own students the result is {same}: {here['result']}. The"
            " reasons below are those of the model that the schools share."
        )
    yield from told
    yield (
        f"Computed at height {proof.height} of federation {proof.federation[:16]} from records with digest"
        f" {proof.records[:16]}. Another member can compute it again: collegium explain verify FILE RECORDS."
    )


def _of_role(proof: Proof, says: Mapping[str, Any]) -> Iterator[Piece]:
    match proof.role:
        case "student":
            yield from _student(says)
        case "guardian":
            yield from _guardian(says)
        case "instructor" if "draft" in says:
            yield from _draft(says)
        case "instructor":
            yield from _instructor(says)
        case "administrator":
            yield from _administrator(proof, says)
        case _:
            assert_never(proof.role)


def _student(says: Mapping[str, Any]) -> Iterator[Piece]:
    chance = says["chances"].get(says["result"])
    sure = "" if chance is None else f", with a probability of {chance:.0%} as the model sees it"
    yield f"The model's result for you is {says['result']}{sure}."
    total = sum(abs(one["effect"]) for one in says["yours"]) or 1.0
    ordered = sorted(says["yours"], key=lambda one: -abs(one["effect"]))
    for title, sign in (("What spoke for this result:", 1.0), ("What spoke against it:", -1.0)):
        some = [one for one in ordered if sign * one["effect"] >= LEAST * total][:SHOWN]
        if some:
            yield title
            yield (
                ("what", "yours", "how much it counted", "from"),
                [
                    (one["feature"], one["value"] or "–", _much(abs(one["effect"]) / total), one["modality"])
                    for one in some
                ],
            )
    if says["changes"]:
        yield "With one of these alone, all else as it is, the model would say something else:"
        yield (
            ("what", "if it were", "the model would say"),
            [(one["feature"], one["to"], one["then"]) for one in says["changes"]],
        )
    else:
        yield "No single value that can be changed would alter the result."
    yield NO_CAUSE
    yield PERSON_DECIDES


def _guardian(says: Mapping[str, Any]) -> Iterator[Piece]:
    yield f"A computer model looked at what the school knows. It says: {says['outcome']}."
    if says["for"]:
        yield f"This counted most for it: {', '.join(says['for'])}."
    if says["against"]:
        yield f"This counted against it: {', '.join(says['against'])}."
    yield "The model can be wrong. It does not know your child, and it does not decide. Ask the teacher what it means."


def _instructor(says: Mapping[str, Any]) -> Iterator[Piece]:
    if says["students"] is None:
        yield (
            f"These are fewer than {MIN_CELL} students: of so few no figures are shown, for they would say something"
            " about single persons."
        )
        return
    yield f"{says['students']} students of the class, as the model sees them:"
    shown = [(result, "not shown" if n is None else str(n)) for result, n in says["results"].items()]
    yield ("result", "students"), shown
    if any(n is None for n in says["results"].values()):
        yield f"A number under {MIN_CELL}, and one from which it would follow, is not shown."
    total = sum(one["mean"] for one in says["weighs"]) or 1.0
    yield "What counts in the model, on average over these students. Traits of persons are left out:"
    ordered = sorted(says["weighs"], key=lambda one: -one["mean"])[:SHOWN]
    yield (
        ("what", "how much it counts", "from"),
        [(one["name"], _much(one["mean"] / total), one["modality"]) for one in ordered],
    )
    yield NO_CAUSE


def _draft(says: Mapping[str, Any]) -> Iterator[Piece]:
    yield f"Draft for a teacher, which can be wrong: {says['draft'] or '(nothing)'}"
    if says["moved"]:
        yield "What moved it. Without the sentence the same draft were less likely (+) or more (−), in nats a token:"
        most = sorted(says["moved"], key=lambda one: -abs(one["nats"]))[:SHOWN]
        yield (
            ("from", "sentence", "moved by"),
            [(one["passage"], one["text"], f"{one['nats']:+.3f}") for one in most],
        )
    yield "A sentence that moved the draft need not be right, and the draft need not say why."


def _administrator(proof: Proof, says: Mapping[str, Any]) -> Iterator[Piece]:
    yield (
        f"Task {proof.task}, {says['explained']} record(s). Figures are in units of the score that decides (of two"
        " classes the log-odds), towards each record's result, as means over the records."
    )
    yield ("modality", "adds"), [(name, f"{value:+.4f}") for name, value in says["modalities"].items()]
    yield ("component", "adds", "round", "generation", "digest"), [
        (name, "–" if name not in says["components"] else f"{says['components'][name]:+.4f}", *map(str, made[:2]),
         made[2][:16])
        for name, made in proof.components.items()
    ]  # fmt: skip
    if says["contributors"]:
        yield "What each contributor moves: the score less that of the states without it, as after its withdrawal."
        yield (
            ("contributor", "adds", "moves by"),
            [(one["member"], f"{one['share']:+.4f}", f"{one['moves']:.4f}") for one in says["contributors"]],
        )
        yield "These need not add up: two members may have taught the same."
    yield f"Effects of features add up to the difference of the scores within {says['gap']:.1e}. By {proof.method}."
    yield f"Seed {proof.seed[:16]}, block {proof.block[:16]}."


def _much(share: float) -> str:
    return f"{'a lot' if share >= 0.2 else 'some' if share >= 0.05 else 'a little'} ({share:.0%})"


def text(made: Explanation) -> str:
    """Return an explanation as lines of at most 80 characters."""
    lines = []
    for piece in pieces(made):
        if isinstance(piece, str):
            lines += wrap(piece, WIDTH, break_on_hyphens=False)
        else:
            lines += _lines(*piece)
        lines.append("")
    return "\n".join(lines)


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table; a cell that leaves no room for its row is cut."""
    room = WIDTH - 2 - 2 * (len(columns) - 1)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    for row in (columns, *rows):
        cells = [
            (cell if len(cell) <= width else cell[: width - 1] + "…").ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def html(made: Explanation) -> str:
    """Return an explanation as a page of its own, that loads nothing."""
    title = escape(f"Why: {made.proof.task}")
    parts = []
    for piece in pieces(made):
        if isinstance(piece, str):
            parts.append(f"<p>{escape(piece)}</p>")
            continue
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in piece[0])
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in piece[1])
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    style = (
        "body{font-family:sans-serif;max-width:44em;margin:2em auto;padding:0 1em;line-height:1.5}"
        "td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{style}</style></head><body><main><h1>{title}</h1>{''.join(parts)}</main>"
        "</body></html>\n"
    )
