"""What `data init` asks at a terminal: the key, the tasks, bounds, levels and classes."""

import math
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import typer

from ..crypto.errors import UsageError
from .data_words import absent, absent_text, described, join, split
from .output import say, table

if TYPE_CHECKING:
    from ..node.data.look import Look
    from ..node.data.propose import Choice, Proposal

NONE = "none"
LINE = 79


def _ask(question: str, default: str, take: Callable[[str], Any]) -> Any:
    """Ask until an answer is one that can be taken."""
    while True:
        try:
            return take(str(typer.prompt(question, default=default or None, err=True)).strip())
        except (UsageError, ValueError) as error:
            say(f"{error}" if not isinstance(error, UsageError) else f"{error.message}. {error.advice}")


def proposal_by_asking(
    looks: "Sequence[Look]", key: str, tasks: dict[str, tuple[str, ...]], ignore: Sequence[str]
) -> "Proposal":
    """Return the proposal that a person at a terminal has stated. Raises UsageError."""
    from ..node.data.persons import find_persons
    from ..node.data.propose import label_candidates, make_task, propose
    from .output import console

    screen = console(stderr=True)
    table(screen, ("table", "column", "here"), [(seen.table, seen.column, described(seen)) for look in looks
                                                for seen in look.columns], empty="")  # fmt: skip
    say("Nobody but you sees this. Press Enter to take what stands in [brackets].")
    if not key:
        try:
            likely = find_persons(looks, "", tasks).subject
        except UsageError:
            likely = ""

        def take_key(answer: str) -> str:
            find_persons(looks, answer, tasks)
            return answer

        key = _ask("Which column names a student?", likely, take_key)
    proposal = propose(looks, key, tasks, ignore)
    if not tasks:
        likely = join(label_candidates(proposal))

        def take_tasks(answer: str) -> None:
            tasks.update(dict.fromkeys(split(answer), ()))
            try:
                if not tasks:
                    raise ValueError("At least one column is to be predicted.")
                for name in tasks:
                    if not any(choice.seen.column == name for choice in proposal.choices):
                        raise ValueError(f"There is no column {name!r}.")
            except ValueError:
                tasks.clear()
                raise

        _ask("Which columns are to be predicted (commas between)?", likely, take_tasks)
    if not ignore:
        gone = [choice.seen.column for choice in proposal.used("out")]
        if gone:
            say(fill(f"Left out: {', '.join(gone)}.", LINE))
        answer = _ask("Which others are left out (commas between)?", NONE, str)
        ignore = [] if answer == NONE else split(answer)
    proposal = propose(looks, key, {column: words for column, words in tasks.items() if words}, ignore)
    for unworded in (name for name, words in tasks.items() if not words):
        try:
            make_task(proposal, unworded)
        except UsageError as error:
            say(error.message + ".")
            words = _ask(f"The words of {unworded}, of two the one that means yes first (commas between)?", "", split)
            make_task(proposal, unworded, words)
    for choice in proposal.used("task"):
        if choice.stated:  # beforehand, or just now
            try:
                _confirm_absent(proposal.look(choice), choice, choice.levels)
            except ValueError as error:
                raise UsageError(f"You did not take the words of {choice.seen.column}", str(error)) from None
    for choice in proposal.choices:
        if choice.open:
            _state(proposal.look(choice), choice)
    return proposal


def _confirm_absent(look: "Look", choice: "Choice", words: Sequence[str]) -> None:
    """Say which stated words no cell holds, and ask whether they are meant: classes, and what may be a slip.

    Other levels may be another school's. Raises ValueError if they are not meant.
    """
    found = absent(look, choice, words)
    if not found:
        return
    slip = any(found.values())
    text = absent_text(choice, found)
    if choice.use != "task" and not slip:
        say(f"  {text}. It may be another school's.")
    elif not typer.confirm(f"  {text}. Take these words all the same?", default=not slip, err=True):
        raise ValueError("Write them as the table has them, or put the table right.")


def _number(text: str) -> float:
    """Return a number; NaN, which is in no bounds, for what is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _state(look: "Look", choice: "Choice") -> None:
    """Ask for the bounds, levels or classes of a column."""
    from ..node.data.dataset_toml import number_of
    from ..node.data.propose import apart, set_classes

    name, what = choice.seen.column, {"task": "to predict", "group": "a group"}.get(choice.use, "a feature")

    def take_bounds(answer: str) -> None:
        numbers = [_number(word) for word in answer.replace(" to ", " ").split()]
        if len(numbers) != 2 or not -1e300 < numbers[0] < numbers[1] < 1e300:
            raise ValueError("Write two numbers, the lower one first.")
        choice.bounds = numbers[0], numbers[1]

    def take_levels(answer: str) -> None:
        words = apart(split(answer))
        if not words:
            raise ValueError("Write at least one word.")
        _confirm_absent(look, choice, words)
        choice.levels = words

    def take_classes(answer: str) -> None:
        kind = choice.task
        _confirm_absent(look, choice, split(answer))
        set_classes(choice, split(answer))
        if kind == "ordinal" and choice.task == "multiclass":
            choice.task = kind

    say(fill(f"{name}, {what}: {described(choice.seen)}.", LINE))
    if choice.use == "audio" and choice.bounds:

        def take_seconds(answer: str) -> None:
            if not 0 < _number(answer) <= 3600:
                raise ValueError("Write a number of seconds, 3600 at most.")
            choice.bounds = 0.0, _number(answer)

        _ask("  How many seconds of a clip are read?", number_of(choice.bounds[1]), take_seconds)
    elif choice.bounds:
        low, high = map(number_of, choice.bounds)
        _ask("  The lowest and the highest possible value?", f"{low} {high}", take_bounds)
    elif choice.use == "task":
        order = "first the one that means yes" if choice.task == "binary" else "from low to high if in order"
        _ask(f"  Its words, {order}?", join(choice.levels), take_classes)
        if choice.task == "multiclass" and typer.confirm("  Are they in an order?", err=True):
            choice.task = "ordinal"
    else:
        _ask("  Its words?", join(choice.levels), take_levels)
    choice.stated = True
