"""Who is let in to the page: nobody without its cookie or token, no other site, no other name, and a link once."""

import re
import time
from typing import Any

import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from collegium.node.page.guard import HEADERS, IDLE, Guard

TOKEN = "t" * 43
HOST = "127.0.0.1:4711"
SECRET = "the pages of this node"


class Visitor:
    """A guard before an application that tells the secret, and one browser's cookies."""

    def __init__(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.states.append(scope.get("state", {}))
            await PlainTextResponse(SECRET + Request(scope).url.path)(scope, receive, send)

        self.states: list[dict[str, Any]] = []
        self.guard = Guard(app, 4711, TOKEN)

    def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        sent = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.guard)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
                return await client.request(method, path, headers=sent)

        answer = trio.run(asked)
        assert HEADERS.items() <= {name.title(): value for name, value in answer.headers.items()}.items()
        return answer

    def enter(self) -> tuple[str, str]:
        """Use the link; return the path of the pages and the cookie."""
        answer = self.ask(self.guard.link)
        cookie = answer.headers["set-cookie"]
        assert re.search("; HttpOnly; Path=/[^/;]{16}/; SameSite=strict$", cookie)
        found = re.search('content="0;url=([^"]+)"', answer.text)
        assert found is not None
        assert f"Path={found[1]};" in cookie
        return found[1], cookie.partition(";")[0]


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


def test_the_link_lets_one_browser_in(visitor: Visitor) -> None:
    base, cookie = visitor.enter()
    assert visitor.ask(base, cookie=cookie).text.startswith(SECRET)
    assert visitor.ask(base + "rounds", cookie=f"other=1; {cookie}", sec_fetch_site="same-origin").status_code == 200
    assert visitor.ask(base.rstrip("/"), cookie=cookie).headers["location"] == base


def test_a_link_that_is_used_twice_shuts_out_whoever_used_it_first(visitor: Visitor) -> None:
    base, cookie = visitor.enter()
    again = visitor.ask(visitor.guard.link)
    assert again.status_code == 403
    assert "used before" in again.text
    assert "set-cookie" not in again.headers
    assert visitor.ask(base, cookie=cookie).status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/rounds", "/open/", "/open/wrong", "/v1/status", "/metrics", "/static/page.css", "//"]
)
def test_without_the_token_there_is_only_a_page_that_says_what_to_do(visitor: Visitor, path: str) -> None:
    answer = visitor.ask(path)
    assert answer.status_code == 401
    assert "collegium dashboard" in answer.text
    assert SECRET not in answer.text


@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE"])
def test_the_link_is_only_opened(visitor: Visitor, method: str) -> None:
    assert visitor.ask(visitor.guard.link, method).status_code == 401
    visitor.enter()


def test_a_wrong_cookie_is_none(visitor: Visitor) -> None:
    base, cookie = visitor.enter()
    for wrong in (
        "collegium=",
        "collegium=x",
        cookie[:-1],
        cookie + "x",
        "collegium=" + TOKEN,
        "collegium=\u00e9",
        "a",
    ):
        assert visitor.ask(base, cookie=wrong).status_code == 401, wrong
    assert visitor.ask("/rounds", cookie=cookie).status_code == 401, "outside of its path"
    assert visitor.ask(base, authorization=f"Bearer {TOKEN}").status_code == 401, "pages are for the cookie"


def test_a_program_with_the_token_gets_the_api_and_no_page(visitor: Visitor) -> None:
    right = f"Bearer {TOKEN}"
    for path in ("/v1/status", "/metrics", "/health", "/openapi.json"):
        assert visitor.ask(path, authorization=right).status_code == 200
        for wrong in ("Bearer x", f"Basic {TOKEN}", "Bearer ", TOKEN, f"Bearer {TOKEN}x"):
            assert visitor.ask(path, authorization=wrong).status_code == 401
    assert visitor.ask("/", authorization=right).status_code == 401
    assert visitor.ask("/rounds", authorization=right).status_code == 401


@pytest.mark.parametrize("host", ["example.org", "example.org:4711", "127.0.0.1", "127.0.0.1:80", "127.0.0.2:4711", ""])
def test_a_foreign_host_is_refused(visitor: Visitor, host: str) -> None:
    """As a browser sends it whose name for another site was rebound to this machine."""
    base, cookie = visitor.enter()
    answer = visitor.ask(base, host=host, cookie=cookie)
    assert answer.status_code == 421
    assert SECRET not in answer.text


def test_localhost_is_this_machine(visitor: Visitor) -> None:
    base, cookie = visitor.enter()
    assert visitor.ask(base, host="localhost:4711", cookie=cookie).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://example.org", "null", "https://127.0.0.1:4711", "http://127.0.0.1:4712", "http://localhost:4711"],
)
def test_a_foreign_origin_is_refused_in_every_method(visitor: Visitor, origin: str) -> None:
    base, cookie = visitor.enter()
    for method in ("GET", "POST", "OPTIONS"):
        for path in (base, "/v1/status"):
            answer = visitor.ask(path, method, origin=origin, cookie=cookie, authorization=f"Bearer {TOKEN}")
            assert answer.status_code == 403
            assert SECRET not in answer.text
            assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_that_another_site_caused_is_refused(visitor: Visitor, site: str) -> None:
    """Another port of this machine is same-site, and a browser's strict cookie would go there and come from there."""
    base, cookie = visitor.enter()
    assert visitor.ask(base, cookie=cookie, sec_fetch_site=site).status_code == 403


def test_a_post_says_where_it_comes_from(visitor: Visitor) -> None:
    base, cookie = visitor.enter()
    assert visitor.ask(base, "POST", cookie=cookie).status_code == 403
    assert visitor.ask(base, "POST", cookie=cookie, origin=f"http://{HOST}").status_code == 200


def test_a_session_that_nobody_uses_ends(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    base, cookie = visitor.enter()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + IDLE - 60)
    assert visitor.ask(base, cookie=cookie).status_code == 200
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * IDLE)
    assert visitor.ask(base, cookie=cookie).status_code == 401


def test_forms_of_a_session_have_a_token_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Visitor(), Visitor()
    tokens = []
    for visitor in (one, other):
        base, cookie = visitor.enter()
        now = time.monotonic()
        visitor.ask(base, cookie=cookie)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda now=now: now + 60)
            visitor.ask(base, cookie=cookie)
        first, second = visitor.states
        assert first["form_token"] == second["form_token"] != cookie.partition("=")[2]
        assert first["open_for"] < 60 <= second["open_for"] + 1
        tokens.append(first["form_token"])
        visitor.ask("/v1/status", authorization=f"Bearer {TOKEN}")
        assert "form_token" not in visitor.states[-1], "a program with the token has no form"
    assert len(set(tokens)) == 2


def test_each_start_has_its_own_path_link_and_cookie() -> None:
    one, other = Visitor(), Visitor()
    assert one.guard.link != other.guard.link
    assert one.enter()[0] != other.enter()[0]
