"""Withdrawals: of students, by their ids, and of this node's own contributions. The price comes before the question."""

from collections.abc import Callable, Mapping, Sequence

from ....consensus.membership import earlier
from ....crypto.errors import RefusedError, UsageError
from ...control.client import SCOPE, Client
from ...views.consequences import of_withdrawing
from ...views.context import Context
from ...words import counted
from ..blocks import Block, Cell, Code, Facts, Table
from ..source import Look, Receipt, Source, Students
from .steps import Choice, Fields, File, Option, Outcome, Plan, Step, Tell

BACK = "/withdrawals"
FORGET = "collegium unlearn subject -"
TAKEN = "It cannot be taken back."


def forget(source: Source, fields: Fields) -> Step:
    """Look for students, and ask whether to forget them; first, whether ids that are spelt alike are meant as well."""
    students = _students(source)
    given = [line.strip() for line in fields.get("students").splitlines() if line.strip()]
    found = students.look(given)
    others = students.similar(found.ids)
    if not others:
        return _plan(students, found)
    shown: list[Sequence[Cell]] = [[name] for name in others]
    several = len(others) > 1
    return Choice(
        "Which students are meant?",
        f"The data also have {'these ids, which differ' if several else 'this id, which differs'} from what you gave in"
        f" case, leading zeros or form only. {'Are these the same students' if several else 'Is it the same student'}?",
        (
            Option("The same: forget all of them", lambda: _plan(students, students.look([*found.ids, *others]))),
            Option("Others: forget only what I gave", lambda: _plan(students, found)),
        ),
        "collegium unlearn subject ID --also OTHER",
        BACK,
        (Table("Similar ids in the data", ("id",), shown, ""),),
    )


def _plan(students: Students, found: Look, before: int | None = None) -> Plan:
    """Ask whether to forget them; once more, with what it was `before`, if the price rose while the page asked."""
    rows: list[Sequence[Cell]] = [[name, seen] for name, seen in zip(found.ids, found.seen, strict=True)]
    price: Callable[[], Sequence[str]] | None = (lambda: students.price(found.updates)) if found.updates else None

    def do(tell: Tell) -> Step:
        count = len(found.updates)
        try:
            return _receipts(students.forget(found.ids, tell, count if before is None else None))
        except RefusedError:
            now = students.look(found.ids)
            if before is not None or len(now.updates) <= count:
                raise
            return _plan(students, now, count)

    rose = (
        f"Nothing was done: while the page asked, the price rose from {counted(before or 0, 'update')} to"
        f" {len(found.updates)}. It may rise with every round. If you agree this time, all that saw them by then are"
        " withdrawn."
    )
    return Plan(
        f"Forget {counted(len(found.ids), 'student')}?",
        found.question,
        (
            *(() if before is None else (rose,)),
            TAKEN,
            "The learner starts anew without them, and what is learned for this institution alone is learned anew.",
            "The ids stay on this machine. All members see that single updates were withdrawn, and when.",
            "Delete the students from the data folder as well: the node cannot do that.",
            "To withdraw at a later time together with others, or without training again, use the command: --at,"
            " --scheduled, --no-retrain.",
        ),
        "Forget them",
        FORGET,
        do,
        BACK,
        (Table("Students", ("id", "in this node's updates"), rows, ""),),
        price,
    )


def _receipts(receipts: Sequence[Receipt]) -> Outcome:
    blocks: list[Block] = []
    kept = []
    for number, one in enumerate(receipts, 1):
        pairs: list[tuple[str, Cell]] = [("id", one.student)]
        if one.content is not None:
            pairs.append(("key of the receipt, for the student alone", Code(one.key)))
            what = "the deletion receipt" if len(receipts) == 1 else f"the deletion receipt of student {number}"
            kept.append(File(f"receipt-{number}", one.content, what))
        if one.remark:
            pairs.append(("note", one.remark))
        blocks.append(Facts(pairs))
    return Outcome(
        "Forgotten",
        (
            "They are left out of all training from now on, and the hosts certified states without the withdrawn"
            " updates.",
            "Keep the receipts now: key and file are shown here alone, for half an hour. Hand both to the student by"
            " different ways, and to nobody else.",
        ),
        FORGET,
        BACK,
        blocks,
        kept,
    )


def withdraw(source: Source, fields: Fields) -> Step:
    """Ask whether to withdraw this node's own contributions: everything, or a part."""
    students = _students(source)
    scope, words, options = _scope(fields)
    client = Client(source.home)
    status = client.status()
    own, whole = source.from_store(lambda context: _own(context, scope))
    if not own:
        raise RefusedError(
            f"No update of this node counts in {words}", "There is nothing to withdraw. Nothing was done."
        )
    command = f"collegium unlearn request{options}"
    everything = not any(scope.values())

    def do(_tell: Tell) -> Outcome:
        sent = client.request_withdrawal(scope)
        if not sent["signing"]:
            said = "The withdrawal waits until enough members are connected; leave the daemon running."
        elif sent["recorded"]:
            said = "The withdrawal is signed and on its way: its progress is on the page of withdrawals."
        else:
            said = "It was only in flight, and no other node counts it: this node drops it, and no record is made."
        return Outcome("Withdrawn", (said,), command, BACK)

    return Plan(
        f"Withdraw {words}?",
        f"Withdraw {words} that this node contributed to {status['federation']['name']!r}?",
        (
            TAKEN,
            f"{len(own)} of {counted(len(whole), 'update')} of this node that count are taken out.",
            *(("This node then contributes no more.",) if everything else ()),
            of_withdrawing(),
        ),
        "Withdraw",
        command,
        do,
        BACK,
        price=lambda: students.price(own),
    )


def _scope(fields: Fields) -> tuple[dict[str, object], str, str]:
    """Return a withdrawal's scope, in words, and as the command's options. Raises UsageError."""
    component, rounds = fields.get("component").strip(), fields.get("rounds").strip()
    first = last = 0
    if rounds:
        low, dots, high = rounds.partition("..")
        numbers = [text for text in (low, high if dots else low) if text.isascii() and text.isdecimal()]
        if len(numbers) != 2 or any(len(text) > 18 for text in numbers):
            raise UsageError("The rounds are no span", "Write A..B, or one number.")
        first, last = map(int, numbers)
        if not component or not 1 <= first <= last:
            raise UsageError("The rounds are those of a component, from the first to the last", "Choose it as well.")
    scope: dict[str, object] = {**SCOPE, "components": [component] if component else [], "first": first, "last": last}
    words = f"rounds {first} to {last} of {component}" if first else component or "everything"
    options = (f" --component {component}" if component else "") + (f" --rounds {first}..{last}" if first else "")
    return scope, words, options


def _own(context: Context, scope: Mapping[str, object]) -> tuple[set[bytes], set[bytes]]:
    """Return this node's updates that count within a scope, and all of them."""
    me, components = context.me, scope["components"]
    if me is None:
        return set(), set()
    keys = {me, *earlier(context.ledger.roll, me)}
    inside, whole = set(), set()
    for name, component in context.ledger.components.items():
        for round_ in component.rounds:
            mine = {entry.update for entry in round_.entries if entry.author in keys}
            whole |= mine
            named = not components or (isinstance(components, list) and name in components)
            if named and (not scope["first"] or int(str(scope["first"])) <= round_.number <= int(str(scope["last"]))):
                inside |= mine
    return inside, whole


def _students(source: Source) -> Students:
    if source.students is None:
        raise RefusedError("This page only reads", "Start it without --read-only, or use the command.")
    return source.students
