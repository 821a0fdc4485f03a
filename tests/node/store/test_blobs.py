"""Blobs: bytes come back under their digest or not at all; cut pulls resume; a full disk loses nothing (G8, G9)."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from collegium.crypto.errors import CorruptError, LocalProtocolError, RemoteProtocolError, UsageError
from collegium.crypto.hashing import sha256
from collegium.node.store import Blobs, DiskFullError, files
from collegium.node.store import blobs as blobs_module

DATA = Random(1).randbytes(100_000)
DIGEST = sha256(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def files_in(blobs: Blobs) -> set[str]:
    return {str(path.relative_to(blobs.folder)) for path in blobs.folder.rglob("*") if path.is_file()}


def home_of(digest: bytes) -> str:
    name = digest.hex()
    return f"{name[:2]}/{name[2:4]}/{name}"


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_bytes_come_back_under_their_digest(blobs: Blobs, data: bytes) -> None:
    digest = blobs.put(data)
    assert digest == sha256(data)
    assert blobs.get(digest) == data
    assert blobs.has(digest)
    assert blobs.size(digest) == len(data)
    assert blobs.digests() == {digest}
    assert files_in(blobs) == {home_of(digest)}
    assert blobs.path(digest).stat().st_mode & 0o777 == 0o600
    assert Blobs(blobs.folder).get(digest) == data


def test_putting_again_changes_nothing_and_mends_damage(blobs: Blobs) -> None:
    blobs.put(DATA)
    before = blobs.path(DIGEST).stat().st_ino
    blobs.put(DATA)
    assert blobs.path(DIGEST).stat().st_ino == before
    blobs.path(DIGEST).write_bytes(DATA[:-1] + b"!")
    blobs.put(DATA)
    assert blobs.get(DIGEST) == DATA


def test_what_is_not_there_is_said_so(blobs: Blobs) -> None:
    assert not blobs.has(DIGEST)
    assert blobs.size(DIGEST) is None
    with pytest.raises(KeyError, match="not stored"):
        blobs.get(DIGEST)
    assert blobs.digests() == frozenset()
    assert blobs.delete([DIGEST]) == 0


@pytest.mark.parametrize("digest", [b"", b"short", DIGEST + b"x", b"../../etc/passwd"])
def test_a_digest_of_another_length_is_our_bug(blobs: Blobs, digest: bytes) -> None:
    for call in (blobs.path, blobs.has, blobs.size, blobs.get):
        with pytest.raises(LocalProtocolError, match="32 bytes"):
            call(digest)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda path: path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:]),
    "cut": lambda path: path.write_bytes(DATA[:-1]),
    "longer": lambda path: path.write_bytes(DATA + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "over the limit": lambda path: path.write_bytes(DATA * 4),
    "a link": lambda path: path.rename(path.with_name("elsewhere")).with_name(path.name).symlink_to("elsewhere"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_g9_a_damaged_blob_is_quarantined_and_never_returned(name: str, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs", limit=2 * len(DATA))
    blobs.put(DATA)
    DAMAGE[name](blobs.path(DIGEST))
    with pytest.raises(CorruptError, match=f"{DIGEST.hex()} was damaged .*will be fetched again"):
        blobs.get(DIGEST)
    assert not blobs.has(DIGEST)
    assert DIGEST not in blobs.digests()
    assert os.path.lexists(blobs.folder / "quarantine" / DIGEST.hex())
    with blobs.writer(DIGEST, len(DATA)) as writer:  # and it can be fetched again
        writer.write(DATA)
        writer.commit()
    assert blobs.get(DIGEST) == DATA


# ---- pulls


def test_a_cut_pull_resumes_where_it_stopped(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 0
        writer.write(DATA[:30_000])
        writer.write(DATA[30_000:40_000])
    assert not blobs.has(DIGEST)
    for end in (70_000, len(DATA)):
        with Blobs(blobs.folder).writer(DIGEST, len(DATA)) as writer:  # as after a restart
            assert writer.offset
            writer.write(DATA[writer.offset : end])
            assert writer.offset == end
    with blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == len(DATA)
        writer.commit()
    assert blobs.get(DIGEST) == DATA
    assert files_in(blobs) == {home_of(DIGEST)}


def test_g7_g9_a_blob_that_is_deleted_while_it_is_pulled_is_not_stored_and_is_no_fault(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA)
        blobs.delete([DIGEST])
        with pytest.raises(RemoteProtocolError, match="blob-erased"):
            writer.commit()
    assert files_in(blobs) == set()


def test_an_exception_in_a_pull_keeps_what_arrived(blobs: Blobs) -> None:
    def pull() -> None:
        with blobs.writer(DIGEST, len(DATA)) as writer:
            writer.write(DATA[:10])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pull()
    with blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 10


def test_g9_wrong_bytes_never_get_the_name(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:-1] + b"!")
        with pytest.raises(RemoteProtocolError) as caught:
            writer.commit()
        with pytest.raises(LocalProtocolError, match="finished"):
            writer.commit()
    assert caught.value.reason == "blob-digest"
    assert files_in(blobs) == set()


def test_a_damaged_partial_file_is_found_out_and_started_over(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:100])
    (blobs.folder / "partial" / DIGEST.hex()).write_bytes(bytes(100))
    with blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset  # so the peer is not to blame
        writer.write(DATA[100:])
        with pytest.raises(RemoteProtocolError):
            writer.commit()
    with blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 0


def test_a_partial_file_over_the_size_is_started_over(blobs: Blobs) -> None:
    (blobs.folder / "partial" / DIGEST.hex()).write_bytes(DATA + b"more")
    with blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 0
        writer.write(DATA)
        writer.commit()
    assert blobs.get(DIGEST) == DATA


def test_g9_more_than_was_declared_is_refused_at_once(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, 10) as writer:
        writer.write(DATA[:10])
        with pytest.raises(RemoteProtocolError) as caught:
            writer.write(b"x")
        with pytest.raises(LocalProtocolError, match="finished"):
            writer.write(b"x")
    assert caught.value.reason == "blob-size"
    assert files_in(blobs) == set()


@pytest.mark.parametrize("size", [101, 2**62, -1])
def test_g9_a_size_over_the_limit_is_refused_before_a_file_is_made(tmp_path: Path, size: int) -> None:
    blobs = Blobs(tmp_path / "blobs", limit=100)
    with pytest.raises(RemoteProtocolError) as caught, blobs.writer(DIGEST, size):
        pytest.fail("opened")
    assert caught.value.reason == "blob-size"
    assert files_in(blobs) == set()
    with pytest.raises(LocalProtocolError, match="limit"):
        blobs.put(bytes(101))


def test_a_declared_size_takes_no_space_before_the_bytes_come(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, blobs_module.BLOB_LIMIT):
        assert (blobs.folder / "partial" / DIGEST.hex()).stat().st_size == 0


def test_a_short_blob_cannot_be_committed(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:-1])
        with pytest.raises(LocalProtocolError, match="99999 of 100000 bytes"):
            writer.commit()
        writer.write(DATA[-1:])
        writer.commit()
    assert blobs.has(DIGEST)


def test_one_writer_a_digest(blobs: Blobs) -> None:
    with blobs.writer(DIGEST, 10):
        with pytest.raises(LocalProtocolError, match="writer already"), blobs.writer(DIGEST, 10):
            pytest.fail("opened")
        with blobs.writer(bytes(32), 10):
            pass
    with blobs.writer(DIGEST, 10):
        pass


def test_an_empty_blob_is_one(blobs: Blobs) -> None:
    with blobs.writer(sha256(b""), 0) as writer:
        writer.commit()
    assert blobs.get(sha256(b"")) == b""


# ---- deleting


def test_g7_deleted_blobs_are_gone_in_every_form(blobs: Blobs) -> None:
    others = [blobs.put(bytes([i])) for i in range(3)]
    blobs.put(DATA)
    (blobs.folder / "quarantine" / DIGEST.hex()).write_bytes(b"damaged")
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:10])
    assert blobs.delete([DIGEST, others[0], bytes(32)]) == 2
    assert files_in(blobs) == {home_of(digest) for digest in others[1:]}


def test_a_sweep_keeps_only_what_it_is_told(blobs: Blobs) -> None:
    keep, drop, pulled = blobs.put(b"keep"), blobs.put(b"drop"), sha256(b"pulled")
    for digest in (pulled, sha256(b"dropped pull")):
        with blobs.writer(digest, 10) as writer:
            writer.write(b"p")
    (blobs.folder / "partial" / f"{keep.hex()}.0011.tmp").write_bytes(b"left by kill -9")
    (blobs.folder / "quarantine" / drop.hex()).write_bytes(b"damaged")
    assert blobs.sweep({keep, pulled}) == 1
    assert files_in(blobs) == {home_of(keep), f"partial/{pulled.hex()}"}


def test_names_that_are_no_digests_are_not_ours(blobs: Blobs) -> None:
    blobs.put(DATA)
    folder = blobs.path(DIGEST).parent
    for name in ("notes.txt", "ab" * 32, DIGEST.hex().upper() + "x"):
        (folder / name).write_bytes(b"")
    assert blobs.digests() == {DIGEST}


# ---- durability


def test_a_blob_is_fsynced_before_it_gets_its_name_and_the_folder_after(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    really_sync, really_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        really_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return really_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    name = DIGEST.hex()
    tree = ["sync " + name[:2], "sync blobs"]
    blobs.put(DATA)
    assert events[:2] == tree
    assert events[2].startswith(f"sync {name}.")
    assert events[3:] == ["rename", f"sync {name[2:4]}"]
    blobs.delete([DIGEST])
    assert events[5:] == [f"sync {name[2:4]}"]
    events.clear()
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA)
        writer.commit()
    assert events == [f"sync {name}", "rename", f"sync {name[2:4]}"]


# ---- full disks


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_named_and_loses_nothing(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    old = blobs.put(b"old")

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    if call == "write":
        with blobs.writer(DIGEST, len(DATA)) as writer, pytest.raises(DiskFullError, match=DIGEST.hex()):
            writer.write(DATA)
    with pytest.raises(DiskFullError) as caught:
        blobs.put(DATA)
    assert caught.value.advice
    monkeypatch.undo()
    assert files_in(blobs) == {home_of(old)}
    assert blobs.get(old) == b"old"
    assert blobs.put(DATA) == DIGEST


def test_a_commit_on_a_full_disk_removes_the_partial_file(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError):
            writer.commit()
    assert files_in(blobs) == set()


def test_writes_that_stop_early_are_finished(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: really(descriptor, data[:7]))
    assert blobs.get(blobs.put(DATA[:1000])) == DATA[:1000]


def test_a_really_full_disk_loses_nothing(small_disk: Path) -> None:
    blobs = Blobs(small_disk / "blobs")
    old = [blobs.put(bytes([i]) * 100_000) for i in range(5)]
    large = bytes(900_000)
    with pytest.raises(DiskFullError):
        blobs.put(large)
    with blobs.writer(sha256(large), len(large)) as writer, pytest.raises(DiskFullError):
        writer.write(large)
    assert files_in(blobs) == {home_of(digest) for digest in old}
    assert [blobs.get(digest) for digest in old] == [bytes([i]) * 100_000 for i in range(5)]
    blobs.delete(old)
    assert blobs.get(blobs.put(large)) == large


def test_a_folder_that_may_not_be_written_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, blobs: Blobs) -> None:
    def deny(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "write", deny)
    with pytest.raises(UsageError, match="Read-only file system"):
        blobs.put(DATA)


# ---- kill -9 and threads

WRITER = """
import sys
from pathlib import Path
from collegium.node.store import Blobs

