"""Which table lists the records, which column names them, and whose they are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...crypto.errors import UsageError
from .look import MAX_LEVELS, Look, Seen
from .sensitive import word_set, words_of
from .spelling import clean

_PERSONS = (
    "pupil", "student", "learner", "child", "candidate", "schuler", "schueler", "eleve", "enfant", "etudiant",
    "apprenant", "alumn", "estudiante", "alliev", "studente", "uczen", "uczn", "tanulo", "leerling", "elev", "zak",
    "matrikel",
)  # fmt: skip
_IDS = word_set("id ids key nr num nummer number code no kennung kurzel kuerzel pseudonym numero numer kod uuid")
_THINGS = word_set("""
    school class teacher course group district lea schule klasse lehrer kurs gruppe ecole classe professeur cours groupe
    escuela clase curso grupo scuola corso gruppo szkola klasa grupa skola skole klass
""")
_TIMES = word_set("""
    week day month time hour lesson step date t woche tag monat zeit stunde semaine jour mois heure semana dia mes hora
    settimana giorno mese ora tydzien dzien miesiac dag maand uur vecka uke het nap
""")

_ORDERS = word_set("""
    nr no num number order position rank draft version attempt reihenfolge versuch fassung lfd numero ordre ordine orden
    poradi kolejnosc volgorde
""")


@dataclass(frozen=True, slots=True)
class Persons:
    """The unit table, its key and the subject of its records; `joined` maps the other readable tables to the column of
    time by which they are a series, "" where a record has one row. `ordered` maps those with several texts a record to
    the column of their order; `unordered` are tables with texts for which a person has to name it. `left` says why
    others are not read."""

    unit: Look
    key: str
    subject: str
    joined: dict[str, str] = field(default_factory=dict)
    ordered: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    unordered: tuple[Look, ...] = ()
    notes: tuple[str, ...] = ()


def names_things(column: str) -> bool:
    """Return whether numbers of this name probably stand for schools, classes and the like, and are no amounts."""
    words = words_of(column)
    return any(_is_thing(word) for word in words) and all(_is_thing(word) or word in _IDS for word in words)


def _is_thing(word: str) -> bool:
    return word.removesuffix("id").removesuffix("nr") in _THINGS


def id_score(column: str) -> int:
    """Return how much a column's name sounds like one that names a person (2) or a row (1)."""
    words = words_of(column)
    return 2 * any(word.startswith(_PERSONS) for word in words) + bool(_IDS & set(words))


def _repeats(seen: Seen) -> bool:
    """Return whether a column names persons with several rows; a number of children does not, nor an age."""
    words = words_of(seen.column)
    only = all(word in _IDS or word.startswith(_PERSONS) for word in words)
    named = bool(_IDS & set(words)) or any(word.endswith("id") for word in words)
    return only and (seen.kind != "number" or named or seen.distinct > MAX_LEVELS)


def find_persons(
    looks: Sequence[Look],
    key: str = "",
    tasks: Collection[str] = (),
    orders: Mapping[str, str] | None = None,
) -> Persons:
    """Find the unit table, by the column `key` if it is given. Raises UsageError where a person has to say it.

    `orders` maps tables with several texts a record to the column of their order, "" to leave the table out.
    """
    link = clean(key) or _link(looks)
    holders = [look for look in looks if look.seen(link) is not None]
    if not holders:
        what = f"no table has a column {link!r}" if link else "no column is recognised as the one that names a student"
        raise UsageError(what, f"Name it: --key COLUMN. {columns_of(looks)}")
    single = [look for look in holders if _column_of(look, link).unique]
    several = [look for look in holders if look not in single and _row_id(look, link)]
    labelled = [look for look in several if any(look.seen(task) for task in tasks)]
    elsewhere = any(look.seen(task) for look in single for task in tasks)
    if single and not (labelled and not elsewhere):
        unit = max(single, key=lambda look: (look.table.rows, len(look.columns)))
        return _with_other_tables(looks, Persons(unit, link, link), orders or {})
    if not several:
        first = holders[0]
        what = f"{first.entry.path}: column {link!r} has the same value in several rows, and no column names each row"
        raise UsageError(what, "Add a column that numbers the rows, or name the right one: --key COLUMN.")
    unit = max(labelled or several, key=lambda look: (look.table.rows, len(look.columns)))
    return _with_other_tables(looks, Persons(unit, _row_id(unit, link), link), orders or {})


