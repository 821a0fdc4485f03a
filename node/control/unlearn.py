"""The control API's part for withdrawals: by the owner, carried for somebody, or moved about anybody."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...consensus import membership, withdrawal
from ...consensus.ledger import Ledger, names
from ...consensus.withdrawal import moved_out, of_all_keys
from ...crypto.errors import RefusedError, RemoteProtocolError, UsageError
from ...protocol import schema
from ...protocol.records import GENESIS, MAX_UPDATES, WithdrawalStatement
from .. import views
from ..core import motions
from ..core.contribution import taken_back
from ..core.events import Carry, Move, RequestWithdrawal, ResumeTraining
from ..data.spelling import clean
from ..home.students import Seen
from .answers import answering, body_of
from .facts import Daemon, context_of

SCOPE = {"components": list, "first": int, "last": int, "updates": list}
_ADVICE = {
    "withdrawn-already": "`collegium unlearn status` shows what was withdrawn.",
    "not-signing": "Too few members are connected: see `collegium node status`, and try again.",
    "moved-already": "`collegium peer motions` shows how it stands.",
    "too-few-members": "With fewer than three members, two would decide about each other.",
    "through-ahead": "It can name what its subject has said so far.",
    "unknown-component": "`collegium component list` names them.",
}


def routes(daemon: Daemon) -> list[Route]:
    """Return the routes."""

    async def withdraw(request: Request) -> Response:
        asked = _asked(daemon, await body_of(request, SCOPE))
        recorded = _check_own(daemon, asked)
        daemon.submit(asked)
        return JSONResponse({"submitted": True, "signing": daemon.core.signing, "recorded": recorded}, 202)

    async def look(request: Request) -> Response:
        seen = await daemon.look(await _student(request))
        sought = _sought(daemon, seen)
        mine = _own_keys(daemon)
        rounds = [r for c in daemon.core.ledger.components.values() for r in c.rounds]
        ahead = [author for update, author in _authors(daemon).items() if update in _ahead(daemon)]
        found = {
            "in_data": seen.in_data,
            "drawn": seen.drawn,
            "left_out": seen.left_out,
            **sought.told,
            "would_withdraw": len(sought.whole),
            "of_unknown_students": sum(update in seen.unknown for update in sought.whole),
            "own_updates": sum(e.author in mine for r in rounds for e in r.entries) + sum(a in mine for a in ahead),
            "own_rounds": len({r.number for r in rounds if any(e.author in mine for e in r.entries)}),
        }
        return JSONResponse(found)

    async def student(request: Request) -> Response:
        seen = await daemon.exclude(await _student(request))
        sought = _sought(daemon, seen)
        gone = sought.whole[: withdrawal.MAX_AT_A_HEIGHT * MAX_UPDATES]  # of more at one height the ledger takes none
        if gone and not daemon.core.signing:
            raise RefusedError(
                "the student is left out from now on, but nothing can be withdrawn yet: no quorum is connected",
                "Run the same command again when `collegium node status` shows one.",
            )
        for start in range(0, len(gone), MAX_UPDATES):
            daemon.submit(RequestWithdrawal("updates", updates=tuple(gone[start : start + MAX_UPDATES])))
        found = {
            "excluded": True,
            "in_data": seen.in_data,
            "drawn": seen.drawn,
            "withdrawn_updates": len(gone),
            "remaining": len(sought.whole) - len(gone),
            "of_unknown_students": sum(update in seen.unknown for update in gone),
            **sought.told,
            # Those withdrawn before may wait for their certificate still.
            "updates": sorted(update.hex() for update in sought.settling.union(gone)),
        }
        return JSONResponse(found, 202)

    async def resume(request: Request) -> Response:
        await body_of(request, {})
        held = daemon.core.removals_unknown
        daemon.submit(ResumeTraining())
        return JSONResponse({"held": held}, 202)

    async def settled(request: Request) -> Response:
        asked = _texts((await body_of(request, {"updates": list}))["updates"])
        if not asked:
            return JSONResponse({"left": 0, "certified": True})
        known = await trio.to_thread.run_sync(daemon.store.headers)
        names = {header.digest.hex(): header.value.component for header in known}
        about = {names.get(update) for update in asked}
        components = [c for name, c in daemon.core.ledger.components.items() if name in about or None in about]
        live = _ahead(daemon) | {e.update for c in components for r in c.rounds for e in r.entries}
        certified = [
            c.generation == 0 or (c.certified is not None and c.certified.generation == c.generation)
            for c in components
        ]
        erased = not any(c.erasures for c in components)
        left = {update.hex() for update in live}.intersection(asked)
        return JSONResponse({"left": len(left), "certified": all(certified) and erased})

    async def move(request: Request) -> Response:
        body = await body_of(request, {**SCOPE, "who": str, "mode": str, "reason": str, "heights": int, "anyway": bool})
        ledger: Ledger = daemon.core.ledger
        key, mode = views.find_member(context_of(daemon), str(body["who"])), str(body["mode"])
        action = next((action for action, known in membership.WITHDRAWALS.items() if known == mode), None)
        if action is None:
            raise UsageError(f"there is no mode {mode!r}", "It is refold or rewind.")
        terms = _asked(daemon, body).terms(ledger.federation, key, mode, ledger.heads.get(key, (0, GENESIS))[0])
        event = Move(action, key, schema.dump(terms), str(body["reason"]), int(str(body["heights"])))
        try:
            motions.check(daemon.core, event)
        except RemoteProtocolError as error:
            raise RefusedError(f"{error.reason}: {error.detail}", _ADVICE.get(error.reason, "")) from error
        costs = rounds_again(daemon, action, event.statement)
        if not body["anyway"]:
            check_budget(daemon, costs)
        daemon.submit(event)
        return JSONResponse({"submitted": True, "subject": key.hex(), "action": action, "rounds_again": costs}, 202)

    async def carry(request: Request) -> Response:
        try:
            event = Carry(bytes.fromhex(str((await body_of(request, {"statement": str}))["statement"])))
            motions.check_carried(daemon.core, event)
        except ValueError as error:
            raise UsageError("the statement is not in hexadecimal digits") from error
        except RemoteProtocolError as error:
            raise RefusedError(f"{error.reason}: {error.detail}", "Ask its owner for it again.") from error
        daemon.submit(event)
        return JSONResponse({"submitted": True}, 202)

    return [
        Route("/unlearn", answering(withdraw), methods=["POST"]),
        Route("/unlearn/look", answering(look), methods=["POST"]),
        Route("/unlearn/students", answering(student), methods=["POST"]),
        Route("/unlearn/resume", answering(resume), methods=["POST"]),
        Route("/unlearn/settled", answering(settled), methods=["POST"]),
        Route("/unlearn/motions", answering(move), methods=["POST"]),
        Route("/unlearn/carried", answering(carry), methods=["POST"]),
    ]


def rounds_again(daemon: Daemon, action: str, statement: bytes) -> dict[str, int]:
    """Return how many rounds of which component run again if a motion to rewind passes as things stand."""
    core = daemon.core
    if action != "rewind":
        return {}
    found = moved_out(core.charter, core.ledger, action, statement, core.ledger.height + 1, core.me)
    names = {name for each in found for name, _ in each.since}
    return {name: max(taken_back(each, name) for each in found) for name in sorted(names)}


def check_budget(daemon: Daemon, rounds: Mapping[str, int]) -> None:
    """Refuse to want rounds again that this node's own budget does not bear. Raises RefusedError."""
    core = daemon.core
    known = {name for _, last in core.forecast.values() for name in last}
    private = {name for name in core.hosted if core.specs[name].noise_multiplier and not core.specs[name].additive}
    if core.contributing and any(rounds.get(name) for name in private - known):
        raise RefusedError(
            f"what this node's budget allows is not known: {core.exhausted or 'it has not trained since its start'}",
            "It is computed when the node trains: try again after its next round; if it trains no more, give --anyway.",
        )
    for modality, (left, last) in sorted(core.forecast.items()):
        need = max((rounds.get(name, 0) for name in last), default=0)
        if need and left - 1 < need:  # the forecast counts the round that it was made for
            raise RefusedError(
                f"{need} rounds would run again, and this node's budget of {modality!r} allows {max(0, left - 1)}",
                "It would sit out the rest: give --anyway if that is meant.",
            )


