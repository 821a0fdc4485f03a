"""The control API over an ASGI transport: what it shows, what it does, what it refuses."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from collegium.crypto.errors import CorruptError
from collegium.node import views
from collegium.node.control.answers import BODY_LIMIT
from collegium.node.control.app import build
from collegium.node.control.client import SCOPE
from collegium.node.core.events import ProposeMotion, RequestWithdrawal
from collegium.node.home.peers import load_peers, save_peers
from collegium.node.unlearning.requests import NOT_SIGNING

if TYPE_CHECKING:
    from .conftest import FakeDaemon

ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWS2fAoTAt1d9dsQ8NbBFh6P8S6pSafbM5v9V7a1zkonXB"


def call(daemon: "FakeDaemon", method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(daemon))
        async with httpx.AsyncClient(transport=transport, base_url="http://node/v1") as client:
            return await client.request(method, path, **options)

    return trio.run(ask)


@pytest.mark.parametrize(
    "path",
    [
        "/status",
        "/peers",
        "/components",
        "/rounds",
        "/rounds?component=head/task0&since=2&limit=1",
        "/rounds/head/task0/1",
        "/rounds/head%2Ftask0/1",
        "/ledger/log",
        "/ledger/log?kind=update&component=head/task0&limit=2",
        "/ledger/1",
        "/privacy",
        "/unlearn",
    ],
)
def test_every_reading_path_answers(daemon: "FakeDaemon", path: str) -> None:
    answer = call(daemon, "GET", path)
    assert answer.status_code == 200, answer.text
    assert answer.json() not in (None, [], {})


def test_it_shows_the_same_as_the_views(daemon: "FakeDaemon") -> None:
    context = views.offline(daemon.charter, daemon.store, me=daemon.core.me)
    assert call(daemon, "GET", "/ledger/log").json() == views.ledger_log(context)
    assert call(daemon, "GET", "/rounds/head/task0/2").json() == views.round_detail(context, "head/task0", 2)
    local = views.round_detail(context, "head/task0", 2, local=True)
    assert call(daemon, "GET", "/rounds/head/task0/2?local=1").json() == local
    assert "evaluation" in local
    assert call(daemon, "GET", "/status").json()["live"]["learner"]["device"] == "cpu"
    status = call(daemon, "GET", "/status").json()
    assert status["height"] == context.ledger.height
    assert status["running"] is True
    assert len(status["live"]["connected"]) == 3
    assert (status["live"]["bytes_received"], status["live"]["bytes_sent"]) == (7, 9)


@pytest.mark.parametrize(
    ("path", "status", "exit_code"),
    [
        ("/rounds?component=head/none", 400, 2),
        ("/rounds/head/task0/99", 400, 2),
        ("/ledger/99999", 400, 2),
        ("/ledger/log?limit=many", 400, 2),
        ("/ledger/log?limit=99999", 400, 2),
        ("/ledger/log?author=nobody", 400, 2),
        ("/ledger/log?author=" + "x" * 5000, 400, 2),
        ("/nothing", 404, 2),
        ("/rounds/head/task0/x", 404, 2),
    ],
)
def test_errors_carry_advice_and_an_exit_code(daemon: "FakeDaemon", path: str, status: int, exit_code: int) -> None:
    answer = call(daemon, "GET", path)
    assert answer.status_code == status
    value = answer.json()
    assert value.keys() == {"error", "advice", "exit_code"}
    assert value["exit_code"] == exit_code
    assert value["error"]


def test_a_fault_of_ours_is_an_answer_and_not_the_end(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(views, "status", fail)
    answer = call(daemon, "GET", "/status")
    assert (answer.status_code, answer.json()["exit_code"]) == (500, 1)
    assert "ZeroDivisionError" in answer.json()["error"]


def test_damage_keeps_its_exit_code(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise CorruptError("Table records is damaged", "Restore it.")

    monkeypatch.setattr(views, "unlearn", fail)
    assert call(daemon, "GET", "/unlearn").json() == {
        "error": "Table records is damaged",
        "advice": "Restore it.",
        "exit_code": 3,
    }


def test_stop_stops(daemon: "FakeDaemon") -> None:
    assert call(daemon, "POST", "/stop", json={}).status_code == 202
    assert daemon.stops == 1
    assert call(daemon, "GET", "/stop").status_code == 405
    assert daemon.stops == 1


def test_a_withdrawal_is_submitted(daemon: "FakeDaemon") -> None:
    answer = call(daemon, "POST", "/unlearn", json=SCOPE)
    assert (answer.status_code, answer.json()) == (202, {"submitted": True, "signing": True, "recorded": True})
    assert daemon.submitted == [RequestWithdrawal()]


def test_what_was_only_on_its_way_is_said(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger gets no record of it, so nobody should wait for one."""
    header = SimpleNamespace(
        digest=b"f" * 32, value=SimpleNamespace(author=daemon.core.me, component="head/task0", round=9_000)
    )
    for posted in (False, True):
        waiting = {header.digest: SimpleNamespace(header=header, posted=posted)}
        monkeypatch.setattr(daemon.core, "in_flight", waiting)
        answer = call(daemon, "POST", "/unlearn", json={**SCOPE, "updates": [header.digest.hex()]})
        assert answer.json()["recorded"] is posted


