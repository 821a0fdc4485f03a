"""What a monitor is told of a daemon that runs, hangs, ended or cannot train, and that SIGHUP reopens the log."""

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import checks, monitor
from collegium.cli.monitor import CRITICAL, OK, WARNING, Verdict
from collegium.node.home import Home, running
from collegium.node.views import Level, NoteKind

from ..firstweek.schools import collegium
from ..waiting import wait_for
from .test_node import alone  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from .conftest import Run

WHAT_FOLLOWS = {Level.INFO: (OK, "ok"), Level.WARNING: (WARNING, "warn"), Level.CRITICAL: (CRITICAL, "fail")}


def test_a_monitor_tells_a_daemon_that_answers_from_one_that_hangs_and_one_that_ended(
    run: "Run",
    alone: Home,  # noqa: F811
) -> None:
    check = ("node", "status", "--check", "--home", alone.root)
    pid = 0
    try:
        assert run(*check).code == CRITICAL
        started = run("node", "start", "--home", alone.root, "--json")
        assert started.code == 0, started.err
        pid = started.value["pid"]
        fine = run(*check)
        assert (fine.code, len(fine.out.splitlines())) == (WARNING, 1), fine.out
        assert fine.out.startswith("warning: This node does not train with all its data"), "it has none"
        well = run("doctor", "--check", "--home", alone.root)
        assert well.code in (OK, WARNING), well.out
        assert len(well.out.splitlines()) == 1

        os.kill(pid, signal.SIGSTOP)
        hangs = run(*check, "--json")
        assert hangs.code == hangs.value["exit_code"] == CRITICAL
        assert hangs.value["verdict"] == "critical"
        assert hangs.value["line"] == f"The daemon (pid {pid}) hangs: its process was stopped by a signal"
        assert f"kill -CONT {pid}" in hangs.value["found"][0]["advice"]
        sick = run("doctor", "--check", "--home", alone.root)
        assert sick.code == CRITICAL
        assert "hangs" in sick.out

        # Every other command says so as well; it looks at the process before it asks.
        for reads in (("node", "status"), ("peer", "list"), ("round", "list"), ("peer", "motions")):
            read = run(*reads, "--home", alone.root)
            assert read.code == 0, read.err
            assert f"warning: The daemon (pid {pid}) hangs: its process was stopped by a signal." in read.err
            assert f"kill -CONT {pid}" in read.err
        status = run("node", "status", "--home", alone.root)
        assert "its daemon does not answer" in status.out
        for asks in (("node", "pause"), ("unlearn", "resume"), ("peer", "invite", "east"), ("peer", "approve", "east")):
            refused = run(*asks, "--home", alone.root)
            assert refused.code == 4, refused.err
            assert f"The daemon (pid {pid}) hangs" in refused.err

        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: run(*check).code == WARNING, lambda: run(*check).out)

        # logrotate renames the file and sends SIGHUP.
        old = alone.log.rename(alone.log.with_name("rotated"))
        os.kill(pid, signal.SIGHUP)
        wait_for(
            lambda: alone.log.exists() and "log reopened" in alone.log.read_text(), lambda: old.read_text()[-2000:]
        )
        assert alone.log.stat().st_mode & 0o777 == 0o600
        assert "log reopened" not in old.read_text()
        assert os.path.sameopenfile(alone.log.open().fileno(), os.open(f"/proc/{pid}/fd/2", os.O_RDONLY))
        assert running(alone) == pid

        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: running(alone) is None, lambda: "it runs")
        ended = run(*check)
        assert (ended.code, ended.out) == (CRITICAL, "critical: the daemon does not run\n")
    finally:
        if pid and running(alone) == pid:
            os.kill(pid, signal.SIGKILL)


def test_a_home_that_is_not_there_is_critical(run: "Run", alone: Home) -> None:  # noqa: F811
    none = alone.root / "none"
    answer = collegium("node", "status", "--check", "--home", none)
    assert (answer.code, answer.out) == (CRITICAL, f"critical: There is no node in {none}\n")
    value = run("node", "status", "--check", "--home", none, "--json").value
    assert (value["verdict"], value["exit_code"]) == ("critical", CRITICAL)


@pytest.mark.parametrize("door", ["pathlib.Path.is_dir", "os.open"])
def test_a_home_that_this_user_may_not_read_is_critical(
    run: "Run",
    alone: Home,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    door: str,
) -> None:
    """The tests may run as root, who may read everything: the system's refusal is put in."""

    def refuse(path: object, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(door, refuse)
        answer = run("node", "status", "--check", "--home", alone.root)
    path = alone.root if door.endswith("is_dir") else alone.lock
    assert (answer.code, answer.out) == (CRITICAL, f"critical: cannot read {path}: Permission denied\n")


@pytest.mark.parametrize(
    ("codes", "code", "line"),
    [
        ((), OK, "ok: all is well\n"),
        ((WARNING,), WARNING, "warning: 1 is wrong\n"),
        ((WARNING, CRITICAL, WARNING), CRITICAL, "critical: 2 is wrong; 1 is wrong; 1 is wrong\n"),
    ],
)
def test_the_worst_comes_first_and_decides(
    capsys: pytest.CaptureFixture[str], codes: tuple[int, ...], code: int, line: str
) -> None:
    from typer import Exit

    verdict = Verdict(fine="all is well")
    for number in codes:
        verdict.add(number, f"{number} is wrong.")
    try:
        verdict.tell(as_json=False)
        ended = 0
    except Exit as end:
        ended = end.exit_code
    assert (ended, capsys.readouterr().out) == (code, line)


@pytest.mark.parametrize("kind", list(NoteKind))
def test_the_level_of_a_note_decides_and_not_its_words(
    monkeypatch: pytest.MonkeyPatch,
    alone: Home,  # noqa: F811
    kind: NoteKind,
) -> None:
    words = "Words that are free to change."
    status: dict[str, Any] = {
        "live": {"connected": []},
        "member": None,
        "components": [],
        "height": 7,
        "findings": [{"kind": kind.value, "level": kind.level.value, "found": words, "advice": "Do it."}],
    }
    code, verdict = WHAT_FOLLOWS[kind.level]
    monkeypatch.setattr("collegium.node.home.lock.running", lambda _: 1)
    monkeypatch.setattr(monitor, "silent", lambda _: (OK, "", ""))
    monkeypatch.setattr("collegium.cli.node.look", lambda _: status)
    assert monitor.check(alone).code == code

    monkeypatch.setattr(checks, "running", lambda _: 1)
    monkeypatch.setattr(checks, "silent", lambda _: (OK, "", ""))
    monkeypatch.setattr("collegium.node.control.client.Client.status", lambda _: status)
    (check, _) = checks._daemon(alone)
    assert (check.verdict, check.found, check.advice) == (verdict, words, "Do it.")
    assert (check.name == "learner") == (kind is NoteKind.LEARNER_FAILED)


def test_every_level_is_used() -> None:
    assert {kind.level for kind in NoteKind} == set(Level)
