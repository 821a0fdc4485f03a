"""`collegium data check` on columns that teach nothing: the same everywhere, or a label in other clothes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from .conftest import Run

TOML = """format = 1
[unit]
subject = "id"
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "about"
kind = "tabular"
columns = [{{ name = "x", {column} }}, {{ name = "noise", low = 0, high = 1 }}]
[[task]]
name = "result"
column = "y"
{task}
[split]
share = 0.3
salt = "s"
"""
NUMBER, LEVELS = "low = 0, high = 100, missing = true", 'levels = ["a", "b", "c"]'
BINARY, REGRESSION = 'kind = "binary"\npositive = "1"\nnegative = "0"', 'kind = "regression"\nlow = 0\nhigh = 100'
THREE = 'kind = "multiclass"\nclasses = ["0", "1", "2"]'


def warnings(run: "Run", folder: Path, column: str, task: str, x: Sequence[object], y: Sequence[object]) -> list[str]:
    noise = np.random.default_rng(3).random(len(x))
    rows = [f"p{n},{a},{noise[n]:.3f},{b}" for n, (a, b) in enumerate(zip(x, y, strict=True))]
    (folder / "work.csv").write_text("\n".join(["id,x,noise,y", *rows]) + "\n")
    (folder / "dataset.toml").write_text(TOML.format(column=column, task=task))
    answer = run("data", "check", folder, "--json")
    assert answer.code == 0, answer.out + answer.err
    return answer.value["warnings"]  # type: ignore[no-any-return]


def test_a_column_that_is_the_same_everywhere_is_named(run: "Run", tmp_path: Path) -> None:
    labels: list[object] = [n % 2 for n in range(60)]
    for column, value in ((NUMBER, 7), (LEVELS, "b")):
        (warning,) = warnings(run, tmp_path, column, BINARY, [value] * 60, labels)
        assert "column 'x'" in warning
        assert "same in every record" in warning
    assert warnings(run, tmp_path, NUMBER, BINARY, [n // 2 % 10 for n in range(60)], labels) == []


def test_a_column_that_gives_the_label_away_is_named(run: "Run", tmp_path: Path) -> None:
    two: list[object] = [n % 2 for n in range(80)]
    three: list[object] = [n % 3 for n in range(81)]
    points = [10 + 40 * (n % 2) + n % 30 for n in range(80)]
    for column, task, x, y in (
        (NUMBER, BINARY, points, two),
        (NUMBER, BINARY, [n // 2 % 10 if n % 2 else "" for n in range(80)], two),  # empty where it failed
        (LEVELS, BINARY, ["a" if n % 2 else "bc"[n // 2 % 2] for n in range(80)], two),
        (NUMBER, THREE, [30 * (n % 3) + n % 20 for n in range(81)], three),
        (LEVELS, THREE, ["cab"[n % 3] for n in range(81)], three),
        (NUMBER, REGRESSION, points, [n / 2 + 3 for n in points]),
    ):
        (warning,) = warnings(run, tmp_path, column, task, x, y)
        assert warning.startswith("column 'x' (modality 'about') gives away task 'result'"), warning


def test_a_good_feature_is_none_that_gives_the_label_away(run: "Run", tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    two = [int(side) for side in draw.integers(0, 2, 200)]
    good = [round(float(40 + 15 * y + draw.normal(0, 10)), 2) for y in two]
    assert warnings(run, tmp_path, NUMBER, BINARY, good, two) == []
    levels: list[object] = ["a" if y == (draw.random() < 0.9) else "b" for y in two]
    assert warnings(run, tmp_path, LEVELS, BINARY, levels, two) == []
    rare: list[object] = [int(n < 4) for n in range(200)]  # of a class of four records nobody can say it
    assert warnings(run, tmp_path, LEVELS, BINARY, ["a" if y else "b" for y in rare], rare) == []
    few: list[object] = [n % 2 for n in range(16)]
    assert warnings(run, tmp_path, NUMBER, BINARY, few, few) == []


def test_columns_are_drawn_by_label(run: "Run", tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "columns.png"
    for column, task in ((NUMBER, BINARY), (LEVELS, THREE), (NUMBER, REGRESSION)):
        values = ["abc"[n * n % 7 % 3] if column == LEVELS else "" if n == 3 else n * n % 50 for n in range(60)]
        warnings(run, tmp_path, column, task, values, [n % (2 if task == BINARY else 3) for n in range(60)])
        done = run("data", "check", tmp_path, "--plot", picture)
        assert done.code == 0, done.err
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 20
        assert picture.stat().st_mode & 0o777 == 0o600
        assert run("data", "check", tmp_path, "--plot", picture).code == 2
        picture.unlink()
    assert run("data", "check", tmp_path, "--plot", tmp_path / "columns.txt").code == 2
