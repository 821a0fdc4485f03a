"""What doctor finds."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.cli import checks
from collegium.node.home import Home
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, dump_file
from collegium.sims.cluster import Cluster

if TYPE_CHECKING:
    from .conftest import Run


def verdicts(home: Home) -> dict[str, tuple[str, str]]:
    worst = {"ok": 0, "warn": 1, "fail": 2}
    found: dict[str, tuple[str, str]] = {}
    for check in checks.run(home, data=True):
        if check.name not in found or worst[check.verdict] > worst[found[check.name][0]]:
            found[check.name] = (check.verdict, f"{check.found} {check.advice}")
        assert check.verdict == "ok" or check.advice or check.name == "daemon"
    return found


def test_a_good_home_has_no_failures(home: Home) -> None:
    found = verdicts(home)
    assert {name for name, (verdict, _) in found.items() if verdict == "fail"} == set()
    assert found["daemon"][0] == "warn"
    assert found["config"][0] == "warn"  # no data folder
    for name in ("python", "packages", "clock", "directory", "key", "charter", "ports", "database"):
        assert found[name][0] == "ok"


def test_no_home_at_all_is_one_finding_among_others(run: "Run", tmp_path: Path) -> None:
    answer = run("doctor", "--home", tmp_path / "no folder" / "none", "--json")
    assert answer.code == 1
    assert answer.value["ok"] is False
    assert {c["check"] for c in answer.value["checks"] if c["verdict"] == "fail"} == {
        "directory", "key", "config", "charter", "ports", "data",
    }  # fmt: skip


def test_a_key_that_others_can_read_fails(home: Home) -> None:
    home.key.chmod(0o644)
    assert verdicts(home)["key"][0] == "fail"
    assert "chmod 600" in verdicts(home)["key"][1]


def test_an_open_directory_fails(home: Home) -> None:
    home.root.chmod(0o755)
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
    found = verdicts(home)
    assert found["charter"][0] == "fail"
    assert "member 2" in found["charter"][1]
    assert found["membership"][0] == "fail"
    assert found["key"][0] == "fail"


def test_data_that_does_not_load_fails(home: Home) -> None:
    text = home.config.read_text().replace('path = ""', 'path = "data"').replace("lot_size = 0.0", "lot_size = 10.0")
    home.config.write_text(text)
    found = verdicts(home)
    assert (found["config"][0], found["data"][0]) == ("ok", "fail")


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
