"""The checks of `collegium doctor` that need the charter, or the ledger on this disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..node.home import config as settings
from ..node.home.addresses import members_problems
from ..node.home.lock import running
from ..node.home.paths import Home
from ..node.words import counted
from ..protocol.blocks import tolerated
from ..protocol.charter import Charter, unsigned_members

if TYPE_CHECKING:
    from ..consensus.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: "ok", "warn" or "fail". `sizes` are in bytes."""

    name: str
    verdict: str
    found: str
    advice: str = ""
    sizes: Mapping[str, int] | None = None

    def as_map(self) -> dict[str, Any]:
        """Return it as JSON."""
        shown = {"check": self.name, "verdict": self.verdict, "found": self.found, "advice": self.advice}
        return shown if self.sizes is None else {**shown, "bytes": dict(self.sizes)}


def ledger_of(home: Home, charter: Charter, key: bytes) -> "Ledger":
    """Return the ledger on this disk. Raises CorruptError."""
    from ..node.store.database import Store  # numpy; only checks of the ledger need it
    from ..node.views import offline

    with Store.open_readonly(home.database) as store:
        return offline(charter, store, me=key).ledger


def in_force(home: Home, ledger: "Ledger | None") -> Charter:
    """Return the charter in force by the ledger on this disk; without one, the founding charter."""
    from ..node.verify import read_charter  # numpy; only these checks need it

    return ledger.charter if ledger is not None else read_charter(home.charter)[0]


def charter_checks(home: Home, *, ledger: "Ledger | None", gone: bool) -> Iterator[Check]:
    """The charter: who signed it, and whether this key is a member's."""
    from ..node.verify import read_charter  # numpy; only this check needs it

    charter, signed = read_charter(home.charter)
    missing = ", ".join(member.name for member in unsigned_members(charter, signed))
    if missing:
        yield Check("charter", "fail", f"not signed by {missing}", "Let them run `charter sign`, then merge.")
    else:
        yield Check("charter", "ok", f"{charter.name}, signed by all {len(charter.members)}")
    yield from _membership(home, charter, ledger)
    count = len(charter.members if ledger is None else ledger.members)
    if tolerated(count, charter.rules.fault_model) == 0 and not gone:
        text = f"{count} members under {charter.rules.fault_model!r}: no lost member can be spared"
        yield Check(
            "quorum",
            "warn",
            text,
            "Every decision needs the votes of all: without one, nothing is agreed. More members would help.",
        )


def _membership(home: Home, charter: Charter, ledger: "Ledger | None") -> Iterator[Check]:
    from .read import public_key

    key = public_key(home)
    if key is None or (charter.member(key) is not None and not home.database.exists()):
        return
    if home.database.exists():
        yield from _standing_checks(home, ledger_of(home, charter, key) if ledger is None else ledger, key)
    elif home.joining.exists():
        yield Check("membership", "warn", f"key {key.hex()[:16]} waits to be admitted", "Start the daemon: it waits.")
    else:
        advice = "Use the key that the charter names, or join by an invitation: collegium join."
        yield Check("membership", "fail", f"key {key.hex()[:16]} is not a member", advice)


def _standing_checks(home: Home, ledger: "Ledger", key: bytes) -> Iterator[Check]:
    """Whether the ledger on this disk counts the key as a member's."""
    from ..node.core.motions import undecided  # numpy; only this check needs it
    from ..node.views.notes import gone

    seat = ledger.roll.seats.get(key)
    waiting = len(undecided(ledger, key))
    if seat is None:
        invited = home.joining.exists()
        text = f"key {key.hex()[:16]} is not a member as of height {ledger.height}"
        advice = "The members decide: ask the one that invited you." if invited else "Join by an invitation."
        yield Check("membership", "warn" if invited else "fail", text, advice)
    elif seat.gone:
        note = gone(seat, ledger.roll)
        yield Check("membership", "warn", note.found, note.advice)
    elif waiting and running(home) is None:
        text = f"{counted(waiting, 'motion waits', 'motions wait')} for your ballot"
        yield Check("membership", "warn", text, "Start the daemon, then: collegium peer motions.")
    else:
        yield Check("membership", "ok", f"{seat.name}, one of {len(ledger.members)}")


def address_checks(home: Home, own: Sequence[str]) -> Iterator[Check]:
    """Whether the charter has addresses of this node's own that it listens on, and that others can dial."""
    from ..node.verify import read_charter  # numpy; only these checks need it
    from .read import public_key

    if not home.charter.exists():
        return
    members = read_charter(home.charter)[0].members
    for problem in members_problems([(member.name, member.addresses) for member in members]):
        yield Check("addresses", "warn", f"charter: {problem}", "`collegium peer add MEMBER ADDRESS` helps, here.")
    key = public_key(home)
    mine = next((member for member in members if member.key == key), None)
    if mine is not None and mine.addresses and not set(mine.addresses) & set(own):
        text = f"the charter has {', '.join(mine.addresses)}, and this node tells others {', '.join(own)}"
        yield Check("addresses", "warn", text, "Set [node] listen or advertise to what the charter has.")


def policy_checks(home: Home, *, ledger: "Ledger | None") -> Iterator[Check]:
    """Whether this node's policy keeps data out of the training under the charter in force."""
    if not home.charter.exists():
        return
    from .founding import withheld_here

    reason, advice, everything = withheld_here(home, in_force(home, ledger))
    if reason:
        yield Check("policy", "fail" if everything else "warn", reason, advice)


def engage_checks(home: Home, *, ledger: "Ledger | None") -> Iterator[Check]:
    """Whether a pattern of `engage` matches no component of the charter in force."""
    if not home.charter.exists():
        return
    from ..node.views.training import unmatched  # numpy; only this check needs it

    names = sorted(spec.name for spec in in_force(home, ledger).components)
    for note in unmatched(settings.load(home.config).learning.idle_patterns(names), names):
        yield Check("engage", "warn", note.found, note.advice)


def privacy_checks(home: Home, *, ledger: "Ledger | None") -> Iterator[Check]:
    """Whether a budget is spent."""
    if not home.database.exists() or not home.charter.exists():
        return
    from ..node.home.policies import policies  # numpy; only this check needs it
    from ..node.store.database import Store
    from ..node.views import spent_notes

    charter = in_force(home, ledger)
    with Store.open_readonly(home.database) as store:
        reservations = store.reservations()
    notes = spent_notes(policies(settings.load(home.config), charter), reservations, charter.learning.recovery_share)
    for note in notes:
        yield Check("privacy", "warn", note, "`collegium privacy show` has the training runs and who set which bound.")
    if not notes:
        yield Check("privacy", "ok", f"{counted(len(reservations), 'training run')}, within every budget")
