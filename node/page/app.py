"""The page as an ASGI application, to be put behind guard.py: pages, actions, and the daemon's API to read."""

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import structlog
import trio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ...crypto.errors import CollegiumError, OperatorError, RefusedError, UsageError
from ..control.answers import QUERY_LIMIT
from ..control.client import START, TIMEOUT
from ..home.paths import Home
from . import render
from .actions import ACTIONS, READS
from .actions.forms import check_settled, fields_of, token_of
from .actions.steps import Outcome
from .actions.tickets import OVER, Tickets
from .blocks import Page
from .content import DETAILS, PLACES, Query
from .content.asked import asked
from .source import Reading, Source

log = structlog.get_logger(__name__)

AGAIN = 3.0  # seconds until a daemon that does not answer is asked for its events again
SOON = 0.5  # seconds that an action's page waits for its next step
MAX_FOLLOWERS = 8  # pages that follow the events; the daemon bears 16 streams
Make = Callable[[Reading, Query], Page]
Endpoint = Callable[[Request], Awaitable[Response]]


def build(source: Source) -> Starlette:
    """Return the application of one home."""
    followers, tickets = Followers(source.home), Tickets()

    def route(path: str, make: Make) -> Route:
        async def show(request: Request) -> Response:
            return await run_in_threadpool(_answer, source, make, request)

        return Route(path, show)

    async def forward(request: Request) -> Response:
        return await _forward(source.home, request)

    async def events(_request: Request) -> Response:
        return followers.open()

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ACTIONS:
            raise HTTPException(404)
        fields = await fields_of(request)
        if name not in READS and source.students is None:
            raise RefusedError("This page only reads", "Start it without --read-only, or use the command.")
        action = ACTIONS[name]
        ticket = tickets.open(action.title, lambda: action.make(source, fields))
        return RedirectResponse(f"{_base(request)}/asked/{ticket}", 303)

    async def confirm(request: Request) -> Response:
        fields, name = await fields_of(request), request.path_params["ticket"]
        check_settled(request)
        number, option = (_digit(fields.get(field)) for field in ("number", "option"))
        tickets.get(name).answer(number, option)
        return RedirectResponse(f"{_base(request)}/asked/{name}", 303)

    async def show_ticket(request: Request) -> Response:
        name = request.path_params["ticket"]
        made = await run_in_threadpool(lambda: asked(tickets.get(name), name, SOON))
        return HTMLResponse(_page(request, "", made, None))

    async def download(request: Request) -> Response:
        step, number = tickets.get(request.path_params["ticket"]).step(), request.path_params["number"]
        if not isinstance(step, Outcome) or number >= len(step.files):
            raise UsageError("There is no such file", OVER)
        file = step.files[number]
        headers = {"Content-Disposition": f'attachment; filename="{file.name}"'}  # letters, digits, - and . only
        return Response(file.content, media_type="application/octet-stream", headers=headers)

    routes: list[BaseRoute] = [route(place.path, place.make) for place in PLACES]
    routes += [route(path, make) for path, make in DETAILS.items()]
    routes += [
        Route("/act/{name}", _failing(act), methods=["POST"]),
        Route("/asked/{ticket}", _failing(confirm), methods=["POST"]),
        Route("/asked/{ticket}", _failing(show_ticket)),
        Route("/asked/{ticket}/file/{number:int}", _failing(download)),
    ]
    routes += [Route("/events", events)]
    routes += [Mount("/static", StaticFiles(directory=render.FOLDER / "static"))]
    routes += [Route(path, forward) for path in ("/health", "/metrics", "/openapi.json", "/v1/{rest:path}")]
    return Starlette(routes=routes, exception_handlers={HTTPException: _not_there})


def _answer(source: Source, make: Make, request: Request) -> Response:
    """Return a page, or a page that says why there is none."""
    query = {**request.query_params, **{name: str(value) for name, value in request.path_params.items()}}
    path = request.url.path.removeprefix(_base(request))
    try:
        if len(request.scope.get("query_string", b"")) > QUERY_LIMIT:
            raise UsageError("The address is too long", "Search for less.")
        made, absent = source.read(lambda read: make(read, query))
        return HTMLResponse(_page(request, path, made, absent))
    except CollegiumError as error:
        return _told(request, error)
    except Exception as error:
        log.exception("page failed", path=path)
        return _fault(request, error)


