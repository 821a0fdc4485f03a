"""Open and ended motions, and one member's history."""

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Literal, assert_never

from ...consensus import membership
from ...consensus.ledger import Withdrawn
from ...consensus.membership import OpenMotion, Outcome
from ...crypto.errors import RemoteProtocolError
from ...protocol import amendment
from ...protocol.records import SCOPES, WithdrawalStatement
from ..words import counted
from .charter import number_differences
from .context import Context
from .shapes_membership import MemberShown, MotionEnded, Motions, MotionShown


def sentence(context: Context, motion: OpenMotion) -> str:
    """Return a motion in words."""
    who = _subject(context, motion)
    match motion.action:
        case "admit":
            return f"admit {who} (key {motion.subject.hex()[:16]})"
        case "amend":
            return f"amend the charter: {amendment_in_words(context, motion)}"
        case "leave":
            return f"{who} leaves"
        case "rekey":
            return f"{who} changes its key"
        case "withdraw" | "rewind":
            return f"{motion.action} {scope(terms(context, motion))} of {who}"
        case "expel" | "suspend":
            return f"{motion.action} {who}"
        case "suspend-training":
            return f"suspend {who} as a trainer"
        case _:
            assert_never(motion.action)


def amendment_in_words(context: Context, motion: OpenMotion) -> str:
    """Return what an amendment changes, in a line."""
    loaded = amendment.load(motion.statement, context.ledger.federation)
    changes = loaded.changes
    said = ["open " + ", ".join(spec.name for spec in opening.components) for opening in changes.opening]
    if changes.retire:
        said.append("retire " + ", ".join(changes.retire))
    said += [f"{entry.component} by {entry.rule} of {entry.min_updates}" for entry in changes.closing]
    if loaded.number == context.charter.number + 1:  # else it is an earlier one, or can no longer pass
        said += [f"{name} {old} → {new}" for name, old, new in number_differences(context.charter, changes)]
    else:
        said += ["limits"] * len(changes.limits) + ["recipe"] * len(changes.recipe)
    return "; ".join(said)


def terms(context: Context, motion: OpenMotion) -> WithdrawalStatement:
    """Return the terms of a motion to withdraw or to rewind."""
    return membership.terms(motion.action, motion.statement, context.ledger.federation)


def scope(terms: WithdrawalStatement | Withdrawn) -> str:
    """Return a withdrawal's scope in words."""
    parts, kind = ", ".join(terms.components), SCOPES.get(terms.scope)
    match kind:
        case "all":
            return "everything"
        case "components":
            return f"all in {parts}"
        case "rounds":
            rounds = f"round {terms.first}" if terms.first == terms.last else f"rounds {terms.first} to {terms.last}"
            return f"{rounds} of {parts}"
        case "updates":
            shown = ", ".join(update.hex()[:12] for update in terms.updates[:3])
            return f"{counted(len(terms.updates), 'update')} ({shown}{', …' if len(terms.updates) > 3 else ''})"
        case None:  # in a record that is inert: terms may be anything there
            return f"a scope that this version does not know ({terms.scope})"
        case _:
            assert_never(kind)


def _subject(context: Context, motion: OpenMotion) -> str:
    if motion.action == "admit":
        return membership.applicant(motion, context.ledger.federation).name
    if motion.action == "amend":
        return context.founding.name
    return context.member(motion.subject)["name"]


def motions(context: Context) -> Motions:
    """Return the open motions, and those that ended, last first."""
    ledger = context.ledger
    return {
        "height": ledger.height,
        "open": [show_motion(context, motion) for motion in ledger.roll.motions],
        "ended": [_ended_motion(context, outcome) for outcome in reversed(ledger.roll.outcomes)],
    }


