"""Agreement alone, under a scheduler that Hypothesis drives: order, duplication, delay, loss, lies (G2, G3, G8)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collegium.consensus.agreement import (
    Action,
    Agreement,
    Ask,
    Decided,
    Equivocation,
    Judge,
    Keep,
    Message,
    Say,
    Step,
    Wait,
)
from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.blocks import NIL, PRECOMMIT, PREVOTE, Block, Proposal, Vote, block_id, verify_certificate
from collegium.protocol.signing import Signed, sign

FEDERATION = sha256(b"agreement tests")
HEIGHT = 4  # the first proposer is member HEIGHT mod n
MODELS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def identities(count: int) -> list[Identity]:
    """Sorted by public key, so that index and turn agree."""
    return sorted((Identity.from_seed(sha256(b"%d" % n)) for n in range(count)), key=lambda i: i.public_key)


def block(salt: int) -> Block:
    return Block(FEDERATION, HEIGHT, NIL, (), (), salt, NIL, NIL, NIL)


BAD = 1000  # blocks with a salt from here on are invalid: every honest node judges so


def vote(who: Identity, view: int, step: int, identifier: bytes) -> Signed[Vote]:
    return sign(who, Vote(FEDERATION, who.public_key, HEIGHT, view, step, identifier))


def proposal(who: Identity, view: int, value: Block, valid_view: int = 0) -> Signed[Proposal]:
    return sign(who, Proposal(FEDERATION, who.public_key, HEIGHT, view, valid_view, schema.dump(value)))


@dataclass
class Peer:
    """An honest node: its agreement, what it persisted, what it said, its timers."""

    identity: Identity
    agreement: Agreement
    salt: int
    disk: list[Message] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)
    timers: list[tuple[int, Step]] = field(default_factory=list)
    decided: Decided | None = None
    equivocations: list[Equivocation] = field(default_factory=list)
    late: list[tuple[bytes, bool]] = field(default_factory=list)

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Say):
                for item in (*action.proof, action.message):
                    if item not in self.disk:
                        self.disk.append(item)
                self.said.append(action.message)
            elif isinstance(action, Keep):
                self.disk += [item for item in action.proof if item not in self.disk]
            elif isinstance(action, Ask):
                self.do(self.agreement.propose(action.view, block(self.salt + 100 * action.view)))
            elif isinstance(action, Judge):
                valid = action.block.tree_size < BAD
                self.do(self.agreement.judged(action.identifier, valid))
                self.late.append((action.identifier, valid))
            elif isinstance(action, Wait):
                self.timers.append((action.view, action.step))
            elif isinstance(action, Decided):
                assert self.decided is None
                self.decided = action
            elif isinstance(action, Equivocation):
                self.equivocations.append(action)

    def take(self, message: Message) -> None:
        try:
            self.do(self.agreement.receive(message))
        except RemoteProtocolError:
            assert message.value.author != self.identity.public_key

    def punctual(self) -> None:
        while self.late:
            self.do(self.agreement.timely(self.late.pop()[0]))

    def restart(self, members: list[bytes], model: str, upto: int | None = None) -> None:
        self.agreement = Agreement(self.identity, FEDERATION, HEIGHT, members, model)
        self.timers, self.late = [], []
        self.do(self.agreement.restore(self.disk if upto is None else self.disk[:upto]))


class Net:
    """Honest peers and liars; the network's choices come from outside."""

    def __init__(self, count: int, model: str, liars: int = 0) -> None:
        self.model = model
        self.identities = identities(count)
        self.members = [identity.public_key for identity in self.identities]
        self.liars = self.identities[:liars]
        self.peers = [
            Peer(identity, Agreement(identity, FEDERATION, HEIGHT, self.members, model), salt)
            for salt, identity in enumerate(self.identities)
            if salt >= liars
        ]
        self.cast: dict[tuple[bytes, int, int], bytes] = {}
        self.lies: list[Message] = []

    def words(self) -> list[Message]:
        return [message for peer in self.peers for message in peer.said] + self.lies

    def open(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.decided is None]

    def check(self) -> None:
        """G2: one block; G8: one vote a step; certificates hold."""
        blocks = {peer.decided.block.id for peer in self.peers if peer.decided}
        assert len(blocks) <= 1, "G2: two blocks were decided"
        for peer in self.peers:
            for message in peer.said:
                if isinstance(message.value, Vote):
                    key = (message.value.author, message.value.view, message.value.step)
                    assert self.cast.setdefault(key, message.value.block) == message.value.block, "G8: two votes"
            if peer.decided:
                verify_certificate(peer.decided.block, peer.decided.certificate, frozenset(self.members), self.model)
                assert peer.decided.block.tree_size < BAD

    def finish(self, rounds: int = 60) -> None:
        """G3: from now on everything arrives (retransmission), timers end: everybody decides."""
        for _ in range(rounds):
            for peer in self.open():
                peer.do(peer.agreement.start())
            for _ in range(6):
                sent = [m for p in self.peers for m in p.agreement.messages()] + self.words()
                for peer in self.open():
                    peer.punctual()
                    for message in sent:
                        if peer.decided is None:
                            peer.take(message)
                    if peer.decided is None and any(other.decided for other in self.peers):
                        other = next(p for p in self.peers if p.decided)
                        peer.decided = other.decided  # what anti-entropy does: the block with its certificate
            self.check()
            if all(peer.decided for peer in self.peers):
                return
            for peer in self.open():
                timers, peer.timers = peer.timers, []
                for timer in sorted(timers):
                    peer.do(peer.agreement.timeout(*timer))
        raise AssertionError(f"G3: not decided: {[(p.agreement.view, p.agreement.step) for p in self.peers]}")


