"""The studies of weights and of members who go: what they make of the data, and what they call forgotten."""

from pathlib import Path

import pytest

from collegium.node.data.manifest import read_manifest
from collegium.protocol.components import MILLION
from collegium.sims.learn import continual, weights
from collegium.sims.learn.studies import study

from ...public_data import public_data

UNREAD = {"clicks", "slots"}  # by the recipe of these studies
WHERE = {setting.title: setting for setting in weights.SETTINGS}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize(
    ("title", "strict", "loose"),
    [
        ("a population only the strict have", {"marks", "entry"}, {"assessments", "demographics"}),
        ("a modality only the strict have", {"assessments", "demographics"}, {"assessments", "unused"}),
        ("half strict", {"assessments", "demographics"}, {"assessments", "demographics"}),
    ],
)
def test_the_strict_hold_what_a_setting_says(work: Path, title: str, strict: set[str], loose: set[str]) -> None:
    oulad = study("oulad").institutions(public_data("oulad").parent, work)
    made = weights._institutions(WHERE[title], oulad, sorted(oulad)[::2], work)
    for place, name in enumerate(sorted(oulad)):
        modalities = {modality.name for modality in read_manifest(made[name][0]).modalities} - UNREAD
        assert modalities == (loose if place % 2 else strict), name
    recipe = weights._recipe(WHERE[title].modalities, 4.0, 1000.0)
    assert (recipe.learning_rate, len(recipe.tasks[0].modalities)) == (4 * MILLION, len(WHERE[title].modalities))


def test_forgotten_is_what_a_module_lost_since_its_tenure() -> None:
    after = [("a", {"a": 0.8}), ("b", {"a": 0.7, "b": 0.9}), ("c", {"a": 0.6, "b": 0.95, "c": 0.5})]
    found = continual._judged(after, {})
    assert found["forgotten"] == pytest.approx((0.2 - 0.05) / 2)
    assert found["final"] == {"a": 0.6, "b": 0.95, "c": 0.5}
    assert list(continual.orders("bac", {"a": 1, "b": 3, "c": 2}).values()) == [
        ["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]]  # fmt: skip
