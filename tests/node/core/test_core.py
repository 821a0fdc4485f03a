"""The core alone: hostile events, bytes, backups and clocks that the cluster meets too seldom (G3, G8, G9)."""

from dataclasses import replace

import pytest

from collegium.consensus import withdrawal
from collegium.crypto.hashing import sha256
from collegium.node.core import catchup
from collegium.node.core import events as ev
from collegium.node.core.catchup import in_flight_messages, sync_request
from collegium.node.core.core import handle, load_node, start_node
from collegium.node.core.messages import SYNC_LIMIT, Kind, SyncResponse, message
from collegium.node.core.state import NodeState, Options
from collegium.node.core.sync import answer
from collegium.node.core.timers import PullDue, SyncDue, TrainDue
from collegium.protocol import schema
from collegium.protocol.blocks import NIL, PREVOTE, Block, Proposal, Vote
from collegium.protocol.claims import NO_EPSILON, Claim
from collegium.protocol.records import GENESIS, Offer, Record, WithdrawalStatement
from collegium.protocol.signing import Signed, sign
from collegium.protocol.update import Engaged, UpdateHeader
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

T = "head/task0"


def grown(rounds: int = 2, count: int = 4, **more: object) -> Cluster:
    """A cluster that has closed some rounds and come to rest."""
    cluster = Cluster(count, 1, Invariants, rounds=rounds, **more)  # type: ignore[arg-type]  # passed through by name
    cluster.start()
    cluster.run(lambda: cluster.all_closed(rounds))
    cluster.run(lambda: False, cluster.now + 20_000)
    return cluster


def core_of(node: Node) -> NodeState:
    assert node.core is not None
    return node.core


def key(node: Node) -> bytes:
    return node.identity.public_key


def header(cluster: Cluster, author: Node, round_: int, blob: bytes, **more: object) -> Signed[UpdateHeader]:
    base = core_of(cluster.nodes[0]).folded[T][3]
    value = UpdateHeader(
        federation=cluster.charter.federation,
        author=key(author),
        component=T,
        round=round_,
        generation=0,
        base=base,
        blob=blob,
        size=130,
        steps=4,
        sample_rate=100_000,
        lot=1000,
        engaged=(Engaged(T, base, 0, 1_000_000, 1_000_000),),
        claims=(Claim("made-up", (), NO_EPSILON, 0),),
    )
    return sign(author.identity, replace(value, **more))  # type: ignore[arg-type]  # passed through by name


def say(core: NodeState, peer: Node, kind: Kind, wire: bytes) -> list[ev.Effect]:
    return handle(core, [ev.Gossip(key(peer), message(kind, wire))], 1_000_000)


def pulls(effects: list[ev.Effect]) -> list[tuple[bytes, bytes | None]]:
    return [(e.blob, e.header.author if e.header else None) for e in effects if isinstance(e, ev.Pull)]


def acks(effects: list[ev.Effect]) -> int:
    return sum(isinstance(e, ev.Publish) and e.data[0] == Kind.ACK for e in effects)


# ---- copied bytes


def test_an_answer_counts_for_the_header_that_was_checked() -> None:
    """G5: a liar's header that names an honest member's bytes is not acknowledged on their check."""
    cluster = grown()
    core, honest, liar = core_of(cluster.nodes[0]), cluster.nodes[1], cluster.nodes[2]
    blob = sha256(b"bytes")
    good, copied = header(cluster, honest, 3, blob), header(cluster, liar, 3, blob)
    assert pulls(say(core, honest, Kind.HEADER, good.wire)) == [(blob, key(honest))]
    assert pulls(say(core, liar, Kind.HEADER, copied.wire)) == [], "one pull at a time for equal bytes"
    effects = handle(core, [ev.BlobStored(blob)], 1_000_000)
    assert acks(effects) == 1
    assert core.acked[key(honest), T, 3] == good.digest
    assert (key(liar), T, 3) not in core.acked
    (again,) = pulls(effects)
    assert again == (blob, key(liar)), "its own check follows"
    handle(core, [ev.BlobRefused(blob, "copied-payload")], 1_000_000)
    assert (key(liar), T, 3) not in core.acked
    assert core.in_flight[good.digest].refused == ""