@dataclass(frozen=True, slots=True)
class _Sought:
    """Of the updates that saw a student: `whole` can be withdrawn, `settling` are those that went before or never came.

    `told` is what to say of the others.
    """

    whole: list[bytes]
    settling: frozenset[bytes]
    told: dict[str, object]


def _sought(daemon: Daemon, seen: Seen) -> _Sought:
    ledger: Ledger = daemon.core.ledger
    live = _ahead(daemon)
    counted = {
        e.update: r.number > c.round - daemon.core.charter.rules.refold_horizon
        for c in ledger.components.values()
        for r in c.rounds
        for e in r.entries
    }
    sought = sorted(update for update in seen.updates if counted.get(update) or update in live)
    mine, authors = _own_keys(daemon), _authors(daemon)
    # A withdrawal under the key in use does not reach what was sent before a return with a new one.
    former = Counter(authors[update].hex() for update in sought if authors[update] not in mine)
    return _Sought(
        [update for update in sought if authors[update] in mine],
        frozenset(update for update in seen.updates.difference(sought) if counted.get(update) is not False),
        {
            "under_former_keys": dict(sorted(former.items())),
            "beyond_refold_horizon": sum(counted.get(update) is False for update in seen.updates),
        },
    )


async def _student(request: Request) -> str:
    subject = clean(str((await body_of(request, {"subject": str}))["subject"]))
    if not subject or len(subject) > 1024:
        raise UsageError("a student's id has 1 to 1024 characters")
    return subject


