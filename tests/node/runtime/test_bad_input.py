"""What a daemon says when something is not in order: exit code, file or address, advice; nothing stored is lost."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto.errors import CorruptError, RefusedError, UnreachableError, UsageError
from collegium.crypto.identity import Identity
from collegium.crypto.keyfile import seal
from collegium.node import __main__ as daemon
from collegium.node.control.client import Client
from collegium.sims.processes.observe import View, snapshot

from ...waiting import LIMIT

Make = Callable[..., Any]
Begin = Callable[[Path], tuple[int, str]]


def run(home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "collegium.node", "--home", str(home)],
        capture_output=True,
        check=False,
        text=True,
        timeout=LIMIT,
        env=os.environ | environment,
    )


def last_line(done: "subprocess.CompletedProcess[str]") -> str:
    return [line for line in done.stderr.splitlines() if line.startswith("collegium:")][-1]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Begin:
    """Begin a daemon in this process, for what it refuses before it is one: its exit code and the last line it says."""

    def begin_it(home: Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["collegium.node", "--home", str(home)])
        capsys.readouterr()
        code = daemon.main()
        return code, [line for line in capsys.readouterr().err.splitlines() if line.startswith("collegium:")][-1]

    return begin_it


def flip(path: Path, where: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_wrong_passphrase(federation: Make) -> None:
    home = federation(count=1, rounds=0).institutions[0].home
    identity = Identity.from_seed(bytes(32))
    home.key.write_bytes(seal(identity, "right", ops=1, mem=8192))
    done = run(home.root, COLLEGIUM_PASSPHRASE="wrong")
    assert done.returncode == RefusedError.exit_code
    assert "passphrase" in last_line(done)
    assert str(home.key) in last_line(done)


@pytest.mark.parametrize(
    ("name", "damage", "code"),
    [
        ("key.json", truncate, CorruptError.exit_code),
        ("charter.bin", flip, CorruptError.exit_code),
        ("charter.bin", truncate, CorruptError.exit_code),
        ("config.toml", lambda path: path.write_text("[node]\nnmae = 'x'\n"), UsageError.exit_code),
        ("charter.bin", lambda path: path.unlink(), UsageError.exit_code),
        ("key.json", lambda path: path.chmod(0o644), RefusedError.exit_code),
    ],
    ids=["key truncated", "charter changed", "charter truncated", "config misspelt", "no charter", "key readable"],
)
def test_a_damaged_directory(
    federation: Make, begin: Begin, name: str, damage: Callable[[Path], object], code: int
) -> None:
    home = federation(count=1, rounds=0).institutions[0].home
    damage(home.root / name)
    ended, line = begin(home.root)
    assert ended == code, line
    assert str(home.root / name) in line
    assert "Traceback" not in line


def test_a_strangers_key(federation: Make, begin: Begin) -> None:
    home = federation(count=1, rounds=0).institutions[0].home
    home.key.write_bytes(seal(Identity.from_seed(bytes(32)), None))
    ended, line = begin(home.root)
    assert ended == RefusedError.exit_code
    assert "not a member" in line


def test_a_port_in_use_is_named(federation: Make) -> None:
    one = federation(count=1, rounds=0)
    address = one.charter.members[0].addresses[0]
    port = int(address.rsplit("/", 1)[1])
    with socket.create_server(("127.0.0.1", port)):
        done = run(one.institutions[0].home.root)
    assert done.returncode == UsageError.exit_code, done.stderr
    assert str(port) in last_line(done)


def test_a_second_daemon_in_one_directory(federation: Make) -> None:
    one = federation(count=1, rounds=0)
    one.start()
    one.wait(lambda: Client(one.institutions[0].home).answers())
    done = run(one.institutions[0].home.root)
    assert done.returncode == UsageError.exit_code
    process = one.daemons[0].process
    assert f"pid {process.pid}" in last_line(done)


@pytest.fixture(scope="module")
def four(lasting: Make) -> Any:
    """Four that have closed all their rounds, three."""
    these = lasting(rounds=3)
    these.start()
    these.wait_rounds(3)
    return these


def test_a_corrupt_database_is_refused_and_the_other_members_bring_everything_back(four: Any) -> None:
    victim, home = four.daemons[1], four.institutions[1].home
    victim.stop()
    data = bytearray(home.database.read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
    home.database.write_bytes(bytes(data))
    done = run(home.root)
    assert done.returncode == CorruptError.exit_code
    assert str(home.database) in last_line(done)
    # Its advice, followed: put the damaged file aside and start again. Nothing is signed twice (G8).
    for path in home.root.glob("node.db*"):
        path.rename(home.root / f"aside-{path.name}")
    victim.start()
    four.views[1] = View()
    four.wait(lambda: four.views[1].height >= min(view.height for view in four.views) >= 3)

    records: dict[tuple[bytes, int], bytes] = {}
    for institution in four.institutions:
        stored = snapshot(institution)
        for record in (*[r for b in stored.blocks for r in b.records], *stored.records):
            key = (record.value.author, record.value.seq)
            assert records.setdefault(key, record.digest) == record.digest


def test_a_corrupt_blob_is_fetched_again(four: Any) -> None:
    victim, home = four.daemons[2], four.institutions[2].home
    victim.stop()
    blobs = [path for path in home.blobs.rglob("*") if path.is_file() and len(path.name) == 64]
    for path in blobs:
        flip(path, 40)
    for state in [path for path in home.states.rglob("*") if path.is_file()]:
        state.unlink()
    victim.start()

    def mended() -> bool:
        good = 0
        for path in blobs:
            with suppress(FileNotFoundError):  # what is damaged is moved away while we look
                good += sha256(path.read_bytes()).hexdigest() == path.name
        return good == len(blobs)

    four.wait(mended)


def test_a_full_disk_ends_the_daemon_with_a_reason_and_loses_nothing(federation: Make, tmp_path: Path) -> None:
    four = federation(rounds=3, deadline_ms=1500)
    home = four.institutions[0].home
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        subprocess.run(["cp", "-a", f"{home.root}/.", str(small)], check=True)
        filler = small / "filler"
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        filler.write_bytes(bytes(max(0, free - 200_000)))
        for daemon in four.daemons[1:]:
            daemon.start()
        done = run(small)
        assert done.returncode == 1, done.stderr[-2000:]
        assert "full" in last_line(done).lower() or "space" in last_line(done).lower()
        filler.unlink()
        again = subprocess.Popen(
            [sys.executable, "-m", "collegium.node", "--home", str(small)], stderr=subprocess.PIPE, text=True
        )
        try:
            four.wait_rounds(3, nodes=[1, 2, 3])
            assert again.poll() is None
        finally:
            again.kill()
            again.communicate()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_no_daemon_is_said_so(federation: Make) -> None:
    home = federation(count=1, rounds=0).institutions[0].home
    with pytest.raises(UnreachableError, match="No daemon runs"):
        Client(home).status()
