"""The control API's part for membership: motions, ballots, invitations."""

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...crypto.errors import RefusedError, RemoteProtocolError, UsageError
from ...protocol.membership import ACTIONS
from .. import views
from ..core import motions
from ..core.events import Cast, ProposeMotion
from ..home.invitations import IssuedInvitation, to_text
from ..unlearning.requests import check_budget, rounds_again
from ..views.context import Context
from .answers import Endpoint, answering, body_of
from .facts import Daemon, context_of, held
from .replies import Applicant, InvitationGiven, Invitations, InvitationShown, InvitationWithdrawn, Submitted

_ADVICE = {
    "not-signing": "Too few members are connected: see `collegium node status`, and try again.",
    "voted-already": "A ballot is final. `collegium peer motions` shows how the motion stands.",
    "proposed-already": "`collegium peer motions` shows how it stands.",
    "no-vote": "Nobody votes on its own expulsion, suspension or lost key.",
    "self-target": "To go yourself: `collegium peer leave`.",
    "last-member": "A federation needs a member. To end it, stop the node.",
    "too-few-members": "With fewer than three members, two would decide about each other: leave, or found anew.",
    "quota-motions": "Wait until some of your open motions are decided or lapse.",
    "key-retired": "A former key cannot come back: let them join with --new-key, in their same directory.",
    "name-taken": "A member has this name already; choose another one.",
    "amendment-number": "Another one passed meanwhile: `collegium charter history` shows it. Propose yours again.",
    "amendment-void": "`collegium charter amend --dry-run` checks an amendment without proposing it.",
    "not-a-host": "It offers no component at the moment.",
    "not-a-trainer": "It does not say that it trains anything.",
}
Make = Callable[[Context, Request], object]


def routes(daemon: Daemon) -> list[Route]:
    """Return the routes."""

    def view(make: Make) -> Endpoint:
        async def show(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(make, context_of(daemon), request))

        return answering(show)

    async def propose(request: Request) -> Response:
        body = await body_of(request, {"action": str, "who": str, "statement": str, "reason": str, "heights": int})
        context = context_of(daemon)
        action = ACTIONS.get(text := str(body["action"]))
        if action is None:
            raise RefusedError(f"unknown-action: {text}", f"A motion is to {', '.join(ACTIONS)}.")
        statement = _hex(body["statement"])
        if action == "amend":
            key = daemon.core.federation
        else:
            key = daemon.core.me if action == "leave" else _key(context, str(body["who"]))
        return _say(ProposeMotion(action, key, statement, str(body["reason"]), int(str(body["heights"]))))

    async def vote(request: Request) -> Response:
        body = await body_of(request, {"motion": str, "yes": bool, "anyway": bool})
        context = context_of(daemon)
        which, yes = str(body["motion"]), bool(body["yes"])
        kept, proposed = _held(daemon, which), views.motions_named(context, which)
        if len(kept) + len(proposed) != 1:
            ended = "" if kept or proposed else views.how_it_ended(context, which)
            if ended:
                raise UsageError(f"{ended}: nothing is open there", "`collegium peer motions` lists open motions.")
            many = "more than one" if kept or proposed else "no"
            advice = "Name it by its id: `collegium peer motions` and `collegium peer invitations` list them."
            near = "" if kept or proposed else views.near_motion(context, which, list(map(_title, held(daemon))))
            if near:
                advice = f"Did you mean {near!r}? `collegium peer motions` and `peer invitations` list them."
            raise UsageError(f"{which!r} names {many} open motion or held application", advice)
        if kept and not yes:
            await daemon.admission.withdraw(kept[0].token_key)
            refused: Submitted = {"submitted": False, "withdrawn": _title(kept[0])}
            return JSONResponse(refused)
        if kept:
            return _say(daemon.admission.motion_for(kept[0]))
        motion = proposed[0]
        if yes and not body["anyway"]:
            check_budget(daemon.core, rounds_again(daemon.core, motion.action, motion.statement))
        return _say(Cast(motion.digest, yes))

    def _say(event: ProposeMotion | Cast) -> Response:
        try:
            motions.check(daemon.core, event)
        except RemoteProtocolError as error:
            raise RefusedError(f"{error.reason}: {error.detail}", _ADVICE.get(error.reason, "")) from error
        daemon.submit(event)
        subject = event.subject.hex() if isinstance(event, ProposeMotion) else None
        motion = event.motion.hex() if isinstance(event, Cast) else None
        reply: Submitted = {"submitted": True, "subject": subject, "motion": motion}
        return JSONResponse(reply, 202)

    async def invitations(_request: Request) -> Response:
        reply: Invitations = {"invitations": [_issued(daemon, issued) for issued in daemon.admission.issued]}
        return JSONResponse(reply)

    async def invite(request: Request) -> Response:
        body = await body_of(request, {"name": str, "days": int, "key": str, "hold": bool, "charter": bool})
        if daemon.core.me not in daemon.core.ledger.members:
            raise RefusedError("this node is not a member", "Only members invite.")
        name, days, key = str(body["name"]), int(str(body["days"])), str(body["key"])
        if not 1 <= days <= 365:
            raise UsageError("an invitation is good for 1 to 365 days")
        if key and len(_hex(key)) != 32:
            raise UsageError("the candidate's key is not 64 hexadecimal digits", "`init` prints it there.")
        if any(name and name == g.name and not g.withdrawn and not g.application for g in daemon.admission.issued):
            raise UsageError(f"an invitation for {name!r} is open", "Withdraw it first, or choose another name.")
        addresses = tuple(daemon.core.options.addresses)
        if not addresses:
            raise RefusedError(
                "this node has no address that others can dial, so an invitation would lead nowhere",
                "Set [node] listen and advertise in config.toml, and start the daemon again.",
            )
        addresses = tuple(_dialable(address, daemon) for address in addresses)
        signed = await daemon.admission.invite(name, addresses, days, key, bool(body["hold"]), bool(body["charter"]))
        issued = daemon.admission.issued[-1]
        reply: InvitationGiven = {
            **_issued(daemon, issued),
            "addresses": list(addresses),
            "text": to_text(signed),
        }
        return JSONResponse(reply)

    async def uninvite(request: Request) -> Response:
        which = str((await body_of(request, {"invitation": str}))["invitation"])
        matching = [
            g for g in daemon.admission.issued if not g.withdrawn and (g.name == which or g.token_key.startswith(which))
        ]
        if len(matching) != 1 or not which:
            raise UsageError(f"{which!r} names no one invitation", "`collegium peer invitations` lists them.")
        await daemon.admission.withdraw(matching[0].token_key)
        gone: InvitationWithdrawn = {"withdrawn": _title(matching[0])}
        return JSONResponse(gone)

    return [
        Route("/motions", view(lambda context, _: views.motions(context))),
        Route("/motions", answering(propose), methods=["POST"]),
        Route("/ballots", answering(vote), methods=["POST"]),
        Route("/invitations", answering(invitations)),
        Route("/invitations", answering(invite), methods=["POST"]),
        Route("/invitations", answering(uninvite), methods=["DELETE"]),
        Route("/members/{who}", view(_member)),
    ]


