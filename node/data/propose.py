"""A proposal of `dataset.toml`, from the contents of the tables: each column's purpose, with bounds, levels and
classes.

The user may change any of it; `stated` marks what a person has confirmed. Nothing here reads or writes a file.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...crypto.errors import UsageError
from .look import Look, Seen
from .natural import Bounds, natural, round_up
from .persons import Persons, columns_of, find_persons, id_score, names_things
from .sensitive import says_consent, word_set, words_of
from .spelling import MISSING, clean, whole

CLASSES = 10  # whole numbers up to so many are classes in order
YES = frozenset({
    "1", "yes", "y", "true", "pass", "passed", "ja", "wahr", "bestanden", "oui", "vrai", "admis", "si", "sí",
    "aprobado", "promosso", "tak", "zdał", "igen", "geslaagd", "godkänd", "bestått", "bestået",
})  # fmt: skip
_SIDES = ("train", "test", "valid", "dev")
_LABELS = word_set("""
    result results outcome label target grade pass passed mark score final ergebnis note bestanden abschluss resultat
    nota resultado risultato esito wynik ocena eredmeny jegy uitslag cijfer geslaagd betyg karakter voto vysledok
    vysledek znamka
""")
_OUT = {
    "empty": "every cell is empty",
    "constant": "it is the same in every row",
    "twice": "two columns have this name: rename one",
    "unreadable": "it holds neither text nor numbers",
    "date": "a date or time, which no model reads: make it a number (an age, a week) if it matters",
    "file": "files of a kind that is not read: PNG, JPEG and PCM .wav are",
    "marked": "numbers with %, a currency or marks between thousands: save them as plain numbers if they matter",
    "many": "many words, each seldom: sort them into a few if it matters",
}


@dataclass(slots=True, eq=False)
class Choice:
    """A column's purpose. `use` is key, subject, feature, text, image, audio, task, group, time or out (`why`).

    `task` is the kind of a task; of a binary one `levels` has first the value for yes, then for no.
    """

    seen: Seen
    use: str
    why: str = ""
    bounds: Bounds | None = None
    levels: tuple[str, ...] = ()
    task: str = ""
    stated: bool = False

    @property
    def open(self) -> bool:
        """Whether bounds, levels or classes are a person's to state."""
        return self.use in {"feature", "task", "group", "audio"} and not self.stated


@dataclass(slots=True, eq=False)
class Proposal:
    """A dataset.toml in the making. By table, `missing` are words for "no value", `steps` the rows of a series or the
    texts of a record; `texts` is their number as a person has stated it."""

    persons: Persons
    tables: tuple[Look, ...]
    choices: list[Choice]
    max_records: int
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def look(self, choice: Choice) -> Look:
        """Return the table of a column."""
        return next(look for look in self.tables if look.entry.name == choice.seen.table)

    def used(self, *uses: str) -> list[Choice]:
        """Return the columns of these uses."""
        return [choice for choice in self.choices if choice.use in uses]


class FewWordsError(UsageError):
    """Fewer than two words of a column to predict are shown: a person has to state its classes."""


def propose(
    looks: Sequence[Look],
    key: str = "",
    tasks: Mapping[str, Sequence[str]] | None = None,
    ignore: Collection[str] = (),
    orders: Mapping[str, str] | None = None,
) -> Proposal:
    """Propose the columns' purposes. `tasks` are the columns to predict, each with its words where they are stated.
    `orders` are those by which the texts of a table are in order, as `find_persons` has them.

    Raises UsageError: a named column is missing, or cannot be a task; or no column is recognised as the key.
    """
    wanted = {clean(name): tuple(map(clean, words)) for name, words in (tasks or {}).items()}
    left_out = {clean(name) for name in ignore}
    for name in sorted({*wanted, *left_out}):
        if not any(look.seen(name) for look in looks):
            raise UsageError(f"no table has a column {name!r}", columns_of(looks))
    persons = find_persons(looks, key, wanted, orders)
    tables = tuple(look for look in looks if look is persons.unit or look.entry.name in persons.joined)
    proposal = Proposal(persons, tables, [], _records(persons), notes=list(persons.notes))
    for look in tables:
        proposal.missing[look.entry.name] = tuple(
            dict.fromkeys(code for seen in look.columns for code in seen.codes if code not in MISSING)
        )
        if persons.joined.get(look.entry.name) or look.entry.name in persons.ordered:
            proposal.steps[look.entry.name] = round_up(look.most(persons.key))
        proposal.choices += [_choice(proposal, look, seen, left_out) for seen in look.columns]
    for name, words in wanted.items():
        make_task(proposal, name, words)
    return proposal


