"""The client over a real Unix socket, and what it says when nobody listens."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve

from collegium.cli.monitor import WARNING, silent
from collegium.crypto.errors import OperatorError, RefusedError, UnreachableError, UsageError
from collegium.node.control import process
from collegium.node.control.app import build
from collegium.node.control.client import BusyError, Client, HangsError, error_of
from collegium.node.home import hold

from ...waiting import LIMIT, wait_for

if TYPE_CHECKING:
    from .conftest import FakeDaemon


@contextmanager
def serving(daemon: "FakeDaemon") -> Iterator[Client]:
    """Serve as the runtime does: hypercorn's trio worker on the home's socket, the home's lock held."""
    begun, end = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def run() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(daemon.home.socket))
            listener.listen()
            config = ServerConfig()
            config.bind = [f"fd://{listener.detach()}"]
            config.accesslog = config.errorlog = None
            config.graceful_timeout = 0.2
            begun.set()
            app: Any = build(daemon)
            await serve(app, config, shutdown_trigger=end.wait)

    with hold(daemon.home):
        thread = threading.Thread(target=lambda: trio.run(run))
        thread.start()
        try:
            assert begun.wait(LIMIT)
            yield Client(daemon.home, timeout=LIMIT)
        finally:
            tokens[0].run_sync_soon(end.set)
            thread.join(10)
            assert not thread.is_alive()


def test_it_talks_over_the_socket(daemon: "FakeDaemon") -> None:
    with serving(daemon) as client:
        assert client.answers()
        assert client.status()["running"] is True
        assert client.round("head/task0", 1)["round"] == 1
        assert client.record("1")["type"] == "block"
        assert len(client.ledger_log(limit=2)) == 2
        with pytest.raises(UsageError, match="no closed round 77") as raised:
            client.round("head/task0", 77)
        assert raised.value.advice
        client.request_withdrawal()
        client.stop()
    assert len(daemon.submitted) == 1
    assert daemon.stops == 1


def test_without_a_daemon_it_says_how_to_start_one(daemon: "FakeDaemon") -> None:
    with pytest.raises(UnreachableError, match="No daemon runs") as raised:
        Client(daemon.home).status()
    assert "collegium node start" in raised.value.advice
    assert raised.value.exit_code == 4


def test_a_socket_that_a_killed_daemon_left_is_named(daemon: "FakeDaemon") -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.home.socket))  # closed without removing it, as SIGKILL does
    with pytest.raises(UnreachableError, match="left over"):
        Client(daemon.home).status()


@pytest.mark.parametrize("left", [False, True])
def test_a_daemon_that_starts_has_no_ear_yet(daemon: "FakeDaemon", left: bool) -> None:
    with ExitStack() as stack:
        if left:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(daemon.home.socket))
        stack.enter_context(hold(daemon.home))
        with pytest.raises(UnreachableError, match=r"pid \d+.* has no control socket open") as raised:
            Client(daemon.home).status()
        assert str(daemon.home.log) in raised.value.advice
        assert not Client(daemon.home).answers()


def test_a_daemon_that_hangs_is_named_by_its_pid(daemon: "FakeDaemon") -> None:
    with hold(daemon.home), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.home.socket))
        listener.listen()
        with pytest.raises(UnreachableError, match=r"pid \d+\) does not answer"):
            Client(daemon.home, timeout=0.2).status()


def test_a_read_waits_for_a_daemon_only_while_it_answers_something(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collegium.node.control.client.BUSY", 0.2)
    monkeypatch.setattr("collegium.node.control.client.SILENT", 0.3)
    monkeypatch.setattr("collegium.node.control.process.LEAST", 60.0)  # this process holds the directory, and works
    with hold(daemon.home), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.home.socket))
        listener.listen()
        client = Client(daemon.home, timeout=LIMIT)
        for ask in (client.status, lambda: client.record("1"), client.probe):
            with pytest.raises(HangsError, match=r"pid \d+\) hangs: it does not answer within 0.3 s") as raised:
                ask()
            assert "kill -CONT" in raised.value.advice
            assert raised.value.exit_code == 4


