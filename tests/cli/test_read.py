"""Commands that read, over a node's directory without a daemon."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.cli.ledger import parse_pin
from collegium.crypto.errors import UsageError
from collegium.node.core import events as ev
from collegium.node.home import Home
from collegium.node.home.config import Config, Data, Learning, default_text
from collegium.node.store import Metric, Store
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

READING = {
    "node status": ("node", "status"),
    "peer list": ("peer", "list"),
    "peer ls": ("peer", "ls"),
    "component list": ("component", "list"),
    "component ls": ("component", "ls"),
    "round list": ("round", "list"),
    "round list of a component": ("round", "list", "head/task0", "--since", "2", "--limit", "1"),
    "round show": ("round", "show", "head/task0", "1"),
    "ledger log": ("ledger", "log", "--kind", "update"),
    "ledger show": ("ledger", "show", "1"),
    "ledger verify": ("ledger", "verify"),
    "ledger consistency": ("ledger", "consistency", "1", "3"),
    "privacy show": ("privacy", "show", "--no-forecast"),
    "unlearn status": ("unlearn", "status"),
    "unlearn verify": ("unlearn", "verify"),
    "charter show": ("charter", "show"),
    "charter verify": ("charter", "verify"),
    "doctor": ("doctor", "--no-data"),
}


@pytest.mark.parametrize("what", READING)
def test_it_works_without_a_daemon_for_people_and_programs(run: "Run", home: Home, what: str) -> None:
    words = READING[what]
    people = run(*words, "--home", home.root)
    assert people.code == 0, people.err
    assert people.out.strip()
    programs = run("--home", home.root, *words, "--json")
    assert (programs.code, programs.err) == (0, "")
    assert programs.value not in (None, [], {})


def test_what_is_this_institutions_own_is_shown_for_the_asking_only(run: "Run", home: Home, cluster: Cluster) -> None:
    with Store.open(home.database, cluster.charter.federation) as store:
        store.put_metrics(
            [
                Metric(2, 1, "task0", "auc", 0.7512, 90, 1.0),
                Metric(2, 1, "task0", "auc", 0.8123, 90, 1.0, home_layer=True),
                Metric(2, 1, "task0", "auc", float("nan"), None, 1.0, "sex=f"),
            ]
        )
    words = ("round", "show", "head/task0", "2", "--home", home.root)
    public, local = run(*words), run(*words, "--local")
    assert "0.7512" not in public.out
    assert "evaluation" not in run(*words, "--json").value
    (whole,) = [line.split() for line in local.out.splitlines() if "0.7512" in line]
    assert whole == ["task0", "auc", "all", "0.7512", "0.8123", "90"]
    assert any("sex=f" in line and "under 50: not shown" in line for line in local.out.splitlines())
    assert len(run(*words, "--local", "--json").value["evaluation"]) == 3
    assert "no better than a constant" not in local.out
    with Store.open(home.database, cluster.charter.federation) as store:
        store.put_metrics(
            [
                Metric(2, 1, "task0", "accuracy", 0.44, 90, 1.0),
                Metric(2, 1, "task0", "accuracy_constant", 0.46, 90, 1.0),
            ]
        )
    with Store.open(home.database, cluster.charter.federation) as store:
        store.put_metrics([Metric(2, 1, "task0", "nearly_certain", 0.25, 90, 1.0)])
    worse, figures = run(*words, "--local"), run(*words, "--local", "--json").value
    (sure,) = figures["nearly_certain"]
    assert (sure["task"], sure["share"], sure["warning"] in " ".join(worse.out.split())) == ("task0", 0.25, True)
    remarks = figures["no_better"]
    assert "task0 is no better than a constant here: accuracy 0.440 is not above" in " ".join(worse.out.split())
    assert [(task["task"], task["home_layer"]) for task in remarks] == [("task0", False)]
    assert "constant" not in run(*words).out
    assert "Nothing was evaluated" in run("round", "show", "head/task0", "3", "--local", "--home", home.root).out
    assert "generation 1)" not in worse.out
    with Store.open(home.database, cluster.charter.federation) as store:
        store.put_metrics(
            [
                Metric(2, 0, "task0", "accuracy", 0.43, 90, 1.0),
                Metric(2, 0, "task0", "accuracy_constant", 0.46, 90, 1.0),
            ]
        )
    lines = run(*words, "--local").out.splitlines()
    (old,), (now,) = (
        [number for number, line in enumerate(lines) if line.startswith(what)]
        for what in ("before a withdrawal, not in force (generation 0)", "now (generation 1)")
    )
    assert "0.4300" in "".join(lines[old:now])
    assert "accuracy 0.430 is not above" in " ".join(lines[old:now])
    assert "0.4400" not in "".join(lines[old:now])
    assert "0.4400" in "".join(lines[now:])
    assert "0.430" not in "".join(lines[now:])


def test_a_data_folder_that_is_away_keeps_nobody_from_reading_and_verifying(run: "Run", home: Home) -> None:
    hosted = {c["component"]: c["hosted_here"] for c in run("component", "list", "--home", home.root, "--json").value}
    home.config.write_text(default_text(Config(data=Data(home.root / "gone"))))
    answer = run("component", "list", "--home", home.root, "--json")
    assert (answer.code, {c["component"]: c["hosted_here"] for c in answer.value}) == (0, hosted)
    answer = run("ledger", "verify", "--home", home.root, "--json")
    assert (answer.code, answer.value["not_hosted_here"], len(answer.value["states"])) == (0, [], len(hosted))
    assert "gone/dataset.toml: No such file" in answer.err
    assert run("unlearn", "verify", "--home", home.root).code == 0
    only = Config(data=Data(home.root / "gone"), learning=Learning(engage=("head/task0",)))
    home.config.write_text(default_text(only))
    answer = run("ledger", "verify", "--home", home.root, "--json")
    assert [state["component"] for state in answer.value["states"]] == ["head/task0"], "as its daemon would host"


def test_reading_changes_nothing(run: "Run", home: Home) -> None:
    def everything() -> dict[Path, bytes]:
        beside = (".db-wal", ".db-shm")  # SQLite's own, made by whoever reads
        return {p: p.read_bytes() for p in sorted(home.root.rglob("*")) if p.is_file() and not str(p).endswith(beside)}

    before = everything()
    for words in READING.values():
        run(*words, "--home", home.root)
    assert everything() == before


def test_the_list_of_rounds_is_in_order_fits_and_says_where_it_ends(run: "Run", home: Home) -> None:
    rows = run("round", "list", "--home", home.root).out.splitlines()
    numbers = [int(line.split()[0]) for line in rows[1:] if line.split()[0].isdigit()]
    assert len(numbers) > 1
    assert numbers == sorted(numbers)
    assert "These are the last" not in rows[-1]
    ended = run("round", "list", "--limit", "1", "--home", home.root).out
    assert "These are the last 1 at the most" in ended


def test_a_node_that_never_ran_says_so(run: "Run", home: Home) -> None:
    home.database.unlink()
    answer = run("round", "list", "--home", home.root)
    assert answer.code == 2
    assert f"collegium --home {home.root} node start" in answer.err


def test_verify_prints_what_to_pin_and_holds_to_it(run: "Run", home: Home) -> None:
    result = run("ledger", "verify", "--home", home.root, "--json").value
    pin = f"{result['height']}:{result['block']}"
    assert run("ledger", "verify", "--pin", pin, "--home", home.root).code == 0
    wrong = f"{result['height']}:{'00' * 32}"
    answer = run("ledger", "verify", "--pin", wrong, "--home", home.root)
    assert (answer.code, "pinned-block" in answer.err) == (6, True)
    later = f"{result['height'] + 1}:{'00' * 32}"
    assert run("ledger", "verify", "--pin", later, "--home", home.root, "--json").value["exit_code"] == 6


@pytest.mark.parametrize("text", ["", "5", "5:", "x:" + "00" * 32, "0:" + "00" * 32, "5:abcd", "5:" + "zz" * 32])
def test_a_bad_pin_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_pin(text)


def test_a_changed_charter_is_corrupt(run: "Run", home: Home) -> None:
    data = bytearray(home.charter.read_bytes())
    data[len(data) // 2] ^= 1
    home.charter.write_bytes(bytes(data))
    answer = run("ledger", "verify", "--home", home.root)
    assert answer.code == 3
    assert str(home.charter) in answer.err


def test_a_damaged_database_is_corrupt(run: "Run", home: Home) -> None:
    data = home.database.read_bytes()
    home.database.write_bytes(data[: len(data) // 2])
    answer = run("ledger", "verify", "--home", home.root)
    assert (answer.code, str(home.database) in answer.err) == (3, True)


def test_a_changed_blob_fails_verification(run: "Run", home: Home) -> None:
    blob = next(path for path in home.blobs.glob("[0-9a-f]*/*/*"))
    blob.write_bytes(blob.read_bytes() + b"x")
    answer = run("ledger", "verify", "--home", home.root)
    assert (answer.code, "blob-digest" in answer.err) == (6, True)
    assert run("ledger", "verify", "--no-states", "--home", home.root).code == 0


def test_withdrawn_bytes_that_are_still_there_fail_verification(run: "Run", home: Home, cluster: Cluster) -> None:
    update = next(
        record["about"]
        for record in run("ledger", "log", "--kind", "update", "--home", home.root, "--json", "--limit", 1000).value
        if record["author"]["key"] == cluster.nodes[0].identity.public_key.hex()
    )
    name = update["blob"]
    path = home.blobs / name[:2] / name[2:4] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"still here")
    answer = run("unlearn", "verify", "--home", home.root, "--json")
    assert answer.code == 6
    assert answer.value["verified"] is False
    assert any(name in problem for problem in answer.value["withdrawals"][0]["problems"])
    text = run("unlearn", "verify", "--home", home.root).out
    assert "NOT verified: see the problems below" in text
    assert "problem: blob-not-erased" in run("unlearn", "verify", "--home", home.root).out


def test_a_withdrawal_that_is_agreed_and_not_carried_out_is_not_yet_verified(run: "Run", tmp_path: Path) -> None:
    cluster = Cluster(4, 5, Invariants, rounds=4)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    cluster.nodes[0].deliver(ev.RequestWithdrawal())
    node = cluster.nodes[1]
    assert cluster.run(lambda: node.core is not None and bool(node.core.ledger.withdrawn))
    home = Home(tmp_path / "early")
    fill(home, cluster, node)
    answer = run("unlearn", "verify", "--home", home.root, "--json")
    (report,) = answer.value["withdrawals"]
    assert (answer.code, answer.value["verified"], report["problems"]) == (4, False, [])
    kept = sum(what.startswith("blob-not-erased") for what in report["pending"])
    assert kept > 0
    answer = run("unlearn", "verify", "--home", home.root)
    text = " ".join(answer.out.split())
    assert answer.code == 4
    assert "not yet: the hosts have still to sign" in text
    assert f"{kept} withdrawn blobs are erased once they have. It takes no further round" in text
    assert "problem:" not in text
    assert "NOT verified" not in text


def test_members_are_named_or_refused(run: "Run", home: Home, cluster: Cluster) -> None:
    key = cluster.nodes[0].identity.public_key.hex()
    assert run("unlearn", "verify", key[:12], "--home", home.root).code == 0
    assert run("unlearn", "verify", "nobody", "--home", home.root).code == 2
    stayed = cluster.nodes[2].identity.public_key.hex()
    assert run("unlearn", "verify", stayed[:12], "--home", home.root).code == 6


def test_commands_that_command_need_a_daemon(run: "Run", home: Home) -> None:
    for words in (("node", "stop"), ("unlearn", "request", "--yes"), ("unlearn", "request")):
        answer = run(*words, "--home", home.root)
        assert answer.code == 4
        assert f"collegium --home {home.root} node start" in answer.err


def test_peers_are_added_and_removed_without_a_daemon(run: "Run", home: Home) -> None:
    address = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWS2fAoTAt1d9dsQ8NbBFh6P8S6pSafbM5v9V7a1zkonXB"
    assert run("peer", "add", address, "--home", home.root, "--json").value["connected"] is False
    assert run("peer", "list", "--home", home.root, "--json").value["added"] == [address]
    assert run("peer", "remove", address, "--home", home.root).code == 0
    assert run("peer", "list", "--home", home.root, "--json").value["added"] == []
    assert run("peer", "remove", address, "--home", home.root).code == 2
    assert run("peer", "add", "nonsense", "--home", home.root).code == 2


def test_watch_and_json_do_not_go_together(run: "Run", home: Home) -> None:
    assert run("node", "status", "--watch", "--json", "--home", home.root).code == 2


def test_digests_stay_whole_in_a_pipe(run: "Run", home: Home) -> None:
    answer = run("ledger", "verify", "--home", home.root)
    block = json.loads(run("ledger", "verify", "--home", home.root, "--json").out)["block"]
    assert any(line.endswith(block) for line in map(str.rstrip, answer.out.splitlines()))


def test_a_certificate_is_written_and_checked_without_a_home(
    run: "Run", home: Home, cluster: Cluster, tmp_path: Path
) -> None:
    owner, file = cluster.nodes[0].identity.public_key.hex(), tmp_path / "gone.certificate"
    made = run("unlearn", "certificate", owner[:12], "--out", file, "--with-updates", "--home", home.root, "--json")
    assert made.code == 0, made
    checked = run("unlearn", "verify", file, "--json")
    result = json.loads(checked.out)
    assert (checked.code, result["verified"], result["member"]) == (0, True, owner)
    assert all(c["refolded"] and c["removed_updates"] for c in result["components"])
    assert "refolded from the updates" in run("unlearn", "verify", file).out
    plain = tmp_path / "plain.certificate"
    assert run("unlearn", "certificate", owner[:12], "--out", plain, "--home", home.root).code == 0
    assert plain.stat().st_size < file.stat().st_size
    assert "updates are missing" in run("unlearn", "verify", plain).out
    assert "refolded from the updates" in run("unlearn", "verify", plain, "--updates", home.root).out
    assert run("unlearn", "verify", plain, "--charter", home.charter).code == 0
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    assert run("unlearn", "verify", file).code in (3, 6)
    assert run("unlearn", "verify", tmp_path / "nothing.certificate").code == 2
    assert run("unlearn", "verify", plain, "--updates", tmp_path / "nothing").code == 2
    assert run("unlearn", "verify", owner[:12], "--pin", f"1:{'0' * 64}", "--home", home.root).code == 2
    stayed = cluster.nodes[2].identity.public_key.hex()
    assert run("unlearn", "certificate", stayed[:12], "--out", plain, "--home", home.root).code == 2
    assert run("unlearn", "verify", plain).code == 0, "what was there is left as it was"
