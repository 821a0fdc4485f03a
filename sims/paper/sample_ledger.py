"""A small ledger in which everything happens that a ledger can hold: for tests and benchmarks of what outsiders check.

Five founders: rounds, an admission, a motion that is refused, a withdrawal, a change of keys, a fork that expels its
author, a departure, a member that is expelled by vote.
"""

from collections.abc import Callable

from ...consensus.ledger import Ledger
from ...crypto.errors import LocalProtocolError
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.core import events as ev
from ...node.core.motions import undecided
from ...node.verify.outsiders import Source
from ...protocol import schema
from ...protocol.charter import SignedCharter, add_signature, dump_file
from ...protocol.membership import Application, Rekeying, token_digest
from ...protocol.signing import sign
from ..simulator.cluster import Cluster, Node
from ..simulator.invariants import Invariants
from ..simulator.liars import LIES

LIMIT_MS = 900_000
HEIGHTS = 1000  # that a motion stays open
COMPONENT = "head/task0"


def sample_ledger(seed: int = 1) -> Source:
    """Return the ledger of a node that was there from the beginning to the end, to make files of."""
    cluster = Cluster(5, seed, Invariants, rounds=30, training=(300, 900))
    signed = SignedCharter(schema.dump(cluster.charter), ())
    for node in cluster.nodes:
        signed = add_signature(cluster.charter, signed, node.identity)
    founders = list(cluster.nodes)
    cluster.start()
    _await_close(cluster, 1)
    newcomer, heir = (Identity.from_seed(sha256(name)) for name in (b"newcomer", b"heir"))

    # a motion that is refused
    target = founders[4].identity.public_key
    founders[0].deliver(ev.ProposeMotion("expel", target, b"", "sends noise", HEIGHTS))
    _until(cluster, lambda: all(_open(node) is not None for node in _members(cluster)[1:] if node is not founders[4]))
    for node in _members(cluster)[1:]:
        motion = _open(node)
        if motion is not None:
            node.deliver(ev.Cast(motion, False))
    _until(cluster, lambda: any(outcome.result == "refused" for outcome in _ledger(founders[0]).roll.outcomes))

    cluster.add(newcomer)
    application = Application(cluster.federation, newcomer.public_key, "newcomer", (), token_digest(sha256(b"door")))
    admission = ev.ProposeMotion("admit", newcomer.public_key, sign(newcomer, application).wire, "", HEIGHTS)
    _insist(cluster, founders[0], admission, newcomer.public_key, there=True)

    founders[1].deliver(ev.RequestWithdrawal())
    _until(cluster, lambda: _ledger(founders[0]).components[COMPONENT].generation > 0)

    old = founders[2].identity.public_key
    statement = sign(heir, Rekeying(cluster.federation, heir.public_key, old)).wire
    _insist(cluster, founders[2], ev.ProposeMotion("rekey", old, statement, "", HEIGHTS), heir.public_key, there=True)
    founders[2].crash()
    founders[2].identity = heir
    founders[2].start()
    _await_close(cluster, 2)

    liar = founders[4]
    liar.tell_lies(LIES["forks"])
    _until(cluster, lambda: liar.identity.public_key in _ledger(founders[0]).expelled)
    liar.crash()

    gone = founders[3].identity.public_key
    _insist(cluster, founders[3], ev.ProposeMotion("leave", gone, b"", "", HEIGHTS), gone, there=False)
    out = newcomer.public_key
    _insist(cluster, founders[0], ev.ProposeMotion("expel", out, b"", "", HEIGHTS), out, there=False)
    done = _ledger(founders[0]).components[COMPONENT].round
    _await_close(cluster, done + 1)
    store = founders[0].store
    return Source(cluster.charter, dump_file(signed), store.block, store.height(), "The simulated store")


def _members(cluster: Cluster) -> list[Node]:
    return [node for node in cluster.nodes if node.core is not None and node.core.me in node.core.ledger.members]


def _ledger(node: Node) -> Ledger:
    if node.core is None:
        raise LocalProtocolError(f"node {node.index} is down")
    return node.core.ledger


def _open(node: Node) -> bytes | None:
    if node.core is None:
        return None
    motion = next(iter(undecided(node.core.ledger, node.core.me)), None)
    return None if motion is None else motion.digest


def _until(cluster: Cluster, done: Callable[[], bool]) -> None:
    if not cluster.run(done, cluster.now + LIMIT_MS):
        raise LocalProtocolError("the sample ledger did not come about")


def _await_close(cluster: Cluster, rounds: int) -> None:
    _until(cluster, lambda: all(_ledger(node).components[COMPONENT].round >= rounds for node in _members(cluster)))


def _insist(cluster: Cluster, proposer: Node, proposal: ev.ProposeMotion, key: bytes, *, there: bool) -> None:
    """Move it, and let the others vote yes, until it is done."""

    def done() -> bool:
        others = [node for node in _members(cluster) if node.identity.public_key != key]
        return all((key in _ledger(node).members) == there for node in others)

    while not done():
        if proposer.core is not None and proposer.core.me in proposer.core.ledger.members:
            proposer.deliver(proposal)
        for node in _members(cluster):
            motion = _open(node)
            if motion is not None:
                node.deliver(ev.Cast(motion, True))
        cluster.run(done, cluster.now + 1000)
