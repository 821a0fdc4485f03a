"""Members come, go and change keys while rounds close, in calm and storm and across crashes (G1, G2, G3, G8).

Every test takes its seed as a parameter, so a failure names it.
"""

from collections.abc import Callable
from functools import partial

import pytest

from collegium.consensus.fold import fold_block
from collegium.consensus.ledger import genesis
from collegium.consensus.membership import OpenMotion
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.core.motions import SILENT_ROUNDS, undecided
from collegium.protocol.blocks import verify_certificate
from collegium.protocol.membership import Application, Rekeying, token_digest
from collegium.protocol.records import WithdrawalStatement
from collegium.protocol.signing import sign
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.network import Disk, NetworkConditions

CALM = NetworkConditions()
STORM = NetworkConditions(delay=(1, 300), loss=0.15, duplicate=0.15)
LIMIT = 900_000
NEW = Identity.from_seed(sha256(b"newcomer"))
LONG = 1000


def members(cluster: Cluster) -> list[Node]:
    """The running nodes that are members in their own eyes."""
    return [n for n in cluster.nodes if n.core is not None and n.core.me in n.core.ledger.members]


def first(cluster: Cluster) -> Node:
    return members(cluster)[0]


def run(cluster: Cluster, until: Callable[[], bool]) -> None:
    assert cluster.run(until, cluster.now + LIMIT), [
        (n.index, None if n.core is None else (n.core.ledger.height, len(n.core.ledger.members))) for n in cluster.nodes
    ]


def closed(cluster: Cluster, rounds: int) -> bool:
    here = members(cluster)
    return bool(here) and all(
        n.core is not None and all(n.core.folded.get(name, (0,))[0] >= rounds for name in n.core.held) for n in here
    )


def admission(cluster: Cluster, who: Identity = NEW, name: str = "newcomer") -> ev.ProposeMotion:
    application = Application(cluster.federation, who.public_key, name, (), token_digest(sha256(b"door")))
    return ev.ProposeMotion("admit", who.public_key, sign(who, application).wire, "", LONG)


def rekeying(cluster: Cluster, old: bytes, new: Identity = NEW) -> ev.ProposeMotion:
    statement = sign(new, Rekeying(cluster.federation, new.public_key, old)).wire
    return ev.ProposeMotion("rekey", old, statement, "", LONG)


def open_motion(node: Node) -> OpenMotion | None:
    assert node.core is not None
    return next(iter(undecided(node.core.ledger, node.core.me)), None)


def insist(cluster: Cluster, proposer: Node, proposal: ev.ProposeMotion, done: Callable[[], bool]) -> None:
    """An operator moves it, the others vote yes whenever they are asked, until it is done: crashes may eat a word."""

    def nudge() -> None:
        if proposer.core is not None and proposer.core.me in proposer.core.ledger.members and not done():
            proposer.deliver(proposal)
        for node in members(cluster):
            if (motion := open_motion(node)) is not None:
                node.deliver(ev.Cast(motion.digest, True))

    while not done():
        nudge()
        limit = cluster.now + 2000
        cluster.run(done, limit)
        assert cluster.now < 2 * LIMIT


def in_all(cluster: Cluster, key: bytes, there: bool = True) -> bool:
    here = [n for n in members(cluster) if n.core is not None and n.core.me != key]
    return bool(here) and all((key in n.core.ledger.members) == there for n in here if n.core is not None)


def check(cluster: Cluster) -> None:
    """G1, G2: one ledger, and a quorum of the members of its height decided every block, walked from the charter."""
    cluster.disk = Disk()

    def level() -> bool:
        up = members(cluster)
        return len({n.core.ledger.height for n in up if n.core is not None}) == 1 and all(
            n.core is not None and all(n.core.is_current(name) for name in n.core.held) for n in up
        )

    run(cluster, lambda: all(n.core is not None for n in cluster.nodes) and level())
    ledgers = [n.core.ledger for n in members(cluster) if n.core is not None]
    assert all(ledger == ledgers[0] for ledger in ledgers)
    walked = genesis(cluster.charter)
    for stored in first(cluster).store.snapshot().blocks:
        verify_certificate(stored.block, stored.certificate, frozenset(walked.members), walked.fault_model)
        walked = fold_block(walked, stored.block, stored.records)
    assert walked == ledgers[0]
    states = [[n.core.folded[name][3] for name in n.core.held] for n in members(cluster) if n.core is not None]
    assert states[0]
    assert all(state == states[0] for state in states)
    cluster.observer.final()  # and they are the fold of what is counted, computed again