def _own_keys(daemon: Daemon) -> set[bytes]:
    return {daemon.core.me, *membership.earlier(daemon.core.ledger.roll, daemon.core.me)}


def _asked(daemon: Daemon, body: Mapping[str, object]) -> RequestWithdrawal:
    """Read a scope. Raises UsageError."""
    components, first, last = _texts(body["components"]), int(str(body["first"])), int(str(body["last"]))
    prefixes = _texts(body["updates"])
    ledger: Ledger = daemon.core.ledger
    for name in components:
        if name not in ledger.components:
            raise UsageError(f"there is no component {name!r}", "`collegium component list` names them.")
    if prefixes and (components or first or last):
        raise UsageError("a withdrawal names updates, or components and rounds, not both")
    if (first or last) and not components:
        raise UsageError("rounds are those of a component", "Name it: --component NAME --rounds A..B.")
    if (first or last) and not 1 <= first <= last:
        raise UsageError(f"there are no rounds {first} to {last}")
    if len(prefixes) > MAX_UPDATES:
        raise UsageError(f"{len(prefixes)} updates at once; a withdrawal names at most {MAX_UPDATES}")
    if prefixes:
        updates = tuple(sorted({_update(daemon, prefix) for prefix in prefixes}))
        return RequestWithdrawal("updates", updates=updates)
    scope = "rounds" if first else "components" if components else "all"
    return RequestWithdrawal(scope, tuple(sorted(set(components))), first, last)


def _update(daemon: Daemon, prefix: str) -> bytes:
    """Return the update whose header digest begins so, among all that count or are on their way."""
    ledger: Ledger = daemon.core.ledger
    known = {e.update for c in ledger.components.values() for r in c.rounds for e in r.entries}
    known |= _ahead(daemon)
    found = [update for update in known if update.hex().startswith(prefix.lower())] if len(prefix) >= 4 else []
    if len(found) != 1:
        problem = "more than one update" if found else "no update that counts or is on its way"
        raise UsageError(f"{prefix!r} names {problem}", "`collegium round show --json` names them in full.")
    return found[0]


def _ahead(daemon: Daemon) -> set[bytes]:
    """Return the updates that no list holds yet: agreed on and waiting for a round to close, or in flight."""
    ledger: Ledger = daemon.core.ledger
    return {p.update for c in ledger.components.values() for p in c.pending} | set(daemon.core.in_flight)


def _authors(daemon: Daemon) -> dict[bytes, bytes]:
    """Return whose each update is that counts or is on its way."""
    in_flight = {digest: update.header.value.author for digest, update in daemon.core.in_flight.items()}
    ledger: Ledger = daemon.core.ledger
    components = ledger.components.values()
    counted = {e.update: e.author for c in components for r in c.rounds for e in r.entries}
    return {**in_flight, **counted, **{p.update: p.author for c in components for p in c.pending}}


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError("a list of texts is wanted")
    return value


def _check_own(daemon: Daemon, asked: RequestWithdrawal) -> bool:
    """Refuse to sign a withdrawal that would withdraw nothing: it would stay in the ledger for ever.

    Returns whether it goes to the ledger: what nobody else counts or holds a record of is dropped here.
    """
    core = daemon.core
    ledger: Ledger = core.ledger
    if core.me in ledger.roll.seats and core.me not in ledger.members:
        raise RefusedError(
            "this node is no longer a member and can sign no record",
            "Let a member carry its withdrawal: `collegium unlearn statement` writes it.",
        )
    if asked.scope != "all" and not core.signing:
        raise RefusedError("not-signing: no quorum of members has reported to this node", _ADVICE["not-signing"])
    terms = asked.terms(ledger.federation, core.me, through=ledger.heads.get(core.me, (0, GENESIS))[0])
    keys = [core.me, *membership.earlier(ledger.roll, core.me)]
    if any(_would(daemon, each) for each in of_all_keys(ledger, terms)):
        return True
    in_flight = [f for f in core.in_flight.values() if f.header.value.author in keys]
    named = [f for f in in_flight if names(terms, f.header.value.component, f.header.value.round, f.header.digest)]
    if named:
        return asked.scope == "all" or any(f.posted for f in named)
    raise RefusedError("there is nothing to withdraw", "No such update of this node is counted or on its way.")


def _would(daemon: Daemon, terms: WithdrawalStatement) -> bool:
    core = daemon.core
    found = withdrawal.placed(core.charter, core.ledger, terms, core.ledger.height + 1, core.me)
    return withdrawal.reaches(core.ledger, found)