def show_motion(context: Context, motion: OpenMotion) -> MotionShown:
    """Return one motion as JSON."""
    ledger, me = context.ledger, context.me
    may = membership.voters(motion, ledger.members)
    shown: MotionShown = {
        "motion": motion.digest.hex(),
        "action": motion.action,
        "what": sentence(context, motion),
        "subject": {**context.member(motion.subject), "name": _subject(context, motion)},
        "reason": motion.reason,
        "by": context.member(motion.author),
        "opened_at_height": motion.height,
        "expires_after_height": motion.expiry,
        "yes": context.members(motion.yes & may),
        "no": context.members(motion.no & may),
        "needed": membership.needed(motion, ledger.members, ledger.fault_model),
        "undecided": context.members(may - motion.yes - motion.no),
        "your_ballot": None if me is None or me not in may else _ballot(motion, me),
    }
    if motion.action == "admit":
        person = membership.applicant(motion, ledger.federation)
        shown["addresses"] = list(person.addresses)
    if motion.action == "rekey":
        shown["new_key"] = membership.new_key(motion, ledger.federation).hex()
    if motion.action in membership.WITHDRAWALS:
        shown["scope"] = scope(terms(context, motion))
    return shown


def _ballot(motion: OpenMotion, me: bytes) -> Literal["yes", "no", "not cast"]:
    return "yes" if me in motion.yes else "no" if me in motion.no else "not cast"


def _ended_motion(context: Context, outcome: Outcome) -> MotionEnded:
    motion = outcome.motion
    return {
        "motion": motion.digest.hex(),
        "action": motion.action,
        "what": sentence(context, motion),
        "subject": {**context.member(motion.subject), "name": _subject(context, motion)},
        "reason": motion.reason,
        "by": context.member(motion.author),
        "result": outcome.result,
        "why": outcome.why,
        "at_height": outcome.height,
        "yes": context.members(motion.yes),
        "no": context.members(motion.no),
    }


def member(context: Context, key: bytes) -> MemberShown:
    """Return one member's seat: heights, motions that changed it, keys, and every motion about it."""
    roll = context.ledger.roll
    seat = roll.seats[key]
    keys = {key, *membership.earlier(roll, key)}
    component_hosts = [name for name, c in sorted(context.ledger.components.items()) if key in c.hosts]
    return {
        **context.member(key),
        "me": key == context.me,
        "since_height": seat.since,
        "admitted_by": seat.motion.hex() or None,
        "until_height": seat.until if seat.gone else None,
        "gone": seat.gone or None,
        "ended_by": seat.end.hex() or None,
        "earlier_keys": [earlier.hex() for earlier in membership.earlier(roll, key)],
        "later_key": seat.successor.hex() or None,
        "addresses": list(seat.addresses),
        "active_host_of": component_hosts,
        "open_motions": [show_motion(context, m) for m in roll.motions if m.subject in keys],
        "ended_motions": [_ended_motion(context, o) for o in roll.outcomes if o.motion.subject in keys],
    }


def motions_named(context: Context, which: str) -> list[OpenMotion]:
    """Return the open motions with this digest prefix, or about this name."""
    return _with_name(context, which, context.ledger.roll.motions)


def near_motion(context: Context, which: str, others: Sequence[str] = ()) -> str:
    """Return the most similar name among those of open motions and `others`; "" without one."""
    names = list(others)
    for motion in context.ledger.roll.motions:
        with suppress(RemoteProtocolError):
            names.append(_subject(context, motion))
    folded = {name.casefold(): name for name in names}
    return next((folded[match] for match in get_close_matches(which.casefold(), folded, 1)), "")


def how_it_ended(context: Context, which: str) -> str:
    """Return the outcome of the last ended motion with this digest prefix, or about this name; "" without one."""
    outcomes = {outcome.motion.digest: outcome for outcome in context.ledger.roll.outcomes}
    named = _with_name(context, which, [outcome.motion for outcome in outcomes.values()])
    if not named:
        return ""
    last = max((outcomes[motion.digest] for motion in named), key=lambda outcome: outcome.height)
    why = f" ({last.why})" if last.why else ""
    return f"{sentence(context, last.motion)}: {last.result} at height {last.height}{why}"


def _with_name(context: Context, which: str, every: Sequence[OpenMotion]) -> list[OpenMotion]:
    plain = which.lower()
    by_prefix = [m for m in every if len(plain) >= 4 and m.digest.hex().startswith(plain)]
    return by_prefix or [m for m in every if _is_named(context, m, which)]


def _is_named(context: Context, motion: OpenMotion, name: str) -> bool:
    try:
        return _subject(context, motion) == name
    except RemoteProtocolError:
        return False
