"""`unlearn audit` in process, on the shortest federation that has everything."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.node.store import files
from collegium.sims.forget import audit as forget

if TYPE_CHECKING:
    from .conftest import Run

SHORT = ("--rounds", 2, "--joined", 1, "--recovery", 1, "--shadows", 4, "--epsilon", 8, "--workers", 1)


def of(report: Any, name: str) -> Any:
    (row,) = [row for row in report["models"] if row["model"] == name]
    return row


def test_an_audit_tells_of_every_model(run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = run("unlearn", "audit", *SHORT, "--plot", tmp_path / "audit.png", "--json")
    assert answer.code == 0, answer.out
    report = answer.value
    assert (report["simulation"], report["epsilon"], report["shadows"]) == (True, 8.0, 4)
    names = ["before", "refold", "refold + 1 rounds", "rewind", "retrained", "retrained, other seed"]
    assert [row["model"] for row in report["models"]] == names
    for row in report["models"]:
        for guess in (row["rmia"], row["lira"], row["canaries"]):
            assert 0.0 <= guess["low"] <= guess["auc"] <= guess["high"] <= 1.0
        assert row["seconds"] > 0
        assert row["remains"]
    assert of(report, "retrained")["weights_apart"] == 0 == of(report, "rewind")["weights_apart"]
    assert min(of(report, name)["weights_apart"] for name in ("before", "refold", "retrained, other seed")) > 0
    assert of(report, "refold")["seconds"] < of(report, "retrained")["seconds"]
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")

    # The same figures for people, and those of a run without guesses.
    def told(request: forget.Request, **_: object) -> Any:
        assert (request.member, request.seed) == ("institution-2", 5)
        return report

    monkeypatch.setattr(forget, "audit", told)
    people = run("unlearn", "audit", "--member", "institution-2", "--seed", 5, "--plot", tmp_path / "again.png")
    assert people.code == 0, people.err
    assert people.out.startswith("A SIMULATION on digits")
    assert "ε = 8 at δ = 1e-05" in people.out
    assert "4 shadow federations" in people.out
    assert "retrained, other seed: nothing" in people.out
    report["shadows"] = 0
    for row in report["models"]:
        row["rmia"] = row["lira"] = None
    people = run("unlearn", "audit", "--member", "institution-2", "--seed", 5)
    assert (people.code, "Nobody's membership was guessed" in people.out) == (0, True)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_stream", refuse)
        words = ("--member", "institution-2", "--seed", 5, "--plot", tmp_path / "third.png")
        people = run("unlearn", "audit", *words)
        assert (people.code, "third.png: Permission denied" in people.err) == (2, True)
    monkeypatch.setattr(forget, "audit", lambda *_, **__: pytest.fail("it had begun to work"))
    people = run("unlearn", "audit", "--plot", tmp_path / "again.png")
    assert (people.code, "is there already" in people.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--dataset", "mnist"), "no data set 'mnist'"),
        (("--member", "nobody"), "no institution 'nobody'"),
        (("--shadows", 3), "too few, or odd"),
        (("--joined", 99), "no audit"),
        (("--epsilon", "much"), "no ε"),
        (("--epsilon", "-1"), "no ε"),
        (("--epsilon", "nan"), "no ε"),
        (("--plot", "nowhere/x.png"), "There is no folder"),
        (("--plot", "x.pdf"), "no picture"),
        (("--dataset", "oulad"), "there is no folder"),
    ],
)
def test_what_is_wrong_is_named(
    run: "Run", words: tuple[object, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLLEGIUM_DATA", raising=False)
    answer = run("unlearn", "audit", *words)
    assert (answer.code, text in answer.err) == (2, True), answer.err
