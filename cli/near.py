"""`collegium unlearn subject`: other ids in the data that may be other spellings of the same student's."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ..crypto.errors import OperatorError, UsageError
from .output import confirm, say

if TYPE_CHECKING:
    from ..node.home import Home

SHOWN = 12  # ids in a message


def meant(home: "Home", student: str, also: Sequence[str], *, exactly: bool, yes: bool) -> list[str]:
    """Return the ids to forget: the given one, those in `also`, and those that the operator confirms.

    Ids are near if they differ in case, leading zeros or Unicode form only. The operator is asked about those that
    `also` does not name. With `yes`, or without a terminal, `exactly` or `also` must decide instead. Raises UsageError.
    """
    from ..node.data.spelling import clean

    names = list(dict.fromkeys(map(clean, (student, *also))))
    if not all(names):
        raise UsageError("A student's id is empty", "Give it as the data have it.")
    if exactly:
        return names
    others = similar(home, names)
    if not others:
        return names
    shown = ", ".join(map(repr, others[:SHOWN])) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    differ = "differs" if len(others) == 1 else "differ"
    what = f"The data also have {shown}, which {differ} from what you gave in case, leading zeros or form only"
    if yes or not sys.stdin.isatty():
        again = " ".join(f"--also {name}" for name in others[:SHOWN])
        advice = f"If they are the same student, add {again}; if not, add --exactly. Nothing was done."
        raise UsageError(what, advice)
    say(what + ".")
    these = "Is this" if len(others) == 1 else "Are all of these"
    if typer.confirm(f"{these} the same student, to be forgotten too?", err=True):
        return names + others
    confirm("Forget the given id alone, and go on training on the others?", yes=False)
    return names


def similar(home: "Home", names: Sequence[str]) -> list[str]:
    """Return the ids in the data that differ from one of these in case, leading zeros or Unicode form only."""
    from ..node.data.spelling import near

    forms = {near(name) for name in names}
    return [name for name in in_data(home) or () if near(name) in forms and name not in names]


def in_data(home: "Home") -> list[str] | None:
    """Return every id in the institution's data; None, with a message, if they cannot be read now."""
    from ..node.data.manifest import read_manifest
    from ..node.data.records import subject_ids
    from ..node.home import config as settings

    folder = settings.load(home.config).data.path
    if folder is None:
        return None
    try:
        return subject_ids(read_manifest(folder))
    except OperatorError as error:
        say(f"What ids the data have cannot be looked up now: {error.message}.")
        return None


def is_held_out(home: "Home", student: str) -> bool:
    """Whether the data now set this student apart for evaluation; False if they cannot be read."""
    from ..node.data.manifest import read_manifest
    from ..node.data.records import held_out_subject
    from ..node.home import config as settings

    folder = settings.load(home.config).data.path
    try:
        return folder is not None and held_out_subject(read_manifest(folder), student)
    except OperatorError:
        return False
