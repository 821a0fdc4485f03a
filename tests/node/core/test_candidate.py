"""The candidate grows by what came since; it must be what all its records fold to."""

from dataclasses import replace

import pytest

from collegium.consensus.fold import apply_records
from collegium.node.core import candidates
from collegium.node.core.state import Candidate, NodeState
from collegium.protocol.records import Evidence
from collegium.sims.scenarios.loading import load
from collegium.sims.scenarios.play import play
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants


@pytest.mark.parametrize("name", ["storm", "crashes", "liar-double-votes", "withdrawal", "small-quota"])
def test_g1_a_candidate_that_grew_is_the_one_from_all_its_records(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, compared = candidates._grown, 0

    def both(core: NodeState, before: Candidate) -> Candidate | None:
        nonlocal compared
        candidate = grown(core, before)
        if candidate is not None:
            compared += 1
            every = {
                author: chain for author in core.ledger.members if (chain := candidates._within_quotas(core, author))
            }
            assert {author: chain for author, chain in candidate.chains.items() if chain} == every
            whole = apply_records(core.ledger, candidate.records)
            assert (candidate.state.heads, candidate.state.offers) == (whole.heads, whole.offers)
            assert candidate.state.components == whole.components
            assert candidate.state.members == whole.members
        return candidate

    monkeypatch.setattr(candidates, "_grown", both)
    outcome = play(load(name), 3)
    assert outcome.held, outcome
    assert compared > 50


LIMIT = 65_536  # bytes: the least that a charter may give a member at a height


def test_g9_a_candidate_keeps_to_the_charters_bytes() -> None:
    cluster = Cluster(4, 1, Invariants, rounds=1)
    cluster.charter = replace(cluster.charter, rules=replace(cluster.charter.rules, bytes_per_height=LIMIT))
    cluster.start()
    assert cluster.run(lambda: cluster.progressed and cluster.all_closed(1))
    node = cluster.nodes[0]
    core, before = node.core, node.store.height()
    assert core is not None
    for number in range(8):
        core.append(Evidence("fork", bytes([number]) * 10_000, bytes(10_000)))
    assert len(core.pool.chain(core.me, core.ledger.heads)) >= 8
    assert LIMIT // 2 < sum(len(record.wire) for record in candidates._within_quotas(core, core.me)) <= LIMIT
    node._perform(core.drain())
    head = core.head
    assert cluster.run(lambda: core.ledger.heads[core.me] == head, cluster.now + 60_000)
    for height in range(before + 1, node.store.height() + 1):
        block = node.store.block(height)
        assert block is not None
        assert sum(len(r.wire) for r in block.records if r.value.author == core.me) <= LIMIT
