"""Server-sent events: the present state first, then changes, and no more streams than a daemon can bear."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import trio
from starlette.responses import StreamingResponse

from collegium.crypto.errors import RefusedError
from collegium.node.control import events, openapi
from collegium.node.control.events import MAX_STREAMS, Streams, changes, seen

from .test_client import serving
from .test_types import problem

if TYPE_CHECKING:
    from .conftest import FakeDaemon


def read(text: str) -> tuple[str, Any]:
    name, data = text.removesuffix("\n\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def stream(streams: Streams) -> AsyncIterator[Any]:
    answer = streams.open()
    assert isinstance(answer, StreamingResponse)
    assert answer.media_type == "text/event-stream"
    return answer.body_iterator.__aiter__()


def test_what_is_comes_first_and_then_what_changes(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVERY", 0.01)

    async def look() -> None:
        facts: dict[str, list[Any]] = {}
        body = stream(Streams(daemon))
        async for text in body:
            name, data = read(text)
            if name == "ready":
                break
            facts.setdefault(name, []).append(data)
        assert facts["block"] == [{"height": daemon.core.ledger.height}]
        assert [r["round"] for r in facts["round"]] == [
            c.round for _, c in sorted(daemon.core.ledger.components.items())
        ]
        assert len(facts["peer"]) == 3
        assert all(peer["connected"] for peer in facts["peer"])
        daemon.learner.state = "training"
        assert read(await anext(body)) == ("learner", {"state": "training", "run": None})
        daemon.network.members = daemon.network.members[:-1]
        name, peer = read(await anext(body))
        assert (name, peer["connected"]) == ("peer", False)

    trio.run(look)


def test_every_event_is_of_a_described_type(daemon: "FakeDaemon") -> None:
    kinds = {kind.__name__.removesuffix("Event").lower(): kind for kind in openapi.EVENTS}
    for name, data in changes({}, seen(daemon)):
        assert problem(data, kinds[name]) == "", name


def test_a_motion_that_is_open_no_more_has_ended() -> None:
    motion = {"motion": "aa", "what": "expel x", "yes": 1, "no": 0, "open": True}
    assert list(changes({("motion", "aa"): motion}, {})) == [("motion", {**motion, "open": False})]
    assert list(changes({("peer", "aa"): {}}, {})) == [], "a former member is no peer"


def test_streams_are_bounded_and_a_closed_one_makes_room(daemon: "FakeDaemon") -> None:
    async def look() -> None:
        streams = Streams(daemon)
        bodies = [stream(streams) for _ in range(MAX_STREAMS)]
        for body in bodies:
            await anext(body)
        with pytest.raises(RefusedError, match="receive events already"):
            streams.open()
        await bodies[0].aclose()  # type: ignore[attr-defined]
        streams.open()

    trio.run(look)


def test_a_daemon_stops_while_a_stream_is_open(daemon: "FakeDaemon") -> None:
    """`serving` fails if its server does not end."""
    import httpx

    with serving(daemon) as client:
        transport = httpx.HTTPTransport(uds=str(client.home.socket))
        http = httpx.Client(transport=transport)
        with http.stream("GET", "http://node/v1/events") as answer:
            assert next(answer.iter_lines()) == "event: block"
