"""The page as an ASGI application, to be put behind guard.py: pages, two files, and the API of the daemon to read."""

from collections.abc import AsyncIterator, Callable

import httpx
import structlog
import trio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ...crypto.errors import CollegiumError, OperatorError, UsageError
from ..control.answers import QUERY_LIMIT
from ..control.client import START, TIMEOUT
from ..home.paths import Home
from . import render
from .blocks import Page
from .content import DETAILS, PLACES, Query
from .source import Reading, Source

log = structlog.get_logger(__name__)

AGAIN = 3.0  # seconds until a daemon that does not answer is asked for its events again
MAX_FOLLOWERS = 8  # pages that follow the events; the daemon bears 16 streams
Make = Callable[[Reading, Query], Page]


def build(source: Source) -> Starlette:
    """Return the application of one home."""
    followers = Followers(source.home)

    def route(path: str, make: Make) -> Route:
        async def show(request: Request) -> Response:
            return await run_in_threadpool(_answer, source, make, request)

        return Route(path, show)

    async def forward(request: Request) -> Response:
        return await _forward(source.home, request)

    async def events(_request: Request) -> Response:
        return followers.open()

    routes: list[BaseRoute] = [route(place.path, place.make) for place in PLACES]
    routes += [route(path, make) for path, make in DETAILS.items()]
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
        message = error.message if isinstance(error, OperatorError) else str(error)
        advice = error.advice if isinstance(error, OperatorError) else ""
        return HTMLResponse(_failed(request, message, advice), 400 if error.exit_code == 2 else 500)
    except Exception as error:
        log.exception("page failed", path=path)
        told = _failed(
            request, f"internal error: {type(error).__name__}", "The terminal of `collegium dashboard` has it."
        )
        return HTMLResponse(told, 500)


def _page(request: Request, path: str, made: Page, absent: OperatorError | None) -> str:
    return render.page("page.html", **_common(request, path), page=made, absent=absent)


def _failed(request: Request, message: str, advice: str) -> str:
    return render.page("failed.html", **_common(request, ""), message=message, advice=advice)


def _common(request: Request, path: str) -> dict[str, object]:
    here = max(
        (place.path for place in PLACES if (path + "/").startswith(place.path.rstrip("/") + "/")), key=len, default=""
    )
    return {"base": _base(request), "places": PLACES, "here": here if path else None}


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
