"""`backbone` in model.toml: what it declares is in the charter, sized as documented, and said in plain words."""

from pathlib import Path

import pytest

from collegium.node.blueprint.fusion import ARCHITECTURES, described

from .test_declare import TABLE, TASK, chartered, component, write

SERIES = '[[modality]]\nname = "clicks"\nkind = "series"\nwidth = 2\nlength = 3\n'
# What is declared, the architecture in the charter, its parameters, and the words.
DECLARED = {
    "mlp": ('{ architecture = "mlp", width = 8 }', "mlp", 280, "a network 8 wide"),
    "concat": ('"concat"', "concat", 816, "stand beside each other (clicks, table), with a mask of what is absent"),
    "cross-attention": ('"cross-attention"', "cross-attention", 1088, "their sum asks, and those that are there"),
    "experts": (
        '{ architecture = "experts", width = 8, experts = 4, chosen = 2 }', "experts-top2", 1136,
        "each record goes to 2 of 4 experts",
    ),
    "transformer": ('"transformer"', "transformer", 2224, "the tokens of a transformer of 1 layers"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_backbone_is_declared_by_name_sized_as_documented_and_described(tmp_path: Path, name: str) -> None:
    text, architecture, parameters, words = DECLARED[name]
    charter = chartered(write(tmp_path, f"model = {{ backbone = {text} }}\n" + TABLE + SERIES + TASK))
    spec = component(charter, "backbone")
    assert (spec.architecture, spec.dimension) == (architecture, parameters)
    assert f"{parameters:,}" in (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    assert words in described(spec)
    assert charter.learning.upstream("backbone") == {"table", "clicks"}


def test_a_backbone_has_a_rule_and_a_rate_of_its_own_and_places_for_some(tmp_path: Path) -> None:
    table = '{ architecture = "concat", modalities = ["table"], rule = "median", learning_rate = 0.5 }'
    spec = component(
        chartered(write(tmp_path, f"model = {{ backbone = {table} }}\n" + TABLE + SERIES + TASK)), "backbone"
    )
    assert [tensor.name for tensor in spec.tensors] == ["modality/table.weight", "out.weight", "out.bias"]
    assert (spec.rule, spec.learning_rate) == ("median", 500_000)
    assert described(None) == "are added up"