def lie(net: Net, draw: Callable[[int], int]) -> None:
    """One lie: a vote for anything, a proposal of anything, also with a false valid view."""
    liar = net.liars[draw(len(net.liars))]
    view = draw(4)
    ids = [block_id(m.value.block) for m in net.words() if isinstance(m.value, Proposal)]
    if draw(3) or not ids:
        choices = [NIL, sha256(b"unknown"), *ids]
        net.lies.append(vote(liar, view, 1 + draw(2), choices[draw(len(choices))]))
        return
    turn = net.members[(HEIGHT + view) % len(net.members)]
    who = next((identity for identity in net.liars if identity.public_key == turn), liar)
    blocks = [
        block(7),
        block(8),
        block(BAD),
        *(schema.load(Block, m.value.block, 1 << 18) for m in net.words() if isinstance(m.value, Proposal)),
    ]
    net.lies.append(proposal(who, view, blocks[draw(len(blocks))], draw(4)))


@pytest.mark.parametrize(
    ("count", "model", "liars"),
    [
        (1, "byzantine", 0),
        (4, "byzantine", 0),
        (4, "byzantine", 1),
        (7, "byzantine", 2),
        (2, "crash", 0),
        (3, "crash", 0),
        (5, "crash", 0),
    ],
)
@MODELS
@given(data=st.data())
def test_no_two_decide_differently_and_all_decide(count: int, model: str, liars: int, data: st.DataObject) -> None:
    """G2, G3, G8 over any schedule, with restarts from disk."""
    net = Net(count, model, liars)

    def draw(n: int) -> int:
        return data.draw(st.integers(0, n - 1)) if n > 1 else 0

    for _ in range(data.draw(st.integers(0, 60))):
        choice = draw(12)
        peer = net.peers[draw(len(net.peers))]
        words = net.words()
        if peer.decided:
            continue
        if choice == 0:
            peer.do(peer.agreement.start())
        elif choice == 1 and peer.timers:
            peer.do(peer.agreement.timeout(*peer.timers.pop(draw(len(peer.timers)))))
        elif choice == 2:
            peer.punctual()
        elif choice == 3:
            peer.restart(net.members, model)
        elif choice in (4, 5) and liars:
            lie(net, draw)
        elif words:
            start = draw(len(words))
            for message in words[start : start + 1 + draw(6)]:
                if peer.decided is None:
                    peer.take(message)
        net.check()
    net.finish()


@MODELS
@given(data=st.data())
def test_a_restart_from_any_persisted_prefix_never_votes_twice(data: st.DataObject) -> None:
    """G8: `Say` persists before it sends, so a prefix of the disk goes with a prefix of what was said."""
    net = Net(4, "byzantine")
    for _ in range(data.draw(st.integers(1, 25))):
        peer = net.peers[data.draw(st.integers(0, 3))]
        words = net.words()
        for message in words[data.draw(st.integers(0, len(words))) :]:
            if peer.decided is None:
                peer.take(message)
        peer.do(peer.agreement.start())
        peer.punctual()
        if data.draw(st.booleans()) and peer.timers:
            peer.do(peer.agreement.timeout(*peer.timers.pop(0)))
    victim = net.peers[data.draw(st.integers(0, 3))]
    if victim.decided is not None:
        return
    keep = data.draw(st.integers(0, len(victim.disk)))
    # What was said after the kept prefix never left the node: it was killed before that write.
    victim.disk = victim.disk[:keep]
    victim.said = [message for message in victim.said if message in victim.disk]
    net.cast.clear()
    if any(peer.decided for peer in net.peers):
        return  # the cluster's tests cover crashes after decisions
    heard = [message for peer in net.peers if peer is not victim for message in peer.agreement.messages()]
    if any(m.value.author == victim.identity.public_key and m not in victim.disk for m in heard):
        return  # others heard it, so it was sent, so it was on disk
    net.check()
    victim.restart(net.members, "byzantine")
    net.check()
    net.finish()


