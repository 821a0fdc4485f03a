"""Real daemons over real libp2p: rounds, kill -9, withdrawal. The promises are named where they are checked."""

import os
import random
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.consensus.components import Entry
from collegium.consensus.ledger import Ledger
from collegium.node.control.client import Client
from collegium.node.verify import verify_home_ledger as verify_ledger
from collegium.node.verify import verify_home_states, verify_home_withdrawal
from collegium.protocol.update import payload_values
from collegium.sims.processes.observe import fold_ledger, snapshot

from ...waiting import LIMIT

Make = Callable[..., Any]


def digests(federation: Any, name: str = "head/task0") -> set[str]:
    """The states that the hosts say they hold, by their own notes of the last round."""
    last = federation.last()
    return {str(view.notes[name, last]["digest"]) for view in federation.views}


@pytest.fixture(scope="module")
def finished(lasting: Make) -> Any:
    """Four that have closed all their rounds, three."""
    four = lasting(rounds=3)
    four.start()
    four.wait_rounds(3)
    return four


def test_g1_rounds_close_and_all_hosts_hold_the_same_bits(finished: Any) -> None:
    assert len(digests(finished)) == 1
    for institution in finished.institutions:
        report = verify_ledger(institution.home)
        states, others = verify_home_states(institution.home, report)
        assert {s.component for s in states} == {"head/task0"}
        assert not others


@pytest.mark.soak  # test_crash_points.py has the short form
def test_g8_kill_9_at_random_moments_loses_and_doubles_nothing(federation: Make) -> None:
    four = federation(rounds=12, deadline_ms=2000)
    four.start()
    chance = random.Random(5)
    signed: dict[tuple[bytes, int], bytes] = {}
    four.wait_rounds(1)
    for _ in range(5):
        victim = chance.randrange(4)
        time.sleep(chance.uniform(0.0, 0.6))
        four.daemons[victim].kill()
        stored = snapshot(four.institutions[victim])
        for record in (*[r for b in stored.blocks for r in b.records], *stored.records):
            key = (record.value.author, record.value.seq)
            assert signed.setdefault(key, record.digest) == record.digest, f"two records {key[1]}"
        four.daemons[victim].start()
    four.wait_rounds(12)
    for institution in four.institutions:
        stored = snapshot(institution)
        seen = {
            (r.value.author, r.value.seq): r.digest
            for r in (*[r for b in stored.blocks for r in b.records], *stored.records)
        }
        for key, digest in signed.items():
            assert seen.get(key, digest) == digest, "a record changed after a crash"
    assert len(digests(four)) == 1


def test_g7_a_withdrawal_is_verified_from_another_ledger_and_its_bytes_are_gone(finished: Any) -> None:
    """First a single update, then all, then everybody's by a rewind: each is looked for in every byte of every disk."""
    four = finished
    leaver = four.institutions[2]
    author = leaver.identity.public_key
    before = fold_ledger(four.institutions[0], four.charter).components["head/task0"]
    entries = [e for r in before.rounds for e in r.entries if e.author == author]
    others = [e for r in before.rounds for e in r.entries if e.author != author]
    assert len(entries) == 3
    bytes_of = {e.blob: _blob(four, e.blob) for e in (*entries, *others)}
    spec = four.charter.components[0]
    states = [path.read_bytes()[24:-32] for i in four.institutions for path in i.home.states.rglob("*.state")]
    assert states

    def left(*gone: Entry) -> list[str]:
        frames = [bytes_of[e.blob] for e in gone]
        return _found(four, [*frames, *(payload_values(frame, spec).tobytes() for frame in frames)])

    assert left(entries[1]), "the search finds what is there"
    Client(leaver.home).request_withdrawal({"updates": [entries[1].update.hex()]})
    four.wait(lambda: not left(entries[1]))
    for kept in (entries[0], entries[2]):
        assert len(left(kept)) == 4, "the others are still in force, and at every host"
    Client(leaver.home).request_withdrawal()
    four.wait(lambda: not left(*entries))
    # States that held it, from the first round that counted it on; none of these was without it.
    assert not _found(four, states)
    proposer, *voters = (i for i in four.institutions if i is not leaver)
    Client(proposer.home).propose_withdrawal(voters[0].name, "rewind", {})
    four.wait(lambda: bool(Client(voters[0].home).motions()["open"]))
    (motion,) = Client(voters[0].home).motions()["open"]
    for voter in voters:
        Client(voter.home).vote(motion["motion"], yes=True)
    four.wait(lambda: not left(*others))
    four.wait(lambda: all(_certified(fold_ledger(i, four.charter)) for i in four.institutions))
    for institution in four.institutions:
        assert verify_home_withdrawal(institution.home, author)["verified"] is True
        report = verify_home_withdrawal(institution.home, voters[0].identity.public_key)
        assert (report["verified"], report["mode"]) == (True, "rewind")


def _certified(ledger: Ledger) -> bool:
    c = ledger.components["head/task0"]
    return c.certified is not None and c.certified.generation == c.generation


def _blob(four: Any, blob: bytes) -> bytes:
    path: Path = next(path for i in four.institutions for path in i.home.blobs.rglob(blob.hex()))
    return path.read_bytes()


def _found(four: Any, needles: list[bytes]) -> list[str]:
    """Return the files of all homes that hold any of these bytes, the database's free pages and log included."""
    where = []
    for institution in four.institutions:
        for path in institution.home.root.rglob("*"):
            try:
                data = path.read_bytes() if path.is_file() else b""
            except FileNotFoundError:
                continue
            if any(needle in data for needle in needles):
                where.append(str(path))
    return where


def test_the_control_socket_is_private_and_stop_leaves_nothing(federation: Make) -> None:
    one = federation(count=1, rounds=0)
    one.start()
    home = one.institutions[0].home
    one.wait(lambda: Client(home).answers())
    assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
    status = Client(home).status()
    assert status
    Client(home).stop()
    process = one.daemons[0].process
    assert process is not None
    assert process.wait(LIMIT) == 0
    assert not home.socket.exists()
    one.daemons[0].process = None


def test_g3_three_of_four_go_on_without_the_fourth_and_say_who_is_missing(federation: Make) -> None:
    """One of the three loses its learner at the same time: it is started again, and the daemon lives."""
    four = federation(rounds=5, deadline_ms=1500)
    four.start()
    four.wait_rounds(1)
    daemon = four.daemons[0].process
    children = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rsplit(") ", 1)[1].split()[1] == str(daemon.pid)
    ]
    assert len(children) == 1
    os.kill(children[0], signal.SIGKILL)
    four.daemons[3].kill()
    four.wait_rounds(5, nodes=[0, 1, 2])
    key = four.institutions[3].identity.public_key
    assert any(key.hex() in note.get("missing", {}) for note in four.views[0].notes.values())
    four.wait(lambda: four.institutions[0].home.log.read_text().count('"learner ready"') == 2)
    four.daemons[3].start()
    four.wait_rounds(5)
    assert len(digests(four)) == 1