def test_a_part_is_withdrawn_by_component_rounds_or_updates(daemon: "FakeDaemon") -> None:
    component = next(iter(daemon.core.ledger.components.values()))
    entry = next(e for r in component.rounds for e in r.entries if e.author == daemon.core.me)
    asked: list[dict[str, Any]] = [
        {"components": [component.name]},
        {"components": [component.name], "first": 1, "last": component.round},
        {"updates": [entry.update.hex()[:12], entry.update.hex()]},
    ]
    for scope in asked:
        assert call(daemon, "POST", "/unlearn", json={**SCOPE, **scope}).status_code == 202, scope
    assert daemon.submitted == [
        RequestWithdrawal("components", (component.name,)),
        RequestWithdrawal("rounds", (component.name,), 1, component.round),
        RequestWithdrawal("updates", updates=(entry.update,)),
    ]


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        ({"components": ["head/none"]}, 2),
        ({"first": 1, "last": 2}, 2),
        ({"updates": ["abcd"]}, 2),
        ({"updates": ["a"]}, 2),
        ({"updates": [5]}, 2),
        ({"updates": ["ab" * 32] * 65}, 2),
        ({"components": "head/task0"}, 2),
        ({"components": ["head/task0"], "first": 3, "last": 2}, 2),
        ({"components": ["head/task0"], "first": -1, "last": 2}, 2),
        ({"components": ["head/task0"], "updates": ["abcd"]}, 2),
        ({"components": ["head/task0"], "first": 9_000, "last": 9_001}, 5),
    ],
)
def test_what_cannot_be_withdrawn_is_said(daemon: "FakeDaemon", scope: dict[str, Any], code: int) -> None:
    answer = call(daemon, "POST", "/unlearn", json={**SCOPE, **scope})
    assert answer.json()["exit_code"] == code, answer.json()
    assert daemon.submitted == []


