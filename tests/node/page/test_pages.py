"""Pages with and without a daemon, and that nothing which comes from others can be more than text in them."""

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from collegium.node import views
from collegium.node.home.scheduled import Scheduled
from collegium.node.page import blocks, render
from collegium.node.page.app import build
from collegium.node.page.content import PLACES
from collegium.node.page.source import Source
from collegium.node.views.context import Context

from ..control.conftest import daemon, grown_cluster  # noqa: F401 - fixtures
from ..control.test_client import serving

if TYPE_CHECKING:
    from ..control.conftest import FakeDaemon

HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7*7 }}{% raw %}&lt;\u202e\x1b[31m` onclick=x"""
OF_FILES = {"/quality", "/privacy", "/protection"}  # they read the charter's file: see tests/firstweek


class Shape(HTMLParser):
    """The tags and attributes of a page, without its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.texts = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.texts += data


def source(daemon: "FakeDaemon") -> Source:  # noqa: F811 - the fixture
    class Files:
        def __call__(self, view: Any, /) -> Any:
            return view(views.offline(daemon.charter, daemon.store, me=daemon.core.me))

    return Source(daemon.home, Files())


def ask(source: Source, path: str, method: str = "GET") -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(source))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.request(method, path)

    return trio.run(asked)


PATHS = [place.path for place in PLACES if place.path not in OF_FILES]


def test_every_page_is_there_with_a_daemon_and_without(daemon: "FakeDaemon") -> None:  # noqa: F811
    more = [
        "/rounds/head/task0/1",
        "/ledger/1",
        "/ledger?kind=update",
        "/rounds?component=head/task0",
        "/ledger?reference=1",
    ]
    more += [f"/members/{daemon.core.me.hex()}", f"/ledger/{daemon.store.block(1).records[0].digest.hex()}"]  # type: ignore[union-attr]
    with serving(daemon):
        for path in [*PATHS, *more]:
            answer = ask(source(daemon), path)
            assert answer.status_code == 200, answer.text
            assert "No daemon runs" not in answer.text
    for path in [*PATHS, *more]:
        answer = ask(source(daemon), path)
        assert answer.status_code == 200, answer.text
        assert "No daemon runs" in answer.text
        assert "collegium node start" in answer.text


def test_every_number_names_its_command(daemon: "FakeDaemon") -> None:  # noqa: F811
    with serving(daemon):
        for place in PLACES:
            if place.path not in OF_FILES:
                page, _ = source(daemon).read(lambda read, make=place.make: make(read, {}))  # type: ignore[misc]
                assert page.sections
                assert all(section.commands for section in page.sections), place.name


def test_withdrawals_to_come_are_shown_with_what_takes_them_back(daemon: "FakeDaemon") -> None:  # noqa: F811
    tag = bytes(32)
    daemon.scheduled = (Scheduled(tag, tag, 2_000_000_000, 0, (bytes(32), bytes([1]) * 32), pause=True),)
    with serving(daemon):
        shown = Shape(ask(source(daemon), "/withdrawals").text).texts
    for said in ("To come", "2033-05-18 03:33 UTC", "collegium unlearn cancel ID"):
        assert said in shown, said


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/ledger?author=nobody", 400, "nobody"),
        ("/ledger/zzz", 400, "neither a height nor"),
        ("/rounds/head/task0/99", 400, "no closed round 99"),
        ("/rounds?component=x", 400, "no component"),
        ("/members/nobody", 400, "no member"),
        ("/ledger?author=" + "x" * 5000, 400, "too long"),
        ("/nothing", 404, ""),
    ],
)
def test_what_is_not_there_is_said(daemon: "FakeDaemon", path: str, status: int, said: str) -> None:  # noqa: F811
    with serving(daemon):
        answer = ask(source(daemon), path)
    assert answer.status_code == status
    assert said in answer.text


def test_names_of_members_are_text(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def named(name: str) -> dict[str, Shape]:
        monkeypatch.setattr(Context, "member", lambda self, key: {"name": name, "key": key.hex()})
        monkeypatch.setattr(daemon.network, "why", lambda peer: name)
        return {path: Shape(ask(source(daemon), path).text) for path in PATHS}

    with serving(daemon):
        plain, hostile = named("north"), named(HOSTILE)
    for path in PATHS:
        assert hostile[path].found == plain[path].found, path
    assert "<script>alert(1)</script>" in hostile["/federation"].texts
    assert r"\u202e\x1b[31m" in hostile["/federation"].texts


def test_a_query_is_text(daemon: "FakeDaemon") -> None:  # noqa: F811
    from urllib.parse import quote

    with serving(daemon):
        for path in ("/ledger?author=", "/ledger/", "/members/", "/rounds?component=", "/"):
            page = ask(source(daemon), path + quote(HOSTILE, safe=""))
            assert "<script>alert" not in page.text
            assert "49" not in Shape(page.text).texts.replace(HOSTILE, "")


def everything(text: str) -> blocks.Page:
    """A page with each block and each cell."""
    cells: tuple[blocks.Cell, ...] = (
        text,
        blocks.Link(text, "/x"),
        blocks.Code(text),
        blocks.Code(text, text[:5]),
        blocks.Badge(text, "ok"),
        blocks.Many((text, blocks.Link(text, "/x"))),
        blocks.Moment(text),
        blocks.Form("/act/x", text, {"a": text}, label=text),
        blocks.Download(text, "/x"),
        None,
        True,
        1.23456,
    )
    dot = blocks.Dot(text, "up", text, 1, 2, "middle", 3, 4)
    return blocks.Page(
        text,
        (
            blocks.Section(
                "everything",
                text,
                (
                    blocks.Facts([(text, cell) for cell in cells]),
                    blocks.Table(text, (text,) * len(cells), (cells,), text),
                    blocks.Table(text, (), (), text),
                    blocks.Words(text),
                    blocks.Findings((blocks.Finding("warning", text, text),), text),
                    blocks.Findings((), text),
                    blocks.Lines(text, (text,)),
                    blocks.Search("/x", (blocks.Field("a", text, text), blocks.Field("b", text, text, (text, "")))),
                    blocks.Graph(text, dot, (dot,), 10, 10),
                    blocks.Many((text,)),
                    blocks.Form(
                        "/act/all",
                        text,
                        {"a": text},
                        (
                            blocks.Input("b", text, text, hint=text),
                            blocks.Input("c", text, text, lines=3, hint=text),
                            blocks.Input("d", text, text, (text, ""), hint=text),
                            blocks.Input("e", text, sort="box"),
                            blocks.Input("f", text, sort="file"),
                        ),
                        text,
                    ),
                ),
                (text,),
            ),
        ),
        text,
        print_button=True,
    )


def test_every_kind_of_block_and_cell_escapes() -> None:
    kinds = {kind for kind in vars(blocks).values() if isinstance(kind, type) and hasattr(kind, "kind")}

    def drawn(text: str) -> Shape:
        page = everything(text)
        parts = page.sections[0].blocks
        facts = [cell for part in parts if isinstance(part, blocks.Facts) for _, cell in part.pairs]
        used = {type(each) for each in [*parts, *facts]}
        assert kinds <= used
        common = {"base": "/b", "places": PLACES, "here": "/", "form_token": text, "stage": text}
        return Shape(render.page("page.html", **common, page=page, absent=None))

    assert drawn(HOSTILE).found == drawn("plain text").found
    assert "–yes1.235" in drawn("x").texts.replace("\n", "")


def test_the_api_is_forwarded_to_read_and_nothing_else(daemon: "FakeDaemon") -> None:  # noqa: F811
    with serving(daemon) as client:
        assert ask(source(daemon), "/v1/status").json()["height"] == client.status()["height"]
        assert "collegium_height" in ask(source(daemon), "/metrics").text
        assert ask(source(daemon), "/v1/rounds?limit=1&component=head/task0").json()[0]["component"] == "head/task0"
        assert ask(source(daemon), "/v1/rounds/head/task0/99").status_code == 400
        for method in ("POST", "DELETE", "PUT"):
            for path in ("/v1/stop", "/v1/peers", "/v1/unlearn", "/"):
                assert ask(source(daemon), path, method).status_code == 405
        assert daemon.stops == 0
        assert not daemon.submitted
    answer = ask(source(daemon), "/v1/status")
    assert (answer.status_code, answer.json()["exit_code"]) == (502, 4)


def test_no_script_or_style_is_in_a_page() -> None:
    for template in (render.FOLDER / "templates").iterdir():
        text = template.read_text(encoding="utf-8")
        assert "<style" not in text
        assert " style=" not in text
        assert "|safe" not in text
        assert "autoescape" not in text
        shape = Shape(text)
        assert not [name for _, names in shape.found for name in names if name.startswith("on")], template
        assert all("src" in names for tag, names in shape.found if tag == "script")