def check_something_left(proposal: Proposal) -> None:
    """Raise UsageError where no column is left to learn from."""
    if not proposal.used("feature", "text", "image", "audio"):
        gone = ", ".join(f"{choice.seen.column} ({choice.why})" for choice in proposal.used("out"))
        what = f"no column is left to learn from: {gone or 'there is none'}"
        raise UsageError(what, "Add a column, or name fewer tasks.")


def label_candidates(proposal: Proposal) -> list[str]:
    """Return the columns with names of something to predict."""
    return [
        choice.seen.column
        for choice in proposal.used("feature", "group")
        if _LABELS & set(words_of(choice.seen.column)) and choice.seen.column not in proposal.persons.joined.values()
    ]


def make_task(proposal: Proposal, column: str, words: Sequence[str] = ()) -> Choice:
    """Make a column one to predict; `words` are its classes, of two the first is yes. Raises UsageError."""
    named = [choice for choice in proposal.choices if choice.seen.column == clean(column)]
    named = [
        unjoined
        for unjoined in named
        if not proposal.persons.joined.get(unjoined.seen.table) and unjoined.seen.table not in proposal.persons.ordered
    ]  # a table with several rows a record has no labels
    if not named:
        what = f"column {column!r} is in no table whose rows are records"
        raise UsageError(what, f"Those are {', '.join(look.entry.path.name for look in proposal.tables)}.")
    choice = named[0]
    seen = choice.seen
    if choice.use in {"key", "subject"}:
        raise UsageError(f"column {column!r} names the records: it cannot be predicted", "Name another one.")
    choice.use, choice.why = "task", ""
    if words:
        set_classes(choice, words)
        return choice
    choice.levels, choice.bounds = (), None
    common = apart(seen.words)
    if seen.kind == "number" and not (seen.distinct == 2 and len(common) == 2):
        if classes := _in_order(seen, common):
            choice.task, choice.levels = "ordinal", classes
        else:
            choice.task, choice.bounds = "regression", natural(seen.column, seen.low, seen.high)
    elif seen.kind in {"number", "levels"} and len(common) >= 2:
        choice.task = "binary" if len(common) == 2 and not seen.rare else "multiclass"
        choice.levels = _yes_first(common) if choice.task == "binary" else common
    elif seen.kind in {"number", "levels"}:
        what = f"column {column!r}: fewer than two words occur often enough to be shown"
        raise FewWordsError(
            what, f'State its classes, of two the one that means yes first: --task "{column}=WORD,WORD".'
        )
    else:
        if seen.kind == "text":
            raise UsageError(
                f'column {column!r} holds text, which a task of kind "generate" writes; it is not proposed here',
                "Leave it out, declare such a task in dataset.toml by hand (docs/data.md), and take the column out of"
                " the texts that are read: what a teacher wrote afterwards tells the result.",
            )
        what = f"column {column!r} cannot be predicted: {_OUT.get(seen.kind, f'it holds {seen.kind}')}"
        raise UsageError(what, "Name a column with numbers or a few words.")
    return choice


