"""One pupil under several spellings, and one cell that cannot be used, in federations founded by commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .schools import Federation, School, collegium

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
[[task]]
name = "result"
kind = "binary"
column = "result"
positive = "pass"
[split]
share = 0.2
salt = "s"
"""
SPOILT = "not-to-be-told"  # a cell that cannot be used; no log and no other school may hear of it


def school(folder: Path, *more: str) -> Path:
    folder.mkdir()
    rows = [f"r{n},p{n},{n % 20},{9 + n % 4},{'pass' if n % 20 > 8 else 'fail'}" for n in range(60)]
    (folder / "work.csv").write_text("\r\n".join(["id,pupil,hours,age,result", *rows, *more]) + "\r\n", newline="")
    (folder / "dataset.toml").write_text(TOML)
    return folder


def test_a_pupil_is_forgotten_in_every_spelling_and_a_wrong_cell_stops_nothing(
    found: Callable[[], Federation], tmp_path: Path
) -> None:
    """G7, G6: the receipt is of all spellings that normalise equal; a wrong cell leaves one pupil out, told here."""
    names = ("Zo\u00e9", "Zoe\u0301 ", " Zo\u00e9\u00a0", "ZOE\u0301")
    rows = [*(f"a{n},{name},12,9,pass" for n, name in enumerate(names)), f"a9,p7,{SPOILT},9,fail"]
    folders = [school(tmp_path / "one", *rows), school(tmp_path / "two")]
    checked = collegium("data", "check", folders[0], "--json")
    assert (checked.code, checked.value["subjects"], checked.value["left_out_subjects"]) == (3, 61, 1)
    assert checked.value["near_ids"] == [["Zo\u00e9", "ZO\u00c9"]]
    model = tmp_path / "model.toml"
    model.write_text(collegium("charter", "model", *folders).out)
    federation = found()
    for name, folder in zip(("north", "south"), folders, strict=True):
        federation.init(name, folder, lot_size=20)
    federation.charter("--model", model, "--fault-model", "crash", "--rounds", "40", "--epsilon", "50")
    federation.start()
    federation.wait_rounds(3, counted=2)
    north, south = federation.schools
    assert _told(north)["left_out"] == 1
    assert any("1 student is left out" in note for note in north.status()["notes"])
    assert _told(south)["left_out"] == 0
    log = (north.home / "node.log").read_text()
    assert "column 'hours', line 66 is not a number" in log
    assert SPOILT not in log
    assert "left out" in north.command("doctor", code=None).out
    _forget(north, tmp_path)
    words = ("unlearn", "subject", "zoe\u0301", "--exactly", "--yes")
    refused = north.command(*words, code=5)
    assert "Nobody has this id" in refused.err, "another case is another id, and nobody has it"
    assert north.ask("node", "status")["live"]["learner"]["state"] != "failed"
    near = ("unlearn", "subject", "zO\u00e9", "--yes", "--also", "Zo\u00e9", "--also", "ZO\u00c9", "--json")
    done = north.command(*near)  # what is advised for a spelling that nobody has can be done
    assert "1 of the 3 ids are spellings that nobody here has" in done.err, done.err
    assert (done.value["in_data"], len(done.value["also"])) == (True, 1)
    again = north.ask(*words, "--anyway")
    assert (again["in_data"], again["id_known"], again["withdrawn_updates"]) == (False, False, 0)
    federation.stop()


def _forget(north: School, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt"
    words = ("unlearn", "subject", "Zoe\u0301\u00a0", "--yes", "--out", receipt, "--json")
    refused = north.command(*words, code=2)
    assert "'ZO\u00c9'" in refused.value["error"]
    assert "--exactly" in refused.value["advice"]
    assert not receipt.exists()
    sent = north.command(*words, "--also", "ZO\u00c9", "--wait", 240).value
    assert sent["in_data"] is True
    assert sent["also"][0]["in_data"] is True
    for _ in range(60):  # nothing in force shows nothing: then it is asked for again after the next round
        if sent["verified"]:
            break
        receipt.unlink()
        Path(f"{receipt}.2").unlink()
        sent = north.command(*words, "--also", "ZO\u00c9", "--wait", 240).value
    key: Any = sent["key"]
    for spelling in ("Zo\u00e9", "Zoe\u0301", "\ufeff Zo\u00e9 "):
        verified = north.command("unlearn", "verify", receipt, "--subject", spelling, "--key", key, "--json").value
        assert verified["verified"], json.dumps(verified)
    assert north.command("unlearn", "verify", receipt, "--subject", "p9", "--key", key, code=None).code == 6
    other = Path(f"{receipt}.2")
    assert north.command("unlearn", "verify", other, "--subject", "ZO\u00c9", "--key", sent["also"][0]["key"]).code == 0


def _told(school: School) -> Any:
    return school.status()["live"]["learner"]
