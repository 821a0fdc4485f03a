"""The control API as an ASGI application. JSON in and out; errors are {"error", "advice", "exit_code"}.

The socket's mode is the access control: a process that can open it commands the node. Views run in worker threads on
facts taken on the daemon's own thread, so a long answer never holds up a vote.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog
import trio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from ...crypto.errors import RefusedError, UnreachableError, UsageError
from .. import views
from ..core.events import SetPaused
from ..core.state import PAUSED_FLAG
from ..home.peers import edit_peers, load_peers, save_peers
from ..views.context import Context
from . import events, membership, unlearn
from .answers import Endpoint, answering, body_of, http_error
from .client import VERSION
from .facts import Daemon, context_of
from .replies import PauseSet, PeerAdded, PeerRemoved

log = structlog.get_logger(__name__)

ROWS_LIMIT = 1000


def build(daemon: Daemon) -> Starlette:
    """Return the application that shows and commands this daemon."""

    def view(make: Callable[[Context, Request], object]) -> Endpoint:
        async def show(request: Request) -> Response:
            context = context_of(daemon)
            return JSONResponse(await run_in_threadpool(make, context, request))

        return answering(show)

    async def add_peer(request: Request) -> Response:
        address = str((await body_of(request, {"address": str}))["address"])
        before = await run_in_threadpool(load_peers, daemon.home)
        await run_in_threadpool(edit_peers, daemon.home, add=[address])
        daemon.refresh_peers()  # a node that is not up to date lets in whom its operator names
        already = daemon.network.neighbours()
        try:
            key = await daemon.network.connect(address)
        except (RefusedError, UsageError):
            await run_in_threadpool(save_peers, daemon.home, before)
            daemon.refresh_peers()
            raise
        except UnreachableError as error:
            # Kept: the dialer tries again by itself, and the peer may only be down for now.
            daemon.refresh_peers()
            failed: PeerAdded = {"address": address, "connected": False, "why": error.message}
            return JSONResponse(failed)
        daemon.refresh_peers()
        member = context_of(daemon).member(key)
        reply: PeerAdded = {"address": address, "connected": True, "tried": key not in already, "member": member}
        return JSONResponse(reply)

    async def remove_peer(request: Request) -> Response:
        address = str((await body_of(request, {"address": str}))["address"])
        left = await run_in_threadpool(edit_peers, daemon.home, remove=[address])
        daemon.refresh_peers()
        reply: PeerRemoved = {"address": address, "added": list(left)}
        return JSONResponse(reply)

    async def health(_request: Request) -> Response:
        return JSONResponse({"answers": True})

    async def metrics(_request: Request) -> Response:
        # Imported when it is asked for: a node that nobody scrapes does not hold it.
        from .scrape import CONTENT_TYPE, text  # noqa: PLC0415

        context = context_of(daemon)
        policies = tuple(daemon.core.policies.values())
        return Response(await run_in_threadpool(text, context, policies, daemon.config), media_type=CONTENT_TYPE)

    async def described(_request: Request) -> Response:
        from .openapi import document  # noqa: PLC0415 - as above

        return JSONResponse(await run_in_threadpool(document))

    streams = events.Streams(daemon)

    async def stream(_request: Request) -> Response:
        return streams.open()

    async def stop(request: Request) -> Response:
        await body_of(request, {})
        log.info("stop requested")
        daemon.request_stop()
        return JSONResponse({"stopping": True}, 202)

    async def pause(request: Request) -> Response:
        on = bool((await body_of(request, {"paused": bool}))["paused"])
        core = daemon.core
        was, run = core.paused, core.run
        daemon.submit(SetPaused(on))
        # On disk, not only in memory: it must survive a power failure.
        while (await run_in_threadpool(daemon.store.flags)).get(PAUSED_FLAG, 0) != int(on):  # noqa: ASYNC110 - a file
            await trio.sleep(0.02)
        reply: PauseSet = {"was": was, "training": run is not None}
        return JSONResponse(reply)

    def first_version() -> list[BaseRoute]:
        return [
            *membership.routes(daemon),
            *unlearn.routes(daemon),
            Route("/events", answering(stream)),
            Route("/status", view(lambda context, _: views.status(context))),
            Route("/peers", view(lambda context, _: views.peers(context))),
            Route("/components", view(lambda context, _: views.components(context))),
            Route("/rounds", view(_rounds)),
            Route("/rounds/{component:path}/{round:int}", view(_round)),
            Route("/ledger/log", view(_log)),
            Route("/ledger/{reference}", view(_record)),
            Route("/privacy", view(partial(_privacy, daemon))),
            Route("/unlearn", view(lambda context, _: views.unlearn(context))),
            Route("/peers", answering(add_peer), methods=["POST"]),
            Route("/peers", answering(remove_peer), methods=["DELETE"]),
            Route("/pause", answering(pause), methods=["POST"]),
            Route("/stop", answering(stop), methods=["POST"]),
        ]

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", answering(metrics)),
            Route("/openapi.json", answering(described)),
            Mount(VERSION, routes=first_version()),
        ],
        exception_handlers={HTTPException: http_error},
    )


def _number(request: Request, name: str, default: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 12 or int(text) > high:
        raise UsageError(f"{name} is not a number from 0 to {high}")
    return int(text)


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
