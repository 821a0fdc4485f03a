"""`collegium ledger export`, `prove`, `consistency` and `verify FILE`: what is written, what is refused, and how."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.node.home import Home
from collegium.node.store import Store
from collegium.sims.paper.paper_federation import PaperFederation
from collegium.sims.simulator.cluster import Cluster

if TYPE_CHECKING:
    from .conftest import Run


@pytest.fixture
def record(run: "Run", home: Home) -> str:
    return str(run("ledger", "log", "--limit", 1, "--home", home.root, "--json").value[0]["digest"])


@pytest.fixture
def ledger(run: "Run", home: Home, tmp_path: Path) -> Path:
    file = tmp_path / "ledger"
    assert run("ledger", "export", file, "--home", home.root).code == 0
    return file


def test_an_export_is_verified_without_a_node(run: "Run", home: Home, ledger: Path) -> None:
    here = run("ledger", "verify", "--home", home.root, "--json").value
    result = run("ledger", "verify", ledger, "--json").value
    assert result["verified"] is True
    assert result["type"] == "ledger"
    for name in ("federation", "height", "block", "tree_root", "records", "signatures", "members", "refused_records"):
        assert result[name] == here[name]
    shown = run("ledger", "verify", ledger)
    assert f"--pin {result['height']}:{result['block']}" in shown.out
    assert result["federation"] in shown.out
    assert "compare it" in shown.out
    assert str(home.charter) in run("ledger", "verify", ledger, "--charter", home.charter).out


def test_part_of_it_is_a_ledger(run: "Run", home: Home, tmp_path: Path) -> None:
    file = tmp_path / "part"
    result = run("ledger", "export", file, "--until", 2, "--home", home.root, "--json").value
    assert result == {"file": str(file), "height": 2, "bytes": file.stat().st_size}
    assert run("ledger", "verify", file, "--json").value["height"] == 2
    assert run("ledger", "export", tmp_path / "more", "--until", 999, "--home", home.root).code == 2
    assert not (tmp_path / "more").exists()


def test_a_record_is_proved(run: "Run", home: Home, tmp_path: Path, record: str) -> None:
    file = tmp_path / "proof"
    made = run("ledger", "prove", record[:12], file, "--home", home.root, "--json").value
    assert made["bytes"] == file.stat().st_size
    result = run("ledger", "verify", file, "--json").value
    assert result["record"]["digest"] == record
    assert {**result["record"], "digest": record} == made["record"]
    assert record in run("ledger", "verify", file).out
    height = result["height"]
    assert run("ledger", "verify", file, "--pin", f"{height}:{result['block']}").code == 0
    assert run("ledger", "verify", file, "--pin", f"{height}:{'00' * 32}").code == 6


def test_a_record_is_proved_in_the_tree_of_a_height(run: "Run", home: Home, tmp_path: Path) -> None:
    early = run("ledger", "show", 1, "--home", home.root, "--json").value["records"][0]["digest"]
    file = tmp_path / "proof"
    assert run("ledger", "prove", early, file, "--at", 2, "--home", home.root, "--json").value["height"] == 2
    assert run("ledger", "prove", "00" * 32, tmp_path / "none", "--home", home.root).code == 2
    assert run("ledger", "prove", "xyz", tmp_path / "none", "--home", home.root).code == 2
    assert not (tmp_path / "none").exists()


def test_growth_is_shown_and_written(run: "Run", home: Home, tmp_path: Path) -> None:
    shown = run("ledger", "consistency", 2, 4, "--home", home.root, "--json").value
    assert (shown["extends"]["height"], shown["height"], shown["file"]) == (2, 4, None)
    assert all(len(node) == 64 for node in shown["path"])
    file = tmp_path / "growth"
    assert str(file) in run("ledger", "consistency", 2, 4, "--out", file, "--home", home.root).out
    result = run("ledger", "verify", file, "--json").value
    assert (result["type"], result["extends"], result["block"]) == ("consistency", shown["extends"], shown["block"])
    assert "height 4 appends to height 2" in run("ledger", "verify", file).out
    for a, b in ((4, 2), (3, 3), (1, 999)):
        assert run("ledger", "consistency", a, b, "--home", home.root).code == 2


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda data: b"", 3, "is empty"),
        (lambda data: data[:-100], 3, "cut off"),
        (lambda data: data + b"\n", 3, "goes on after its end"),
        (lambda data: b"\x7fELF" + data, 3, "no ledger file and no proof"),
        (lambda data: data.replace(b"collegium/1", b"collegium/9"), 3, "another format"),
        (lambda data: data[:-20] + bytes((data[-20] ^ 1,)) + data[-19:], 6, "bad-signature"),
    ],
)
def test_what_does_not_hold_is_refused_with_the_files_name(
    run: "Run", ledger: Path, change: Callable[[bytes], bytes], code: int, words: str
) -> None:
    data = ledger.read_bytes()
    ledger.write_bytes(change(data))
    answer = run("ledger", "verify", ledger)
    assert (answer.code, words in answer.err, str(ledger) in answer.err) == (code, True, True), answer.err
    assert len(answer.err.splitlines()) == 2, "what happened, and what to do"
    assert run("ledger", "verify", ledger, "--json").value["exit_code"] == code


def test_a_file_of_another_federation_is_refused(run: "Run", home: Home, ledger: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(PaperFederation(3).charter_file)
    answer = run("ledger", "verify", ledger, "--charter", other)
    assert (answer.code, "is of federation" in answer.err) == (6, True)


def test_commands_that_make_no_sense_are_refused(run: "Run", home: Home, ledger: Path, tmp_path: Path) -> None:
    for words in (
        ("ledger", "verify", ledger, "--home", home.root),
        ("ledger", "verify", "--charter", home.charter, "--home", home.root),
        ("ledger", "verify", tmp_path / "absent"),
        ("ledger", "verify", tmp_path),
        ("ledger", "export", ledger, "--home", home.root),
        ("ledger", "export", tmp_path / "no" / "folder", "--home", home.root),
    ):
        answer = run(*words)
        assert answer.code == 2, words
        assert "internal" not in answer.err


def test_nothing_is_exported_before_anything_is_agreed(
    run: "Run", home: Home, tmp_path: Path, cluster: Cluster
) -> None:
    home.database.unlink()
    assert run("ledger", "export", tmp_path / "x", "--home", home.root).code == 2
    Store.open(home.database, cluster.charter.federation).close()
    answer = run("ledger", "export", tmp_path / "x", "--home", home.root)
    assert (answer.code, "Nothing is agreed on" in answer.err) == (2, True)
    assert not (tmp_path / "x").exists()
