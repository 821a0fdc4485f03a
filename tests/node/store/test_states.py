"""States: bits come back as they went in; whatever is damaged is deleted, because it can be computed again (G1)."""

import errno
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest

from collegium.crypto.errors import LocalProtocolError
from collegium.node.store import DiskFullError, States, files

CHAINS = [bytes([i]) * 32 for i in range(4)]
STATE = np.array([0, 1, -1, 2**31 - 1, -(2**31 - 1), 77], dtype=np.int32)


@pytest.fixture
def states(tmp_path: Path) -> States:
    return States(tmp_path / "states")


def only_file(states: States) -> Path:
    (path,) = (path for path in states.folder.rglob("*") if path.is_file())
    return path


def test_g1_bits_come_back(states: States) -> None:
    states.put("head/pass", 3, CHAINS[0], STATE)
    state = States(states.folder).get("head/pass", CHAINS[0])
    assert state is not None
    assert state.dtype == np.int32
    assert state.tobytes() == STATE.tobytes()
    assert not state.flags.writeable
    assert only_file(states).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("state", [STATE[:0], STATE[::2], STATE.astype(">i4").astype(np.int32)])
def test_views_and_empty_states_come_back(states: States, state: np.ndarray) -> None:
    states.put("x", 1, CHAINS[0], state)
    kept = states.get("x", CHAINS[0])
    assert kept is not None
    assert kept.tolist() == state.tolist()


def test_a_state_belongs_to_its_component_and_chain(states: States) -> None:
    states.put("head/pass", 1, CHAINS[0], STATE)
    assert states.get("head/pass", CHAINS[1]) is None
    assert states.get("head", CHAINS[0]) is None
    assert states.get("head/pass", CHAINS[0]) is not None


def test_putting_again_replaces(states: States) -> None:
    states.put("x", 1, CHAINS[0], STATE)
    states.put("x", 1, CHAINS[0], STATE[:2])
    state = states.get("x", CHAINS[0])
    assert state is not None
    assert state.size == 2
    only_file(states)


@pytest.mark.parametrize("component", ["../../escape", "/absolute", "a/b/c", "\0", "x" * 128, "ü", ".", ".."])
def test_no_component_name_chooses_a_path(states: States, component: str) -> None:
    states.put(component, 1, CHAINS[0], STATE)
    assert only_file(states).parent.parent == states.folder
    assert [path.name for path in states.folder.parent.iterdir()] == ["states"]
    assert states.get(component, CHAINS[0]) is not None


def test_every_flipped_byte_and_every_cut_is_found_and_deleted(states: States) -> None:
    states.put("head/pass", 1, CHAINS[0], STATE)
    path = only_file(states)
    content = path.read_bytes()
    random = Random(1)
    damaged = [
        content[:i] + bytes([content[i] ^ 1 << random.randrange(8)]) + content[i + 1 :] for i in range(len(content))
    ]
    damaged += [content[:i] for i in range(len(content))] + [content + b"\0", bytes(len(content))]
    for data in damaged:
        path.write_bytes(data)
        assert states.get("head/pass", CHAINS[0]) is None
        assert not path.exists()
    states.put("head/pass", 1, CHAINS[0], STATE)
    assert states.get("head/pass", CHAINS[0]) is not None


def test_a_file_under_another_name_is_damage(states: States) -> None:
    states.put("a", 1, CHAINS[0], STATE)
    path = only_file(states)
    path.rename(path.with_name(CHAINS[1].hex() + ".state"))
    assert states.get("a", CHAINS[1]) is None
    states.put("a", 1, CHAINS[0], STATE)
    path.parent.rename(states._folder("b"))
    assert states.get("b", CHAINS[0]) is None


def test_g7_pruning_keeps_only_what_it_is_told(states: States) -> None:
    for chain in CHAINS:
        states.put("a", 1, chain, STATE)
    states.put("b", 1, CHAINS[0], STATE)
    (states._folder("a") / "left.0011.tmp").write_bytes(b"by kill -9")
    assert states.prune("a", {CHAINS[1], CHAINS[3]}) == 3
    assert [states.get("a", chain) is not None for chain in CHAINS] == [False, True, False, True]
    assert states.get("b", CHAINS[0]) is not None
    assert states.prune("a", set()) == 2
    assert states.prune("never seen", set()) == 0


@pytest.mark.parametrize(
    "state", [STATE.astype(np.int64), STATE.astype(np.float32), STATE.reshape(2, 3), np.array(1, dtype=np.int32)]
)
def test_what_is_no_state_is_our_bug(states: States, state: np.ndarray) -> None:
    with pytest.raises(LocalProtocolError, match="int32"):
        states.put("a", 1, CHAINS[0], state)


def test_a_chain_of_another_length_is_our_bug(states: States) -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        states.get("a", b"../x")


def test_a_full_disk_is_named_and_loses_nothing(states: States, monkeypatch: pytest.MonkeyPatch) -> None:
    states.put("a", 1, CHAINS[0], STATE)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFullError):
        states.put("a", 2, CHAINS[1], STATE)
    with pytest.raises(DiskFullError):
        states.put("a", 1, CHAINS[0], STATE[:1])
    monkeypatch.undo()
    state = states.get("a", CHAINS[0])
    assert state is not None
    assert state.size == STATE.size
    only_file(states)


def test_states_are_not_fsynced_but_written_aside(states: States, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sync_folder", lambda _: pytest.fail("a state can be computed again"))
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("a state can be computed again"))
    states.put("a", 1, CHAINS[0], STATE)
