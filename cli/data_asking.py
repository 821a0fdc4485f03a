"""What `data init` asks at a terminal: the key, the tasks, bounds, levels and classes."""

import math
from collections.abc import Callable, Sequence
from functools import partial
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
    from ..node.data.propose import check_something_left, label_candidates, propose
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
        tasks = _ask("Which columns are to be predicted (commas between)?", likely, partial(_tasks, looks, key))
        proposal = propose(looks, key, tasks, ignore)
    orders = {look.entry.name: _order(look, proposal) for look in proposal.persons.unordered}
    proposal = propose(looks, key, tasks, ignore, orders)
    if not ignore:
        gone = [choice.seen.column for choice in proposal.used("out")]
        if gone:
            say(fill(f"Left out: {', '.join(gone)}.", LINE))

        def take_ignored(answer: str) -> "Proposal":
            ignored = [] if answer == NONE else split(answer)
            left = propose(looks, key, tasks, ignored, orders)
            check_something_left(left)
            return left

        proposal = _ask("Which others are left out (commas between)?", NONE, take_ignored)
    for table_name, order in proposal.persons.ordered.items():
        _texts(proposal, table_name, order)
    for choice in proposal.used("task"):
        if choice.stated:  # beforehand, or just now
            try:
                _confirm_absent(proposal.look(choice), choice, choice.levels)
            except ValueError as error:
                say(str(error))
                choice.stated = False  # it is asked for again, below
    for choice in proposal.choices:
        if choice.open:
            _state(proposal.look(choice), choice)
    return proposal


def _tasks(looks: "Sequence[Look]", key: str, answer: str) -> dict[str, tuple[str, ...]]:
    """Return the tasks that an answer names, each with its words where these are asked for. Raises UsageError."""
    from ..node.data.propose import FewWordsError, propose

    names = split(answer)
    if not names:
        raise ValueError("At least one column is to be predicted.")
    tasks: dict[str, tuple[str, ...]] = {}

    def take(name: str, words: str) -> None:
        propose(looks, key, {**tasks, name: split(words)})
        tasks[name] = tuple(split(words))

    for name in names:
        try:
            take(name, "")
        except FewWordsError as error:
            say(error.message + ".")
            question = f"The words of {name}, of two the one that means yes first (commas between)?"
            _ask(question, "", partial(take, name))
    return tasks


def _order(look: "Look", proposal: "Proposal") -> str:
    """Ask for the column by which the texts of a table are in order; "" where the table is to be left out."""
    from ..node.data.persons import orders_of

    columns = orders_of(look, proposal.persons.key)
    texts = ", ".join(seen.column for seen in look.columns if seen.kind == "text")
    about = f"{look.entry.path.name} has several rows of one {proposal.persons.key}, with texts ({texts})"
    if not columns:
        say(fill(f"{about}. It is left out: no column of dates or numbers puts them in order.", LINE))
        return ""

    def take(answer: str) -> str:
        if answer not in {NONE, *columns}:
            raise ValueError(f"Name one of {', '.join(columns)}; or {NONE}, to leave the table out.")
        return "" if answer == NONE else answer

    say(fill(f"{about}.", LINE))
    return str(_ask(f"  Which of {', '.join(columns)} puts them in order, or {NONE}?", NONE, take))


def _texts(proposal: "Proposal", name: str, order: str) -> None:
    """Ask how many texts of a student are read."""
    from ..node.data.manifest import MAX_TEXTS

    columns = [choice.seen.column for choice in proposal.used("text") if choice.seen.table == name]
    if not columns:
        return
    most = MAX_TEXTS // len(columns)

    def take(answer: str) -> None:
        if not answer.isascii() or not answer.isdigit() or not 1 <= int(answer) <= most:
            raise ValueError(f"Write a whole number from 1 to {most}.")
        proposal.texts[name] = int(answer)

    say(fill(f"Table {name}, several texts of a student ({', '.join(columns)}), in the order of {order}.", LINE))
    _ask("  How many of a student are read at most, the newest ones?", str(min(proposal.steps[name], most)), take)


def _confirm_absent(look: "Look", choice: "Choice", words: Sequence[str]) -> None:
    """Say which stated words no cell holds, and ask whether they are meant: classes, all words, what may be a slip.

    Some other levels may be another school's. Raises ValueError if they are not meant.
    """
    found = absent(look, choice, words)
    if not found:
        return
    slip = any(found.values()) or len(found) == len(set(words))
    text = absent_text(choice, words, found)
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
