"""The daemon as a service: the unit that is printed, and what the daemon tells the service manager."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.cli.unit import text_of
from collegium.node.control.client import Client
from collegium.node.home import Home

from ..firstweek.schools import COMMAND, PATIENCE
from .test_node import alone  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from .conftest import Run

EXPOSURE = 20  # tenths
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "collegium.service"


def test_the_example_is_the_unit_that_is_printed() -> None:
    made = text_of(Home(Path("/var/lib/collegium")), Path("/opt/collegium/bin/collegium"), "collegium")
    assert EXAMPLE.read_text() == made


def test_systemd_finds_nothing_wrong_with_the_unit_of_a_home(run: "Run", tmp_path: Path) -> None:
    root = tmp_path / "a home, 100%"
    assert run("init", "--home", root, "--name", "n").code == 0
    text = run("node", "unit", "--home", root)
    assert text.code == 0
    assert f'--home "{tmp_path}/a home, 100%%"\n' in text.out
    assert f"ExecStart={Path(sys.executable).with_name('collegium')} node start --foreground" in text.out
    assert run("node", "unit", "--home", root, "--json").value == {"unit": text.out}
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    file = tmp_path / "collegium.service"
    file.write_text(text.out)
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "collegium.service" in line]
    assert lines == []


def test_systemd_rates_the_unit_as_one_with_few_rights(tmp_path: Path) -> None:
    """Of 10, a service without any of its lines has 9.2; this one has 2.0, and may have no more."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")

    def rated(text: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "collegium.service"
        file.write_text(text)
        words = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(file)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    text = EXAMPLE.read_text()
    done = rated(text)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze rates no unit that is not loaded")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert rated(text.replace("SystemCallFilter=@system-service\n", "")).returncode != 0, "it would see a line go"


def test_a_path_that_a_unit_cannot_name_is_refused(run: "Run", tmp_path: Path) -> None:
    root = tmp_path / "a$HOME"
    assert run("init", "--home", root, "--name", "n").code == 0
    assert run("node", "unit", "--home", root).code == 2


def test_the_service_manager_is_told_that_the_daemon_is_ready_lives_and_stops(
    alone: Home,  # noqa: F811
    tmp_path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        alone.socket.touch()  # left by a daemon that was killed: it is nobody's who is ready
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        words: list[str | Path] = [COMMAND, "node", "start", "--foreground", "--home", str(alone.root)]
        daemon = subprocess.Popen(
            words, env=os.environ | environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert manager.recv(100) == b"READY=1"
            assert Client(alone).answers(), "ready is who can be asked"
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            daemon.send_signal(signal.SIGTERM)
            while (datagram := manager.recv(100)) == b"WATCHDOG=1":
                pass
            assert datagram == b"STOPPING=1"
            assert daemon.wait(PATIENCE) == 0
        finally:
            daemon.kill()
            daemon.wait()
