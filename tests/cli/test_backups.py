"""A home in one file: what goes in, what is refused on the way out, and that nothing is half done."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.node.backup import restore
from collegium.node.home import Home, running
from collegium.node.store import Store
from collegium.node.store.blobs import Blobs
from collegium.node.unlearning.students import Manifests, exclude

from .test_node import alone  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from .conftest import Run

Files = dict[str, bytes]


def files(root: Path) -> Files:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def full(home: Home) -> Home:
    """A home with a file of each kind, and some that no backup needs."""
    exclude(home, "S-0001")
    Manifests(home).put(["S-0001", "S-0002"])
    home.peers.write_text('{"addresses": []}')
    (home.root / "key.0123456789abcdef.json").write_text("a former key")
    (home.root / "mine.toml").write_text("# a preset of one's own")
    (home.states / ("0" * 32)).mkdir(parents=True)
    (home.states / ("0" * 32) / ("1" * 64 + ".state")).write_bytes(b"state")
    home.private.mkdir()
    (home.private / "private.safetensors").write_bytes(b"private")
    home.log.write_text("not in the backup")
    (home.blobs / "partial" / ("2" * 64)).write_bytes(b"cut")
    return home


@pytest.fixture
def file(run: "Run", full: Home, tmp_path: Path) -> Path:
    done = run("node", "backup", tmp_path / "backup.tar", "--home", full.root, "--json")
    assert done.code == 0, done.out + done.err
    return tmp_path / "backup.tar"


def test_a_backup_has_all_that_a_home_needs_and_comes_back_as_it_was(
    run: "Run", full: Home, file: Path, tmp_path: Path
) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "nothing is left beside it"
    made = run("node", "restore", file, tmp_path / "new", "--json")
    assert made.code == 0, made.out + made.err
    before, after = files(full.root), files(tmp_path / "new")
    not_in_it = {"node.log", "node.db-wal", "node.db-shm", f"blobs/partial/{'2' * 64}"}
    assert set(after) == set(before) - not_in_it
    assert {name for name in after if after[name] != before[name]} <= {"node.db"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")])
    with Store.open_readonly(full.database) as one, Store.open_readonly(Home(tmp_path / "new").database) as other:
        assert one.snapshot() == other.snapshot()
        assert made.value["height"] == one.height() > 0
    assert run("ledger", "verify", "--no-states", "--home", tmp_path / "new").code == 0
    text = " ".join(run("node", "restore", file, tmp_path / "newer").out.split())
    backup = " ".join(run("node", "backup", tmp_path / "again.tar", "--home", full.root).out.split())
    (held,) = re.findall(r"holds (\d+ files, \S+ \S+), as of", backup)
    assert f"holds {held}, as of" in text, "one count for what goes in and what comes back"
    assert held.startswith(f"{len(after)} files")
    assert "comes back with a new key and without a backup, its node trains on them again" in backup
    assert "two daemons with one key contradict each other" in text
    assert f"`collegium --home {tmp_path / 'newer'} unlearn resume`" in text


def test_it_says_that_it_holds_the_key_and_writes_over_nothing(run: "Run", full: Home, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    answer = run("node", "backup", file, "--home", full.root)
    assert "It holds this node's private key, not sealed" in " ".join(answer.out.split())
    before = file.read_bytes()
    again = run("node", "backup", file, "--home", full.root)
    assert (again.code, file.read_bytes()) == (2, before)
    assert "is there already" in again.err
    assert run("node", "backup", full.root / "in-itself", "--home", full.root).code == 2
    assert run("node", "restore", file, full.root).code == 2, "there are files in it"
    assert run("node", "backup", tmp_path / "b", "--home", tmp_path).code == 2, "no home"


def test_a_sealed_key_stays_sealed(run: "Run", tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a long passphrase\n")
    assert run("init", "--home", tmp_path / "n", "--name", "n", "--passphrase-file", secret).code == 0
    made = run("node", "backup", tmp_path / "b.tar", "--home", tmp_path / "n")
    assert "sealed by its passphrase" in " ".join(made.out.split())
    assert b"a long passphrase" not in (tmp_path / "b.tar").read_bytes()
    restored = run("node", "restore", tmp_path / "b.tar", tmp_path / "m", "--json").value
    assert (restored["sealed"], restored["height"], restored["federation"]) == (True, 0, ""), "it never ran"
    assert (tmp_path / "m" / "key.json").read_bytes() == (tmp_path / "n" / "key.json").read_bytes()


def test_bytes_damaged_on_disk_are_left_out_and_named(run: "Run", full: Home, tmp_path: Path) -> None:
    digest = min(Blobs(full.blobs).digests())
    Blobs(full.blobs).path(digest).write_bytes(b"damaged")
    made = run("node", "backup", tmp_path / "b.tar", "--home", full.root, "--json")
    assert made.code == 0
    assert made.value["damaged"] == [f"blobs/{digest.hex()[:2]}/{digest.hex()[2:4]}/{digest.hex()}"]
    assert "is damaged on disk and was left out" in made.err
    assert run("node", "restore", tmp_path / "b.tar", tmp_path / "new").code == 0


def unpacked(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


def packed(file: Path, parts: list[tuple[tarfile.TarInfo | str, bytes]]) -> None:
    with tarfile.open(file, "w") as archive:
        for info, data in parts:
            entry = tarfile.TarInfo(info) if isinstance(info, str) else info
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("mine.toml")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def listed(parts: Files) -> bytes:
    entries = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in parts.items()}
    return json.dumps(entries).encode()


def newer(parts: Files) -> None:
    head = json.loads(parts["collegium-backup.json"]) | {"format": 2, "release": "9.0", "more": 1}
    parts["collegium-backup.json"] = json.dumps(head).encode()


def newer_database(parts: Files) -> None:
    parts["node.db"] = parts["node.db"][:60] + (99).to_bytes(4, "big") + parts["node.db"][64:]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (newer, 2, "has format 2, by release 9.0; this release reads up to 1"),
        (newer_database, 2, "has version 99"),
        (lambda parts: parts.update({"../outside.json": b"x"}), 3, "'../outside.json' is no file of a node's home"),
        (lambda parts: parts.update({"/etc/cron.d/x": b"x"}), 3, "is no file of a node's home"),
        (lambda parts: parts.update({"control.sock": b"x"}), 3, "'control.sock' is no file of a node's home"),
        (lambda parts: parts.pop("key.json"), 3, "no key is in it"),
        (lambda parts: parts.pop("collegium-backup.json"), 3, "it does not begin with collegium-backup.json"),
        (lambda parts: parts.update({f"blobs/00/00/{'0' * 64}": b"x"}), 3, "is damaged"),
    ],
)
def test_what_is_no_backup_of_this_format_is_refused_before_anything_is_written(
    run: "Run", file: Path, tmp_path: Path, change: Callable[[Files], Any], code: int, message: str
) -> None:
    parts = unpacked(file)
    del parts["manifest.json"]
    change(parts)
    packed(tmp_path / "changed.tar", [*parts.items(), ("manifest.json", listed(parts))])
    answer = run("node", "restore", tmp_path / "changed.tar", tmp_path / "new")
    assert (answer.code, (tmp_path / "new").exists()) == (code, False), answer.err
    assert message in answer.err


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(run: "Run", file: Path, tmp_path: Path, kind: bytes) -> None:
    parts: list[tuple[tarfile.TarInfo | str, bytes]] = list(unpacked(file).items())
    packed(tmp_path / "changed.tar", [parts[0], (special(kind), b""), *parts[1:]])
    answer = run("node", "restore", tmp_path / "changed.tar", tmp_path / "new")
    assert (answer.code, (tmp_path / "new").exists()) == (3, False)
    assert "'mine.toml' is no regular file" in answer.err


def test_one_changed_byte_or_a_missing_end_is_found(run: "Run", file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    parts = unpacked(file)
    cases = {name: whole.index(data) for name, data in parts.items() if name in ("node.db", "charter.bin", "key.json")}
    for name, cut in cases.items():
        at = cut + len(parts[name]) // 2
        (tmp_path / "bad.tar").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        answer = run("node", "restore", tmp_path / "bad.tar", tmp_path / "new")
        assert (answer.code, (tmp_path / "new").exists()) == (3, False), name
        assert f"{name} in it is damaged" in answer.err
    for length in (0, 100, 512, 5000, len(whole) // 2, whole.index(parts["manifest.json"]) - 512):
        (tmp_path / "bad.tar").write_bytes(whole[:length])
        answer = run("node", "restore", tmp_path / "bad.tar", tmp_path / "new")
        assert (answer.code, (tmp_path / "new").exists()) == (3, False), length
    assert run("node", "restore", tmp_path / "no file", tmp_path / "new").code == 2
    os.mkfifo(tmp_path / "pipe")
    assert run("node", "restore", tmp_path / "pipe", tmp_path / "new").code == 2


def test_a_disk_without_room_is_told_before_and_a_failure_leaves_nothing(
    run: "Run", file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))
        answer = run("node", "restore", file, tmp_path / "new")
        assert (answer.code, (tmp_path / "new").exists()) == (1, False)
        assert "MB are free" in answer.err
    written = []

    def fail(descriptor: int, data: bytes) -> None:
        written.append(data)
        if len(written) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore, "write_all", fail)
    (tmp_path / "new").mkdir()
    assert run("node", "restore", file, tmp_path / "new").code == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_a_running_home_is_copied_and_the_copy_starts(run: "Run", alone: Home, tmp_path: Path) -> None:  # noqa: F811
    try:
        assert run("node", "start", "--home", alone.root).code == 0
        assert run("node", "backup", tmp_path / "b.tar", "--home", alone.root).code == 0
        assert running(alone)
        assert run("node", "stop", "--home", alone.root).code == 0
        assert run("node", "restore", tmp_path / "b.tar", tmp_path / "new").code == 0
        assert run("node", "start", "--home", tmp_path / "new").code == 0
        assert run("node", "status", "--home", tmp_path / "new", "--json").value["running"] is True
    finally:
        for root in (alone.root, tmp_path / "new"):
            if running(Home(root)):
                run("node", "stop", "--force", "--home", root)
