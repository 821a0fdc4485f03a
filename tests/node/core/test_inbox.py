"""What a neighbour's word costs (G3, G9): signatures are checked of news only, an answer is taken piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from collegium.crypto import identity
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.core import inbox
from collegium.node.core.catchup import sync_request
from collegium.node.core.core import handle, load_node, start_node
from collegium.node.core.inbox import MAX_IDLE, MAX_REFUSED, PIECE
from collegium.node.core.messages import SYNC_LIMIT, Kind, SyncRequest, SyncResponse, message
from collegium.node.core.state import NodeState
from collegium.node.core.sync import answer
from collegium.node.core.timers import NextPiece, SyncDue
from collegium.protocol import schema, signing
from collegium.protocol.blocks import NIL, PREVOTE, Vote
from collegium.protocol.records import Record
from collegium.protocol.signing import sign
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

MANY = 20_000
STRANGER = Identity.from_seed(sha256(b"a stranger"))
NEXT = ev.TimerFired(NextPiece())


@pytest.fixture(scope="module")
def grown() -> Cluster:
    cluster = Cluster(4, 1, Invariants, rounds=3)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    cluster.run(lambda: False, cluster.now + 20_000)
    return cluster


@pytest.fixture
def core(grown: Cluster) -> NodeState:
    """A core that remembers what the first node has on its disk."""
    node = grown.nodes[0]
    assert node.core is not None
    made = load_node(grown.charter, node.identity, node.core.options, node.store.snapshot())
    start_node(made, 0)
    return made


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The keys whose signatures were checked, in order."""
    checked: list[bytes] = []

    def verify(key: bytes, *rest: bytes) -> bool:
        checked.append(key)
        return identity.verify(key, *rest)  # type: ignore[arg-type]  # domain, message, signature

    monkeypatch.setattr(signing, "verify", verify)
    signing._opened.cache_clear()
    yield checked
    signing._opened.cache_clear()


def tell(core: NodeState, peer: Node, records: Sequence[bytes] = (), messages: Sequence[bytes] = ()) -> int:
    """Give the core an answer, and the turns that it asks for; how many there were."""
    value = SyncResponse(core.federation, core.ledger.height, (), tuple(records), tuple(messages), 0)
    data = schema.dump(value)
    assert len(data) <= SYNC_LIMIT
    effects = handle(core, [ev.SyncReply(peer.identity.public_key, data)], 1_000_000)
    turns = 1
    while any(isinstance(effect, ev.SetTimer) and effect.timer == NextPiece() for effect in effects):
        effects = handle(core, [NEXT], 1_000_000)
        turns += 1
    return turns


def forged(federation: bytes, author: bytes, seq: int, number: int) -> bytes:
    """A record that nobody signed."""
    return bytes(64) + schema.dump(Record(federation, author, seq, sha256(b"before"), "offer", b"%d" % number))


def useless(core: NodeState, grown: Cluster) -> dict[str, tuple[list[bytes], list[bytes]]]:
    """Answers that bring nothing, by why."""
    member, fed, height = grown.nodes[1].identity, core.federation, core.ledger.height
    votes = [Vote(fed, member.public_key, height + 1000 + n, 0, PREVOTE, NIL) for n in range(500)]
    old = [Vote(fed, member.public_key, height, n, PREVOTE, NIL) for n in range(500)]
    strangers = [Vote(fed, STRANGER.public_key, height + 1, n, PREVOTE, NIL) for n in range(500)]
    return {
        "agreed on long ago": ([forged(fed, member.public_key, 1, n) for n in range(MANY)], []),
        "far ahead": ([forged(fed, member.public_key, 10**6 + n, n) for n in range(MANY)], []),
        "of strangers": ([forged(fed, STRANGER.public_key, n + 1, n) for n in range(MANY)], []),
        "not signed": ([forged(fed, member.public_key, 60, n) for n in range(MANY)], []),
        "nonsense": ([sha256(b"%d" % n) * 3 for n in range(MANY)], []),
        "votes out of reach": ([], [message(Kind.VOTE, sign(member, vote).wire) for vote in [*votes, *old]]),
        "votes of strangers": ([], [message(Kind.VOTE, sign(STRANGER, vote).wire) for vote in strangers]),
    }