def columns_of(looks: Sequence[Look]) -> str:
    """Say which columns there are."""
    sentences = (f"{look.entry.path.name} has {_listed([seen.column for seen in look.columns])}" for look in looks)
    return "; ".join(sentences) + "."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _column_of(look: Look, column: str) -> Seen:
    seen = look.seen(column)
    assert seen is not None
    return seen


def _may_name(seen: Seen) -> bool:
    return seen.kind in {"many", "levels", "constant"} or (seen.kind == "number" and seen.whole)


def _link(looks: Sequence[Look]) -> str:
    """Return the column that most probably names a person, "" if none does."""
    links: dict[str, tuple[int, int, int]] = {}
    for look in looks:
        for seen in look.columns:
            score = id_score(seen.column)
            if score and _may_name(seen) and not seen.sensitive and (seen.unique or _repeats(seen)):
                tables = sum(other.seen(seen.column) is not None for other in looks)
                best = links.get(seen.column, (0, 0, 0))
                links[seen.column] = max(best, (tables, score, int(seen.unique)))
    return max(links, key=lambda column: links[column], default="")


def _row_id(look: Look, link: str) -> str:
    """Return the column that names each row of a table beside the person's, "" if none does."""
    ids = [seen.column for seen in look.columns if seen.column != link and seen.unique and _may_name(seen)]
    ids = [column for column in ids if id_score(column)] or ids
    return max(ids, key=id_score, default="")


def _with_other_tables(looks: Sequence[Look], persons: Persons, orders: Mapping[str, str]) -> Persons:
    """Say of each other table whether it can be read."""
    joined, ordered, left, unordered, notes = {}, {}, {}, [], []
    for look in looks:
        if look is persons.unit:
            continue
        seen, name = look.seen(persons.key), look.entry.path.name
        if seen is None:
            left[name] = f"it has no column {persons.key!r}, by which the records of {persons.unit.entry.path.name} go"
            continue
        time = "" if seen.unique else _time(look)
        order = "" if seen.unique else orders.get(look.entry.name, time or _order(look))
        texts = any(column.kind == "text" for column in look.columns)
        if not seen.unique and not (time or (order and texts)):
            unordered += [look] if texts else []
            left[name] = (
                f"several rows have one {persons.key!r}. Numbers in the order of a column of time can (a series), and"
                " texts in the order of a column of dates or numbers; or let its rows be the records: give each an id,"
                " and name a task of this table"
            )
            continue
        joined[look.entry.name] = time
        if order and texts:
            ordered[look.entry.name] = order
        if unknown := look.unknown(persons.key, persons.unit, persons.key):
            notes.append(f"{name}: {unknown} of the rows are of nobody in {persons.unit.entry.path.name}")
    return Persons(persons.unit, persons.key, persons.subject, joined, ordered, left, tuple(unordered), tuple(notes))


def _time(look: Look) -> str:
    times = [seen.column for seen in look.columns if seen.kind == "number" and _TIMES & set(words_of(seen.column))]
    return times[0] if times else ""


def _order(look: Look) -> str:
    """Return the column by which several texts of one record are in order, "" if none is seen."""
    dates = [seen.column for seen in look.columns if seen.kind == "date"]
    numbers = [seen.column for seen in look.columns if seen.kind == "number" and _ORDERS & set(words_of(seen.column))]
    return next(iter([*dates, *numbers]), "")


def orders_of(look: Look, key: str) -> list[str]:
    """Return the columns of dates or numbers, by which a person may put the texts of one record in order."""
    return [seen.column for seen in look.columns if seen.kind in {"date", "number"} and seen.column != key]
