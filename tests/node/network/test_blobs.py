"""Bulk pulls: resumable, bounded, honest about sizes."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from collegium.crypto.errors import LocalProtocolError, RemoteProtocolError, UnreachableError


def make(folder: Path, size: int) -> tuple[bytes, bytes, dict[bytes, tuple[Path, int]]]:
    data = random.Random(size).randbytes(size)
    digest = hashlib.sha256(data).digest()
    path = folder / digest.hex()
    path.write_bytes(data)
    return data, digest, {digest: (path, size)}


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 17])
def test_a_blob_arrives_whole(run: Any, node: Any, tmp_path: Path, size: int) -> None:
    data, digest, blobs = make(tmp_path, size)

    async def test() -> None:
        async with node(1, blobs=blobs) as a, node(2) as b:
            await b.joins(a)
            got = bytearray()
            await b.network.fetch(a.key, digest, size, got.extend)
            assert bytes(got) == data

    run(test)


def test_a_cut_pull_resumes_where_it_stopped(run: Any, node: Any, tmp_path: Path) -> None:
    data, digest, blobs = make(tmp_path, 8 << 20)

    async def test() -> None:
        async with node(1, blobs=blobs) as a, node(2) as b:
            await b.joins(a)
            got = bytearray()

            def write(chunk: bytes) -> None:
                got.extend(chunk)
                if len(got) > 3 << 20 and not cut:
                    cut.append(len(got))
                    for stream in list(b.network._sockets):
                        stream.stream.socket.close()

            cut: list[int] = []
            with pytest.raises(UnreachableError, match="cut"):
                await b.network.fetch(a.key, digest, len(data), write)
            assert (3 << 20) < len(got) < len(data)
            assert bytes(got) == data[: len(got)]
            await trio.sleep(0.3)
            await b.joins(a)
            before = b.network.counters.received
            await b.network.fetch(a.key, digest, len(data), write, len(got))
            assert bytes(got) == data
            assert b.network.counters.received - before < 6 << 20

    run(test)


def test_pulls_that_cannot_be_are_refused_by_name(run: Any, node: Any, tmp_path: Path) -> None:
    _, digest, blobs = make(tmp_path, 1000)
    lost = bytes(32)
    blobs[lost] = (tmp_path / "nowhere", 1000)

    async def test() -> None:
        async with node(1, blobs=blobs) as a, node(2) as b:
            await b.joins(a)
            got = bytearray()
            for name, what, size in (
                ("blob-size", digest, 999),
                ("blob-size", digest, 1001),
                ("blob-unknown", b"\x01" * 32, 1000),
                ("blob-unknown", lost, 1000),
            ):
                with pytest.raises(RemoteProtocolError, match=name):
                    await b.network.fetch(a.key, what, size, got.extend)
            with pytest.raises(LocalProtocolError):
                await b.network.fetch(a.key, b"short", 1000, got.extend)
            with pytest.raises(LocalProtocolError):
                await b.network.fetch(a.key, digest, 1000, got.extend, 1001)
            assert not got
            with pytest.raises(UnreachableError):
                await b.network.fetch(bytes(32), digest, 1000, got.extend)
            await b.network.fetch(a.key, digest, 1000, got.extend)
            assert len(got) == 1000

    run(test)


def test_more_pulls_than_slots_wait_their_turn(run: Any, node: Any, tmp_path: Path) -> None:
    data, digest, blobs = make(tmp_path, 2 << 20)

    async def test() -> None:
        async with node(1, blobs=blobs) as a, node(2, max_concurrent_pulls=2) as b:
            await b.joins(a)
            done = []

            async def pull() -> None:
                got = bytearray()
                await b.network.fetch(a.key, digest, len(data), got.extend)
                done.append(bytes(got) == data)

            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(pull)
            assert done == [True] * 6

    run(test)


def test_a_write_that_fails_stops_the_pull_and_nothing_else(run: Any, node: Any, tmp_path: Path) -> None:
    data, digest, blobs = make(tmp_path, 2 << 20)

    def full(chunk: bytes) -> None:
        raise OSError("disk full")

    async def test() -> None:
        async with node(1, blobs=blobs) as a, node(2) as b:
            await b.joins(a)
            with pytest.raises(OSError, match="disk full"):
                await b.network.fetch(a.key, digest, len(data), full)
            await b.alive(a)

    run(test)