def test_the_check_sees_one_state_that_differs() -> None:
    cluster = cluster_of(4, 1, rounds=2)
    run(cluster, lambda: closed(cluster, 2))
    check(cluster)
    core = cluster.nodes[2].core
    assert core is not None
    core.folded["head/task0"] = (*core.folded["head/task0"][:3], sha256(b"another state"))
    with pytest.raises(AssertionError):
        check(cluster)


def cluster_of(count: int, seed: int, *, storm: bool = False, crashes: float = 0.0, rounds: int = 14) -> Cluster:
    made = Cluster(
        count,
        seed,
        Invariants,
        network=STORM if storm else CALM,
        training=(300, 900),
        rounds=rounds,
        disk=Disk(crashes),
    )
    made.start()
    return made


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 6))]  # the first is the short form
WEATHERS = [
    pytest.param(False, 0.0, id="calm"),
    pytest.param(True, 0.0, id="storm"),
    pytest.param(True, 0.004, id="crashes"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("storm", "crashes"), WEATHERS)
def test_a_newcomer_is_admitted_catches_up_and_trains(seed: int, storm: bool, crashes: float) -> None:
    cluster = cluster_of(4, seed, storm=storm, crashes=crashes)
    run(cluster, lambda: closed(cluster, 2))
    newcomer = cluster.add(NEW)
    insist(cluster, cluster.nodes[seed % 4], admission(cluster), lambda: in_all(cluster, NEW.public_key))
    run(
        cluster,
        lambda: any(
            NEW.public_key in {entry.author for entry in r.entries}
            for n in members(cluster)
            if n.core is not None
            for r in n.core.ledger.components["head/task0"].rounds
        ),
    )
    check(cluster)
    assert newcomer.core is not None
    assert newcomer.core.ledger.members == tuple(sorted(newcomer.core.ledger.members))
    assert len(newcomer.core.ledger.members) == 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("storm", "crashes"), WEATHERS)
def test_a_member_is_expelled_and_the_rounds_go_on(seed: int, storm: bool, crashes: float) -> None:
    cluster = cluster_of(5, seed, storm=storm, crashes=crashes)
    run(cluster, lambda: closed(cluster, 2))
    gone = cluster.nodes[4].identity.public_key
    proposal = ev.ProposeMotion("expel", gone, b"", "sends noise", LONG)
    insist(cluster, cluster.nodes[0], proposal, lambda: in_all(cluster, gone, there=False))
    run(cluster, lambda: len(members(cluster)) == 4 and closed(cluster, 14))
    check(cluster)
    core = first(cluster).core
    assert core is not None
    assert core.ledger.expelled == (gone,)
    out = cluster.nodes[4].core
    assert out is not None
    assert gone not in out.ledger.members, "the expelled one knows"
    assert any(n.event == "no-longer-a-member" and n.fields["why"] == "expelled" for n in cluster.nodes[4].notices)
    height = core.ledger.roll.seats[gone].until
    assert out.ledger.height == height, "and is told nothing that came later"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("storm", "crashes"), WEATHERS)
def test_a_member_leaves_by_its_own_word(seed: int, storm: bool, crashes: float) -> None:
    cluster = cluster_of(4, seed, storm=storm, crashes=crashes)
    run(cluster, lambda: closed(cluster, 2))
    leaver = cluster.nodes[2]
    me = leaver.identity.public_key
    insist(cluster, leaver, ev.ProposeMotion("leave", me, b"", "", LONG), lambda: in_all(cluster, me, there=False))
    run(cluster, lambda: len(members(cluster)) == 3 and closed(cluster, 14))
    check(cluster)
    assert leaver.core is not None
    assert leaver.core.ledger.roll.seats[me].gone == "left"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("storm", "crashes"), WEATHERS)
