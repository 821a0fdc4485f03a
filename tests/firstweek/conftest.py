"""Federations founded by commands, data as a spreadsheet writes them, and public data where they are."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .schools import Federation, federations


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Callable[[], Federation]]:
    """`found()` returns a federation without members yet."""
    with federations(tmp_path) as make:
        yield make


@pytest.fixture(scope="session")
def essays(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """Return a data folder of pupils with essays and a table, as a spreadsheet saves it; the seed makes others."""

    def make(pupils: int = 120, seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("essays")
        write_essays(folder, pupils, seed)
        return folder

    return make


def write_essays(folder: Path, pupils: int, seed: int) -> None:
    """Write pupils.csv (UTF-8 with a byte order mark, CRLF) and a dataset.toml for it."""
    good = ("because", "therefore", "the experiment shows", "we compared", "the reason is")
    poor = ("dont know", "no idea", "it is so", "maybe", "i guess")
    with (folder / "pupils.csv").open("w", newline="", encoding="utf-8-sig") as file:
        out = csv.writer(file)
        out.writerow(["Pupil", "Age", "Essay", "Passed"])
        for number in range(pupils):
            passed = (number * 7 + seed) % 10 >= 4
            words = good if passed else poor
            essay = f"{words[number % 5].capitalize()} plants need light, {words[(number + seed) % 5]}.\nPage {number}"
            out.writerow([f"S{seed}-{number:03d}", 11 + number % 6, essay, "yes" if passed else "no"])
    (folder / "dataset.toml").write_text(
        """format = 1
[unit]
subject = "Pupil"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "Pupil"
[[modality]]
name = "person"
kind = "tabular"
columns = [{ name = "Age", low = 10, high = 20 }]
[[modality]]
name = "essay"
kind = "text"
columns = ["Essay"]
[[task]]
name = "passed"
kind = "binary"
column = "Passed"
positive = ["yes"]
[split]
share = 0.2
salt = "week"
""",
        encoding="utf-8",
    )