def test_a_liars_refusal_does_not_censor_the_owner() -> None:
    """G3: the copy came first and was refused; the owner's update is checked for itself."""
    cluster = grown()
    core, honest, liar = core_of(cluster.nodes[0]), cluster.nodes[1], cluster.nodes[2]
    blob = sha256(b"bytes")
    good, copied = header(cluster, honest, 3, blob), header(cluster, liar, 3, blob)
    say(core, liar, Kind.HEADER, copied.wire)
    say(core, honest, Kind.HEADER, good.wire)
    effects = handle(core, [ev.BlobRefused(blob, "copied-payload")], 1_000_000)
    assert pulls(effects) == [(blob, key(honest))]
    assert acks(handle(core, [ev.BlobStored(blob)], 1_000_000)) == 1
    assert core.acked[key(honest), T, 3] == good.digest


def test_bytes_that_are_known_to_be_anothers_are_refused_at_once() -> None:
    cluster = grown()
    core, liar = core_of(cluster.nodes[0]), cluster.nodes[2]
    counted = core.ledger.components[T].rounds[0].entries
    theirs = next(entry for entry in counted if entry.author != key(liar))
    assert pulls(say(core, liar, Kind.HEADER, header(cluster, liar, 3, theirs.blob).wire)) == []
    assert core.refusals[key(liar), "copied-payload"] == 1


def test_wrong_bytes_from_a_source_do_not_condemn_the_author() -> None:
    cluster = grown()
    core, honest = core_of(cluster.nodes[0]), cluster.nodes[1]
    blob = sha256(b"bytes")
    say(core, honest, Kind.HEADER, header(cluster, honest, 3, blob).wire)
    effects = handle(core, [ev.BlobRefused(blob, "blob-digest")], 1_000_000)
    assert ev.SetTimer(PullDue(), 2000) in effects
    assert pulls(handle(core, [ev.TimerFired(PullDue())], 1_002_000)) == [(blob, key(honest))]


@pytest.mark.parametrize("scope", ["all", "updates"])
def test_g7_bytes_of_a_withdrawn_update_are_not_fetched(scope: str) -> None:
    """Whoever sends its header again: no round can count it."""
    cluster = grown()
    core, owner, other = core_of(cluster.nodes[0]), cluster.nodes[1], cluster.nodes[2]
    mine, foreign = header(cluster, owner, 3, sha256(b"owner")), header(cluster, other, 3, sha256(b"other"))
    updates = (mine.digest,) if scope == "updates" else ()
    terms = WithdrawalStatement(cluster.charter.federation, key(owner), scope, "refold", 2**30, updates=updates)
    gone = withdrawal.placed(core.charter, core.ledger, terms, core.ledger.height, key(owner))
    core.ledger = replace(core.ledger, withdrawn=(gone,))
    assert pulls(say(core, cluster.nodes[3], Kind.HEADER, mine.wire)) == []
    assert pulls(say(core, cluster.nodes[3], Kind.HEADER, foreign.wire)) == [(sha256(b"other"), key(other))]


def test_unavailable_bytes_are_asked_for_again() -> None:
    """G3: the flag of the first attempt does not stay."""
    cluster = grown()
    core, honest = core_of(cluster.nodes[0]), cluster.nodes[1]
    blob = sha256(b"bytes")
    say(core, honest, Kind.HEADER, header(cluster, honest, 3, blob).wire)
    for attempt in range(3):
        handle(core, [ev.BlobRefused(blob, "unavailable")], 1_000_000 + 2000 * attempt)
        assert pulls(handle(core, [ev.TimerFired(PullDue())], 1_002_000)) == [(blob, key(honest))]


def test_a_second_header_for_a_place_is_not_acknowledged() -> None:
    """G5, design.md section 7: one for each (author, component, round), also after a restart."""
    cluster = grown()
    node, liar = cluster.nodes[0], cluster.nodes[2]
    first, second = sha256(b"first"), sha256(b"second")
    say(core_of(node), liar, Kind.HEADER, header(cluster, liar, 3, first).wire)
    effects = handle(core_of(node), [ev.BlobStored(first)], 1_000_000)
    node.store.apply([e.put for e in effects if isinstance(e, ev.Persist)])
    for core in (core_of(node), load_node(cluster.charter, node.identity, node.options, node.store.snapshot())):
        assert pulls(say(core, liar, Kind.HEADER, header(cluster, liar, 3, second).wire)) == []
        assert core.refusals[key(liar), "second-header"] == 1


def test_two_headers_for_a_place_are_fetched_and_no_third() -> None:
    """G9: an author's headers before its bytes are here cost no more than two pulls a place."""
    cluster = grown()
    core, liar = core_of(cluster.nodes[0]), cluster.nodes[2]
    for number in range(4):
        say(core, liar, Kind.HEADER, header(cluster, liar, 3, sha256(b"%d" % number)).wire)
        assert core.refusals.get((key(liar), "second-header"), 0) == max(0, number - 1)
    assert len(core.in_flight.at((key(liar), T, 3))) == 2