def test_a_member_moves_to_a_new_key_with_its_disk(seed: int, storm: bool, crashes: float) -> None:
    cluster = cluster_of(4, seed, storm=storm, crashes=crashes)
    run(cluster, lambda: closed(cluster, 2))
    node = cluster.nodes[1]
    old = node.identity.public_key
    insist(cluster, node, rekeying(cluster, old), lambda: in_all(cluster, NEW.public_key))
    run(cluster, lambda: node.core is not None and old not in node.core.ledger.members)
    node.crash()
    node.identity = NEW
    node.start()
    spent = len(node.store.reservations)
    run(cluster, lambda: len(members(cluster)) == 4 and closed(cluster, 14))
    check(cluster)
    assert len(node.store.reservations) > spent, (
        "what was spent stays spent: the new key goes on from the old one's disk"
    )
    core = first(cluster).core
    assert core is not None
    authors = {e.author for r in core.ledger.components["head/task0"].rounds[-3:] for e in r.entries}
    assert NEW.public_key in authors
    assert old not in authors


@pytest.mark.parametrize("scope", ["updates", "rounds"])
def test_g7_what_an_earlier_key_contributed_is_withdrawn(scope: str) -> None:
    """Though nothing of the key that signs the withdrawal is covered."""
    cluster, name = cluster_of(4, 1), "head/task0"
    run(cluster, lambda: closed(cluster, 3))
    node = cluster.nodes[0]
    old = node.identity.public_key
    insist(cluster, node, rekeying(cluster, old), lambda: in_all(cluster, NEW.public_key))
    node.crash()
    node.identity = NEW
    node.start()
    run(cluster, lambda: len(members(cluster)) == 4 and node.core is not None and node.core.signing)
    assert node.core is not None
    counted = [
        (r.number, e.update) for r in node.core.ledger.components[name].rounds for e in r.entries if e.author == old
    ]
    asked = {
        "updates": ev.RequestWithdrawal("updates", updates=tuple(sorted(update for _, update in counted))),
        "rounds": ev.RequestWithdrawal("rounds", (name,), counted[0][0], counted[-1][0]),
    }
    node.deliver(asked[scope])
    run(cluster, lambda: all(n.core is not None and n.core.ledger.withdrawn for n in cluster.nodes))
    rounds = first(cluster).core.ledger.components[name].rounds  # type: ignore[union-attr]
    assert all(entry.author != old for round_ in rounds for entry in round_.entries)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_g6_a_lost_key_is_replaced_by_the_others_and_what_it_spent_is_spent(seed: int) -> None:
    cluster = Cluster(4, seed, Invariants, training=(300, 900), rounds=14, noise=1)
    cluster.start()
    run(cluster, lambda: closed(cluster, 2))
    cluster.nodes[3].crash()  # with its disk
    old = cluster.nodes[3].identity.public_key
    insist(cluster, cluster.nodes[0], rekeying(cluster, old), lambda: in_all(cluster, NEW.public_key))
    heir = cluster.add(NEW)
    run(cluster, lambda: len(members(cluster)) == 4)
    cluster.run(lambda: False, cluster.now + 3000)
    assert heir.core is not None
    assert not heir.core.signing, "G6: not before it has read what the lost key spent"
    assert not heir.store.reservations
    heir.crash()
    heir.start()
    assert sum(draws.count for put in heir.store.reservations for _, draws in put.recalled) >= 8
    run(cluster, lambda: len(members(cluster)) == 4 and closed(cluster, 14))
    cluster.nodes.pop(3)
    for index, node in enumerate(cluster.nodes):
        node.index = index
    check(cluster)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_federation_is_replaced_member_by_member(seed: int) -> None:
    """The founders all go, one after the other; a late joiner walks from the charter to members it never heard of."""
    cluster = cluster_of(4, seed, rounds=40)
    run(cluster, lambda: closed(cluster, 1))
    for n in range(4):
        who = Identity.from_seed(sha256(b"heir %d" % n))
        insist(cluster, first(cluster), admission(cluster, who, f"heir {n}"), partial(in_all, cluster, who.public_key))
        cluster.add(who)
        run(cluster, lambda: len(members(cluster)) == 5)
        leaver = cluster.nodes[n]
        key = leaver.identity.public_key
        insist(
            cluster, leaver, ev.ProposeMotion("leave", key, b"", "", LONG), partial(in_all, cluster, key, there=False)
        )
        run(cluster, lambda: len(members(cluster)) == 4)
    done = max(n.core.ledger.components["head/task0"].round for n in members(cluster) if n.core is not None)
    run(cluster, lambda: closed(cluster, done + 2))
    check(cluster)
    core = first(cluster).core
    assert core is not None
    assert not set(core.ledger.members) & {member.key for member in cluster.charter.members}


