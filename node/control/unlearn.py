"""The control API's part for withdrawals: by the owner, carried for a former member, or proposed by motion."""

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...consensus import membership
from ...consensus.ledger import Ledger
from ...crypto.errors import RefusedError, RemoteProtocolError, UsageError
from ...protocol import schema
from ...protocol.records import GENESIS, MODES
from .. import views
from ..core import motions
from ..core.events import Carry, ProposeMotion, ResumeTraining, SetPaused
from ..data.spelling import clean
from ..home.scheduled import FAR
from ..unlearning.requests import (
    NOT_SIGNING,
    asked_scope,
    at_one_height,
    check_budget,
    check_own,
    list_of_texts,
    own_keys,
    rounds_again,
    rounds_in_reach,
    sought_updates,
    update_authors,
    updates_ahead,
)
from ..words import counted
from .answers import Body, answering, body_of
from .facts import Daemon, context_of
from .replies import (
    Cancelled,
    Settled,
    StudentsForgotten,
    StudentsLook,
    StudentsPutOff,
    TrainingResumed,
    WithdrawalAsked,
    WithdrawalCarried,
    WithdrawalProposed,
)

SCOPE = {"components": list, "first": int, "last": int, "updates": list}
MAX_ID = 1024  # characters of a student's id
_ADVICE = {
    "withdrawn-already": "`collegium unlearn status` shows all withdrawals.",
    "not-signing": NOT_SIGNING,
    "proposed-already": "`collegium peer motions` shows how it stands.",
    "too-few-members": "With fewer than three members, two would decide about each other.",
    "through-ahead": "`through` is at most the last entry of the subject's feed.",
    "unknown-component": "`collegium component list` names them.",
}


