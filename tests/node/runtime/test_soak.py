"""A federation under kill -9 every few seconds: rounds close throughout, and nothing signed is lost or signed twice.

The long form is ten minutes of seven daemons (`make soak`), the gate's some seconds of four.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

from collegium.consensus.summary import state_digest
from collegium.crypto.hashing import digest
from collegium.node.core.messages import Kind
from collegium.node.store.connection import connect
from collegium.node.verify import verify_home_ledger, verify_home_states
from collegium.protocol.blocks import Vote
from collegium.protocol.signing import SIGNATURE_SIZE, open_signed
from collegium.protocol.update import UpdateHeader
from collegium.sims.processes.federation import Daemon, Institution

from ...waiting import LIMIT

Make = Callable[..., Any]
Word = tuple[object, ...]
LONGEST_GAP = 30.0  # seconds without a closed round: many deadlines, and several daemons that start at once;
# only of the long form: that one has the machine to itself


def words(institution: Institution, federation: bytes) -> Iterator[tuple[Word, bytes]]:
    """What is on an institution's disk of anybody's signed words: records, update headers, votes."""
    with closing(connect(institution.home.database, readonly=True)) as disk:
        for author, seq, row in disk.execute("SELECT author, seq, digest FROM records"):
            yield ("record", author, seq), row
        for author, component, round_, wire in disk.execute("SELECT author, component, round, wire FROM headers"):
            yield ("header", author, component, round_), digest(UpdateHeader.DOMAIN, wire[SIGNATURE_SIZE:])
        for (data,) in disk.execute("SELECT data FROM messages"):
            if data[0] == Kind.VOTE:
                vote = open_signed(Vote, data[1:], federation, trusted=True).value
                yield ("vote", vote.author, vote.height, vote.view, vote.step), vote.block


class Witness:
    """Remembers every signed word that was ever seen on any disk."""

    def __init__(self, federation: Any) -> None:
        self.federation, self.id = federation, federation.charter.federation
        self.signed: dict[Word, bytes] = {}

    def look(self, dead: Institution | None = None) -> None:
        """Nobody signed two words in one place; the dead holds each of its records and headers that another holds."""
        for institution in self.federation.institutions:
            for word, key in words(institution, self.id):
                assert self.signed.setdefault(word, key) == key, f"signed twice: {word}"
        if dead is not None:
            author = dead.identity.public_key
            own = {word for word, _ in words(dead, self.id)}
            lost = {word for word in self.signed if word[1] == author and word[0] != "vote"} - own
            assert not lost, f"{dead.name} lost what it signed: {lost}"


def torment(federation: Any, seconds: float, pause: tuple[float, float], source: random.Random) -> tuple[Witness, int]:
    """Kill a random daemon every few seconds, look at the disks, and start it again; return how often."""
    witness, kills = Witness(federation), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(source.uniform(*pause))
        victim: Daemon = source.choice(federation.daemons)
        assert victim.dead() is None, federation.tail()
        victim.kill()
        kills += 1
        time.sleep(0.2)  # until the others have written down what they heard last
        witness.look(victim.institution)
        victim.start()
    return witness, kills


def rest(federation: Any) -> int:
    """Cut everybody's power, plan two rounds more than there are, and wait until all are level; return the height."""
    federation.look()
    last = max(round_ for view in federation.views for _, round_ in view.notes) + 2
    for daemon in federation.daemons:
        daemon.kill()
        config = daemon.institution.home.config
        config.write_text(config.read_text().replace("\nrounds = 0 ", f"\nrounds = {last} "))
        daemon.start()
    federation.wait_rounds(last)

    def level() -> bool:
        before = {view.height for view in federation.views}
        time.sleep(3)
        return len(before) == 1 and before == {view.height for view in federation.look()}

    federation.wait(level)
    return int(federation.views[0].height)


def longest_gap(federation: Any, until: float) -> float:
    """The longest time from one close to the next, by who saw it first, and from the last one to `until`; seconds."""
    closes: dict[int, float] = {}
    for view in federation.views:
        for (_, round_), note in view.notes.items():
            if "closed_at" in note:
                closes[round_] = min(closes.get(round_, float("inf")), note["closed_at"])
    times = [*(at for _, at in sorted(closes.items()) if at < until), until]
    return max(b - a for a, b in pairwise(times))


@pytest.mark.soak  # test_crash_points.py has the short form
@pytest.mark.parametrize(
    ("count", "seconds", "pause", "longest"),
    [(4, 8.0, (1.0, 3.0), LIMIT), (7, 600.0, (1.5, 6.0), LONGEST_GAP)],
)
def test_g3_g8_rounds_close_under_random_kills(
    federation: Make, count: int, seconds: float, pause: tuple[float, float], longest: float
) -> None:
    these = federation(count, rounds=0, deadline_ms=2000)
    these.start()
    these.wait_rounds(1)
    witness, kills = torment(these, seconds, pause, random.Random(7))
    these.look()
    rounds, gap = max(round_ for view in these.views for _, round_ in view.notes), longest_gap(these, time.time())
    height = rest(these)
    facts = {"kills": kills, "rounds": rounds, "heights": height, "longest gap, s": round(gap, 1)}
    print(json.dumps(facts | {"signed words": len(witness.signed)}))
    assert gap < longest, facts
    assert rounds > seconds / longest
    witness.look()
    ledgers, states = set(), set()
    for institution in these.institutions:
        report = verify_home_ledger(institution.home)
        ledgers.add(state_digest(report.ledger))
        checked, others = verify_home_states(institution.home, report)
        states |= {(state.component, state.round, state.digest) for state in checked}
        assert not others
        assert all(state.stored for state in checked)
    assert len(ledgers) == len(states) == 1