# ---- folds


def test_a_fold_that_lacks_bytes_asks_once_and_goes_on_when_it_has_all() -> None:
    """A joiner lacks thousands of blobs: one fold, one pull each, not one fold for each blob."""
    cluster = grown(rounds=3)
    node = cluster.nodes[0]
    core = load_node(cluster.charter, node.identity, node.options, node.store.snapshot())
    (fold,) = [e for e in start_node(core, 0) if isinstance(e, ev.Fold)]
    blobs = [entry.blob for round_ in fold.rounds for entry in round_.entries]
    effects = handle(core, [ev.FoldMissing(T, tuple(blobs))], 1)
    assert sorted(blob for blob, _ in pulls(effects)) == sorted(blobs)
    assert pulls(handle(core, [ev.FoldMissing(T, tuple(blobs))], 2)) == [], "they are on their way"
    for blob in blobs[:-1]:
        effects = handle(core, [ev.BlobStored(blob)], 3)
        assert not [e for e in effects if isinstance(e, ev.Fold | ev.Pull)]
    effects = handle(core, [ev.BlobStored(blobs[-1])], 4)
    assert [e.component for e in effects if isinstance(e, ev.Fold)] == [T]


# ---- other members' nonsense


def test_malformed_bodies_in_the_pool_do_not_stop_a_node() -> None:
    """G9: a member's nonsense of every kind, while the first hosts are still gathering."""
    cluster = Cluster(4, 1, Invariants, rounds=2, deadline=1000)
    for node in cluster.nodes[:3]:
        node.start()
    liar, prev, wires = cluster.nodes[3].identity, GENESIS, []
    for seq, kind in enumerate(("offer", "update", "attest", "evidence", "withdrawal"), 1):
        record = sign(liar, Record(cluster.charter.federation, liar.public_key, seq, prev, kind, b"\xc1nonsense"))
        prev = record.digest
        wires.append(record.wire)
    for node in cluster.nodes[:3]:
        for wire in wires:
            node.deliver(ev.Gossip(liar.public_key, message(Kind.RECORD, wire)))
    assert cluster.run(lambda: all(core_of(n).folded.get(T, (0,))[0] >= 2 for n in cluster.nodes[:3]))


def test_votes_for_later_heights_are_bounded_by_author() -> None:
    """G9: one member cannot fill the memory, nor crowd out the others."""
    cluster = grown()
    core, liar, honest = core_of(cluster.nodes[0]), cluster.nodes[1], cluster.nodes[2]
    height = core.ledger.height + 2
    for salt in range(300):
        lie = Vote(cluster.charter.federation, key(liar), height, 0, PREVOTE, sha256(b"%d" % salt))
        say(core, liar, Kind.VOTE, sign(liar.identity, lie).wire)
        block = schema.dump(Block(cluster.charter.federation, height, NIL, (), (), salt, NIL, NIL, NIL))
        proposal = Proposal(cluster.charter.federation, key(liar), height, 0, 0, block)
        say(core, liar, Kind.PROPOSAL, sign(liar.identity, proposal).wire)
    vote = Vote(cluster.charter.federation, key(honest), height, 0, PREVOTE, NIL)
    say(core, honest, Kind.VOTE, sign(honest.identity, vote).wire)
    waiting = core.later[height]
    assert len(waiting) <= 50
    assert key(honest) in {item.value.author for item in waiting}


def test_an_answer_that_leads_nowhere_is_not_followed() -> None:
    """G9: `more` for ever."""
    cluster = grown()
    core, liar = core_of(cluster.nodes[0]), cluster.nodes[1]
    endless = schema.dump(SyncResponse(cluster.charter.federation, 99, (), (), (), 1))
    effects = handle(core, [ev.SyncReply(key(liar), endless)], 1_000_000)
    assert not [e for e in effects if isinstance(e, ev.Sync)]


def test_a_request_says_no_more_than_its_schema_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """G9: many hosts, many acknowledgements in flight."""
    core = core_of(grown().nodes[0])
    monkeypatch.setattr(catchup, "in_flight_messages", lambda _: [b"%d" % n for n in range(20_000)])
    assert len(sync_request(core)) < 192 << 10


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff" * 40, bytes([Kind.VOTE]), bytes([Kind.ACK]) + b"\x80"], ids=repr
)
def test_nonsense_is_refused_by_name(data: bytes) -> None:
    cluster = grown(rounds=1)
    core = core_of(cluster.nodes[0])
    handle(core, [ev.Gossip(key(cluster.nodes[1]), data), ev.SyncReply(key(cluster.nodes[1]), data)], 1_000_000)
    assert sum(core.refusals.values()) == 2