def test_a_command_to_a_daemon_that_hangs_ends_soon_and_says_that_it_may_be_done(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BUSY", "SOON", "SILENT"):
        monkeypatch.setattr(f"collegium.node.control.client.{name}", 0.2)
    monkeypatch.setattr("collegium.node.control.process.LEAST", 60.0)
    with hold(daemon.home), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.home.socket))
        listener.listen()
        client = Client(daemon.home, timeout=LIMIT)
        for ask in (client.stop, lambda: client.set_paused(on=True), lambda: client.forget_students("s-1")):
            with pytest.raises(HangsError, match="hangs: it does not answer") as raised:
                ask()
            assert "it may do what was asked" in raised.value.advice


def test_a_daemon_that_works_is_busy_and_does_not_hang(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with much other work: nobody is told to kill it, and who reads waits on."""
    for name in ("BUSY", "SOON"):
        monkeypatch.setattr(f"collegium.node.control.client.{name}", 0.1)
    monkeypatch.setattr("collegium.node.control.process.LEAST", 0.0)
    with hold(daemon.home), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.home.socket))
        listener.listen()
        with pytest.raises(BusyError, match=r"pid \d+\) is busy") as raised:
            Client(daemon.home).probe()
        assert "kill" not in raised.value.advice
        code, why, advice = silent(daemon.home)
        assert (code, "busy" in why, "kill" in advice) == (WARNING, True, False)
        with pytest.raises(UnreachableError, match=r"does not answer within 0\.5 s") as waited:
            Client(daemon.home, timeout=0.5).status()
        assert not isinstance(waited.value, HangsError)


def test_a_process_that_has_a_processor_works_and_one_that_sleeps_or_is_stopped_does_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"], stdout=-1) as works:
        assert works.stdout is not None
        works.stdout.read(1)
        before = process.look(works.pid)
        wait_for(lambda: process.look(works.pid).works_since(before), lambda: str(process.look(works.pid)))
        works.send_signal(signal.SIGSTOP)
        wait_for(lambda: process.look(works.pid).stopped, lambda: str(process.look(works.pid)))
        assert not process.look(works.pid).works_since(before)
        works.kill()
    with subprocess.Popen(["sleep", "60"]) as sleeps:
        before = process.look(sleeps.pid)
        assert not process.look(sleeps.pid).works_since(before)
        sleeps.kill()
    assert process.look(0) == process.Look("", 0.0)


def test_a_read_that_takes_long_is_waited_for(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("collegium.node.control.client.SOON", 0.0)
    with serving(daemon) as client:
        probe = client.probe

        def noted() -> None:
            asked.append(True)
            probe()

        monkeypatch.setattr(client, "probe", noted)
        assert client.status()["running"] is True
    assert asked, "it was asked whether it answers"


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz", b"\0" * 64, b""])
def test_garbage_on_the_socket_is_an_error_not_a_traceback(daemon: "FakeDaemon", garbage: bytes) -> None:
    with hold(daemon.home), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.home.socket))
        listener.listen()

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(garbage)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(UnreachableError):
            Client(daemon.home, timeout=LIMIT).status()
        thread.join(LIMIT)


def test_the_end_of_a_daemon_is_waited_for(daemon: "FakeDaemon") -> None:
    client = Client(daemon.home)
    assert client.wait_for_end(0)
    with hold(daemon.home):
        assert not client.wait_for_end(0.1)


def test_exit_codes_become_errors_again() -> None:
    assert type(error_of(5, "no")) is RefusedError
    assert error_of(5, "no", "ask").advice == "ask"
    assert type(error_of(1, "broken")) is OperatorError
    assert type(error_of(77, "broken")) is OperatorError