def _failing(endpoint: Endpoint) -> Endpoint:
    """Turn what an action's endpoint raises into a page. Nothing that a form sent is logged."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except CollegiumError as error:
            return _told(request, error)
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - it is logged, without its message
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("action failed", error=type(error).__name__, where=where)
            return _fault(request, error)

    return answer


def _told(request: Request, error: CollegiumError) -> Response:
    message = error.message if isinstance(error, OperatorError) else str(error)
    advice = error.advice if isinstance(error, OperatorError) else ""
    status = {UsageError.exit_code: 400, RefusedError.exit_code: 403}.get(error.exit_code, 500)
    return HTMLResponse(_failed(request, message, advice), status)


def _fault(request: Request, error: Exception) -> Response:
    told = _failed(request, f"internal error: {type(error).__name__}", "The terminal of `collegium dashboard` has it.")
    return HTMLResponse(told, 500)


def _digit(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0


def _page(request: Request, path: str, made: Page, absent: OperatorError | None) -> str:
    common = {**_common(request, path), "stage": made.stage}
    return render.page("page.html", **common, page=made, absent=absent)


def _failed(request: Request, message: str, advice: str) -> str:
    return render.page("failed.html", **_common(request, ""), message=message, advice=advice)


def _common(request: Request, path: str) -> dict[str, object]:
    here = max(
        (place.path for place in PLACES if (path + "/").startswith(place.path.rstrip("/") + "/")), key=len, default=""
    )
    shown = here if path else None
    return {"base": _base(request), "places": PLACES, "here": shown, "stage": "", "form_token": token_of(request)}


def _base(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


async def _not_there(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if not _base(request):
        return JSONResponse({"error": "there is nothing here", "advice": "See /openapi.json.", "exit_code": 2}, status)
    return HTMLResponse(_failed(request, "There is no such page.", "Choose one above."), status)


def _daemon(home: Home) -> httpx.AsyncClient:
    """Return a client of the daemon's socket, after checking that the socket's folder is ours."""
    home.socket_folder()
    transport = httpx.AsyncHTTPTransport(uds=str(home.socket))
    return httpx.AsyncClient(transport=transport, base_url="http://node", timeout=TIMEOUT)


async def _forward(home: Home, request: Request) -> Response:
    """Ask the daemon the same. Only what reads comes here: a route without methods takes GET and HEAD."""
    path = request.url.path.removeprefix(_base(request))
    if len(request.scope.get("query_string", b"")) > QUERY_LIMIT or path == "/v1/events":
        return JSONResponse({"error": "not forwarded", "advice": "Use the socket.", "exit_code": 2}, 400)
    try:
        async with _daemon(home) as client:
            answer = await client.get(path, params=request.query_params)
    except httpx.HTTPError as error:
        told = f"the daemon does not answer: {type(error).__name__}"
        return JSONResponse({"error": told, "advice": START, "exit_code": 4}, 502)
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


class Followers:
    """Open pages that are told of the daemon's events."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._open = 0

    def open(self) -> Response:
        """Return the events, for as long as the page is open."""
        if self._open >= MAX_FOLLOWERS:
            return Response(status_code=204)  # a browser asks no more, and the page is as it was
        return StreamingResponse(self._texts(), media_type="text/event-stream")

    async def _texts(self) -> AsyncIterator[str]:
        self._open += 1
        try:
            while True:
                try:
                    async with (
                        _daemon(self._home) as client,
                        client.stream("GET", "/v1/events", timeout=None) as answer,
                    ):
                        async for text in answer.aiter_text():
                            yield text
                except httpx.HTTPError:
                    pass
                yield "event: daemon\ndata: {}\n\n"
                await trio.sleep(AGAIN)
        finally:
            self._open -= 1
