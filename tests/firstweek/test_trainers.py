"""Members that host and do not train: rounds of real daemons do not wait for them, and everybody is told why."""

from collections.abc import Callable
from pathlib import Path

from .conftest import write_essays
from .schools import Federation

Found = Callable[[], Federation]


def table_only(folder: Path, seed: int) -> Path:
    """Write the pupils without their essays' modality: nothing is to be embedded."""
    folder.mkdir()
    write_essays(folder, 120, seed)
    text = (folder / "dataset.toml").read_text(encoding="utf-8")
    essay = text[text.index('[[modality]]\nname = "essay"') : text.index("[[task]]")]
    (folder / "dataset.toml").write_text(text.replace(essay, ""), encoding="utf-8")
    return folder


def test_rounds_do_not_wait_for_members_that_do_not_train(found: Found, tmp_path: Path) -> None:
    """The deadline is longer than the test may take: a round that waited for it would fail it."""
    from .schools import collegium

    folders = [table_only(tmp_path / name, seed) for seed, name in enumerate(("a", "b", "c", "d"))]
    model = tmp_path / "model.toml"
    model.write_text(collegium("charter", "model", *folders).out, encoding="utf-8")
    federation = found()
    federation.init("north", folders[0], lot_size=12)
    federation.init("south", folders[1], lot_size=12)
    federation.init("few", folders[2], lot_size=1)  # declares ten students
    federation.init("bare", None)
    federation.init("unmounted", folders[3], lot_size=12)
    folders[3].rename(tmp_path / "elsewhere")
    federation.charter("--model", model, "--rounds", "10", "--deadline", "3600")
    *others, unmounted = federation.schools
    started = unmounted.command("node", "start", "--json", code=8).value
    assert (started["trains"], started["learner"]["state"]) == (False, "waiting")
    assert [one.value["trains"] for one in federation.each("node", "start", "--json", schools=others)] == [
        True,
        True,
        False,
        False,
    ]
    federation.wait_rounds(3, counted=2)
    north, _, few, bare, _ = federation.schools
    for r in north.ask("round", "list", "--limit", 1000):
        if r["component"].startswith("statistic/") or r["round"] > 1:  # each is asked for by a command
            continue
        assert r["deadline_passed"] is False, r
        shown = north.ask("round", "show", r["component"], r["round"])
        why = {m["name"]: m["why"] for m in shown["missing"]}
        assert "no data folder" in why["bare"], why
        assert "fewer students" in why["few"], why
        assert "cannot at the moment" in why["unmounted"], why
    assert {entry["why"] for entry in bare.status()["training"]["idle"]} == {"no-data"}
    status = few.status()
    assert {entry["why"] for entry in status["training"]["idle"]} == {"too-few-students"}
    assert any("at least 20 students" in note for note in status["notes"]), status["notes"]
    assert "declares fewer students" in few.command("node", "status").out
    warned = few.command("doctor", "--json", code=None).value["checks"]
    assert sum("10 students are declared" in check["found"] for check in warned) == 1, warned
    assert not any(".." in check["found"] for check in warned), warned
    assert any("10 students are declared" in note for note in status["notes"]), status["notes"]
    assert "10 students are declared" in few.command("data", "check", folders[2]).out
    assert "students are declared" not in north.command("data", "check", folders[0]).out
    assert not few.ask("privacy", "log", "--member", "few"), "nothing is spent"
    (tmp_path / "elsewhere").rename(folders[3])
    federation.wait(
        lambda: not next(p["idle"] for p in north.get("/peers")["peers"] if p["name"] == "unmounted"),
        "the others to wait again for the one whose data came back",
    )
    federation.stop()
