"""The node's directory: private, its key made once, its daemon the only one, its socket where the kernel takes it."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto.errors import CorruptError, RefusedError, UsageError
from collegium.crypto.identity import Identity
from collegium.node.home import Home, edit_peers, hold, keys, load_peers, running, save_peers
from collegium.node.store import DiskFullError

PEER = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
OTHER = "/dns4/node.example.org/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "node")
    made.make()
    return made


@pytest.fixture
def wide_open() -> Iterator[None]:
    """No umask to hide behind."""
    old = os.umask(0)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- paths


def test_every_path_lies_in_the_home(home: Home) -> None:
    names = ["key", "config", "peers", "charter", "database", "blobs", "states", "lock", "log", "socket"]
    paths = {getattr(home, name) for name in names}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {home.root}
    assert list(home.root.iterdir()) == []


def test_a_new_home_is_private(tmp_path: Path, wide_open: None) -> None:
    home = Home(tmp_path / "a" / "b")
    home.make()
    assert mode(home.root) == 0o700
    home.make()


def test_an_empty_directory_becomes_private_and_a_full_one_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "node")
    home.root.mkdir()
    home.root.chmod(0o755)
    home.make()
    assert mode(home.root) == 0o700
    home.charter.write_bytes(b"x")
    home.root.chmod(0o750)
    with pytest.raises(RefusedError, match=f"mode 0750.*chmod 700 {home.root}"):
        home.make()
    assert mode(home.root) == 0o750


def test_a_file_in_its_place_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "node").write_bytes(b"")
    for root in (tmp_path / "node", tmp_path / "node" / "below"):
        with pytest.raises(UsageError, match="not a directory"):
            Home(root).make()


# ---- the socket


def long_home(tmp_path: Path) -> Home:
    return Home(tmp_path / ("x" * 60) / ("y" * 60))


def test_a_socket_can_be_bound_in_a_short_home(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as bound:
        home = Home(Path(folder))
        assert home.socket == home.root / "control.sock"
        assert home.socket_folder() == home.root
        bound.bind(str(home.socket))
        monkeypatch.chdir(folder)
        assert Home(Path()).socket == home.socket  # however the home is named


@pytest.mark.parametrize(("length", "near"), [(100, True), (101, False)])
def test_the_limit_is_100_bytes(length: int, near: bool) -> None:
    root = Path("/" + "ü" * ((length - 14) // 2) + "x" * (length % 2))
    assert len(os.fsencode(root / "control.sock")) == length
    assert (Home(root).socket.parent == root) is near


def test_a_socket_can_be_bound_for_a_long_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide_open: None
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary, socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        home = long_home(tmp_path)
        home.make()
        assert home.socket.parent.parent == Path(temporary)
        assert mode(home.socket_folder()) == 0o700
        bound.bind(str(home.socket))
        link = tmp_path / "link"
        link.symlink_to(home.root)
        assert Home(home.root / ".." / home.root.name).socket == home.socket
        assert Home(home.root.parent / "z").socket != home.socket


@pytest.mark.parametrize("attack", ["open to others", "a link", "a file"])
def test_g9_a_socket_folder_that_somebody_else_prepared_is_refused(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    home = long_home(tmp_path)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        folder = home.socket.parent
        if attack == "open to others":
            folder.mkdir()
            folder.chmod(0o777)
        elif attack == "a link":
            temporary.chmod(0o700)
            folder.symlink_to(temporary)
        else:
            folder.write_bytes(b"")
            folder.chmod(0o600)
        with pytest.raises(RefusedError, match="not a private directory"):
            home.socket_folder()


def test_a_socket_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        home = long_home(tmp_path)
        folder = home.socket_folder()
        stranger = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: stranger)
        folder.rename(folder.with_name(f"collegium-{stranger}"))  # still owned by who runs this test
        with pytest.raises(RefusedError, match="not a private directory of this user"):
            home.socket_folder()


def test_a_temporary_directory_with_a_long_path_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("t" * 80)))
    with pytest.raises(UsageError, match=r"too long.*TMPDIR"):
        _ = long_home(tmp_path).socket


# ---- keys


def test_a_key_is_made_private_and_read_back(tmp_path: Path, wide_open: None) -> None:
    home = Home(tmp_path / "node")
    identity = keys.create(home, None)
    assert keys.load(home, None) == identity
    assert not keys.needs_passphrase(home)
    assert (mode(home.root), mode(home.key)) == (0o700, 0o600)
    assert list(home.root.iterdir()) == [home.key]


def test_a_sealed_key_needs_its_passphrase(home: Home) -> None:
    identity = keys.create(home, "correct horse")
    assert keys.needs_passphrase(home)
    assert keys.load(home, "correct horse") == identity
    with pytest.raises(RefusedError, match="passphrase"):
        keys.load(home, None)
    assert identity.seed.hex() not in home.key.read_text()


def test_a_key_is_never_overwritten(home: Home) -> None:
    identity = keys.create(home, None)
    for passphrase in (None, "x"):
        with pytest.raises(RefusedError, match="a key already"):
            keys.create(home, passphrase)
    assert keys.load(home, None) == identity
    home.key.unlink()
    home.key.symlink_to(home.root / "nowhere")
    with pytest.raises(RefusedError, match="a key already"):
        keys.create(home, None)


def test_an_empty_passphrase_leaves_nothing_behind(tmp_path: Path) -> None:
    home = Home(tmp_path / "node")
    with pytest.raises(UsageError, match="empty"):
        keys.create(home, "")
    assert not home.root.exists()


@pytest.mark.parametrize("wide", [0o604, 0o640, 0o644, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(home: Home, wide: int) -> None:
    keys.create(home, None)
    home.key.chmod(wide)
    with pytest.raises(RefusedError, match=f"mode {wide:04o}.*chmod 600 {home.key}"):
        keys.load(home, None)


def test_a_key_may_be_read_only(home: Home) -> None:
    identity = keys.create(home, None)
    home.key.chmod(0o400)
    assert keys.load(home, None) == identity


def test_a_missing_key_says_what_to_do(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no key in .*collegium init"):
        keys.load(home, None)
    with pytest.raises(UsageError, match="no key in"):
        keys.load(Home(tmp_path / "nowhere"), None)


def test_a_damaged_key_is_corrupt(home: Home) -> None:
    keys.create(home, None)
    home.key.write_bytes(home.key.read_bytes()[:-20])
    with pytest.raises(CorruptError, match=str(home.key)):
        keys.load(home, None)
    home.key.write_bytes(b"x" * 2**20)
    with pytest.raises(CorruptError, match=str(home.key)):
        keys.load(home, None)


def test_a_pipe_in_its_place_does_not_hang(home: Home) -> None:
    os.mkfifo(home.key, 0o600)
    with pytest.raises(UsageError, match="not a file"):
        keys.load(home, None)


def test_a_full_disk_leaves_no_half_a_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        keys.create(home, None)
    assert list(home.root.iterdir()) == []


class Killed(BaseException):
    """The process is dead: no clean-up gets anywhere."""


def killed(do: Callable[[], object], point: int, *, after: bool) -> bool:
    """Do it until a call of the file system, before or after which SIGKILL comes; False if there are not so many.

    Of a write that it comes before, half is on the disk.
    """
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == point and real is writes:
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            if count > point or (count == point and not after):
                raise Killed
            result = real(*args, **more)
            if count == point:
                raise Killed
            return result

        return call

    writes = os.write
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "fsync", "link", "rename", "replace", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            do()
        except Killed:
            return True
    return False


def homes(root: Path, do: Callable[[Home], object], prepare: Callable[[Home], object]) -> Iterator[Home]:
    """Yield a directory for each moment at which SIGKILL may come; there are some."""
    for after in (False, True):
        for point in count(1):
            home = Home(root / f"{point}{after}")
            home.make()
            prepare(home)
            if not killed(partial(do, home), point, after=after):
                assert point > 3
                break
            yield home


def test_g8_a_key_is_there_at_every_moment_of_a_move_to_the_next(tmp_path: Path) -> None:
    made: dict[Path, tuple[Identity, Identity]] = {}

    def prepare(home: Home) -> None:
        made[home.root] = keys.create(home, None), keys.create_next(home, None)

    def adopt(home: Home) -> bool:
        return keys.adopt_next(home, made[home.root][1].public_key)

    for home in homes(tmp_path, adopt, prepare):
        old, new = made[home.root]
        assert keys.load(home, None) in (old, new)
        assert adopt(home)
        assert keys.load(home, None) == new
        kept = home.root / f"key.{old.public_key.hex()[:16]}.json"
        assert {path.name for path in home.root.iterdir()} == {home.key.name, kept.name}
        kept.replace(home.key)
        assert keys.load(home, None) == old


def test_g8_a_key_is_there_at_every_moment_of_a_return_under_a_new_one(tmp_path: Path) -> None:
    old: dict[Path, Identity] = {}

    def prepare(home: Home) -> None:
        old[home.root] = keys.create(home, None)

    for home in homes(tmp_path, lambda home: keys.replace_gone(home, None), prepare):
        key = keys.load(home, None)
        if key == old[home.root]:
            key = keys.replace_gone(home, None)
        assert key == keys.load(home, None) != old[home.root]
        assert not home.next_key.exists()


def test_g8_a_key_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    for home in homes(tmp_path / "first", lambda home: keys.create(home, None), lambda _: None):
        made = keys.load(home, None) if home.key.exists() else keys.create(home, None)
        assert keys.load(home, None) == made
    for home in homes(tmp_path / "next", lambda home: keys.create_next(home, None), lambda h: keys.create(h, None)):
        made = keys.create_next(home, None)
        assert keys.create_next(home, None) == made


def refused_another(home: Home) -> None:
    with pytest.raises(RefusedError, match="a key already"):
        keys.create(home, None)


@pytest.mark.parametrize("first", [partial(keys.load, passphrase=None), keys.needs_passphrase, refused_another])
def test_g8_a_move_that_was_cut_off_in_between_is_finished(home: Home, first: Callable[[Home], object]) -> None:
    keys.create(home, None)
    new = keys.create_next(home, None)
    home.key.rename(home.root / "key.0123456789abcdef.json")  # as far as a release before came
    first(home)
    assert not home.next_key.exists()
    assert keys.load(home, None) == new


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_keys_are_made_and_changed_where_there_are_no_hard_links(
    home: Home, monkeypatch: pytest.MonkeyPatch, code: int, wide_open: None
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    old = keys.create(home, None)
    refused_another(home)
    assert keys.load(home, None) == old
    new = keys.create_next(home, None)
    kept = keys.kept(home, old.public_key)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises((OSError, UsageError)):
            keys.adopt_next(home, new.public_key)
    assert keys.load(home, None) == old
    assert keys.adopt_next(home, new.public_key)
    assert (keys.load(home, None), keys.load(home, None, kept)) == (new, old)
    assert (mode(home.key), mode(kept)) == (0o600, 0o600)
    assert {path.name for path in home.root.iterdir()} == {home.key.name, kept.name}
    assert keys.former(home) == {old.public_key}


def test_a_full_disk_without_hard_links_leaves_no_half_a_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(keys, "write_all", full)
    with pytest.raises(DiskFullError):
        keys.create(home, None)
    assert list(home.root.iterdir()) == []


@pytest.mark.parametrize("do", [keys.load, keys.create_next])
def test_what_a_crash_left_of_a_key_is_swept(home: Home, do: Callable[[Home, None], object]) -> None:
    keys.create(home, None)
    secret = home.key.read_bytes()
    names = (
        "key.json.01234567.tmp",
        "key.next.json.01234567.tmp.89abcdef.tmp",
        "key.0123456789abcdef.json.01234567.tmp",
    )
    others = ("key.json.mine.tmp", "my-key.json.01234567.tmp", "key.json.01234567.tmp.bak")
    for name in (*names, *others):
        (home.root / name).write_bytes(secret)
        os.utime(home.root / name, (1, 1))
    young = home.root / "key.json.76543210.tmp"  # somebody is at it
    young.write_bytes(secret)
    do(home, None)
    left = {path.name for path in home.root.iterdir()} - {home.next_key.name}
    assert left == {home.key.name, young.name, *others}


@pytest.mark.parametrize("do", [keys.load, keys.create, keys.create_next])
def test_a_directory_that_may_not_be_looked_into_is_said(
    home: Home, monkeypatch: pytest.MonkeyPatch, do: Callable[[Home, None], object]
) -> None:
    """As Python 3.11 answers `exists` there."""
    keys.create(home, None)

    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        do(home, None)


# ---- peers


def test_peers_are_kept_in_order_and_once(home: Home) -> None:
    assert load_peers(home) == ()
    save_peers(home, [OTHER, PEER, OTHER])
    assert load_peers(home) == (OTHER, PEER)
    assert edit_peers(home, remove=[OTHER]) == (PEER,)
    assert edit_peers(home, add=[OTHER, PEER]) == (PEER, OTHER)
    assert mode(home.peers) == 0o600
    save_peers(home, [])
    assert load_peers(home) == ()


@pytest.mark.parametrize("address", ["", "192.0.2.7:4001", "/ip4/192.0.2.7/tcp/4001", PEER + "/p2p-circuit", "\ud800"])
def test_what_is_no_peer_is_not_saved(home: Home, address: str) -> None:
    save_peers(home, [PEER])
    with pytest.raises(UsageError, match="not the address of a peer"):
        edit_peers(home, add=[address])
    assert load_peers(home) == (PEER,)


def test_too_many_or_unknown_peers_are_usage_errors(home: Home) -> None:
    with pytest.raises(UsageError, match="too many"):
        save_peers(home, [PEER.replace("4001", str(port)) for port in range(1, 258)])
    with pytest.raises(UsageError, match="not among"):
        edit_peers(home, remove=[PEER])


BAD_PEERS: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"peers": ["',
    "a list": b"[]",
    "unknown field": b'{"peers": [], "x": 1}',
    "no list": b'{"peers": "x"}',
    "no text": b'{"peers": [1]}',
    "no address": b'{"peers": ["x"]}',
    "not UTF-8": b'{"peers": ["\xff"]}',
    "deep nesting": b"[" * 100_000,
    "too large": b" " * (1 << 20),
    "too many": ('{"peers": [' + ",".join([f'"{PEER}"'] * 257) + "]}").encode(),
}


@pytest.mark.parametrize("name", BAD_PEERS)
def test_a_damaged_list_of_peers_is_corrupt(name: str, home: Home) -> None:
    home.peers.write_bytes(BAD_PEERS[name])
    with pytest.raises(CorruptError, match=f"{home.peers} is damaged"):
        load_peers(home)


# ---- the lock

DAEMON = """
import sys
from pathlib import Path
from collegium.node.home import Home, hold
with hold(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def daemon(home: Home) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, home.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_daemon_a_directory_until_it_dies(home: Home, daemon: "subprocess.Popen[str]") -> None:
    assert running(home) == daemon.pid
    with pytest.raises(UsageError, match=rf"Another daemon runs in .* \(pid {daemon.pid}\)"), hold(home):
        pytest.fail("two daemons")
    assert running(home) == daemon.pid
    daemon.kill()
    daemon.wait()
    assert running(home) is None
    with hold(home):
        assert running(home) == os.getpid()
        assert mode(home.lock) == 0o600
    assert running(home) is None


def test_no_lock_file_is_no_daemon(home: Home) -> None:
    assert running(home) is None
    assert not home.lock.exists()


def test_the_lock_goes_with_an_exception(home: Home) -> None:
    def crash() -> None:
        with hold(home):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    with hold(home):
        pass


def test_identities_differ(tmp_path: Path) -> None:
    made = [keys.create(Home(tmp_path / name), None) for name in "ab"]
    assert made[0] != made[1]
    assert all(isinstance(identity, Identity) for identity in made)