# ---- single scenarios, by hand


def alone(index: int = 1) -> tuple[Net, Peer]:
    """Four members of which only one is real; the test speaks for the others. Member 0 proposes in view 0."""
    net = Net(4, "byzantine")
    peer = net.peers[index]
    peer.do(peer.agreement.start())
    return net, peer


def hear(peer: Peer, *messages: Message) -> None:
    for message in messages:
        peer.do(peer.agreement.receive(message))


def votes_of(peer: Peer) -> list[tuple[int, int, bytes]]:
    return [(m.value.view, m.value.step, m.value.block) for m in peer.said if isinstance(m.value, Vote)]


A, B = block(1), block(2)


def lock_on_a(net: Net, peer: Peer) -> None:
    zero, _, two, _ = net.identities
    hear(peer, proposal(zero, 0, A))
    peer.punctual()
    hear(peer, vote(zero, 0, PREVOTE, A.id), vote(two, 0, PREVOTE, A.id))
    assert votes_of(peer) == [(0, PREVOTE, A.id), (0, PRECOMMIT, A.id)]


def to_view(net: Net, peer: Peer, view: int) -> None:
    for who in (net.identities[0], net.identities[2], net.identities[3]):
        hear(peer, vote(who, view - 1, PRECOMMIT, NIL)) if who.public_key != peer.identity.public_key else None
    peer.do(peer.agreement.timeout(view - 1, Step.PRECOMMIT))
    assert peer.agreement.view == view


def test_locked_members_refuse_another_block() -> None:
    """G2, line 22: view 0 may have decided A by votes that this node did not see."""
    net, peer = alone(3)
    lock_on_a(net, peer)
    to_view(net, peer, 1)
    hear(peer, proposal(net.identities[1], 1, B))
    peer.punctual()
    assert votes_of(peer)[-1] == (1, PREVOTE, NIL)


def test_a_locked_proposer_proposes_its_lock_again() -> None:
    """G2, line 16: with the view in which it was valid."""
    net, peer = alone(1)
    lock_on_a(net, peer)
    to_view(net, peer, 1)
    again = [m.value for m in peer.said if isinstance(m.value, Proposal)]
    assert [(p.view, p.valid_view, block_id(p.block)) for p in again] == [(1, 1, A.id)]


@pytest.mark.parametrize("liar_says", [1, 2, 3])
def test_a_false_valid_view_does_not_unlock(liar_says: int) -> None:
    """G2, line 28: prevotes of the named view decide, not the proposer's word."""
    net, peer = alone(3)
    lock_on_a(net, peer)
    to_view(net, peer, 1)
    hear(peer, proposal(net.identities[1], 1, B, liar_says))
    peer.punctual()
    assert votes_of(peer)[-1][1] == PRECOMMIT, "it waits for the prevotes that the proposer claims"
    peer.do(peer.agreement.timeout(1, Step.PROPOSE))
    assert votes_of(peer)[-1] == (1, PREVOTE, NIL)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_prevotes_than_a_quorum_do_not_unlock(count: int) -> None:
    """G2, line 28: a re-proposal needs a quorum of prevotes in the view that it names; a liar has one or so."""
    net, peer = alone(3)
    lock_on_a(net, peer)
    to_view(net, peer, 1)
    zero, _, two, _ = net.identities
    to_view(net, peer, 2)
    hear(peer, *(vote(who, 1, PREVOTE, B.id) for who in (two, zero)[:count]))
    hear(peer, proposal(two, 2, B, 2))
    peer.punctual()
    assert not [v for v in votes_of(peer) if v[:2] == (2, PREVOTE)], "it waits for the prevotes"
    peer.do(peer.agreement.timeout(2, Step.PROPOSE))
    assert votes_of(peer)[-1] == (2, PREVOTE, NIL)
    assert peer.agreement.locked == (A.id, 0)


def test_a_later_polka_unlocks() -> None:
    """G3, line 28: others changed over to B in view 1, so B may be prevoted in view 2."""
    net, peer = alone(3)
    lock_on_a(net, peer)
    to_view(net, peer, 1)
    zero, one, two, _ = net.identities
    to_view(net, peer, 2)
    hear(peer, *(vote(who, 1, PREVOTE, B.id) for who in (zero, one, two)))
    hear(peer, proposal(two, 2, B, 2))
    peer.punctual()
    assert votes_of(peer)[-1] == (2, PREVOTE, B.id)