def routes(daemon: Daemon) -> list[Route]:
    """Return the routes."""

    async def withdraw(request: Request) -> Response:
        asked = asked_scope(daemon.core, await body_of(request, SCOPE))
        recorded = check_own(daemon.core, asked)
        daemon.submit(asked)
        reply: WithdrawalAsked = {"submitted": True, "signing": daemon.core.signing, "recorded": recorded}
        return JSONResponse(reply, 202)

    async def check_price(body: Body, subjects: list[str]) -> None:
        """Refuse, before any change, to withdraw more updates than the operator was asked about; -1: nobody was."""
        at_most = int(str(body["at_most"]))
        if at_most < 0:
            return
        now = len(sought_updates(daemon.core, await daemon.look(*subjects)).whole)
        if now > at_most:
            raise RefusedError(
                f"the price rose: {counted(now, 'update')} would be withdrawn now, {at_most} when it was asked",
                "Nothing was done. Look at the price again.",
            )

    async def look(request: Request) -> Response:
        seen = await daemon.look(*await _students(request))
        sought = sought_updates(daemon.core, seen)
        mine = own_keys(daemon.core)
        rounds = [r for c in daemon.core.ledger.components.values() for r in c.rounds]
        waiting = updates_ahead(daemon.core)
        ahead = [author for update, author in update_authors(daemon.core).items() if update in waiting]
        reply: StudentsLook = {
            "in_data": seen.in_data,
            "drawn": seen.drawn,
            "left_out": seen.left_out,
            **sought.out_of_reach,
            "would_withdraw": len(sought.whole),
            "of_unknown_students": sum(update in seen.unknown for update in sought.whole),
            "own_updates": sum(e.author in mine for r in rounds for e in r.entries) + sum(a in mine for a in ahead),
            "own_rounds": len({r.number for r in rounds if any(e.author in mine for e in r.entries)}),
            "updates": sorted(update.hex() for update in sought.whole),
            "scheduled": list(seen.to_come),
            "rounds_left": rounds_in_reach(daemon.core, sought.whole),
        }
        return JSONResponse(reply)

    async def put_off(request: Request) -> Response:
        body = await body_of(request, {"students": list, "at": int, "pause": bool, "at_most": int})
        at, students = int(str(body["at"])), _by_student(body["students"])
        if not 0 < at < FAR:
            raise UsageError(f"there is no time {at}", "Give a Unix time, in seconds.")
        await check_price(body, [subject for ids in students for subject in ids])
        seen = await daemon.put_off(at, bool(body["pause"]), *students)
        sought = sought_updates(daemon.core, seen)
        reply: StudentsPutOff = {
            "excluded": True,
            "in_data": seen.in_data,
            "drawn": seen.drawn,
            "at": at,
            "will_withdraw": len(sought.whole),
            "of_unknown_students": sum(update in seen.unknown for update in sought.whole),
            **sought.out_of_reach,
            "with_others": max(0, len({r.student for r in daemon.scheduled if r.at == at}) - len(students)),
            "rounds_left": rounds_in_reach(daemon.core, sought.whole),
        }
        return JSONResponse(reply, 202)

    async def cancel(request: Request) -> Response:
        cancelled, readmitted = await daemon.cancel(*await _students(request))
        reply: Cancelled = {"cancelled": cancelled, "readmitted": readmitted}
        return JSONResponse(reply, 202)

    async def students(request: Request) -> Response:
        body = await body_of(request, {"subjects": list, "pause": bool, "at_most": int})
        subjects = _subjects(body["subjects"])
        await check_price(body, subjects)
        if body["pause"]:
            daemon.submit(SetPaused(True))
        seen = await daemon.exclude(*subjects)
        sought = sought_updates(daemon.core, seen)
        requests = at_one_height(sought.whole)
        gone = [update for each in requests for update in each.updates]
        if gone and not daemon.core.signing:
            raise RefusedError(
                "they are left out from now on, but nothing can be withdrawn yet: no quorum is connected",
                "Run the same command again when `collegium node status` shows one.",
            )
        for each in requests:
            daemon.submit(each)
        reply: StudentsForgotten = {
            "excluded": True,
            "in_data": seen.in_data,
            "drawn": seen.drawn,
            "withdrawn_updates": len(gone),
            "remaining": len(sought.whole) - len(gone),
            "of_unknown_students": sum(update in seen.unknown for update in gone),
            **sought.out_of_reach,
            # Those withdrawn before may wait for their certificate still.
            "updates": sorted(update.hex() for update in sought.settling.union(gone)),
        }
        return JSONResponse(reply, 202)

    async def resume(request: Request) -> Response:
        await body_of(request, {})
        held = daemon.core.removals_unknown
        daemon.submit(ResumeTraining())
        reply: TrainingResumed = {"held": held}
        return JSONResponse(reply, 202)

    async def settled(request: Request) -> Response:
        asked = list_of_texts((await body_of(request, {"updates": list}))["updates"])
        if not asked:
            nothing: Settled = {"left": 0, "certified": True}
            return JSONResponse(nothing)
        headers = await trio.to_thread.run_sync(daemon.store.headers)
        names = {header.digest.hex(): header.value.component for header in headers}
        about = {names.get(update) for update in asked}
        components = [c for name, c in daemon.core.ledger.components.items() if name in about or None in about]
        live = updates_ahead(daemon.core) | {e.update for c in components for r in c.rounds for e in r.entries}
        certified = [
            c.generation == 0 or (c.certified is not None and c.certified.generation == c.generation)
            for c in components
        ]
        erased = not any(c.erasures for c in components)
        left = {update.hex() for update in live}.intersection(asked)
        reply: Settled = {"left": len(left), "certified": all(certified) and erased}
        return JSONResponse(reply)

    async def propose(request: Request) -> Response:
        body = await body_of(request, {**SCOPE, "who": str, "mode": str, "reason": str, "heights": int, "anyway": bool})
        ledger: Ledger = daemon.core.ledger
        key = views.find_member(context_of(daemon), str(body["who"]))
        mode = MODES.get(text := str(body["mode"]))
        if mode is None:
            raise UsageError(f"there is no mode {text!r}", f"It is {' or '.join(MODES)}.")
        action = membership.action_of(mode)
        terms = asked_scope(daemon.core, body).terms(
            ledger.federation, key, mode, ledger.heads.get(key, (0, GENESIS))[0]
        )
        event = ProposeMotion(action, key, schema.dump(terms), str(body["reason"]), int(str(body["heights"])))
        try:
            motions.check(daemon.core, event)
        except RemoteProtocolError as error:
            raise RefusedError(f"{error.reason}: {error.detail}", _ADVICE.get(error.reason, "")) from error
        costs = rounds_again(daemon.core, action, event.statement)
        if not body["anyway"]:
            check_budget(daemon.core, costs)
        daemon.submit(event)
        reply: WithdrawalProposed = {
            "submitted": True,
            "subject": key.hex(),
            "action": action,
            "rounds_again": costs,
        }
        return JSONResponse(reply, 202)

    async def carry(request: Request) -> Response:
        try:
            event = Carry(bytes.fromhex(str((await body_of(request, {"statement": str}))["statement"])))
            motions.check_carried(daemon.core, event)
        except ValueError as error:
            raise UsageError("the statement is not in hexadecimal digits") from error
        except RemoteProtocolError as error:
            raise RefusedError(f"{error.reason}: {error.detail}", "Ask its owner for it again.") from error
        daemon.submit(event)
        reply: WithdrawalCarried = {"submitted": True}
        return JSONResponse(reply, 202)

    return [
        Route("/unlearn", answering(withdraw), methods=["POST"]),
        Route("/unlearn/look", answering(look), methods=["POST"]),
        Route("/unlearn/students", answering(students), methods=["POST"]),
        Route("/unlearn/schedule", answering(put_off), methods=["POST"]),
        Route("/unlearn/cancel", answering(cancel), methods=["POST"]),
        Route("/unlearn/resume", answering(resume), methods=["POST"]),
        Route("/unlearn/settled", answering(settled), methods=["POST"]),
        Route("/unlearn/motions", answering(propose), methods=["POST"]),
        Route("/unlearn/carried", answering(carry), methods=["POST"]),
    ]


async def _students(request: Request) -> list[str]:
    return _subjects((await body_of(request, {"subjects": list}))["subjects"])


def _by_student(value: object) -> list[list[str]]:
    """Read the ids of each student."""
    if not isinstance(value, list) or not value:
        raise UsageError("no students: a list of lists of ids is wanted", "Name at least one.")
    return list(map(_subjects, value))


def _subjects(value: object) -> list[str]:
    subjects = list(map(clean, list_of_texts(value)))
    if not subjects or not all(0 < len(subject) <= MAX_ID for subject in subjects):
        raise UsageError(f"no students' ids: each has 1 to {MAX_ID} characters", "Name at least one.")
    return list(dict.fromkeys(subjects))
