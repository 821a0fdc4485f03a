"""What doctor finds."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import checks
from collegium.node.control import client
from collegium.node.core import events as ev
from collegium.node.home import Home
from collegium.node.home.lock import hold
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, dump_file
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run


def verdicts(home: Home) -> dict[str, tuple[str, str]]:
    worst = {"ok": 0, "warn": 1, "fail": 2}
    by_name: dict[str, tuple[str, str]] = {}
    for check in checks.run(home, data=True):
        if check.name not in by_name or worst[check.verdict] > worst[by_name[check.name][0]]:
            by_name[check.name] = (check.verdict, f"{check.found} {check.advice}")
        assert check.verdict == "ok" or check.advice, check
    return by_name


def test_a_good_home_has_no_failures(home: Home) -> None:
    of_checks = verdicts(home)
    assert {name for name, (verdict, _) in of_checks.items() if verdict == "fail"} == set()
    assert of_checks["daemon"][0] == "warn"
    assert of_checks["config"][0] == "warn"  # no data folder
    for name in ("python", "packages", "clock", "directory", "key", "charter", "ports", "database"):
        assert of_checks[name][0] == "ok"


def test_no_home_at_all_is_one_finding_among_others(run: "Run", tmp_path: Path) -> None:
    answer = run("doctor", "--home", tmp_path / "no folder" / "none", "--json")
    assert answer.code == 1
    assert answer.value["ok"] is False
    assert {c["check"] for c in answer.value["checks"] if c["verdict"] == "fail"} == {
        "directory", "key", "config", "charter",
    }  # fmt: skip


def test_what_is_wrong_in_the_configuration_is_said_once(home: Home) -> None:
    text = home.config.read_text().replace("quiet_hours = []", 'quiet_hours = ["Mo-Fr 08:00-16:00"]')
    home.config.write_text(text)
    (found,) = [check for check in checks.run(home) if "quiet_hours" in check.found + check.advice]
    assert (found.name, found.verdict) == ("config", "fail")
    assert "'Mo-Fr 08:00-16:00'" in found.found + found.advice
    assert "Mon, Tue, Wed, Thu, Fri, Sat, Sun" in found.found + found.advice


def test_a_key_that_others_can_read_fails(home: Home) -> None:
    home.key.chmod(0o644)
    assert verdicts(home)["key"][0] == "fail"
    assert "chmod 600" in verdicts(home)["key"][1]


@pytest.mark.parametrize("mode", [0o701, 0o740])
def test_an_open_directory_fails(home: Home, mode: int) -> None:
    home.root.chmod(mode)
    assert verdicts(home)["directory"][0] == "fail"


def test_a_port_in_use_fails(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        home.config.write_text(home.config.read_text().replace("/tcp/0", f"/tcp/{port}"))
        assert verdicts(home)["ports"][0] == "fail"
    assert verdicts(home)["ports"][0] == "ok"


def test_missing_signatures_and_a_foreign_key_fail(home: Home, cluster: Cluster) -> None:
    home.charter.write_bytes(dump_file(SignedCharter(schema.dump(cluster.charter), ())))
    home.key.write_text(home.key.read_text().replace(cluster.nodes[1].identity.public_key.hex(), "00" * 32))
    of_checks = verdicts(home)
    assert of_checks["charter"][0] == "fail"
    assert "member 2" in of_checks["charter"][1]
    assert of_checks["membership"][0] == "fail"
    assert of_checks["key"][0] == "fail"


def test_data_that_does_not_load_fails(home: Home) -> None:
    text = home.config.read_text().replace('path = ""', 'path = "data"').replace("lot_size = 0.0", "lot_size = 10.0")
    home.config.write_text(text)
    of_checks = verdicts(home)
    assert (of_checks["config"][0], of_checks["data"][0]) == ("ok", "fail")


def test_an_undeclared_lot_fails(home: Home) -> None:
    home.config.write_text(home.config.read_text().replace('path = ""', 'path = "data"'))
    assert verdicts(home)["config"][0] == "fail"


def test_damaged_files_fail(home: Home) -> None:
    home.database.write_bytes(b"SQLite format 3\0 and no more")
    assert verdicts(home)["database"][0] == "fail"


@pytest.mark.parametrize(("free", "verdict"), [(1 << 20, "fail"), (1 << 30, "warn"), (1 << 40, "ok")])
def test_disk_space(home: Home, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("collegium.cli.checks.shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert verdicts(home)["disk"][0] == verdict


@pytest.mark.parametrize(
    ("here", "relation", "wanted", "fits"),
    [
        ("2.13.0+cpu", ">=", "2.13", True),
        ("2.12.9", ">=", "2.13", False),
        ("0.8.1", "==", "0.8.1", True),
        ("0.8.2", "==", "0.8.1", False),
        ("2.13.0+cpu", "==", "2.13.0", True),
        ("10.0", ">=", "9.1", True),
    ],
)
def test_versions_are_compared_as_numbers(here: str, relation: str, wanted: str, fits: bool) -> None:
    assert checks._fits(here, relation, wanted) is fits


def test_a_missing_package_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "requires", lambda _: ["no-such-package>=1", "trio", "libp2p==99.0"])
    verdict, text = verdicts(home)["packages"]
    assert verdict == "fail"
    assert "no-such-package is missing" in text
    assert "needed is ==99.0" in text


def test_an_unset_clock_is_a_warning(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.cli.checks.time.time", lambda: 0.0)
    assert verdicts(home)["clock"][0] == "warn"


@contextmanager
def mute(home: Home, word: bytes) -> Iterator[None]:
    """A daemon that holds the lock, accepts whoever calls, and says `word` again and again, which is no answer."""
    end = threading.Event()

    def answer(listener: socket.socket) -> None:
        while not end.is_set():
            with suppress(OSError):
                caller = listener.accept()[0]
                threading.Thread(target=talk, args=(caller,), daemon=True).start()

    def talk(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            while not end.wait(0.05):
                caller.sendall(word)

    with hold(home), socket.socket(socket.AF_UNIX) as listener:
        home.socket_folder()
        listener.bind(str(home.socket))
        listener.listen()
        listener.settimeout(0.1)
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        yield
        end.set()
        thread.join()


@pytest.mark.parametrize("word", [b"", b"H"], ids=["never answers", "never ends its answer"])
def test_a_daemon_that_does_not_answer_keeps_no_command_waiting(
    home: Home, run: "Run", monkeypatch: pytest.MonkeyPatch, word: bytes
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    monkeypatch.setattr(client, "GRACE", 0.2)
    monkeypatch.setattr(client, "BUSY", 0.2)
    monkeypatch.setattr(client, "SILENT", 0.3)
    monkeypatch.setattr("collegium.node.control.process.LEAST", 60.0)  # this process holds the directory, and works
    with mute(home, word):
        verdict, text = verdicts(home)["daemon"]
        assert (verdict, "does not answer" in text or "no control socket" in text) == ("fail", True), text
        assert run("node", "status", "--check", "--home", home.root).out.startswith("critical: The daemon (pid ")
        for words in ("node status", "peer list", "privacy show --no-forecast", "component list"):
            assert run(*words.split(), "--home", home.root).code == 0
        assert run("peer", "approve", "x", "--home", home.root).code == 4


@pytest.mark.parametrize("name", ["charter.bin", "key.json", "lock"])
def test_a_file_that_nobody_ever_writes_keeps_doctor_from_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(checks, "PATIENCE", 1.0)
    path = home.root / name
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    of_checks = verdicts(home)
    assert "fail" in {verdict for verdict, _ in of_checks.values()}
    assert of_checks["disk"][0] == "ok"


def test_a_daemon_that_runs_already_is_no_reason_to_stop_it(home: Home, run: "Run") -> None:
    with hold(home):
        answer = run("node", "start", "--home", home.root)
    assert answer.code == 2
    assert f"runs already (pid {os.getpid()})" in answer.err
    assert f"collegium --home {home.root} node status" in answer.err
    assert "Stop it first" not in answer.err


@pytest.fixture(scope="module")
def without_last() -> Cluster:
    """Four members of whom the last is expelled after two rounds."""
    cluster = Cluster(4, 8, Invariants, rounds=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    for node in cluster.nodes[:3]:
        node.deliver(ev.ProposeMotion("expel", cluster.nodes[3].identity.public_key, b"", "", 100))
    assert cluster.run(lambda: all(len(n.core.ledger.members) == 3 for n in cluster.nodes[:3] if n.core))
    return cluster


def test_who_was_expelled_hears_since_when_and_what_it_can_still_do(
    without_last: Cluster, run: "Run", tmp_path: Path
) -> None:
    home, cluster = Home(tmp_path / "gone"), without_last
    fill(home, cluster, cluster.nodes[0])
    last = cluster.nodes[3].identity
    key = {"collegium-key": 1, "public_key": last.public_key.hex(), "seed": last.seed.hex()}
    home.key.write_text(json.dumps(key))
    status = run("node", "status", "--home", home.root, "--json").value
    since = status["gone_since_height"]
    assert (status["gone"], status["is_member"], since > 0) == ("expelled", False, True)
    (note,) = status["notes"]
    for part in (f"no member since height {since}", "ledger verify", "unlearn statement", "--new-key"):
        assert part in note
    shown = run("node", "status", "--home", home.root).out
    assert f"no member since height {since}, not running" in " ".join(shown.split())
    for word in ("training", "connected", "approve"):
        assert word not in shown.replace("unlearn", "")
    results: Any = run("doctor", "--home", home.root, "--json").value["checks"]
    wrong = {check["check"]: check for check in results if check["verdict"] != "ok"}
    assert set(wrong) <= {"membership", "disk"}
    assert f"since height {since}" in wrong["membership"]["found"]
    assert not {"data", "daemon", "ports", "addresses", "policy", "quorum"} & {check["check"] for check in results}
    assert run("ledger", "verify", "--no-states", "--home", home.root).code == 0
    out = tmp_path / "statement"
    assert run("unlearn", "statement", "--out", out, "--home", home.root).code == 0
    assert out.exists()

    # A daemon has nothing to do any more, and says no more than that.
    try:
        begun = run("node", "start", "--wait", 120, "--home", home.root)
        said = [line.replace(f"--home {home.root} ", "") for line in begun.out.splitlines()]
        assert (begun.code, said[1:]) == (0, [f"note: {note}"])
        assert run("node", "status", "--home", home.root, "--json").value["notes"] == [note]
        shown = run("node", "status", "--home", home.root).out
        assert f"no member since height {since}, running" in " ".join(shown.split())
        assert "connected" not in shown
        named = {check["check"] for check in run("doctor", "--home", home.root, "--json").value["checks"]}
        assert not {"daemon", "learner"} & named
    finally:
        run("node", "stop", "--force", "--home", home.root)


def test_memory_is_stated_and_a_machine_that_is_too_small_is_a_warning(
    run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.node.learner import memory
    from collegium.sims.learn.datasets import prepare_digits

    home, data = tmp_path / "a", prepare_digits(tmp_path, 4, 0.5, 1)[0]
    words = ("--home", home, "--data", data, "--listen", "/ip4/127.0.0.1/tcp/4001")
    member = run("init", *words, "--lot-size", 40, "--json").value["member"]
    assert run("--home", home, "charter", "create", "--name", "t", "--preset", "digits", "--member", member).code == 0

    def found(*options: str) -> dict[str, Any]:
        checks_ = run("--home", home, "doctor", *options, "--json").value["checks"]
        (check,) = [check for check in checks_ if check["check"] == "memory"]
        assert isinstance(check, dict)
        return check

    with_data, without = found(), found("--no-data")
    assert (with_data["verdict"], without["verdict"]) == ("ok", "ok")
    assert with_data["bytes"]["features and states"] > without["bytes"]["features and states"] == 0
    assert without["found"].startswith("the learner needs about 3")
    assert "without the data" in without["found"]
    monkeypatch.setattr(memory, "machine", lambda: 256 << 20)
    small = found("--no-data")
    assert (small["verdict"], small["bytes"]["machine"]) == ("warn", 256 << 20)
    assert "processes = 1" in small["advice"]