def test_only_the_members_of_its_height_decide_a_block() -> None:
    """G2: a certificate by others, however many, is none."""
    cluster = cluster_of(4, 1)
    run(cluster, lambda: closed(cluster, 1))
    insist(cluster, cluster.nodes[0], admission(cluster), lambda: in_all(cluster, NEW.public_key))
    cluster.add(NEW)
    run(cluster, lambda: len(members(cluster)) == 5 and closed(cluster, 4))
    core = first(cluster).core
    assert core is not None
    since = core.ledger.roll.seats[NEW.public_key].since
    for stored in first(cluster).store.snapshot().blocks:
        authors = {signature.author for signature in stored.certificate.signatures}
        if stored.block.height <= since:
            assert NEW.public_key not in authors
        else:
            assert len(authors) >= 4  # of five


# ---- words that do not count


def test_a_stranger_gets_nothing_and_moves_nothing() -> None:
    """G9."""
    cluster = cluster_of(4, 2, rounds=4)
    stranger = cluster.add(NEW)
    run(cluster, lambda: closed(cluster, 4))
    assert stranger.core is not None
    assert stranger.core.ledger.height == 0
    assert not stranger.core.signing
    stranger.deliver(admission(cluster))
    assert [n.fields["reason"] for n in stranger.notices if n.event == "motion-not-proposed"] == ["not-signing"]


def test_a_word_that_would_not_count_is_not_signed() -> None:
    cluster = cluster_of(4, 2, rounds=3)
    run(cluster, lambda: closed(cluster, 1))
    node = cluster.nodes[0]
    me = node.identity.public_key
    core = node.core
    assert core is not None
    for proposal, reason in (
        (ev.ProposeMotion("expel", me, b"", "", LONG), "self-target"),
        (ev.ProposeMotion("expel", NEW.public_key, b"", "", LONG), "not-a-member"),
        (ev.Cast(sha256(b"x"), True), "unknown-motion"),
    ):
        before = core.head
        node.deliver(proposal)
        assert core.head == before
        assert node.notices[-1].fields["reason"] == reason
    node.deliver(admission(cluster))
    node.deliver(admission(cluster))
    assert node.notices[-1].fields["reason"] == "proposed-already"
    other = cluster.nodes[1]
    run(cluster, lambda: open_motion(other) is not None)
    motion = open_motion(other)
    assert motion is not None
    other.deliver(ev.Cast(motion.digest, False))
    other.deliver(ev.Cast(motion.digest, True))
    assert other.notices[-1].fields["reason"] == "voted-already"
    run(cluster, lambda: closed(cluster, 3))
    check(cluster)


# ---- silence


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_g3_a_host_that_fell_silent_is_suspended_until_it_is_back(seed: int) -> None:
    """Every round waits for it until its deadline; after a few, no round does."""
    cluster = cluster_of(5, seed, rounds=30)
    run(cluster, lambda: closed(cluster, 2))
    silent = cluster.nodes[4]
    silent.crash()
    key = silent.identity.public_key

    def suspended() -> bool:
        return all(key not in n.core.ledger.offers for n in members(cluster) if n.core is not None)

    run(cluster, suspended)
    core = first(cluster).core
    assert core is not None
    assert key in core.ledger.members
    done = core.ledger.components["head/task0"].round
    assert done >= 2 + SILENT_ROUNDS
    before = cluster.now
    run(cluster, lambda: closed(cluster, done + 5))
    assert cluster.now - before < 5 * 3000, "the rounds still wait for it"
    silent.start()
    run(cluster, lambda: not suspended())
    run(cluster, lambda: core.ledger.components["head/task0"].round >= 30 or key in _counted(core.ledger))
    assert key in _counted(core.ledger)
    check(cluster)


def _counted(ledger: object) -> set[bytes]:
    return {e.author for e in ledger.components["head/task0"].rounds[-1].entries}  # type: ignore[attr-defined]  # Ledger


