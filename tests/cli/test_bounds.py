"""Every number that comes in is held to bounds before anything is computed from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from collegium.cli.main import app
from collegium.crypto.errors import CorruptError, UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.data.manifest import read_manifest
from collegium.node.home import config

if TYPE_CHECKING:
    from .conftest import Run

KEY = "00" * 32
MEMBER = f"north={KEY}@/ip4/192.0.2.1/tcp/4001"
WITHOUT_END = {"bench --epsilon"}  # inf is without privacy; the command says what else is allowed


def parameters(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for parameter in command.params:
        if any(number in str(parameter.type_descriptor.annotation) for number in ("int", "float")):
            yield " ".join((*path, parameter.opts[0])), parameter
    for name, inner in getattr(command, "commands", {}).items():
        yield from parameters(inner, (*path, name))


def test_every_numeric_option_of_every_command_is_bounded_on_both_sides() -> None:
    options = dict(parameters(get_command(app)))
    assert len(options) > 40
    open_ = {name for name, p in options.items() if p.min is None or (p.max is None and name not in WITHOUT_END)}
    assert not open_


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e6", "1e400", "101", "0", "-1", "0.001"])
def test_an_epsilon_out_of_bounds_is_refused_before_anything_is_computed(
    run: "Run", tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collegium.node.privacy.accountant.epsilon", lambda *_: pytest.fail("it was computed"))
    words = ("charter", "create", "--name", "t", "--preset", "digits", "--member", MEMBER, "--out", tmp_path / "c")
    answer = run(*words, "--epsilon", value)
    assert (answer.code, "--epsilon" in answer.err) == (2, True)
    assert not (tmp_path / "c").exists()


WORDS = ("nan", "inf", "-inf", "1e6", "9" * 400, "9" * 5000, "0x" + "f" * 5000, "-1", "0")
MODEL = """
[model]
hidden = 16
[training]
KEY = VALUE
[[modality]]
name = "m"
kind = "tabular"
width = 5
epsilon = 1.0
[[task]]
name = "t"
kind = "multiclass"
classes = 3
"""
MODEL_KEYS = {
    "epsilon = 1.0": "epsilon", "width = 5": "width", "hidden = 16": "hidden", "classes = 3": "classes",
    "KEY = VALUE": "",
}  # fmt: skip


@pytest.mark.parametrize("value", WORDS)
def test_every_number_of_a_model_file_is_bounded(run: "Run", tmp_path: Path, value: str) -> None:
    for line, key in MODEL_KEYS.items():
        keys = [key] if key else ["steps", "sample_rate", "clip", "learning_rate", "students", "rounds", "width"]
        for name in keys:
            (tmp_path / "model.toml").write_text(
                MODEL.replace(line, f"{name} = {value}").replace("KEY = VALUE", "steps = 2")
            )
            if value == "1e6" and name in ("clip", "learning_rate"):
                continue  # allowed
            words = ("charter", "create", "--name", "t", "--member", MEMBER, "--out", tmp_path / "c")
            answer = run(*words, "--model", tmp_path / "model.toml")
            assert answer.code == 2, (name, answer.err)
            assert "internal" not in answer.err
            assert len(answer.err) < 1000


def test_rounds_and_steps_together_are_bounded(run: "Run", tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(MODEL.replace("KEY = VALUE", "steps = 1000"))
    words = ("charter", "create", "--name", "t", "--member", MEMBER, "--out", tmp_path / "c")
    answer = run(*words, "--model", tmp_path / "model.toml", "--rounds", 10_000)
    assert (answer.code, "more than the" in answer.err) == (2, True)


@pytest.mark.parametrize("value", WORDS[:-1])
def test_every_number_of_config_toml_is_bounded(value: str) -> None:
    for section, (_, checks) in config._SECTIONS.items():
        for key in checks:
            if (value, key) == ("1e6", "lot_size"):
                continue  # allowed
            with pytest.raises(UsageError) as caught:
                config.parse(f"[{section}]\n{key} = {value}\n", "config.toml")
            assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "9" * 400, "9" * 5000, "1e301"])
def test_the_bounds_of_dataset_toml_are_finite(tmp_path: Path, value: str) -> None:
    (tmp_path / "dataset.toml").write_text(
        'format = 1\n[unit]\ntable = "a"\nsubject = "id"\n[tables.a]\npath = "a.csv"\nkey = "id"\n'
        f'[[modality]]\nname = "m"\nkind = "tabular"\ntable = "a"\n'
        f'columns = [{{ name = "x", low = 0, high = {value} }}]\n'
        '[[task]]\nname = "t"\nkind = "binary"\ntable = "a"\ncolumn = "y"\npositive = ["1"]\n[split]\ntest = 0.2\n'
    )
    with pytest.raises((UsageError, CorruptError)):
        read_manifest(tmp_path)


def test_the_model_file_of_these_tests_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(MODEL.replace("KEY = VALUE", "steps = 2"))
    assert read_model(tmp_path / "model.toml").recipe.steps == 2
