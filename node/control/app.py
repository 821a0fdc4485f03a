"""The control API as an ASGI application. JSON in and out; errors are {"error", "advice", "exit_code"}.

The socket's mode is the access control: who can open it, commands the node. Views run in worker threads on facts taken
on the daemon's own thread, so a long answer never holds up a vote.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial, wraps

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...consensus.ledger import Ledger
from ...crypto.errors import (
    CollegiumError,
    CorruptError,
    OperatorError,
    RefusedError,
    UnreachableError,
    UsageError,
    VerificationError,
)
from .. import views
from ..core.events import RequestWithdrawal
from ..home.peers import edit_peers, load_peers, save_peers
from ..views.context import Context
from .facts import Daemon, context_of

log = structlog.get_logger(__name__)

BODY_LIMIT = 64 << 10
QUERY_LIMIT = 4096
ROWS_LIMIT = 1000
_STATUS: dict[type[CollegiumError], int] = {
    UsageError: 400,
    CorruptError: 500,
    UnreachableError: 502,
    RefusedError: 409,
    VerificationError: 422,
}

Endpoint = Callable[[Request], Awaitable[Response]]
Body = dict[str, object]


def build(daemon: Daemon) -> Starlette:
    """Return the application that shows and commands this daemon."""

    def view(make: Callable[[Context, Request], object]) -> Endpoint:
        async def show(request: Request) -> Response:
            context = context_of(daemon)
            return JSONResponse(await run_in_threadpool(make, context, request))

        return _answering(show)

    async def withdraw(request: Request) -> Response:
        await _body(request, {})
        _check_withdrawal(daemon)
        daemon.submit(RequestWithdrawal())
        return JSONResponse({"submitted": True, "signing": daemon.core.signing}, 202)

    async def add_peer(request: Request) -> Response:
        address = str((await _body(request, {"address": str}))["address"])
        before = await run_in_threadpool(load_peers, daemon.home)
        await run_in_threadpool(edit_peers, daemon.home, add=[address])
        try:
            key = await daemon.network.connect(address)
        except (RefusedError, UsageError):
            await run_in_threadpool(save_peers, daemon.home, before)
            raise
        except UnreachableError as error:
            # Kept: the dialer tries again by itself, and the peer may only be down for now.
            daemon.refresh_peers()
            return JSONResponse({"address": address, "connected": False, "why": error.message})
        daemon.refresh_peers()
        member = context_of(daemon).member(key)
        return JSONResponse({"address": address, "connected": True, "member": member})

    async def remove_peer(request: Request) -> Response:
        address = str((await _body(request, {"address": str}))["address"])
        left = await run_in_threadpool(edit_peers, daemon.home, remove=[address])
        daemon.refresh_peers()
        return JSONResponse({"address": address, "added": list(left)})

    async def stop(request: Request) -> Response:
        await _body(request, {})
        log.info("stop requested")
        daemon.request_stop()
        return JSONResponse({"stopping": True}, 202)

    return Starlette(
        routes=[
            Route("/status", view(lambda context, _: views.status(context))),
            Route("/peers", view(_peers)),
            Route("/components", view(lambda context, _: views.components(context))),
            Route("/rounds", view(_rounds)),
            Route("/rounds/{component:path}/{round:int}", view(_round)),
            Route("/ledger/log", view(_log)),
            Route("/ledger/{reference}", view(_record)),
            Route("/privacy", view(partial(_privacy, daemon))),
            Route("/unlearn", view(lambda context, _: views.unlearn(context))),
            Route("/unlearn", _answering(withdraw), methods=["POST"]),
            Route("/peers", _answering(add_peer), methods=["POST"]),
            Route("/peers", _answering(remove_peer), methods=["DELETE"]),
            Route("/stop", _answering(stop), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )


def _answering(endpoint: Endpoint) -> Endpoint:
    """Turn what an endpoint raises into an answer: nothing that a client sends may reach the daemon's nursery."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            if len(request.scope.get("query_string", b"")) > QUERY_LIMIT:
                raise UsageError("the query is too long")
            return await endpoint(request)
        except CollegiumError as error:
            return _error(error)
        except HTTPException as error:
            return await _http_error(request, error)
        except Exception as error:
            log.exception("control request failed", path=request.url.path)
            return _error(OperatorError(f"internal error: {type(error).__name__}", "See the daemon's log."))

    return answer


def _error(error: CollegiumError) -> Response:
    message = error.message if isinstance(error, OperatorError) else str(error)
    advice = error.advice if isinstance(error, OperatorError) else ""
    return JSONResponse(
        {"error": message, "advice": advice, "exit_code": error.exit_code}, _STATUS.get(type(error), 500)
    )


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "internal error"
    advice = "The daemon may be of another release than this command."
    return JSONResponse({"error": detail, "advice": advice, "exit_code": 2}, status)


async def _body(request: Request, fields: dict[str, type]) -> Body:
    """Read a JSON object with exactly these fields; nothing over BODY_LIMIT is kept."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT:
            raise HTTPException(413, f"the body is over {BODY_LIMIT} bytes")
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise UsageError(f"the body is not an object with the fields {sorted(fields)}")
    for name, kind in fields.items():
        if type(value[name]) is not kind:
            raise UsageError(f"{name} is not a {kind.__name__}")
    return value


def _number(request: Request, name: str, default: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 12 or int(text) > high:
        raise UsageError(f"{name} is not a number from 0 to {high}")
    return int(text)


def _peers(context: Context, _request: Request) -> object:
    return {"peers": views.peers(context), "added": list(context.added)}


def _rounds(context: Context, request: Request) -> object:
    return views.rounds(
        context,
        request.query_params.get("component"),
        since=_number(request, "since", 1, 2**40),
        limit=_number(request, "limit", 50, ROWS_LIMIT),
    )


def _round(context: Context, request: Request) -> object:
    number, local = request.path_params["round"], _number(request, "local", 0, 1) == 1
    return views.round_detail(context, request.path_params["component"], number, local=local)


def _record(context: Context, request: Request) -> object:
    return views.ledger_show(context, request.path_params["reference"])


def _log(context: Context, request: Request) -> object:
    author = request.query_params.get("author")
    return views.ledger_log(
        context,
        author=views.find_member(context, author) if author is not None else None,
        kind=request.query_params.get("kind"),
        component=request.query_params.get("component"),
        since=_number(request, "since", 1, 2**40),
        limit=_number(request, "limit", 50, ROWS_LIMIT),
    )


def _privacy(daemon: Daemon, context: Context, _request: Request) -> object:
    context = replace(context, published=context.store.snapshot().published)
    return views.privacy(context, tuple(daemon.core.policies.values()), daemon.config.privacy.jurisdiction)


def _check_withdrawal(daemon: Daemon) -> None:
    """Refuse to sign a withdrawal that would withdraw nothing: it would stay in the ledger for ever."""
    ledger: Ledger = daemon.core.ledger
    me = daemon.core.me
    counted = {entry.author for c in ledger.components.values() for round_ in c.rounds for entry in round_.entries}
    pending = {update.author for c in ledger.components.values() for update in c.pending}
    flying = {flight.header.value.author for flight in daemon.core.flights.values()}
    if me not in counted | pending | flying:
        raise RefusedError("there is nothing to withdraw", "No update of this node is counted or on its way.")
