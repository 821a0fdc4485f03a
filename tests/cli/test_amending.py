"""`charter amend`, `history`, `diff`, `show --at`, and both verifiers, on the home of a node whose charter changed."""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.cli.read import charter_in_force, from_store
from collegium.node.core import events as ev
from collegium.node.core.motions import undecided
from collegium.node.home import Home
from collegium.node.page.content.privacy import protection
from collegium.node.page.source import Source
from collegium.node.verify import outsiders
from collegium.protocol import schema
from collegium.protocol.amendment import Limits, load
from collegium.protocol.charter import Charter
from collegium.sims.paper import verifying
from collegium.sims.scenarios.amending import statement
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run


def _amend(cluster: Cluster, what: str) -> None:
    latest = cluster.latest()
    assert latest is not None
    number = latest.charter.number
    said = statement(latest.charter, what)
    cluster.nodes[0].deliver(ev.ProposeMotion("amend", latest.federation, said, "", 1000))

    def done() -> bool:
        for node in cluster.nodes:
            assert node.core is not None
            for motion in undecided(node.core.ledger, node.core.me):
                node.deliver(ev.Cast(motion.digest, True))
        return all(node.core is not None and node.core.charter.number == number + 1 for node in cluster.nodes)

    assert cluster.run(done)


@pytest.fixture(scope="module")
def amended_cluster() -> Cluster:
    """Four members that opened a modality with a task after round 1, and then let rounds close by the median."""
    cluster = Cluster(4, 7, Invariants, rounds=4)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    _amend(cluster, "a voice")
    _amend(cluster, "median")
    # The rounds of both go on to the end of the plan.
    assert cluster.run(lambda: cluster.all_closed(4))
    return cluster


@pytest.fixture
def home(amended_cluster: Cluster, tmp_path: Path) -> Home:
    home = Home(tmp_path / "amended")
    fill(home, amended_cluster, amended_cluster.nodes[1])
    return home


def test_the_history_of_a_charter_is_shown_and_each_charter_that_was_in_force(run: "Run", home: Home) -> None:
    found = run("charter", "history", "--home", home.root, "--json").value
    first, second = found["amendments"]
    assert found["founding"] == found["federation"]
    assert found["in_force"] == second["charter"]
    assert [change["what"] for change in first["changes"]] == ["modality voice", "task digit", "component head/digit"]
    assert second["changes"] == [{"what": "rule of head/task0", "before": "mean", "after": "median"}]
    at = first["in_force_from_height"]
    founding = run("charter", "show", "--home", home.root, "--json").value
    assert run("charter", "show", "--at", at - 1, "--home", home.root, "--json").value["charter"] == founding["charter"]
    shown = run("charter", "show", "--at", at, "--home", home.root)
    assert "head/digit" in shown.out
    assert "after 1 amendment;" in shown.out
    assert run("charter", "show", "--at", 9999, "--home", home.root).code == 2
    text = run("charter", "history", "--home", home.root)
    assert "head/digit" in text.out
    assert text.code == 0


def test_two_heights_are_compared(run: "Run", home: Home) -> None:
    found = run("charter", "diff", "--home", home.root, "--json").value
    assert [d["what"] for d in found["differences"]] == [
        "modality voice",
        "task digit",
        "component head/digit",
        "rule of head/task0",
    ]
    assert run("charter", "diff", 1, 1, "--home", home.root, "--json").value["differences"] == []
    assert run("charter", "diff", 1, 9999, "--home", home.root).code == 2


def test_an_amendment_is_looked_at_before_it_is_proposed(run: "Run", home: Home) -> None:
    """G10: what cannot be is refused with the reason; a dry run needs no daemon and changes nothing."""
    look = ("charter", "amend", "--dry-run", "--home", home.root)
    found = run(
        *look, "--retire", "head/digit", "--pace", "24h", "--rounds", 9, "--rule", "head/task0=mean", "--json"
    ).value
    assert found["number"] == 3
    assert {(c["what"], c["after"]) for c in found["changes"]} == {
        ("rounds of head/digit", "retired"),
        ("rule of head/task0", "mean"),
        ("pace", "24 h"),
        ("planned rounds", "9"),
    }
    assert run(*look).code == 2
    assert run(*look, "--retire", "head/none").code == 5
    assert run(*look, "--horizon", 1).code == 5
    assert run(*look, "--rule", "head/task0=sometimes").code == 5
    assert run(*look, "--rule", "head/none=mean").code == 2
    assert run(*look, "--min-updates", "head/task0=x").code == 2
    assert run("charter", "amend", "--pace", "24h", "--yes", "--home", home.root).code not in (0, 1)  # no daemon


