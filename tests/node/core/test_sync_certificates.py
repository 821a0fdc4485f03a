"""A block from a neighbour counts only with a quorum's certificate for exactly this block (G2)."""

from dataclasses import replace

import pytest

from collegium.node.core import events as ev
from collegium.node.core.core import handle, load_node, start_node
from collegium.node.core.messages import DecidedBlock, SyncResponse
from collegium.node.core.sync import answer
from collegium.protocol import schema
from collegium.protocol.blocks import Block, Certificate, VoteSignature
from collegium.protocol.schema import load
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.memory import MemoryStore


def history() -> tuple[Cluster, SyncResponse]:
    """Return a cluster that decided some blocks, and what a member that lost everything would be sent."""
    cluster = Cluster(4, 1, Invariants, rounds=3)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    node, server = cluster.nodes[0], cluster.nodes[1]
    node.crash()
    node.store = MemoryStore()
    assert server.core is not None
    empty = schema.load(type(request := _request(cluster)), schema.dump(request), 1 << 20)
    data = answer(empty, server.core.federation, server.store, server.core.ledger.members, [])
    return cluster, load(SyncResponse, data, 1 << 24)


def _request(cluster: Cluster):  # type: ignore[no-untyped-def]
    from collegium.node.core.messages import SyncRequest

    return SyncRequest(cluster.charter.federation, 0, (), b"")


def forged(certificate: Certificate) -> Certificate:
    return replace(certificate, signatures=tuple(VoteSignature(s.author, bytes(64)) for s in certificate.signatures))


def one_too_few(certificate: Certificate) -> Certificate:
    return replace(certificate, signatures=certificate.signatures[:2])


def another_view(certificate: Certificate) -> Certificate:
    return replace(certificate, view=certificate.view + 1)


def height_after(response: SyncResponse, cluster: Cluster) -> int:

    node = cluster.nodes[0]
    core = load_node(cluster.charter, node.identity, node.options, ev.Snapshot())
    start_node(core, 0)
    handle(core, [ev.SyncReply(cluster.nodes[1].identity.public_key, schema.dump(response))], 1)
    return core.ledger.height


def test_the_honest_answer_is_taken() -> None:
    cluster, response = history()
    assert height_after(response, cluster) == len(response.blocks) >= 3


@pytest.mark.parametrize("change", [forged, one_too_few, another_view])
def test_g2_a_block_without_its_quorum_is_not_taken(change) -> None:  # type: ignore[no-untyped-def]
    cluster, response = history()
    first, *rest = response.blocks
    bad = replace(first, certificate=change(first.certificate))
    assert height_after(replace(response, blocks=(bad, *rest)), cluster) == 0


def test_g2_a_certificate_of_another_block_is_not_taken() -> None:
    cluster, response = history()
    first, second, *rest = response.blocks
    swapped = DecidedBlock(first.block, second.certificate)
    assert height_after(replace(response, blocks=(swapped, second, *rest)), cluster) == 0
    assert load(Block, first.block, 1 << 20).height == 1
