"""G8: a daemon that dies at any write, or is told that one failed, loses nothing signed and signs nothing twice.

The points are those of crashing_daemon.py. One member of four dies life after life while the others go on.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collegium.node.control.client import Client
from collegium.node.core.messages import Kind
from collegium.node.verify import verify_home_ledger, verify_home_withdrawal
from collegium.protocol.blocks import Vote
from collegium.protocol.signing import open_signed
from collegium.protocol.update import UpdateHeader
from collegium.sims.processes.observe import fold_ledger, snapshot

from ...waiting import LIMIT, wait_for

Make = Callable[..., Any]
Word = tuple[object, ...]
HOWS = ("before", "after", "fails")
LAST = 60  # by this point a life has started, caught up, trained, and been through a round


class Victim:
    """The member that dies."""

    def __init__(self, federation: Any, log: Path) -> None:
        self.federation, self.institution, self.log = federation, federation.institutions[3], log
        self.author = self.institution.identity.public_key
        self.signed: dict[Word, bytes] = {}
        self.points: dict[str, set[str]] = {how: set() for how in HOWS}

    def live(self, at: int, how: str, only: str = "") -> str:
        """Live until the point; return its name."""
        self.log.unlink(missing_ok=True)
        environment = os.environ | {
            "CRASH_AT": str(at),
            "CRASH_HOW": how,
            "CRASH_LOG": str(self.log),
            "CRASH_ONLY": only,
        }
        home = self.institution.home
        with home.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("crashing_daemon.py")), "--home", str(home.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        daemon = self.federation.daemons[3]
        daemon.process = process
        try:
            wait_for(
                lambda: self.log.exists() or process.poll() is not None,
                lambda: f"point {at} was not reached: {self.federation.tail()}",
            )
            try:
                code = process.wait(3 if how == "fails" else LIMIT)
            except subprocess.TimeoutExpired:
                assert how == "fails", "it was killed"  # and what failed was something that it can do without
            else:
                assert (code == -9) is (how != "fails"), (at, how, code, self.federation.tail())
        finally:
            daemon.kill()
        name = self.log.read_text()
        self.points[how].add(name)
        return name

    def check(self, where: str) -> None:
        """Nobody holds two different words of anyone under one number; the dead holds all that others have of it."""
        time.sleep(0.2)  # until the others have written down what they heard last
        others = [snapshot(i) for i in self.federation.institutions if i is not self.institution]
        own = snapshot(self.institution)
        mine = {word for word, _ in words(own, self.federation.charter.federation)}
        for copy in (*others, own):
            for word, digest in words(copy, self.federation.charter.federation):
                assert self.signed.setdefault(word, digest) == digest, f"{where}: signed twice: {word}"
                height = word[2] if word[0] == "vote" else None
                decided = isinstance(height, int) and height <= len(own.blocks)
                if word[1] == self.author and not decided:
                    assert word in mine, f"{where}: lost what it signed: {word}"


def words(stored: Any, federation: bytes) -> Iterator[tuple[Word, bytes]]:
    for record in (*[record for block in stored.blocks for record in block.records], *stored.records):
        yield ("record", record.value.author, record.value.seq), record.digest
    for _, data in stored.messages:
        if data[0] == Kind.VOTE:
            vote = open_signed(Vote, data[1:], federation, trusted=True).value
            yield ("vote", vote.author, vote.height, vote.view, vote.step), vote.block
    for header in stored.headers:
        value: UpdateHeader = header.value
        yield ("header", value.author, value.component, value.round, value.generation), header.digest


@pytest.fixture(scope="module")
def four(lasting: Make) -> Any:
    """Four that all live, before each test and after it, and go on and on."""
    these = lasting(rounds=0, deadline_ms=1000)
    these.start()
    these.wait_rounds(1)
    return these


def lives(four: Any, tmp_path: Path, points: list[tuple[int, str, str]]) -> Victim:
    victim = Victim(four, tmp_path / "point")
    four.daemons[3].kill()
    for at, how, only in points:
        name = victim.live(at, how, only)
        victim.check(f"{how} point {at}, {name}")
    four.daemons[3].start()
    four.wait(lambda: counted(four, victim.author))
    victim.check("at the end")
    began = four.last()
    four.wait(lambda: bool(four.folded_by_all(began)))
    for observed in four.folded_by_all(began):
        assert len(set(observed)) == 1, "hosts hold different states"
    for institution in four.institutions:
        verify_home_ledger(institution.home)
    return victim


def counted(four: Any, author: bytes) -> bool:
    """The others closed a round with this member's update lately, and it has folded that round."""
    rounds = [max((r for _, r in view.notes), default=0) for view in four.views]
    note = four.views[0].notes.get(("head/task0", rounds[3]), {})
    return rounds[3] >= rounds[0] - 1 and author.hex() in note.get("counted", []) and "digest" in note


def test_g8_a_sample_of_points(four: Any, tmp_path: Path) -> None:
    # What is stored in a transaction leaves next: if it is not waited for, it left before, and the dead knows nothing.
    points = [(1, "before", "PutPublished"), (1, "before", "PutMessage")]
    points += [(2, "after", "PutMessage"), (1, "fails", "PutHeader")]
    lives(four, tmp_path, points)


def test_g7_who_dies_while_it_erases_has_erased_in_the_end(four: Any, tmp_path: Path) -> None:
    """Between a certificate and the last byte: what is left is erased at the next start."""
    victim, owner = Victim(four, tmp_path / "point"), four.institutions[0]
    author = owner.identity.public_key

    def counted() -> set[str]:
        rounds = fold_ledger(victim.institution, four.charter).components["head/task0"].rounds
        return {e.blob.hex() for r in rounds for e in r.entries if e.author == author}

    def here(blobs: set[str]) -> set[str]:
        return blobs & {path.name for path in victim.institution.home.blobs.rglob("*")}

    four.wait(lambda: len(here(counted())) >= 2)
    four.daemons[3].kill()
    gone = counted()
    assert len(here(gone)) >= 2
    Client(owner.home).request_withdrawal()
    victim.live(1, "before", "os.unlink of a blob")
    assert here(gone), "it was killed before the first went"
    victim.live(1, "after", "os.unlink of a blob")
    victim.check("while it erased")
    four.daemons[3].start()
    four.wait(lambda: not here(gone))
    began = four.last()
    four.wait(lambda: bool(four.folded_by_all(began)))
    assert verify_home_withdrawal(victim.institution.home, author)["verified"] is True


@pytest.mark.soak
@pytest.mark.parametrize("how", HOWS)
def test_g8_every_point_of_a_life(four: Any, tmp_path: Path, how: str) -> None:
    victim = lives(four, tmp_path, [(at, how, "") for at in range(1, LAST)])
    assert victim.points[how] >= {"os.write", "os.fsync", "os.replace", "network.publish"}
    assert any(name.startswith("transaction Put") for name in victim.points[how])
