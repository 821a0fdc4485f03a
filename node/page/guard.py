"""Who is let in to the page. A port of 127.0.0.1 is open to every user of the machine and to every page in a browser.

A browser comes with the cookie that it got for the one-time link of `collegium dashboard`; a program with the token in
page.token (`Authorization: Bearer …`), and it gets the API only. The threats and their answers:

- Another site's script or form: Host and Origin are checked, `Sec-Fetch-Site` too, the cookie is SameSite=Strict, there
  is no CORS. A form that acts also carries a token that only our own pages have (actions/forms.py). A name that is
  rebound to 127.0.0.1 is a foreign Host.
- Another port of this machine: ports do not separate cookies. The cookie is therefore bound to a path that nobody
  can guess, and no server on another port is ever sent it.
- Another user who sees the link in the list of processes: it can be used once. Whoever uses it a second time gets
  nothing, and the first one's session ends, so that a theft is noticed. In its first seconds a session confirms
  nothing (actions/forms.py): the operator's own browser may be the second.
"""

import hmac
import secrets
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "collegium"
IDLE = 12 * 3600.0  # seconds after which a session that was not used ends
OPEN = "/open/"
API = ("/health", "/metrics", "/openapi.json", "/v1/")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser would send no Origin with our own forms
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{more}
<title>Collegium</title></head><body><main><h1>{title}</h1><p>{text}</p></main></body></html>
"""
_RUN = "Run <code>collegium dashboard</code> in a terminal of this machine, and open the address that it prints."


@dataclass(slots=True)
class Session:
    """A browser that was let in: since when, when it last asked, and the token that its forms have to carry."""

    begun: float
    used: float
    form_token: str


class Guard:
    """An ASGI application around the page's. `link` is the path that lets one browser in."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._token = token
        self._ticket = secrets.token_urlsafe(24)
        self._used = False
        self._base = f"/{secrets.token_urlsafe(12)}"
        self._sessions: dict[str, Session] = {}  # by their cookie

    @property
    def link(self) -> str:
        """The path that can be opened once."""
        return f"{OPEN}{self._ticket}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                taken = {name for name, _ in extra}
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in taken]
                message = {**message, "headers": [*kept, *extra]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        path: str = scope["path"]
        if path.startswith(self._base + "/"):  # the cookie is checked: only pages are below it
            session = self._session(Headers(scope=scope))
            assert session is not None
            state = {"form_token": session.form_token, "open_for": time.monotonic() - session.begun}
            inner = {**scope, "root_path": self._base, "state": {**scope.get("state", {}), **state}}
            await self._app(inner, receive, answer)
        else:
            await self._app(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not let through; None to let it through."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _page("Refused", "This page answers only to its own address on this machine.", 421)
        origins, ours = headers.getlist("origin"), f"http://{hosts[0].lower()}"
        if any(origin != ours for origin in origins):
            return _page("Refused", "The request comes from another site.", 403)
        if path == "/favicon.ico":  # a browser asks for it by itself; its own is at another path
            return Response(status_code=204)
        if path.startswith(OPEN):
            return self._open(path.removeprefix(OPEN), method)
        if headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return _page("Refused", f"The request comes from another site. {_RUN}", 403)
        if path == self._base:
            return _unknown() if self._session(headers) is None else RedirectResponse(self._base + "/", 308)
        if path.startswith(self._base + "/"):
            if self._session(headers) is None:
                return _unknown()
            if method not in {"GET", "HEAD"} and not origins:
                return _page("Refused", "The request does not say where it comes from.", 403)
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and path.startswith(API) and self._same(given.strip(), self._token):
            return None
        return _unknown()

    def _open(self, ticket: str, method: str) -> Response:
        if method != "GET" or not self._same(ticket, self._ticket):
            return _unknown()
        if self._used:
            self._sessions.clear()
            text = (
                "This link was used before. If that was not you, somebody else on this machine saw it: they have been"
                f" shut out just now. {_RUN}"
            )
            return _page("Used already", text, 403)
        self._used = True
        session = secrets.token_urlsafe(32)
        now = time.monotonic()
        self._sessions[session] = Session(now, now, secrets.token_urlsafe(32))
        # Not a redirect: a browser sends a strict cookie only with what our own page asks for.
        refresh = f'<meta http-equiv="refresh" content="0;url={self._base}/">'
        answer = _page("Collegium", f'<a href="{self._base}/">Open the page</a>', 200, refresh)
        answer.set_cookie(COOKIE, session, path=self._base + "/", httponly=True, samesite="strict")
        return answer

    def _session(self, headers: Headers) -> Session | None:
        """Return the session whose cookie came with a request; None without one."""
        now = time.monotonic()
        self._sessions = {cookie: each for cookie, each in self._sessions.items() if now - each.used < IDLE}
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load("; ".join(headers.getlist("cookie")))
        except CookieError:
            return None
        given = jar[COOKIE].value if COOKIE in jar else ""
        session = next((each for cookie, each in self._sessions.items() if self._same(cookie, given)), None)
        if session is not None:
            session.used = now
        return session

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _page(title: str, text: str, status: int, more: str = "") -> HTMLResponse:
    """Return a page that needs no other file. `text` is HTML of ours: nothing of a request is in it."""
    return HTMLResponse(_PAGE.format(title=title, text=text, more=more), status)


def _unknown() -> HTMLResponse:
    return _page("This page needs its link", f"{_RUN} It can be used once, by one browser.", 401)