@pytest.mark.parametrize(
    "why",
    [
        "agreed on long ago",
        "far ahead",
        "of strangers",
        "not signed",
        "nonsense",
        "votes out of reach",
        "votes of strangers",
    ],
)
def test_g9_a_useless_answer_costs_few_signatures_and_is_given_up(
    core: NodeState, grown: Cluster, checks: list[bytes], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    is_news = inbox.is_news

    def count(*args: object) -> bool:
        nonlocal looked_at
        looked_at += 1
        return is_news(*args)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(inbox, "is_news", count)
    records, messages = useless(core, grown)[why]
    before = len(core.pool.records)
    tell(core, grown.nodes[1], records, messages)
    assert len(checks) <= MAX_REFUSED + 1
    assert looked_at <= MAX_IDLE + MAX_REFUSED + 2
    assert len(core.pool.records) == before
    if why == "not signed":
        assert checks, "of what would be news, the signature is checked"
    if records:
        liar = grown.nodes[1].identity.public_key
        assert core.refusals[liar, "useless-answer"] == 1
        assert liar not in core.reports, "it has not told what it knows of this node (G8)"


def test_nobody_is_blamed_for_what_only_claims_to_be_theirs(core: NodeState, grown: Cluster) -> None:
    liar, other = grown.nodes[1].identity.public_key, grown.nodes[2].identity.public_key
    tell(core, grown.nodes[1], [forged(core.federation, STRANGER.public_key, 1, 1)])
    tell(core, grown.nodes[1], [forged(core.federation, other, core.ledger.heads[other][0] + 1, 1)])
    assert {key for key, _ in core.refusals} == {liar}
    assert {reason for _, reason in core.refusals} == {"not-a-member", "bad-signature"}


def test_g9_votes_of_a_convicted_liar_that_change_nothing_are_not_checked(
    core: NodeState, grown: Cluster, checks: list[bytes]
) -> None:
    """A member signs as many votes for one step as it likes: two prove the lie, the others cost nothing."""
    for node in grown.nodes[1:]:
        tell(core, node)
    assert core.signing
    liar, height = grown.nodes[1].identity, core.ledger.height + 1
    votes = [Vote(core.federation, liar.public_key, height, 0, PREVOTE, sha256(b"%d" % n)) for n in range(300)]
    checks.clear()
    tell(core, grown.nodes[2], messages=[message(Kind.VOTE, sign(liar, vote).wire) for vote in votes])
    assert len(checks) <= 4


def test_other_events_have_their_turn_between_the_pieces_of_an_answer(core: NodeState, grown: Cluster) -> None:
    member = grown.nodes[1].identity.public_key
    records = [forged(core.federation, member, 1, n) for n in range(MAX_IDLE - 1)]
    value = SyncResponse(core.federation, core.ledger.height, (), tuple(records), (), 0)
    handle(core, [ev.SyncReply(member, schema.dump(value))], 1_000_000)
    assert member in core.answers
    assert member not in core.reports
    handle(core, [ev.Readdressed(("/ip4/192.0.2.1/tcp/4001",))], 1_000_000)
    assert core.options.addresses == ("/ip4/192.0.2.1/tcp/4001",)
    effects = handle(core, [ev.TimerFired(SyncDue())], 1_000_001)
    assert all(effect.peer != member for effect in effects if isinstance(effect, ev.Sync)), "its answer is being taken"
    turns = 0
    while member in core.answers:
        handle(core, [NEXT], 1_000_002)
        turns += 1
    assert turns >= MAX_IDLE // PIECE - 1
    assert member in core.reports, "at its end"


def test_g8_an_answer_in_pieces_brings_back_what_a_lost_disk_had(grown: Cluster) -> None:
    """More records than fit into one piece: they come whole, and nothing is signed before."""
    node, other = grown.nodes[0], grown.nodes[1]
    assert node.core is not None
    cluster = grown
    made = load_node(cluster.charter, node.identity, node.core.options, ev.Snapshot())
    start_node(made, 0)
    for peer in grown.nodes[1:]:
        for _ in range(50):
            request = schema.load(SyncRequest, sync_request(made), SyncRequest.LIMIT)
            data = answer(request, cluster.charter.federation, peer.store, made.ledger.members, ())
            effects = handle(made, [ev.SyncReply(peer.identity.public_key, data)], 1_000_000)
            while any(effect == ev.SetTimer(NextPiece(), 0) for effect in effects):
                assert not made.signing
                effects = handle(made, [NEXT], 1_000_000)
            if peer.identity.public_key in made.reports:
                break
    assert made.signing
    assert made.ledger == replace(node.core.ledger, refusals=made.ledger.refusals)
    assert made.head == node.core.head
    assert other.core is not None
