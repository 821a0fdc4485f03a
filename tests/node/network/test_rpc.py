"""Requests: caps, errors by name, time limits, kept streams."""

import struct
from typing import Any

import pytest
import trio
import trio.testing

from collegium.crypto.errors import LocalProtocolError, RemoteProtocolError, UnreachableError
from collegium.node.network import limits, rpc, streams
from collegium.node.network.identity import peer_id

from ...waiting import LIMIT

ECHO = "/test/echo/1"


async def refuse(peer: bytes, payload: bytes) -> bytes:
    raise RemoteProtocolError("bad-vote", "secret detail", peer)


async def crash(peer: bytes, payload: bytes) -> bytes:
    raise ZeroDivisionError("secret")


async def sleep(peer: bytes, payload: bytes) -> bytes:
    await trio.sleep_forever()
    return b""


async def whoami(peer: bytes, payload: bytes) -> bytes:
    return peer


HANDLERS = {"/refuse/1": refuse, "/crash/1": crash, "/sleep/1": sleep, "/whoami/1": whoami}


def test_requests_share_a_kept_stream_and_name_the_caller(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, handlers=HANDLERS) as a, node(2) as b:
            await b.joins(a)
            assert await b.network.request(a.key, "/whoami/1", b"") == b.key
            kept = b.network._rpc._kept[a.key, "/whoami/1"].stream
            for _ in range(5):
                assert await b.network.request(a.key, "/whoami/1", b"") == b.key
            assert b.network._rpc._kept[a.key, "/whoami/1"].stream is kept
            big = bytes(range(256)) * 4096
            assert await b.network.request(a.key, ECHO, big) == big
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(b.alive, a)

    run(test)


@pytest.mark.parametrize(("protocol", "reason"), [("/refuse/1", "bad-vote"), ("/crash/1", "internal-error")])
def test_a_handlers_failure_comes_back_by_name(run: Any, node: Any, protocol: str, reason: str) -> None:
    async def test() -> None:
        async with node(1, handlers=HANDLERS) as a, node(2) as b:
            await b.joins(a)
            for _ in range(3):
                with pytest.raises(RemoteProtocolError, match=reason) as caught:
                    await b.network.request(a.key, protocol, b"")
                assert caught.value.reason == reason
                assert caught.value.peer == a.key
                assert "secret" not in str(caught.value)
            await b.alive(a)

    run(test)