def test_an_earlier_polka_does_not_unlock() -> None:
    """G2, line 29: the lock is from view 1, the proof from view 0."""
    net, peer = alone(3)
    zero, one, two, _ = net.identities
    to_view(net, peer, 1)
    hear(peer, proposal(one, 1, A))
    peer.punctual()
    hear(peer, vote(zero, 1, PREVOTE, A.id), vote(one, 1, PREVOTE, A.id))
    assert peer.agreement.locked == (A.id, 1)
    to_view(net, peer, 2)
    hear(peer, *(vote(who, 0, PREVOTE, B.id) for who in (zero, one, two)), proposal(two, 2, B, 1))
    peer.punctual()
    assert votes_of(peer)[-1] == (2, PREVOTE, NIL)


def test_only_the_first_prevote_waits_for_the_clock() -> None:
    """timely gates line 22 alone: a re-proposal with its prevotes is prevoted at once."""
    net, peer = alone(3)
    hear(peer, proposal(net.identities[0], 0, A))
    assert votes_of(peer) == [], "untimely: wait"
    peer.do(peer.agreement.timeout(0, Step.PROPOSE))
    assert votes_of(peer) == [(0, PREVOTE, NIL)]
    zero, one, two, _ = net.identities
    hear(peer, *(vote(who, 0, PREVOTE, A.id) for who in (zero, one, two)))
    to_view(net, peer, 1)
    hear(peer, proposal(one, 1, A, 1))
    assert votes_of(peer)[-1] == (1, PREVOTE, A.id)


def test_an_invalid_block_is_never_prevoted_or_decided() -> None:
    net, peer = alone(3)
    bad = block(BAD)
    hear(peer, proposal(net.identities[0], 0, bad))
    peer.punctual()
    assert votes_of(peer) == [(0, PREVOTE, NIL)]
    for step in (PREVOTE, PRECOMMIT):
        hear(peer, *(vote(who, 0, step, bad.id) for who in net.identities[:3]))
    assert peer.decided is None


def test_one_starter_starts_nobody() -> None:
    """design.md section 7: ⌊(n-1)/3⌋+1 others must have started."""
    net = Net(4, "byzantine")
    peer = net.peers[3]
    hear(peer, vote(net.identities[0], 0, PREVOTE, NIL))
    assert not peer.agreement.started
    hear(peer, vote(net.identities[1], 0, PREVOTE, NIL))
    assert peer.agreement.started


def test_one_liar_cannot_drag_the_view_up() -> None:
    """Line 55."""
    net, peer = alone(3)
    hear(peer, vote(net.identities[0], 14, PREVOTE, NIL))
    assert peer.agreement.view == 0
    hear(peer, vote(net.identities[1], 9, PREVOTE, NIL))
    assert peer.agreement.view == 9


def test_equivocation_is_reported_once_and_both_votes_count() -> None:
    """G3: a quorum that somebody saw with the liar's other vote is seen here too; G9: one proof a member."""
    net, peer = alone(3)
    zero, one, *_ = net.identities
    hear(peer, proposal(zero, 0, A), vote(zero, 0, PREVOTE, NIL), vote(zero, 0, PREVOTE, A.id))
    for salt in range(50):
        hear(peer, vote(zero, 0, PREVOTE, sha256(b"%d" % salt)), vote(zero, 0, PREVOTE, A.id))
    assert len(peer.equivocations) == 1
    assert {peer.equivocations[0].a.value.block, peer.equivocations[0].b.value.block} == {NIL, A.id}
    assert len(peer.agreement.seen) <= 4, "G9: made-up votes fill the memory"
    peer.punctual()
    hear(peer, vote(one, 0, PREVOTE, A.id))
    assert votes_of(peer)[-1] == (0, PRECOMMIT, A.id)


def test_who_votes_twice_counts_once_towards_a_timer() -> None:
    """Lines 34 and 47: three votes of two members are no quorum of four, though each vote counts for its block."""
    net, peer = alone(3)
    zero, one, two, _ = net.identities
    hear(peer, proposal(zero, 0, A))
    peer.do(peer.agreement.timeout(0, Step.PROPOSE))  # it prevotes nothing itself
    hear(peer, vote(zero, 0, PREVOTE, NIL), vote(zero, 0, PREVOTE, A.id))
    assert peer.timers == [(0, Step.PROPOSE)], "two members prevoted"
    hear(peer, vote(one, 0, PREVOTE, A.id))
    assert peer.timers == [(0, Step.PROPOSE), (0, Step.PREVOTE)], "three"
    hear(peer, *(vote(who, 0, PRECOMMIT, block) for who in (zero, one) for block in (NIL, A.id)))
    assert peer.timers == [(0, Step.PROPOSE), (0, Step.PREVOTE)], "two members precommitted, twice each"
    hear(peer, vote(two, 0, PRECOMMIT, NIL))
    assert peer.timers == [(0, Step.PROPOSE), (0, Step.PREVOTE), (0, Step.PRECOMMIT)]


