"""Disk work of a daemon that has no descriptor left: it is tried again, and nothing else is."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from collegium.crypto.hashing import sha256
from collegium.node.core import events as ev
from collegium.node.patience import in_thread, unless_scarce

from ...descriptors import limit, next_descriptor
from ...waiting import LIMIT


def test_work_in_a_thread_is_tried_until_there_is_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tried: list[str] = []

    def write() -> int:
        tried.append("")
        return path.write_text("written")

    async def test() -> None:
        results: list[int] = []

        async def work() -> None:
            results.append(await in_thread(write))

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                with limit(next_descriptor()):
                    nursery.start_soon(work)
                    while len(tried) < 2:  # noqa: ASYNC110 - a thread announces nothing
                        await trio.sleep(0.01)
                    assert not results
            assert (results, path.read_text()) == ([7], "written")

    trio.run(test)


def test_what_fails_for_another_reason_fails_at_once(tmp_path: Path) -> None:
    tried: list[str] = []

    def read() -> str:
        tried.append("")
        return (tmp_path / "nothing").read_text()

    async def test() -> None:
        with trio.fail_after(LIMIT), pytest.raises(FileNotFoundError):
            await in_thread(read)

    trio.run(test)
    assert len(tried) == 1


def test_what_is_done_again_soon_is_left_without_a_descriptor(tmp_path: Path) -> None:
    done: list[str] = []
    with limit(next_descriptor()), unless_scarce():
        os.open(os.devnull, os.O_RDONLY)
        done.append("it was opened")
    assert not done
    with pytest.raises(FileNotFoundError), unless_scarce():
        (tmp_path / "nothing").read_text()


def test_g9_an_update_that_finds_no_descriptor_is_fetched_later(runtime: Any) -> None:
    """Its bytes are there: neither the update nor the neighbour is at fault, and the daemon goes on."""
    data = b"an update" * 100
    pull = ev.Pull(sha256(data), len(data), None, ())

    class Network:
        def neighbours(self) -> list[bytes]:
            return [b"a" * 32]

        async def fetch(self, _peer: bytes, _blob: bytes, _size: int, write: Any, _offset: int) -> None:
            write(data)

    logged: list[ev.Event] = []
    holdings = runtime.holdings
    holdings.network, holdings.submit = Network(), logged.append

    async def test() -> None:
        with limit(next_descriptor()):
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                os.open(os.devnull, os.O_RDONLY)
            await holdings.pull(pull)
        assert logged == [ev.BlobRefused(pull.blob, "unavailable")]
        await holdings.pull(pull)
        assert logged[1:] == [ev.BlobStored(pull.blob)]

    trio.run(test)