# ---- backups


def fresh(cluster: Cluster, node: Node, **more: object) -> NodeState:
    snapshot = replace(ev.Snapshot(), **more)  # type: ignore[arg-type]  # passed through by name
    return load_node(cluster.charter, node.identity, node.options, snapshot)


def reply(cluster: Cluster, core: NodeState, server: Node) -> ev.SyncReply:
    from collegium.node.core.messages import SyncRequest

    request = schema.load(SyncRequest, sync_request(core), SyncRequest.LIMIT)
    members = [member.key for member in cluster.charter.members]
    data = answer(request, cluster.charter.federation, server.store, members, in_flight_messages(core_of(server)))
    return ev.SyncReply(key(server), data)


def test_votes_of_a_height_that_others_decided_stay_in_it() -> None:
    """G2, G8: own votes on disk for height 1 mean nothing at the height that sync brings the node to."""
    cluster = grown()
    node = cluster.nodes[3]
    vote = Vote(cluster.charter.federation, key(node), 1, 5, PREVOTE, sha256(b"block"))
    core = fresh(cluster, node, messages=[(1, message(Kind.VOTE, sign(node.identity, vote).wire))])
    start_node(core, 0)
    for server in cluster.nodes[:2]:
        handle(core, [reply(cluster, core, server)], 1)
    assert core.signing
    assert core.agreement is not None
    assert core.agreement.height > 1
    assert core.agreement.view == 0
    assert not core.agreement.votes.by_step


def test_nothing_is_signed_before_a_quorum_has_reported() -> None:
    """G8, design.md section 7: quorum - 1 peers."""
    cluster = grown()
    node = cluster.nodes[3]
    core = fresh(cluster, node)
    effects = start_node(core, 0)
    effects += handle(core, [reply(cluster, core, cluster.nodes[0])], 1)
    assert not core.signing
    own = [e.put.record for e in effects if isinstance(e, ev.Persist) and isinstance(e.put, ev.PutRecord)]
    assert all(record.digest in cluster.nodes[0].store.records for record in own), "it made a record of its own"
    effects = handle(core, [reply(cluster, core, cluster.nodes[1])], 2)
    assert core.signing
    assert core.head[0] == core_of(node).head[0], "its feed goes on where its lost disk stopped"
    assert sum(core.returned.values()) == core.head[0]
    notices = [e for e in effects if isinstance(e, ev.Notice) and e.event == "home-was-older"]
    assert [dict(e.fields) for e in notices] == [{"own_records_returned": core.head[0]}]


def test_a_disk_that_holds_all_that_was_signed_is_not_called_older() -> None:
    cluster = grown()
    node = cluster.nodes[3]
    core = load_node(cluster.charter, node.identity, node.options, node.store.snapshot())
    effects = start_node(core, 0)
    for server in cluster.nodes[:2]:
        effects += handle(core, [reply(cluster, core, server)], 1)
    assert core.signing
    assert not core.returned
    assert not [e for e in effects if isinstance(e, ev.Notice) and e.event == "home-was-older"]


def test_who_is_ahead_has_not_reported_before_this_node_is_there() -> None:
    """G8: what was said in the blocks that it lacks may be this node's own."""
    cluster = grown()
    core = fresh(cluster, cluster.nodes[3])
    start_node(core, 0)
    for server in cluster.nodes[:3]:
        response = schema.load(SyncResponse, reply(cluster, core, server).data, SYNC_LIMIT)
        assert response.height > core.ledger.height == 0
        bare = replace(response, blocks=(), records=(), messages=(), more=0)
        handle(core, [ev.SyncReply(key(server), schema.dump(bare))], 1)
    assert not core.reports
    assert not core.signing
    for server in cluster.nodes[:2]:
        handle(core, [reply(cluster, core, server)], 2)
    assert core.signing


def test_nothing_is_appended_over_a_gap_in_the_own_feed() -> None:
    """G8: a peer returned record n + 2 first; n + 1 is lost but signed."""
    cluster = grown()
    node = cluster.nodes[0]
    core = core_of(node)
    seq, _ = core.head
    lost = sign(node.identity, Record(cluster.charter.federation, key(node), seq + 1, core.head[1], "x", b""))
    later = sign(node.identity, Record(cluster.charter.federation, key(node), seq + 2, lost.digest, "x", b""))
    say(core, cluster.nodes[1], Kind.RECORD, later.wire)
    handle(core, [ev.RequestWithdrawal()], 1_000_000)
    assert core.head[0] == seq
    effects = say(core, cluster.nodes[1], Kind.RECORD, lost.wire)
    made = [e.put.record.value for e in effects if isinstance(e, ev.Persist) and isinstance(e.put, ev.PutRecord)]
    assert [(r.seq, r.kind) for r in made] == [(seq + 1, "x"), (seq + 3, "withdrawal"), (seq + 4, "offer")]