def test_a_withdrawal_waits_for_a_quorum_of_connected_members(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: a node that signs nothing yet would say that it is done; one of everything stops it at once, and waits."""
    monkeypatch.setattr(daemon.core, "signing", False)
    answer = call(daemon, "POST", "/unlearn", json={**SCOPE, "components": ["head/task0"]})
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 5)
    assert (answer.json()["error"][:12], answer.json()["advice"]) == ("not-signing:", NOT_SIGNING)
    assert daemon.submitted == []
    answer = call(daemon, "POST", "/unlearn", json=SCOPE)
    assert (answer.status_code, answer.json()["signing"]) == (202, False)


def test_an_update_is_named_by_four_digits_at_least(daemon: "FakeDaemon") -> None:
    """Fewer, though they name one update alone today, are soon those of several."""
    component = next(iter(daemon.core.ledger.components.values()))
    names = [e.update.hex() for r in component.rounds for e in r.entries]
    name = next(e.update.hex() for r in component.rounds for e in r.entries if e.author == daemon.core.me)
    assert sum(other[:3] == name[:3] for other in names) == 1, "three digits would do to tell it from the others"
    for length, code in ((3, 400), (4, 202)):
        assert call(daemon, "POST", "/unlearn", json={**SCOPE, "updates": [name[:length]]}).status_code == code


def test_a_withdrawal_of_nothing_is_refused(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon.core, "me", bytes(32))
    answer = call(daemon, "POST", "/unlearn", json=SCOPE)
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 5)
    assert daemon.submitted == []


PROPOSED = {**SCOPE, "mode": "rewind", "reason": "consent", "heights": 50, "anyway": False}


def test_a_rewind_is_proposed_if_the_budget_covers_it(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    """design.md section 9: budgets checked first."""
    component = next(iter(daemon.core.ledger.components.values()))
    other = next(e.author for r in component.rounds for e in r.entries if e.author != daemon.core.me)
    body = {**PROPOSED, "who": other.hex()}
    answer = call(daemon, "POST", "/unlearn/motions", json=body).json()
    assert answer["rounds_again"][component.name] == component.round + 1
    (motion,) = daemon.submitted
    assert isinstance(motion, ProposeMotion)
    assert (motion.action, motion.subject, motion.heights, motion.reason) == ("rewind", other, 50, "consent")
    noisy = {name: replace(spec, noise_multiplier=1_000_000) for name, spec in daemon.core.specs.items()}
    monkeypatch.setattr(daemon.core, "specs", noisy)
    unknown = call(daemon, "POST", "/unlearn/motions", json=body)
    assert "not known" in unknown.json()["error"], "right after a start: what it allows was not computed yet"
    assert "if it trains no more, give --anyway" in unknown.json()["advice"]
    monkeypatch.setattr(daemon.core, "forecast", {"made-up": (component.round, {component.name: 9})})
    refused = call(daemon, "POST", "/unlearn/motions", json=body)
    assert (refused.status_code, refused.json()["exit_code"]) == (409, 5)
    assert "made-up" in refused.json()["error"]
    need = component.round + 1
    for left, code in ((need, 409), (need + 1, 202)):  # the round that the forecast was made for is one of them
        monkeypatch.setattr(daemon.core, "forecast", {"made-up": (left, {component.name: 9})})
        assert call(daemon, "POST", "/unlearn/motions", json=body).status_code == code
    daemon.submitted.pop()
    monkeypatch.setattr(daemon.core, "forecast", {"made-up": (0, {component.name: 9})})
    assert len(daemon.submitted) == 1
    assert call(daemon, "POST", "/unlearn/motions", json={**body, "anyway": True}).status_code == 202
    assert call(daemon, "POST", "/unlearn/motions", json={**body, "mode": "refold"}).status_code == 202


@pytest.mark.parametrize("change", [{"mode": "erase"}, {"who": "nobody"}, {"heights": 0}, {"components": ["x"]}])
def test_a_motion_that_cannot_be_proposed_is_refused(daemon: "FakeDaemon", change: dict[str, Any]) -> None:
    component = next(iter(daemon.core.ledger.components.values()))
    other = next(e.author for r in component.rounds for e in r.entries if e.author != daemon.core.me)
    answer = call(daemon, "POST", "/unlearn/motions", json={**PROPOSED, "who": other.hex(), **change})
    assert answer.json()["exit_code"] in (2, 5)
    assert daemon.submitted == []


def test_adding_a_peer_dials_it_and_remembers_it(daemon: "FakeDaemon") -> None:
    answer = call(daemon, "POST", "/peers", json={"address": ADDRESS}).json()
    assert answer["connected"] is True
    assert answer["tried"] is False, "there was a connection already, by another address"
    assert answer["member"]["key"] == daemon.network.members[1].hex()
    assert daemon.network.dialled == [ADDRESS]
    assert load_peers(daemon.home) == (ADDRESS,)
    assert daemon.refreshed >= 1


def test_a_peer_that_is_down_is_remembered_and_said(daemon: "FakeDaemon") -> None:
    daemon.network.answer = "down"
    answer = call(daemon, "POST", "/peers", json={"address": ADDRESS}).json()
    assert answer["connected"] is False
    assert "cannot be reached" in answer["why"]
    assert load_peers(daemon.home) == (ADDRESS,)


@pytest.mark.parametrize("before", [(), (ADDRESS,)])
def test_a_stranger_changes_nothing(daemon: "FakeDaemon", before: tuple[str, ...]) -> None:
    save_peers(daemon.home, before)
    daemon.network.answer = "stranger"
    answer = call(daemon, "POST", "/peers", json={"address": ADDRESS})
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 5)
    assert load_peers(daemon.home) == before


def test_a_peer_is_forgotten(daemon: "FakeDaemon") -> None:
    save_peers(daemon.home, [ADDRESS])
    assert call(daemon, "DELETE", "/peers", json={"address": ADDRESS}).json()["added"] == []
    assert load_peers(daemon.home) == ()
    assert call(daemon, "DELETE", "/peers", json={"address": ADDRESS}).status_code == 400


BAD_BODIES: dict[str, dict[str, Any]] = {
    "not JSON": {"content": b"{"},
    "deep nesting": {"content": b"[" * 50_000},
    "a list": {"json": [1]},
    "a missing field": {"json": {}},
    "another field": {"json": {"address": ADDRESS, "more": 1}},
    "a number for text": {"json": {"address": 5}},
    "no address": {"json": {"address": "nonsense"}},
    "too large": {"content": b'{"address": "' + b"x" * BODY_LIMIT + b'"}'},
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_bad_body_is_refused(daemon: "FakeDaemon", what: str) -> None:
    answer = call(daemon, "POST", "/peers", **BAD_BODIES[what])
    assert answer.status_code in (400, 413)
    assert answer.json()["exit_code"] == 2
    assert daemon.network.dialled == []
    assert load_peers(daemon.home) == ()


def test_an_endless_body_is_cut_at_the_limit(daemon: "FakeDaemon") -> None:
    """Memory stays bounded: reading stops once over the limit (G9)."""
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        assert sent <= BODY_LIMIT // 1024 + 2
        return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": "/v1/stop", "raw_path": b"/stop", "query_string": b"", "headers": [],
        "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "server": None, "client": None,
        "root_path": "",
    }  # fmt: skip
    app: Callable[..., Any] = build(daemon)
    trio.run(app, scope, receive, send)
    assert statuses == [413]
    assert daemon.stops == 0


def test_the_control_api_brings_no_torch_along() -> None:
    import subprocess

    code = "import sys, collegium.node.control.app, collegium.node.control.client; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
