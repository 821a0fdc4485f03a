"""The candidate grows by what came since; it must be what all its records fold to."""

import pytest

from collegium.consensus.ledger import apply_records
from collegium.node.core.core import Candidate, Core
from collegium.sims.play import play
from collegium.sims.scenario import load


@pytest.mark.parametrize("name", ["storm", "crashes", "liar-double-votes", "withdrawal", "small-quota"])
def test_g1_a_candidate_that_grew_is_the_one_from_all_its_records(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, compared = Core._grown, 0

    def both(core: Core, known: Candidate) -> Candidate | None:
        nonlocal compared
        found = grown(core, known)
        if found is not None:
            compared += 1
            every = {author: chain for author in core.ledger.members if (chain := core._within_quotas(author))}
            assert {author: chain for author, chain in found.chains.items() if chain} == every
            whole = apply_records(core.charter, core.ledger, found.records)
            assert (found.state.heads, found.state.offers) == (whole.heads, whole.offers)
            assert found.state.components == whole.components
            assert found.state.members == whole.members
        return found

    monkeypatch.setattr(Core, "_grown", both)
    outcome = play(load(name), 3)
    assert outcome.held, outcome
    assert compared > 50
