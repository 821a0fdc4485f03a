"""The charter's pace as its members meet it: drawing it up, signing it, and when the next round may close."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.node.core.core import load_node
from collegium.node.home import Home
from collegium.node.store import Store
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill
from .test_node import alone
from .test_pausing import all_but_one_day

if TYPE_CHECKING:
    from .conftest import Run

__all__ = ["alone"]
HOUR = 3600


def create(run: "Run", home: Home, *words: object) -> tuple[int, str, str]:
    made = run("charter", "show", home.charter, "--json").value["members"][0]
    member = f"{made['name']}={made['key']}@/ip4/127.0.0.1/tcp/4001"
    common = ("--name", "slow", "--no-dp", "--preset", "digits", "--fault-model", "crash", "--member", member)
    done = run("charter", "create", *common, *words, "--home", home.root)
    return done.code, " ".join(done.out.split()), done.err


def test_a_charter_says_its_pace_where_it_is_drawn_up_shown_and_signed(run: "Run", alone: Home, tmp_path: Path) -> None:
    assert "none: rounds follow each other as fast as they are trained" in " ".join(
        run("charter", "show", alone.charter).out.split()
    )
    code, out, err = create(run, alone, "--pace", "24h", "--rounds", 8, "--out", tmp_path / "slow.bin")
    assert code == 0, err
    sentence = "a component closes a round every 24 h at most: the 8 planned ones take 7 d or longer"
    assert sentence in out
    assert sentence in " ".join(run("charter", "show", tmp_path / "slow.bin").out.split())
    assert run("charter", "show", tmp_path / "slow.bin", "--json").value["pace_seconds"] == 24 * HOUR
    alone.charter.unlink()
    assert sentence in " ".join(
        run("charter", "sign", "--yes", tmp_path / "slow.bin", "--home", alone.root).out.split()
    )


@pytest.mark.parametrize("text", ["24", "one night", "-1h", "9999d", "1e3h"])
def test_a_pace_that_is_no_time_is_refused(run: "Run", alone: Home, tmp_path: Path, text: str) -> None:
    code, _, err = create(run, alone, f"--pace={text}", "--out", tmp_path / "slow.bin")
    assert code == 2
    assert "24h" in err or "At most 366 d" in err


def test_status_says_when_the_next_round_may_close_and_a_restart_remembers(run: "Run", tmp_path: Path) -> None:
    cluster = Cluster(4, 5, Invariants, rounds=4, pace=1000 * HOUR)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    node, home = cluster.nodes[1], Home(tmp_path / "node")
    fill(home, cluster, node)
    (component,) = run("node", "status", "--home", home.root, "--json").value["components"]
    with Store.open_readonly(home.database) as store:
        closed = store.decided(cluster.latest().components["head/task0"].rounds[-1].height)  # type: ignore[union-attr]
        snapshot = store.snapshot()
    assert closed is not None
    assert datetime.fromisoformat(component["closes_after"]).timestamp() == pytest.approx(closed + HOUR, abs=0.01)
    text = " ".join(run("node", "status", "--home", home.root).out.split())
    assert "a round of a component every 1 h at most; the next not before" in text
    assert load_node(cluster.charter, node.identity, node.options, snapshot).resting.keys() == {"head/task0"}
    config = home.config.read_text()
    home.config.write_text(config.replace("quiet_hours = []", f'quiet_hours = ["{all_but_one_day()}"]'))
    status = run("node", "status", "--home", home.root, "--json").value
    shown = status["quiet_hours"]
    assert (shown["now"], shown["rounds_due"], 0 < shown["rounds_missed"] < 168) == (True, 168, True)
    assert {one["kind"] for one in status["findings"]} & {"quiet-hours", "quiet-hours-miss-rounds"} == {"quiet-hours"}
    (idle,) = status["training"]["idle"]
    assert (idle["why"], idle["reason"]) == ("paused", "quiet-hours")
    assert idle["meaning"].startswith("its quiet hours last until ")
    text = " ".join(run("node", "status", "--home", home.root).out.split())
    assert f"of the 168 rounds due within a week, {shown['rounds_missed']} come due in them" in text
    home.config.write_text(config)
    with sqlite3.connect(home.database) as database:  # as if an hour went by while the node was down
        database.execute("UPDATE blocks SET received = received - ?", (HOUR,))
    with Store.open_readonly(home.database) as store:
        assert not load_node(cluster.charter, node.identity, node.options, store.snapshot()).resting
    (component,) = run("node", "status", "--home", home.root, "--json").value["components"]
    assert component["closes_after"] is None


def test_a_federation_waits_for_its_start(run: "Run", alone: Home, tmp_path: Path) -> None:
    start = datetime.now(UTC).replace(microsecond=0, second=0) + timedelta(hours=2)
    code, out, err = create(run, alone, "--start", start.strftime("%Y-%m-%dT%H:%M"), "--out", tmp_path / "late.bin")
    assert code == 0, err
    assert f"no round is trained or closed before {start:%Y-%m-%dT%H:%MZ}" in out
    assert run("charter", "show", tmp_path / "late.bin", "--json").value["starts_at"] == f"{start:%Y-%m-%dT%H:%MZ}"

    cluster = Cluster(4, 5, Invariants, start=int(start.timestamp()))
    home = Home(tmp_path / "node")
    fill(home, cluster, cluster.nodes[1])
    node = cluster.nodes[1]
    (component,) = run("node", "status", "--home", home.root, "--json").value["components"]
    assert datetime.fromisoformat(component["closes_after"]) == start
    assert f"the next not before {start:%Y-%m-%d %H:%M} UTC" in " ".join(
        run("node", "status", "--home", home.root).out.split()
    )
    with Store.open_readonly(home.database) as store:
        snapshot = store.snapshot()
    assert load_node(cluster.charter, node.identity, node.options, snapshot).resting.keys() == {"head/task0"}
    later = replace(snapshot, clock=snapshot.clock + 2 * 1000 * HOUR)
    assert not load_node(cluster.charter, node.identity, node.options, later).resting


@pytest.mark.parametrize("text", ["tomorrow", "2020-01-01T06:00", "2999-01-01"])
def test_a_start_that_is_no_time_to_come_is_refused(run: "Run", alone: Home, tmp_path: Path, text: str) -> None:
    code, _, err = create(run, alone, "--start", text, "--out", tmp_path / "late.bin")
    assert code == 2
    assert "UTC" in err
