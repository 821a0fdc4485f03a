"""Pretrained models of a charter that a home lacks: said before they are needed."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.crypto.identity import Identity
from collegium.node.home.config import Config, Data, Models
from collegium.node.home.models import check_models, missing_models
from collegium.protocol.charter import Charter
from collegium.protocol.learning import Modality, Pretrained
from collegium.sims.simulator.small import small_charter

DATASET = """format = 1
[unit]
kind = "record"
[tables.rows]
path = "rows.csv"
key = "id"
[[modality]]
name = "essay"
kind = "text"
columns = ["essay"]
[[task]]
name = "task0"
kind = "binary"
column = "passed"
positive = "1"
[split]
share = 0.1
salt = ""
"""


def charter(*modalities: str) -> Charter:
    small = small_charter([Identity.from_seed(bytes(32))])
    read = tuple(Modality(name, "text", 4, 1, (Pretrained("e5", bytes(32)),)) for name in modalities)
    return replace(small, learning=replace(small.learning, modalities=read))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "dataset.toml").write_text(DATASET)
    return Config(data=Data(tmp_path))


def test_a_model_that_is_not_here_is_named_with_what_to_do(config: Config) -> None:
    assert missing_models(config, charter("essay", "speech")) == {"e5": ["essay"]}, "of its own modalities only"
    with pytest.raises(UsageError, match="lacks a pretrained model of the charter: 'e5' for essay") as caught:
        check_models(config, charter("essay"))
    assert "[models]" in caught.value.advice
    check_models(config, charter("speech"))
    check_models(Config(), charter("essay"))


def test_a_model_that_config_toml_names_is_found(config: Config, tmp_path: Path) -> None:
    here = replace(config, models=Models((("e5", tmp_path / "e5"),)))
    assert missing_models(here, charter("essay")) == {"e5": ["essay"]}
    (tmp_path / "e5").mkdir()
    for name in ("config.json", "model.safetensors"):  # whether it is a good one, its digest says at the start
        (tmp_path / "e5" / name).touch()
    assert missing_models(here, charter("essay")) == {}
