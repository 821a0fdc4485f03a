"""The studies of a model that writes, on a tiny random one and made-up data: their rows, goals and planted sentence."""

import csv
import gzip
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from collegium.node.learner.worker import Worker
from collegium.sims.learn import writing
from collegium.sims.learn.runs import MODES

from ...node.learner.asking import ask
from ...node.learner.writers import tiny_writer


class InProcess:
    """A learner worker in this process."""

    def __init__(self, folder: Path) -> None:
        self.worker, self.folder, self.opened = Worker(), folder, dict[str, object]()

    def ask(self, request: Any) -> Any:
        return ask(self.worker, request)


@pytest.mark.soak  # tests/node/learner/test_writing.py has the short form
def test_a_study_has_a_row_for_each_mode_and_its_planted_sentence_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saf = tmp_path / "saf"
    saf.mkdir()
    columns = ("split", "lang", "question_id", "reference", "answer_id", "answer", "feedback")
    with gzip.open(saf / "saf_feedback.csv.gz", "wt", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for number in range(60):
            lang, topic = ("german", "1") if number % 3 == 0 else ("english", "2.1" if number % 3 == 1 else "8.1")
            split = "unseen_answers" if number % 5 == 0 else "training"
            table.writerow((split, lang, topic, "so", f"{topic}.{number}", f"yes {number}", "good"))
    model = tiny_writer(tmp_path)
    monkeypatch.setattr(writing, "model_folder", lambda _: model)
    for name, value in {"RANK": 8, "LAYERS": 1, "ROUNDS": 1, "STEPS": 1, "TRAINED": 6, "JUDGED": 2, "READ": 96,
                        "MOST": 24, "PLANTED": "zq7", "ASKED": ("so", "no"), "KEEPERS": 3}.items():  # fmt: skip
        monkeypatch.setattr(writing, name, value)
    template = "R: {1} A: {2}\n"
    study = writing.STUDIES["saf-feedback"]
    monkeypatch.setitem(writing.STUDIES, "saf-feedback", replace(study, template=template))
    crew: Any = [InProcess(tmp_path)]
    found = writing.measure("saf-feedback", tmp_path, tmp_path, crew, [1], (None, 8.0), quick=True)
    modes = [(row["mode"], row["epsilon"]) for row in found["rows"]]
    both = [label for mode in MODES for label in ((mode, f"{mode} + private") if mode != "central" else (mode,))]
    private = [("untaught", None), ("untaught + private", None), *((mode, None) for mode in both)]
    assert modes == [*private, ("federated", 8.0), ("federated + private", 8.0)]
    for row in found["rows"]:
        assert set(row["institutions"]) == {"english-1", "english-2", "german"}
        assert all(map(isfinite, row["values"]))
        assert all(0.0 <= score <= 100.0 for score in row["chrf"])
    goals = {goal["goal"]: goal["met"] for goal in found["goals"]}
    assert goals["ε = ∞: the planted sentence comes back"]
    assert goals["ε = 8: it does not"]
