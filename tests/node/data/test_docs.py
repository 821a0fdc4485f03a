"""docs/data.md: its example is a valid dataset.toml, and it names every key."""

import re
from pathlib import Path

import pytest

from collegium.node.data.manifest import MODALITY_KEYS, MODALITY_KINDS, TASK_KEYS, TASK_KINDS, TOP_KEYS, read_manifest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def text() -> str:
    return (DOCS / "data.md").read_text()


def test_the_example_is_read(text: str, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "dataset.toml").write_text(example)
    assert {modality.kind for modality in read_manifest(tmp_path).modalities} == set(MODALITY_KINDS)


def test_every_key_and_kind_is_named(text: str) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", text)) + " ".join(re.findall(r"```toml\n(.*?)```", text, re.DOTALL))
    others = {"subject", "max_records", "path", "key", "keep", "values", "levels", "missing", "share", "salt"}
    words = set(re.findall(r"[a-z_]+", code))
    assert {*TOP_KEYS, *MODALITY_KEYS, *TASK_KEYS, *MODALITY_KINDS, *TASK_KINDS, *others} - words == set()


def test_the_reference_of_commands_leads_there() -> None:
    assert "(data.md)" in (DOCS / "cli.md").read_text()