blobs, i = Blobs(Path(sys.argv[1])), int(sys.argv[2])
while True:
    i += 1
    print(i, blobs.put(i.to_bytes(8, "big") * 20_000).hex(), flush=True)
"""


def test_g8_blobs_survive_kill_9_whole_or_not_at_all(blobs: Blobs) -> None:
    random = Random(3)
    reported: list[tuple[int, bytes]] = []
    for _ in range(4):
        arguments = [sys.executable, "-c", WRITER, str(blobs.folder), str(len(reported))]
        writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(random.randrange(1, 6))]
        threading.Event().wait(random.random() * 0.005)
        writer.send_signal(signal.SIGKILL)
        # A last line that the kill cut short was not said.
        lines += [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        writer.wait()
        reported += [(int(i), bytes.fromhex(digest)) for i, digest in (line.split() for line in lines)]
        for digest in blobs.digests():
            blobs.get(digest)
    for i, digest in reported:
        assert blobs.get(digest) == i.to_bytes(8, "big") * 20_000
    blobs.sweep(blobs.digests())
    assert all(not name.startswith("partial") for name in files_in(blobs))


def test_many_threads_put_the_same_blobs(blobs: Blobs) -> None:
    threads = [threading.Thread(target=lambda: [blobs.put(bytes([i]) * 1000) for i in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(blobs.digests()) == 20
    assert all(blobs.get(digest) for digest in blobs.digests())


def test_a_failed_rename_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFullError):
        files.write_atomic(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"
