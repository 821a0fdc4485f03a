"""`equity show` on what a simulated federation released: once, after its round, and without what was withdrawn."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from collegium.node.core import events as ev
from collegium.node.home import Home
from collegium.protocol.components import ComponentSpec
from collegium.protocol.equity import DECIDED, SCORES
from collegium.protocol.update import Integers
from collegium.sims.simulator import cluster as simulated
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.small import values_of

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

GROUPS = "groups/task0"
# Of a member: (not flagged, flagged) of those at risk (label 0) and of the others. F are missed more often, M less.
ODD = {"F": ((60, 140), (270, 30)), "M": ((40, 160), (240, 60))}
EVEN = {"F": ((100, 100), (270, 30)), "M": ((40, 160), (240, 60))}


def counts(of: Mapping[str, tuple[tuple[int, int], ...]], spec: ComponentSpec) -> Integers:
    """The exact integers of such a member: flagged below .5, spread evenly over the five bins of each side."""
    decided = np.array([of["F"], of["M"]], dtype=float)
    histogram = np.repeat(decided[:, :, ::-1] / 5, 5, axis=2)
    flat = np.concatenate([DECIDED * decided.reshape(-1), SCORES * histogram.reshape(-1)])
    return np.rint(flat / spec.grid_step).astype(spec.integer_type)


@pytest.fixture(scope="module")
def released() -> Iterator[Cluster]:
    made = Cluster(4, 11, Invariants, rounds=3, groups=1)
    for node in made.nodes:
        node.options = replace(node.options, plan=replace(node.options.plan, lot=100_000))  # of 1,000 students
    keys = sorted(node.identity.public_key for node in made.nodes)

    def values(author: bytes, component: str, round_: int, spec: ComponentSpec) -> Integers:
        if component != GROUPS:
            return values_of(author, component, round_, spec)
        return counts(EVEN if author == keys[0] else ODD, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "values_of", values)
        made.start()
        assert made.run(lambda: made.all_closed(3))
        assert made.run(lambda: _counted(made) == 4, made.now + 60_000)
        yield made


def _counted(cluster: Cluster) -> int:
    return min(
        sum(len(r.entries) for r in node.core.ledger.components[GROUPS].rounds) for node in cluster.nodes if node.core
    )


def asked(run: "Run", cluster: Cluster, folder: Path) -> Any:
    home = Home(folder)
    fill(home, cluster, cluster.nodes[1])
    answer = run("equity", "show", "--json", "--home", home.root)
    assert answer.code == 0, answer.err
    (task,) = json.loads(answer.out)["tasks"]
    return task


def test_groups_are_released_after_their_round_shown_and_recomputed_after_a_withdrawal(
    released: Cluster, run: "Run", tmp_path: Path
) -> None:
    core = released.nodes[0].core
    assert core is not None
    second = core.ledger.components["head/task0"].rounds[1].height
    assert core.ledger.components[GROUPS].rounds[0].height > second, "of the model after its second round"

    task = asked(run, released, tmp_path / "before")
    women, men = task["groups"]
    assert (len(task["members"]), task["releases_without_bytes"]) == (4, 0)
    assert women["students"] == pytest.approx(4 * 500, abs=1)
    assert women["missed"]["value"] == pytest.approx((3 * 60 + 100) / 800, abs=2e-3)
    assert men["falsely_flagged"]["value"] == pytest.approx(0.2, abs=2e-3)
    assert women["missed_gap"]["value"] == pytest.approx((3 * 0.1 + 0.3) / 4, abs=0.01)
    assert women["missed_gap"]["value"] == pytest.approx(-men["missed_gap"]["value"], abs=1e-3)
    assert women["within_institutions"]
    limits = task["thresholds"]["gender"]
    assert limits["F"] > 0.5 > limits["M"], "to miss as many, more women are flagged"

    owner = min(released.nodes, key=lambda node: node.identity.public_key)
    owner.deliver(ev.RequestWithdrawal())
    assert released.run(
        lambda: all(n.core is not None and n.core.ledger.components[GROUPS].generation for n in released.nodes)
    )
    after = asked(run, released, tmp_path / "after")
    women = after["groups"][0]
    assert (len(after["members"]), after["generation"]) == (3, 1)
    assert women["missed_gap"]["value"] == pytest.approx(0.1, abs=2e-3), "as if the fourth had never released"


def test_a_charter_without_groups_says_so(run: "Run", home: Home) -> None:
    answer = run("equity", "show", "--home", home.root)
    assert answer.code == 2
    assert "nothing is released of groups" in answer.err