def _in_order(seen: Seen, common: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that a few whole numbers are: all from the least to the largest, else those that occur."""
    if not seen.whole or seen.distinct > CLASSES:
        return ()
    every = tuple(map(str, range(int(seen.low), int(seen.high) + 1))) if seen.high - seen.low < CLASSES else ()
    if len(every) > 2 and set(common) <= set(every):
        return every
    return common if len(common) > 2 and not seen.rare else ()


def set_classes(choice: Choice, words: Sequence[str]) -> None:
    """State the classes of a task; of two the first means yes. Raises UsageError where they are no two words."""
    classes = apart([clean(word) for word in words])
    if len(classes) < 2 or len(classes) != len(words) or any(word in MISSING for word in classes):
        what = f"column {choice.seen.column!r}: classes are two words or more, none of them empty or there twice"
        raise UsageError(what, "Write them with commas between: pass,fail.")
    kind = "binary" if len(classes) == 2 else "ordinal" if all(map(_digits, classes)) else "multiclass"
    choice.task, choice.bounds, choice.levels, choice.stated = kind, None, classes, True


def _digits(word: str) -> bool:
    return word.removeprefix("-").isdigit()


def apart(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words without those that differ from one before in case, space or number format alone."""
    return tuple({whole(word): word for word in reversed(words)}[form] for form in dict.fromkeys(map(whole, words)))


def _yes_first(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(words, key=lambda word: whole(word) not in YES))


def _records(persons: Persons) -> int:
    return 1 if persons.key == persons.subject else max(16, round_up(persons.unit.most(persons.subject)))


def _counts(seen: Seen) -> bool:
    """Return whether a column numbers the rows."""
    return (
        seen.kind == "number" and seen.whole and seen.distinct > CLASSES and seen.high - seen.low + 1 == seen.distinct
    )


def _choice(proposal: Proposal, look: Look, seen: Seen, ignore: Collection[str]) -> Choice:
    persons, name = proposal.persons, look.entry.name
    if seen.column == persons.key:
        return Choice(seen, "key")
    if look is persons.unit and seen.column == persons.subject:
        return Choice(seen, "subject")
    time = persons.joined.get(name, "")
    if seen.column == time:
        return Choice(seen, "time")
    if seen.column in ignore:
        return Choice(seen, "out", "by your choice")
    if seen.sensitive == "person":
        return Choice(seen, "out", "it identifies a person or a place")
    if says_consent(seen.column):
        return Choice(seen, "out", "it seems to say who consents: name it under [unit], as consent or consent_until")
    levels = tuple(word for word in apart(seen.words) if word not in proposal.missing[name])
    if seen.sensitive:
        if look is persons.unit and levels and seen.kind in {"levels", "number"} and len(levels) <= CLASSES:
            return Choice(seen, "group", levels=levels)
        return Choice(seen, "out", "it reveals a protected group, and is no group of few words in the unit table")
    if seen.column == persons.subject or (seen.unique and (id_score(seen.column) or _counts(seen))):
        return Choice(seen, "out", "it names the rows")
    if seen.kind == "number" and seen.whole and names_things(seen.column):
        return Choice(seen, "out", "its numbers seem to stand for names, and are no amounts")
    if seen.kind == "levels" and seen.words and all(word.lower().startswith(_SIDES) for word in seen.words):
        return Choice(seen, "out", "it seems to name held-out subjects: use it in [split] by column, train and test")
    if seen.column == persons.ordered.get(name):
        return Choice(seen, "time")
    if seen.kind in _OUT:
        return Choice(seen, "out", _OUT[seen.kind])
    if name in persons.ordered and seen.kind == "text":
        return Choice(seen, "text")
    if name in persons.ordered and not time:
        return Choice(
            seen, "out", "of several rows of a student only texts are read, without a column of time in numbers"
        )
    if time and seen.kind not in {"number", "levels"}:
        return Choice(seen, "out", "a series has numbers and levels alone")
    if seen.kind == "levels":
        why = "no word occurs often enough to be shown: write its levels yourself, if it matters"
        return Choice(seen, "feature", levels=levels) if levels else Choice(seen, "out", why)
    if seen.kind == "number":
        return Choice(seen, "feature", bounds=natural(seen.column, seen.low, seen.high))
    if seen.kind == "pixels":
        bytes_ = seen.low >= 0 and 1 < seen.high <= 255
        return Choice(seen, "image", bounds=(0.0, 255.0) if bytes_ else natural(seen.column, seen.low, seen.high))
    if seen.kind == "audio":
        if len(seen.rates) != 1:
            rates = ", ".join(map(str, seen.rates))
            why = f"clips have rates of {rates}: resample all to one" if rates else "no clip is PCM .wav"
            return Choice(seen, "out", why)
        return Choice(seen, "audio", bounds=(0.0, natural("", 0.0, min(math.ceil(seen.seconds), 3600))[1]))
    return Choice(seen, seen.kind)