def test_a_stranger_to_the_turn_proposes_nothing() -> None:
    net, peer = alone(3)
    with pytest.raises(RemoteProtocolError, match="not-the-proposer"):
        peer.agreement.receive(proposal(net.identities[2], 0, A))


def test_the_lock_survives_a_restart() -> None:
    """G8: the precommit and its proof are on disk."""
    net, peer = alone(3)
    lock_on_a(net, peer)
    peer.restart(net.members, "byzantine")
    assert peer.agreement.locked == (A.id, 0)
    assert peer.agreement.valid == (A.id, 0)
    to_view(net, peer, 1)
    hear(peer, proposal(net.identities[1], 1, B))
    peer.punctual()
    assert votes_of(peer)[-1] == (1, PREVOTE, NIL)


def test_an_own_vote_that_comes_back_is_not_cast_again() -> None:
    """G8: even before anybody tells this node to be silent."""
    net = Net(4, "byzantine")
    peer = net.peers[3]
    hear(peer, vote(peer.identity, 0, PREVOTE, NIL))
    peer.do(peer.agreement.start())
    hear(peer, proposal(net.identities[0], 0, A))
    peer.punctual()
    assert votes_of(peer) == []


def test_a_mute_node_signs_nothing_but_decides() -> None:
    """G8: a restored backup listens."""
    net, peer = alone(3)
    peer.do(peer.agreement.fall_silent())
    hear(peer, proposal(net.identities[0], 0, A))
    peer.punctual()
    for step in (PREVOTE, PRECOMMIT):
        hear(peer, *(vote(who, 0, step, A.id) for who in net.identities[:3]))
    assert votes_of(peer) == []
    assert peer.decided is not None
    assert peer.decided.block == A


def test_a_peer_tells_a_member_its_last_votes_whatever_the_view() -> None:
    """G8: a restored backup must learn that it voted in a view that everybody has left."""
    net, peer = alone(3)
    lost = vote(net.identities[0], 0, PREVOTE, A.id)
    hear(peer, lost)
    for who in net.identities[1:3]:
        hear(peer, vote(who, 5, PREVOTE, NIL))
    assert peer.agreement.view == 5
    assert lost in peer.agreement.messages()


def test_a_restart_goes_on_at_the_step_that_the_votes_on_disk_say() -> None:
    """G3, G8: nobody else's timer ends the step of a node that had prevoted."""
    net, peer = alone(3)
    peer.do(peer.agreement.timeout(0, Step.PROPOSE))
    assert votes_of(peer) == [(0, PREVOTE, NIL)]
    peer.restart(net.members, "byzantine")
    assert peer.agreement.step is Step.PREVOTE
    assert peer.timers == [(0, Step.PREVOTE)]
    peer.do(peer.agreement.timeout(*peer.timers.pop()))
    assert votes_of(peer) == [(0, PREVOTE, NIL), (0, PRECOMMIT, NIL)]


def test_a_valid_block_that_is_not_locked_survives_a_restart_and_is_proposed_again() -> None:
    """G3, line 36: the prevotes came after its precommit for nothing, and it went on; others may be locked on it."""
    net, peer = alone(2)
    zero, one, _, three = net.identities
    for step in (Step.PROPOSE, Step.PREVOTE):
        peer.do(peer.agreement.timeout(0, step))
    hear(peer, proposal(zero, 0, A), *(vote(who, 0, PREVOTE, A.id) for who in (zero, one, three)))
    assert (peer.agreement.locked, peer.agreement.valid) == (None, (A.id, 0))
    to_view(net, peer, 1)
    peer.do(peer.agreement.timeout(1, Step.PROPOSE))
    peer.restart(net.members, "byzantine")
    assert (peer.agreement.view, peer.agreement.locked, peer.agreement.valid) == (1, None, (A.id, 0))
    to_view(net, peer, 2)
    again = [m.value for m in peer.said if isinstance(m.value, Proposal)]
    assert [(p.view, p.valid_view, block_id(p.block)) for p in again] == [(2, 1, A.id)]
