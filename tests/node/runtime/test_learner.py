"""The learner as the daemon sees it: data that cannot be used yet, and a worker that the daemon begins anew itself."""

import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.learner.answers import Opened
from collegium.node.learner.messages import Evaluate, Open
from collegium.node.runtime import learner as module
from collegium.node.runtime.learner import Learner, LearnerError
from collegium.node.views import under_way

WORKER = """
import sys
from pathlib import Path
from collegium.node.learner.answers import Failed, Opened
from collegium.node.learner.coding import decode_request, encode
from collegium.node.learner.frames import read_frame, write_frame
while (body := read_frame(sys.stdin.buffer)) is not None:
    number, request = decode_request(body)
    if Path(request.data[0]).exists():
        answer = Opened({}, cut={"essay": 3, "note": 0})
    else:
        answer = Failed("bad-data", "pupils.csv is not there", "Wait.")
    write_frame(sys.stdout.buffer, encode(number, answer))
"""


def opening(data: Path) -> Open:
    specs, learning = preset("digits", budget=None, rounds=1, institutions=2)
    return Open((str(data),), specs, learning, NO_SEED, ())


def learner(data: Path, ready: list[Opened], told: list[str] | None = None) -> Learner:
    said = [] if told is None else told
    return Learner(
        (sys.executable, "-c", WORKER),
        opening(data),
        ready.append,
        lambda: said.append("lost"),
        on_ended=lambda: said.append("ended"),
    )


async def until(running: Learner, state: str) -> set[str]:
    """Return the states on the way to one."""
    seen = set()
    with trio.fail_after(120):
        while running.state != state:
            seen.add(running.state)
            await trio.sleep(0.001)
    return seen


def test_data_that_are_not_there_yet_are_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_BACKOFF", 0.01)
    ready: list[Opened] = []
    opened = learner(tmp_path / "data", ready)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            await until(opened, "failed")
            assert "pupils.csv is not there" in opened.detail
            await trio.sleep(0.3)  # it has looked again by now, and says it once
            (tmp_path / "data").touch()
            await until(opened, "ready")
            nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as logs:
        trio.run(run)
    assert len(ready) == 1
    assert (opened.detail, opened.cut) == ("", {"essay": 3})
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["the data folder cannot be used"]
    assert [(log["modality"], log["records"]) for log in logs if "cut" in log["event"]] == [("essay", 3)]


def test_a_worker_that_the_daemon_begins_anew_has_not_failed(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    ready: list[Opened] = []
    opened = learner(tmp_path / "data", ready)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            await until(opened, "ready")
            states: set[str] = set()

            async def watch() -> None:
                while True:
                    states.add(opened.state)
                    await trio.sleep(0.001)

            nursery.start_soon(watch)
            await opened.reopen(opening(tmp_path / "data"))
            await until(opened, "starting")
            await until(opened, "ready")
            assert "failed" not in states
            nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as logs:
        trio.run(run)
    assert len(ready) == 2
    assert not [log for log in logs if log["log_level"] in {"warning", "error"} and "cut" not in log["event"]]


def test_nothing_is_asked_of_a_worker_that_ended_until_the_next_is_ready(tmp_path: Path) -> None:
    """Else each question to it would count as a training run that failed, and the third stops the node's training."""
    (tmp_path / "data").touch()
    told: list[str] = []
    opened = learner(tmp_path / "data", [], told)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            await until(opened, "ready")
            with pytest.raises(LearnerError, match="died"):
                await opened.request(Evaluate({}))  # this worker ends by it
            assert told == ["ended"], "said before whoever asked can ask again; the others do not wait in vain yet"
            await until(opened, "ready")
            assert told == ["ended"]
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_a_learner_without_data_yet_waits(tmp_path: Path) -> None:
    ready: list[Opened] = []
    opened = Learner((sys.executable, "-c", WORKER), None, ready.append, waiting_for="dataset.toml: No such file")
    assert (opened.state, opened.detail) == ("waiting", "dataset.toml: No such file")


ODD = """
import sys, msgpack
from collegium.node.learner.answers import Opened, Progress
from collegium.node.learner.coding import decode_request, encode
from collegium.node.learner.frames import read_frame, write_frame
from collegium.node.learner.messages import Open
while (body := read_frame(sys.stdin.buffer)) is not None:
    number, request = decode_request(body)
    if isinstance(request, Open):
        answer = encode(number, Opened({}))
    elif request.states:
        answer = msgpack.packb({"id": number, "type": "evaluated", "fields": {"tasks": 3}})
    else:
        answer = encode(number, Opened({}))
    write_frame(sys.stdout.buffer, encode(number, Progress(1, 2)))
    write_frame(sys.stdout.buffer, answer)
"""


def test_an_answer_that_cannot_be_used_fails_its_request_alone(tmp_path: Path) -> None:
    ready: list[Opened] = []
    opened = Learner((sys.executable, "-c", ODD), opening(tmp_path), ready.append)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            await until(opened, "ready")
            for states, reason in (({"head/x": b""}, "Evaluated: missing"), ({}, "opened to evaluate")):
                with pytest.raises(LearnerError, match=reason) as caught:
                    await opened.request(Evaluate(states))
                assert caught.value.kind is None
            assert (opened.state, opened.progress) == ("ready", (1, 2))
            nursery.cancel_scope.cancel()

    trio.run(run)
    assert len(ready) == 1, "the worker was not begun anew"


READING = """
import sys, time
from pathlib import Path
from collegium.node.learner.answers import Opened, Progress
from collegium.node.learner.coding import decode_request, encode
from collegium.node.learner.frames import read_frame, write_frame
number, request = decode_request(read_frame(sys.stdin.buffer))
write_frame(sys.stdout.buffer, encode(number, Progress(320, 864)))
while not Path(request.data[0]).exists():
    time.sleep(0.01)
write_frame(sys.stdout.buffer, encode(number, Opened({})))
read_frame(sys.stdin.buffer)
"""


def test_it_is_seen_how_far_a_pretrained_model_has_read(tmp_path: Path) -> None:
    opened = Learner((sys.executable, "-c", READING), opening(tmp_path / "data"), lambda _: None)

    def shown() -> str:
        glance: Any = {"state": opened.state, "progress": list(opened.progress)}
        return under_way(glance)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            with trio.fail_after(60):
                while not shown():  # noqa: ASYNC110  # it has no event
                    await trio.sleep(0.001)
            assert shown() == "reading 320 of 864 records"
            (tmp_path / "data").touch()
            await until(opened, "ready")
            assert (shown(), opened.progress) == ("", (0, 0))
            opened.state, opened.progress = "training", (3, 8)
            assert shown() == "step 3 of 8"
            nursery.cancel_scope.cancel()

    trio.run(run)