def test_what_is_said_of_a_node_is_by_the_charter_in_force(run: "Run", home: Home, tmp_path: Path) -> None:
    """Not by the founding one, which lacks the voice and its task."""
    at = ("--home", home.root)
    review = run("charter", "review", *at)
    assert "the charter in force of the federation" in review.out
    assert "after 2 amendments" in review.out
    assert "head/digit" in review.out
    assert "head/digit" not in run("charter", "review", home.charter, *at).out, "a file is read as it is"

    home.config.write_text(home.config.read_text().replace('engage = ["*"]', 'engage = ["*", "head/digit", "head/x"]'))
    (found,) = [one for one in run("doctor", *at, "--no-data", "--json").value["checks"] if one["check"] == "engage"]
    assert "'head/x'" in found["found"]
    assert "'head/digit'" not in found["found"]
    assert charter_in_force(home).number == 2
    page, _ = Source(home, partial(from_store, home)).read(lambda reading: protection(reading, {}))
    assert "head/digit" in str(page), "what leaves the house has what opened"


DATA = """format = 1
[unit]
subject = "id"
[tables.t]
path = "t.csv"
key = "id"
[[modality]]
name = "made-up"
kind = "tabular"
columns = [{ name = "a", low = 0, high = 1 }]
[[task]]
name = "bare"
kind = "binary"
column = "b"
positive = ["yes"]
[split]
share = 0.5
salt = "x"
"""


def with_pace(charter: Charter, said: bytes, pace: int) -> bytes:
    """Return the statement of an amendment that sets the pace, in ms, too."""
    limits = Limits(**{name: getattr(charter.rules, name) for name in Limits.__slots__} | {"pace": pace})
    one = load(said, charter.federation)
    return schema.dump(replace(one, changes=replace(one.changes, limits=(limits,))))


def test_whoever_votes_sees_what_an_amendment_does_to_the_own_students(run: "Run", tmp_path: Path) -> None:
    """A head without noise, where this house's own policy is "dp": it takes no part."""
    cluster = Cluster(4, 7, Invariants, rounds=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    said = with_pace(cluster.charter, statement(cluster.charter, "a bare head"), 120_000)
    cluster.nodes[0].deliver(ev.ProposeMotion("amend", cluster.charter.federation, said, "", 1000))
    node = cluster.nodes[1]
    assert cluster.run(lambda: bool(node.core is not None and node.core.ledger.roll.motions))
    home = Home(tmp_path / "home")
    fill(home, cluster, node)
    at = ("--home", home.root)
    assert "Nothing changes for this institution's own students" in run("charter", "effect", *at).out, "it has no data"
    (tmp_path / "dataset.toml").write_text(DATA)
    home.config.write_text(home.config.read_text().replace('path = ""', f'path = "{tmp_path}"', 1))
    found = run("charter", "effect", *at, "--json").value
    (own,) = found["own_students"]
    assert (own["modality"], list(own["refused_here"])) == ("made-up", ["head/bare"])
    assert run("peer", "motions", *at, "--json").value["own_students"] == {found["motion"]: [own]}
    listed = " ".join(run("peer", "motions", *at).out.split())
    assert "This node will take no part in head/bare" in listed
    (motion,) = run("peer", "motions", *at, "--json").value["open"]
    assert motion["what"].startswith("amend the charter: open head/bare; pace ")
    assert motion["what"].endswith(" → 2 min")
    assert found["motion"][:12] in listed
    assert run("charter", "effect", "ffff", *at).code == 2
    assert (
        run("charter", "effect", *at, "--json").value == run("charter", "effect", found["motion"], *at, "--json").value
    )


def test_both_verifiers_reach_the_charter_in_force(run: "Run", home: Home, tmp_path: Path) -> None:
    """G10: from the founding charter and the votes alone, each by code of its own."""
    in_force = run("charter", "history", "--home", home.root, "--json").value["in_force"]
    checked = run("ledger", "verify", "--home", home.root, "--json").value
    assert checked["charter"] == {"digest": in_force, "amendments": 2}
    with outsiders.source_of(home) as source:
        data = b"".join(outsiders.export(source))
    lines = verifying.load_independent().verify(io.BytesIO(data))
    assert f"charter in force: {in_force} after 2 amendments" in lines