def _member(context: Context, request: Request) -> object:
    return views.member(context, views.find_member(context, request.path_params["who"]))


def _key(context: Context, who: str) -> bytes:
    """Return the key that is meant: a member's, or any key in full."""
    try:
        return views.find_member(context, who)
    except UsageError:
        key = _hex(who, strict=False)
        if len(key) == 32:
            return key
        raise


def _hex(text: object, *, strict: bool = True) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError:
        if strict:
            raise UsageError("a key or statement is not in hexadecimal digits") from None
        return b""


def _dialable(address: str, daemon: Daemon) -> str:
    own = daemon.network.addresses()
    suffix = own[0].rpartition("/p2p/")[2] if own else ""
    return address if "/p2p/" in address else f"{address}/p2p/{suffix}"


def _held(daemon: Daemon, which: str) -> list[IssuedInvitation]:
    """Return the held applications of this name, else of this id or key.

    The name is the invitation's; the applicant's own, which it chose itself, only if the invitation has none.
    """
    plain = which.lower()
    named, begun = [], []
    for issued in held(daemon):
        person = issued.applicant()
        assert person is not None  # it is held
        if which and which == (issued.name or person.name):
            named.append(issued)
        if len(plain) >= 4 and (issued.token_key.startswith(plain) or person.author.hex().startswith(plain)):
            begun.append(issued)
    return named or begun


def _title(issued: IssuedInvitation) -> str:
    person = issued.applicant()
    return issued.name or (person.name if person is not None else issued.token_key[:12])


def _issued(daemon: Daemon, issued: IssuedInvitation) -> InvitationShown:
    person = issued.applicant()
    applicant: Applicant | None = None
    if person is not None:
        applicant = {"name": person.name, "key": person.author.hex(), "addresses": list(person.addresses)}
    return {
        "invitation": issued.token_key[:12],
        "name": issued.name,
        "created": views.moment(issued.created),
        "expires": views.moment(issued.expires),
        "key": issued.key or None,
        "hold": issued.hold,
        "withdrawn": issued.withdrawn,
        "applicant": applicant,
        "state": daemon.admission.state(issued) or ("withdrawn" if issued.withdrawn else "not used"),
    }
