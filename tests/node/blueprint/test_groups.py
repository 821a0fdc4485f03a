"""`[equity]` of a model file: what it declares, and what it says is wrong."""

from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.recipe import Budget, charter_parts

MODEL = """
[[modality]]
name = "marks"
kind = "tabular"
width = 2
[[task]]
name = "good"
kind = "binary"
"""
EQUITY = """
[equity]
after = 2
[[equity.attribute]]
name = "gender"
levels = ["F", "M"]
[[equity.decision]]
task = "good"
"""


def test_it_declares_a_release_whose_noise_is_that_of_its_own_budget(tmp_path: Path) -> None:
    for text in (MODEL, MODEL + EQUITY):
        (tmp_path / "model.toml").write_text(text)
        recipe = read_model(tmp_path / "model.toml").recipe
        specs, learning = charter_parts(recipe, Budget(3.0, 1e-5, 5), min_updates=1)
        noises = {spec.name: spec.noise_multiplier for spec in specs}
        if text == MODEL:
            before = noises
            assert not learning.equity
    assert noises.pop("groups/good") > 0
    assert noises == before, "no other component pays for it"
    assert [bound.modality for bound in learning.bounds] == ["marks", "held-out"]
    free = charter_parts(recipe, None, min_updates=1)[1]
    assert free.floor("held-out").policy == "open"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('["F", "M"]', '["F"]', "fewer than two groups"),
        ('task = "good"\n', 'task = "bad"\n', "no binary task 'bad'"),
        ("after = 2", "after = 2\nbins = 7", "the number of bins is odd"),
        ("after = 2", "after = 2\nepsilon = 0.0", "ε"),
        ('task = "good"\n', 'task = "good"\nthreshold = 1.0\n', "is not between 0 and 1"),
        ('task = "good"\n', 'task = "good"\nflagged = "left"\n', "flagged cannot be"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, old: str, new: str, what: str) -> None:
    (tmp_path / "model.toml").write_text(MODEL + EQUITY.replace(old, new))
    with pytest.raises(UsageError, match=what):
        read_model(tmp_path / "model.toml")