# ---- catching up


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_late_joiner_takes_the_certified_state_and_not_the_history(seed: int) -> None:
    cluster = cluster_of(4, seed, rounds=30)
    run(cluster, lambda: closed(cluster, 20))
    insist(cluster, cluster.nodes[0], admission(cluster), lambda: in_all(cluster, NEW.public_key))
    newcomer = cluster.add(NEW)
    run(cluster, lambda: len(members(cluster)) == 5 and closed(cluster, 25))
    assert newcomer.taken
    assert any(n.event == "taking-state" for n in newcomer.notices)
    assert any(n.event == "caught-up" for n in newcomer.notices)
    core = newcomer.core
    assert core is not None
    old = [e.blob for r in core.ledger.components["head/task0"].rounds[:15] for e in r.entries]
    assert not any(blob in newcomer.store.blobs for blob in old), "it replayed history that it does not need"
    check(cluster)


def test_a_member_that_was_away_takes_the_state_too() -> None:
    cluster = cluster_of(5, 7, rounds=30)
    run(cluster, lambda: closed(cluster, 2))
    away = cluster.nodes[4]
    away.crash()
    run(cluster, lambda: closed(cluster, 25))
    away.start()
    run(cluster, lambda: len(members(cluster)) == 5 and closed(cluster, 28))
    assert away.taken
    check(cluster)


def test_without_a_state_the_bytes_are_fetched() -> None:
    """No neighbour has that state any more, and none is certified later: the history is replayed."""
    cluster = cluster_of(4, 3, rounds=12)
    run(cluster, lambda: closed(cluster, 12))
    insist(cluster, cluster.nodes[0], admission(cluster), lambda: in_all(cluster, NEW.public_key))
    for node in cluster.nodes:
        node.kept.clear()
    newcomer = cluster.add(NEW)
    run(cluster, lambda: len(members(cluster)) == 5 and closed(cluster, 12))
    assert not newcomer.taken
    check(cluster)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_g7_a_joiner_refolds_what_it_never_replayed(seed: int) -> None:
    """It took a state that holds the withdrawn updates: the refold needs the bytes behind it, and gets them."""
    cluster = cluster_of(4, seed, rounds=26)
    run(cluster, lambda: closed(cluster, 15))
    insist(cluster, cluster.nodes[0], admission(cluster), lambda: in_all(cluster, NEW.public_key))
    newcomer = cluster.add(NEW)
    run(cluster, lambda: len(members(cluster)) == 5 and closed(cluster, 18))
    assert newcomer.taken
    cluster.nodes[1].deliver(ev.RequestWithdrawal())
    run(cluster, lambda: bool(newcomer.core and newcomer.core.ledger.withdrawn))
    run(cluster, lambda: closed(cluster, 26))
    check(cluster)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_g7_who_left_withdraws_by_another_members_hand(seed: int) -> None:
    cluster = cluster_of(4, seed)
    run(cluster, lambda: closed(cluster, 3))
    leaver = cluster.nodes[2]
    me = leaver.identity.public_key
    insist(cluster, leaver, ev.ProposeMotion("leave", me, b"", "", LONG), lambda: in_all(cluster, me, there=False))
    statement = WithdrawalStatement(cluster.federation, me, "all", "refold", LONG)
    wire = sign(leaver.identity, statement).wire
    other = cluster.nodes[0]
    other.deliver(ev.Carry(bytes(64) + wire[64:]))
    assert [n.fields["reason"] for n in other.notices if n.event == "not-carried"] == ["bad-signature"]
    other.deliver(ev.Carry(wire))
    run(cluster, lambda: all(n.core is not None and bool(n.core.ledger.withdrawn) for n in members(cluster)))
    other.deliver(ev.Carry(wire))
    reasons = [n.fields["reason"] for n in other.notices if n.event == "not-carried"]
    assert reasons == ["bad-signature", "withdrawn-already"]
    check(cluster)
    core = first(cluster).core
    assert core is not None
    assert not any(e.author == me for r in core.ledger.components["head/task0"].rounds for e in r.entries)


def test_a_run_is_a_function_of_its_seed() -> None:
    def history() -> list[bytes]:
        cluster = cluster_of(4, 11, storm=True, crashes=0.003)
        run(cluster, lambda: closed(cluster, 1))
        insist(cluster, cluster.nodes[0], admission(cluster), lambda: in_all(cluster, NEW.public_key))
        cluster.add(NEW)
        run(cluster, lambda: len(members(cluster)) == 5 and closed(cluster, 4))
        return [block.block.id for block in first(cluster).store.snapshot().blocks]

    assert history() == history()
