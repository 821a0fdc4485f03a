"""The prepared institutions: nobody is in two places, nothing is later than it may be."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.presets import preset
from collegium.node.data.arrays import Dataset, load
from collegium.node.data.importers.oulad import DAY
from collegium.sims.learn.datasets import DIGITS_LEAST, prepare_digits, prepare_oulad

from ...public_data import public_data


@pytest.fixture(scope="module")
def oulad() -> Path:
    return public_data("oulad")


def fits(data: Dataset, name: str) -> bool:
    """Whether the data are what the preset's charter declares."""
    _, learning = preset(name, budget=None, rounds=10, institutions=4)
    arrays = data.modalities
    return all(
        (arrays[m.name].kind, arrays[m.name].width, arrays[m.name].length) == (m.kind, m.width, m.length)
        for m in learning.modalities
    ) and all((data.tasks[t.name].kind, data.tasks[t.name].classes) == (t.kind, t.classes) for t in learning.tasks)


@pytest.mark.parametrize(("institutions", "alpha"), [(4, 0.5), (7, 0.05), (1, 1.0)])
def test_digits_are_shared_out_once(tmp_path: Path, institutions: int, alpha: float) -> None:
    folders = prepare_digits(tmp_path, institutions, alpha, seed=1)
    made = [load(folder) for folder in folders]
    subjects = [subject for data in made for subject in data.subjects]
    assert len(made) == institutions
    assert len(subjects) == len(set(subjects)) == 1797
    assert all(len(data.subjects) >= DIGITS_LEAST for data in made)
    assert all(fits(data, "digits") for data in made)
    assert abs(np.concatenate([data.held_out for data in made]).mean() - 0.25) < 0.05


def test_digits_are_skewed_by_alpha_and_reproducible(tmp_path: Path) -> None:
    def counts(folder: str, alpha: float, seed: int) -> list[list[int]]:
        made = [load(path) for path in prepare_digits(tmp_path / folder, 4, alpha, seed)]
        return [np.bincount(data.tasks["digit"].labels[:, 0, 0].astype(int), minlength=10).tolist() for data in made]

    assert counts("a", 0.5, 1) == counts("b", 0.5, 1) != counts("c", 0.5, 2)
    assert np.std(counts("d", 100.0, 1), axis=0).mean() < np.std(counts("e", 0.1, 1), axis=0).mean() / 2


def test_too_many_institutions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot share"):
        prepare_digits(tmp_path, 1000, 0.5, 1)


@pytest.mark.parametrize("institutions", [4, 7])
def test_oulad_students_are_in_one_institution_and_on_one_side(oulad: Path, tmp_path: Path, institutions: int) -> None:
    made = prepare_oulad(oulad, tmp_path, institutions)
    loaded = [load(folder) for _, folder in made]
    subjects = [subject for data in loaded for subject in data.subjects]
    assert len(made) == institutions
    assert len(subjects) == len(set(subjects)) > 15_000
    assert all(fits(data, "oulad") for data in loaded)
    assert abs(np.concatenate([data.held_out for data in loaded]).mean() - 0.25) < 0.02
    # Two of these would be alike if the records of a student, [S, K], had been split.
    assert any(data.weights.shape[1] > 1 for data in loaded)


def test_oulad_holds_nothing_later_than_its_day(oulad: Path, tmp_path: Path) -> None:
    gone = pyarrow.csv.read_csv(oulad / "student_registration.csv.gz").to_pylist()
    left = {
        f"{row['code_module']}-{row['code_presentation']}-{row['id_student']}": row["date_unregistration"]
        for row in gone
    }
    missed = 0
    for _, folder in prepare_oulad(oulad, tmp_path, 7):
        people = pyarrow.parquet.read_table(folder / "students.parquet")["record"].to_pylist()
        assert all(left[record] is None or left[record] > DAY for record in people)
        rows = pyarrow.parquet.read_table(folder / "assessments.parquet").to_pylist()
        assert max(row["day"] for row in rows) <= DAY
        assert {row["record"] for row in rows} <= set(people)
        # What was handed in after the day looks like what was never handed in.
        assert all((row["score"] is None or row["banked"] is not None) for row in rows)
        missed += sum(row["banked"] is None for row in rows)
    assert missed > 1000


def test_oulad_is_refused_without_its_files_or_for_other_numbers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        prepare_oulad(tmp_path, tmp_path / "x", 7)
    with pytest.raises(UsageError, match=r"7 \(a module each\) or 4"):
        prepare_oulad(tmp_path, tmp_path / "x", 5)