def test_an_own_update_that_the_disk_lost_is_not_made_again() -> None:
    """G8: two headers of one place by an honest member."""
    cluster = grown()
    node = cluster.nodes[0]
    core = core_of(node)
    own = header(cluster, node, 3, sha256(b"lost"))
    say(core, cluster.nodes[1], Kind.HEADER, own.wire)
    assert core.acked[key(node), T, 3] == own.digest


def test_an_unknown_own_vote_silences() -> None:
    """G8: a peer knows a vote that this disk does not."""
    cluster = grown()
    node = cluster.nodes[0]
    core = core_of(node)
    vote = Vote(cluster.charter.federation, key(node), core.ledger.height + 1, 0, PREVOTE, NIL)
    say(core, cluster.nodes[1], Kind.VOTE, sign(node.identity, vote).wire)
    assert core.agreement is not None
    assert core.agreement.mute


# ---- learning


def test_waiting_for_the_other_components_ends() -> None:
    """G3: the timer is set once, not pushed back by every event."""
    cluster = Cluster(4, 1, Invariants, rounds=3, components=2)
    node = cluster.nodes[0]
    node.start()
    core = core_of(node)
    core.signing = True
    core.learner = tuple(core.hosted)
    core.folded = {T: (0, 0, GENESIS, NIL)}  # the other component is not folded
    core.folding = set(core.hosted)
    offers = {other.identity.public_key: Offer(core.hosted, ()) for other in cluster.nodes}
    components = {name: replace(c, hosts=tuple(sorted(offers))) for name, c in core.ledger.components.items()}
    core.ledger, core.cached = replace(core.ledger, offers=offers, components=components), None
    timers = [e for n in range(5) for e in handle(core, [], n) if isinstance(e, ev.SetTimer) and e.timer == TrainDue()]
    assert len(timers) == 1
    effects = handle(core, [ev.TimerFired(TrainDue())], 10_000)
    (train,) = [e for e in effects if isinstance(e, ev.Train)]
    assert [recipe.component for recipe in train.recipes] == [T]


def test_the_cost_is_on_disk_before_the_training_starts() -> None:
    """G6: reserve, then train; a crash between leaves the reservation."""
    cluster = Cluster(1, 1, Invariants, rounds=1, min_updates=1, noise=1_000_000)
    core = load_node(cluster.charter, cluster.nodes[0].identity, Options(hosted=(T,)), ev.Snapshot())
    start_node(core, 0)
    handle(core, [ev.LearnerReady((T,)), ev.Folded(T, 0, 0, GENESIS, NIL, 0)], 1)
    assert core.run is not None
    effects = handle(core, [ev.BudgetAnswer(core.run.number, True, "", {}, {"made-up": 5})], 2)
    names = [type(e.put).__name__ if isinstance(e, ev.Persist) else type(e).__name__ for e in effects]
    assert names.index("PutReservation") < names.index("Train")
    put = next(e.put for e in effects if isinstance(e, ev.Persist) and isinstance(e.put, ev.PutReservation))
    again = load_node(cluster.charter, cluster.nodes[0].identity, Options(hosted=(T,)), ev.Snapshot(reservations=[put]))
    start_node(again, 0)
    handle(again, [ev.LearnerReady((T,)), ev.Folded(T, 0, 0, GENESIS, NIL, 0)], 1)
    assert again.run is not None
    assert again.run.number == put.run + 1


def test_a_spent_budget_stops_contributions() -> None:
    """G6."""
    cluster = Cluster(1, 1, Invariants, rounds=1, min_updates=1, noise=1_000_000)
    core = load_node(cluster.charter, cluster.nodes[0].identity, Options(hosted=(T,)), ev.Snapshot())
    start_node(core, 0)
    handle(core, [ev.LearnerReady((T,)), ev.Folded(T, 0, 0, GENESIS, NIL, 0)], 1)
    assert core.run is not None
    effects = handle(core, [ev.BudgetAnswer(core.run.number, False, "spent", {}, {"made-up": 9000})], 2)
    effects += handle(core, [ev.TimerFired(TrainDue()), ev.TimerFired(SyncDue())], 3)
    assert not [e for e in effects if isinstance(e, ev.Train | ev.CheckBudget)]
