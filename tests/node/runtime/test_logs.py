"""The log of a daemon: what others provoke is told a few times and counted, and its files are bounded."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from collegium.node.runtime import logs
from collegium.node.runtime.logs import KINDS, MAX_LOGGED, WINDOW, Repeats


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(logs, "Repeats", lambda: Repeats(made))
    return made


@pytest.fixture
def lines(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = structlog.get_config()
    path = tmp_path / "node.log"
    file = logs.LogFile(path)
    monkeypatch.setattr(sys, "stderr", file)
    logs.configure("json", "info")
    yield lambda: [json.loads(line) if line[0] == "{" else line for line in path.read_text().splitlines()]
    monkeypatch.undo()
    logs.configure("console", "warning")
    structlog.configure(**before)


def test_a_refused_stranger_is_told_a_few_times_and_then_counted(lines: Any, clock: Clock) -> None:
    log = structlog.get_logger("test")
    for _ in range(20_000):
        log.info("connection refused", peer="12D3KooWStranger", reason="not-a-member")
    assert len(lines()) == MAX_LOGGED
    logs.tell_repeats(log)
    assert len(lines()) == MAX_LOGGED, "not before the window is over"
    clock.now += WINDOW
    logs.tell_repeats(log)
    *_, last = lines()
    assert (last["event"], last["what"], last["times"]) == ("repeated", "connection refused", 20_000 - MAX_LOGGED)
    assert (last["why"], last["who"]) == ("not-a-member", "12D3KooWStranger")
    log.info("connection refused", peer="12D3KooWStranger", reason="not-a-member")
    assert lines()[-1]["event"] == "connection refused", "and then again from the beginning"


def test_a_stranger_with_a_new_key_each_time_gains_nothing(lines: Any, clock: Clock) -> None:
    log = structlog.get_logger("test")
    for number in range(20_000):
        log.info("connection refused", peer=f"12D3KooW{number}", reason="not-a-member")
    log.info("connection refused", peer="12D3KooW0", reason="full")
    assert len(lines()) <= KINDS * MAX_LOGGED
    clock.now += WINDOW
    logs.tell_repeats(log)
    left_out = sum(line["times"] for line in lines() if line["event"] == "repeated")
    assert left_out + len([line for line in lines() if line["event"] != "repeated"]) == 20_001


def test_what_the_node_does_by_itself_is_told_every_time(lines: Any, clock: Clock) -> None:
    log = structlog.get_logger("test")
    for number in range(500):
        log.info("folded", component="head/task0", round=number)
    assert [line["round"] for line in lines()] == list(range(500))


def test_warnings_that_name_nobody_are_counted_too_and_libraries_are_heard(lines: Any, clock: Clock) -> None:
    log = structlog.get_logger("test")
    for number in range(500):
        log.warning("libp2p task failed", task="heartbeat", error=f"{number}")
    before = len(lines())
    assert before == MAX_LOGGED
    for _ in range(500):
        logging.getLogger("trio.serve_listeners").error("accept returned %s", "EMFILE")
    assert len(lines()) == before + MAX_LOGGED


def test_long_texts_are_cut(lines: Any) -> None:
    structlog.get_logger("test").info("odd", detail="x" * 100_000)
    assert len(json.dumps(lines()[-1])) < 2000


SCRIPT = """
import os, subprocess, sys
from pathlib import Path
import structlog
from collegium.node.runtime import logs
logs.FILE_BYTES = 20_000
logs.configure("json", "info", Path(sys.argv[1]))
log = structlog.get_logger()
for number in range(3000):
    log.info("folded", round=number)
    if number % 10 == 0:
        logs.pass_on(f"the worker says {number}\\n")
os.write(2, b"printed by a library\\n")
subprocess.run(["echo", "printed by a child"], check=True)
"""


def test_a_log_file_is_rotated_by_size_and_whatever_is_printed_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("of an earlier run\n")
    path.chmod(0o644)
    subprocess.run([sys.executable, "-c", SCRIPT, str(path)], check=True, timeout=120)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["node.log", *(f"node.log.{n}" for n in range(1, logs.FILES))]
    assert all(file.stat().st_size <= 21_000 for file in files)
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * logs.FILES
    newest = path.read_text()
    assert '"round": 2999' in newest
    assert newest.endswith("printed by a library\nprinted by a child\n")
    kept = "".join(file.read_text() for file in reversed(files))
    rounds = [json.loads(line)["round"] for line in kept.splitlines() if line.startswith("{")]
    assert rounds == list(range(rounds[0], 3000)), "only the oldest are gone"
    assert "the worker says 2990" in kept