def test_oversized_requests_and_answers_are_named(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            await b.joins(a)
            with pytest.raises(LocalProtocolError):
                await b.network.request(a.key, ECHO, bytes((1 << 20) + 1))
            with pytest.raises(RemoteProtocolError, match="oversized-response"):
                await b.network.request(a.key, ECHO, bytes(1001), limit=1000)
            assert len(await b.network.request(a.key, ECHO, bytes(1000), limit=1000)) == 1000

    run(test)


def test_a_request_over_the_cap_loses_its_stream_before_its_body_is_read(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            await b.joins(a)
            stream = await b.host.new_stream(peer_id(a.key), [ECHO])
            await stream.write(struct.pack(">IB", (1 << 20) + 1, 0))
            with trio.fail_after(LIMIT), pytest.raises(Exception):  # noqa: PT011, B017 - a reset
                await stream.read(1)
            await b.alive(a)

    run(test)


def test_half_a_frame_times_out_and_resets(run: Any, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "HALF_FRAME", 0.3)

    async def test() -> None:
        async with node(1) as a, node(2) as b:
            await b.joins(a)
            stream = await b.host.new_stream(peer_id(a.key), [ECHO])
            await stream.write(struct.pack(">IB", 100, 0) + b"half")
            with trio.fail_after(LIMIT), pytest.raises(Exception):  # noqa: PT011, B017 - a reset
                await stream.read(1)
            await b.alive(a)

    run(test)


def test_an_answer_that_does_not_come_is_unreachable_and_does_not_meet_the_next_request(run: Any, node: Any) -> None:
    async def test() -> None:
        given_up = trio.Event()

        async def slow(peer: bytes, payload: bytes) -> bytes:
            if payload == b"slow":
                await given_up.wait()
            return payload

        async with node(1, handlers={"/slow/1": slow}) as a, node(2) as b:
            await b.joins(a)
            with pytest.raises(UnreachableError, match=r"0\.2 s"):
                await b.network.request(a.key, "/slow/1", b"slow", timeout=0.2)
            assert await b.network.request(a.key, "/slow/1", b"next") == b"next"
            with trio.move_on_after(0.1):
                await b.network.request(a.key, "/slow/1", b"slow")
            assert await b.network.request(a.key, "/slow/1", b"next") == b"next"
            given_up.set()
            await trio.sleep(0.1)  # the late answers are under way
            assert await b.network.request(a.key, "/slow/1", b"last") == b"last"

    run(test)


def test_a_dead_kept_stream_costs_one_retry(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            await b.joins(a)
            await b.alive(a)
            await b.network._rpc._kept[a.key, ECHO].stream.muxed_stream.reset()
            await b.alive(a)
            for swarm_conn in a.network._swarm.get_connections():
                for stream in swarm_conn.get_streams():
                    if stream.get_protocol() == ECHO:
                        await stream.reset()
            await b.alive(a)

    run(test)


def test_who_is_gone_is_unreachable(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(2) as b:
            async with node(1) as a:
                await b.joins(a)
                key = a.key
            await trio.sleep(0.2)
            with pytest.raises(UnreachableError):
                await b.network.request(key, ECHO, b"")
            with pytest.raises(UnreachableError):
                await b.network.request(bytes(31) + b"\x01", ECHO, b"")

    run(test)


def test_streams_and_requests_of_one_peer_are_bounded(run: Any, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(limits, "RATE", 20.0)
        async with node(1) as a, node(2) as b, node(3) as c:
            await b.joins(a)
            await c.joins(a)
            held = [await b.host.new_stream(peer_id(a.key), [ECHO]) for _ in range(8)]
            with pytest.raises(RemoteProtocolError, match="busy"):
                await b.network.request(a.key, ECHO, b"")
            await c.alive(a)
            for stream in held:
                await stream.reset()
            await trio.sleep(0.1)
            await b.alive(a)
            with pytest.raises(RemoteProtocolError, match="busy"):  # noqa: PT012 - at some request past the burst
                for _ in range(1000):
                    await b.network.request(a.key, ECHO, b"")
            await c.alive(a)

    run(test)


def test_names_in_error_frames_are_cleaned() -> None:
    assert streams.reason_of(b"bad-vote") == "bad-vote"
    assert streams.reason_of(b"\xff\n\x1b[31m" + b"a" * 1000).startswith("-")
    assert len(streams.reason_of(b"a" * 1000)) == streams.MAX_REASON
    assert streams.reason_of(b"") == "unnamed-error"


def test_token_bucket() -> None:
    bucket = limits.TokenBucket(rate=10, burst=2, level=2, at=0)
    assert [bucket.take(0), bucket.take(0), bucket.take(0)] == [True, True, False]
    assert [bucket.take(0.1), bucket.take(0.1)] == [True, False]
    assert [bucket.take(100), bucket.take(100), bucket.take(100)] == [True, True, False]


def test_who_reconnects_has_not_more_requests() -> None:
    """The bucket outlives the stream, until so many peers are known that those without one are forgotten."""

    async def test() -> None:
        peers = limits.PeerLimits(max_streams=1, remember=2)
        assert peers.enter(b"a")
        assert all(peers.take(b"a") for _ in range(int(limits.BURST)))
        assert not peers.take(b"a")
        peers.leave(b"a")
        assert peers.enter(b"a")
        assert not peers.enter(b"a"), "it holds its one stream"
        assert not peers.take(b"a")
        for other in (b"b", b"c"):
            assert peers.enter(other)
            peers.leave(other)
        assert not peers.take(b"a"), "who holds a stream is not forgotten"
        assert len(peers._peers) <= 2

    trio.run(test, clock=trio.testing.MockClock())
