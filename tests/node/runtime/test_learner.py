"""The learner as the daemon sees it: data that cannot be used yet, and a worker that the daemon begins anew itself."""

import sys
from pathlib import Path

import pytest
import structlog
import trio

from collegium.node.learner.protocol import Message
from collegium.node.runtime import learner as module
from collegium.node.runtime.learner import Learner

WORKER = """
import sys
from pathlib import Path
from collegium.node.learner.protocol import read_frame, write_frame
while (request := read_frame(sys.stdin.buffer)) is not None:
    if Path(request["data"]).exists():
        answer = {"ok": True, "components": {}, "cut": {"essay": 3, "note": 0}}
    else:
        answer = {"ok": False, "error": "pupils.csv is not there", "advice": "Wait."}
    write_frame(sys.stdout.buffer, {"id": request["id"], **answer})
"""


def learner(data: Path, ready: list[Message]) -> Learner:
    return Learner((sys.executable, "-c", WORKER), {"data": str(data)}, ready.append)


async def until(found: Learner, state: str) -> set[str]:
    """Return the states on the way to one."""
    seen = set()
    with trio.fail_after(120):
        while found.state != state:
            seen.add(found.state)
            await trio.sleep(0.001)
    return seen


def test_data_that_are_not_there_yet_are_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_BACKOFF", 0.01)
    ready: list[Message] = []
    found = learner(tmp_path / "data", ready)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            await until(found, "failed")
            assert "pupils.csv is not there" in found.detail
            await trio.sleep(0.3)  # it has looked again by now, and says it once
            (tmp_path / "data").touch()
            await until(found, "ready")
            nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as logs:
        trio.run(run)
    assert len(ready) == 1
    assert (found.detail, found.cut) == ("", {"essay": 3})
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["the data folder cannot be used"]
    assert [(log["modality"], log["records"]) for log in logs if "cut" in log["event"]] == [("essay", 3)]


def test_a_worker_that_the_daemon_begins_anew_has_not_failed(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    ready: list[Message] = []
    found = learner(tmp_path / "data", ready)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            await until(found, "ready")
            states: set[str] = set()

            async def watch() -> None:
                while True:
                    states.add(found.state)
                    await trio.sleep(0.001)

            nursery.start_soon(watch)
            await found.reopen({"data": str(tmp_path / "data")})
            await until(found, "starting")
            await until(found, "ready")
            assert "failed" not in states
            nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as logs:
        trio.run(run)
    assert len(ready) == 2
    assert not [log for log in logs if log["log_level"] in {"warning", "error"} and "cut" not in log["event"]]


def test_a_learner_without_data_yet_waits(tmp_path: Path) -> None:
    ready: list[Message] = []
    found = Learner((sys.executable, "-c", WORKER), None, ready.append, waiting_for="dataset.toml: No such file")
    assert (found.state, found.detail) == ("waiting", "dataset.toml: No such file")
