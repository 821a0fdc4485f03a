"""The candidate grows by what came since; it must be what all its records fold to."""

from collections.abc import Sequence

import pytest

from collegium.consensus.ledger import Ledger, apply_records
from collegium.node.core.core import Core
from collegium.protocol.records import Record
from collegium.protocol.signing import Signed
from collegium.sims.play import play
from collegium.sims.scenario import load


@pytest.mark.parametrize("name", ["storm", "crashes", "liar-double-votes", "withdrawal", "small-quota"])
def test_g1_a_candidate_that_grew_is_the_one_from_all_its_records(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, compared = Core._applied, 0

    def both(core: Core, records: Sequence[Signed[Record]]) -> Ledger:
        nonlocal compared
        compared += 1
        found, whole = grown(core, records), apply_records(core.charter, core.ledger, records)
        assert (found.heads, found.offers, found.components) == (whole.heads, whole.offers, whole.components)
        assert (found.members, found.withdrawn, found.expelled) == (whole.members, whole.withdrawn, whole.expelled)
        return found

    monkeypatch.setattr(Core, "_applied", both)
    outcome = play(load(name), 3)
    assert outcome.held, outcome
    assert compared > 50
