"""The importers on the real sources: nobody is in two places, nothing tells the outcome, all or nothing is written."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from collegium.crypto.errors import CorruptError, OperatorError, UsageError
from collegium.node.data.arrays import Dataset, load
from collegium.node.data.importers.common import Options
from collegium.node.data.importers.registry import IMPORTERS, run_import

DATA = Path(os.environ.get("COLLEGIUM_DATA") or Path(__file__).parents[4] / "shared" / "data")
FOLDERS = {"omniglot": "omniglot_small"}


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


def source(name: str) -> Path:
    folder = DATA / FOLDERS.get(name, name)
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not here: set COLLEGIUM_DATA to the folder that holds {folder.name}/")
    return folder


def imported(name: str, out: Path, options: Options | None = None, **only: set[str]) -> dict[str, Dataset]:
    made = run_import(name, source(name), out, options or Options(), quiet)
    assert sorted(path.name for path in out.iterdir()) == sorted(folder.name for _, folder in made)
    return {institution: load(folder, **only) for institution, folder in made}


def apart(made: dict[str, Dataset]) -> None:
    """Nobody is at two institutions."""
    subjects = [subject for data in made.values() for subject in data.subjects]
    assert len(subjects) == len(set(subjects))
    assert all(data.unread == 0 for data in made.values())
    assert all(0 < data.held_out.sum() < len(data.subjects) for data in made.values())


@pytest.mark.parametrize(("by", "institutions"), [("module", 7), ("region", 13), ("four", 4)])
def test_oulad(tmp_path: Path, by: str, institutions: int) -> None:
    made = imported("oulad", tmp_path / "out", Options(by=by))
    apart(made)
    assert len(made) == institutions
    for data in made.values():
        assert (data.modalities["demographics"].width, data.modalities["assessments"].width) == (45, 13)
        assert list(data.tasks) == ["pass", "withdraw", "grade", "score"]
        passed, left = data.tasks["pass"].labels[..., 0], data.tasks["withdraw"].labels[..., 0]
        grade, there = data.tasks["grade"].labels[..., 0], data.weights > 0
        assert not ((passed == 1) & (left == 1)).any()
        assert (np.isnan(grade) == ((left == 1) | ~there)).all()
        assert ((grade > 0) == (passed == 1)).all()
        assert list(data.groups) == ["gender", "disability", "imd_band", "age_band", "region"]
        assert (data.groups["gender"].codes[there] >= 0).all()
    if by == "module":
        assert [name for name, data in made.items() if "clicks" in data.modalities] == ["AAA", "BBB"]


def test_oulad_clicks_end_before_the_day_and_count_idle_weeks(tmp_path: Path) -> None:
    made = imported("oulad", tmp_path / "out")
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "BBB" / "clicks.parquet").to_pylist()
    assert max(row["week"] for row in rows) == 7  # week 7 ends at day 55
    weeks: dict[str, set[int]] = {}
    for row in rows:
        weeks.setdefault(row["record"], set()).add(row["week"])
    assert all(set(range(8)) <= found for found in weeks.values())
    assert not any(record.startswith("BBB-2014") for record in weeks)
    clicks = made["BBB"].modalities["clicks"]
    present = clicks.steps.any(2)
    assert 0 < present.sum() < (made["BBB"].weights > 0).sum()  # missing where nothing is published
    assert clicks.width == 12


def test_sra_by_group(tmp_path: Path) -> None:
    made = imported("sra", tmp_path / "out")
    apart(made)
    sizes = {name: int((data.weights > 0).sum()) for name, data in made.items()}
    assert sizes == {"beetle": 5199, "scientsbank-a": 2747, "scientsbank-b": 2762}
    for data in made.values():
        answer = data.modalities["answer"]
        assert answer.length == 3
        assert answer.steps[data.weights > 0].all()
        assert not np.isnan(data.tasks["grade"].labels[data.weights > 0]).any()
    assert sum(int(data.held_out.sum()) for name, data in made.items() if name != "beetle") == 540
    assert len(made["beetle"].subjects) == 73


def test_sra_by_module_and_by_student(tmp_path: Path) -> None:
    made = imported("sra", tmp_path / "one", Options(by="module", test="unseen-questions"))
    assert len(made) == 13
    assert sum(int(data.held_out.sum()) for name, data in made.items() if name != "beetle") == 733
    made = imported("sra", tmp_path / "two", Options(split="student"))
    apart(made)
    assert len(made["scientsbank-a"].subjects) == 920
    assert sum(int((data.weights > 0).sum()) for data in made.values()) == 5199 + 5509


def test_onestopenglish_keeps_an_article_together(tmp_path: Path) -> None:
    made = imported("onestopenglish", tmp_path / "out", Options(institutions=3))
    apart(made)
    assert [len(data.subjects) for data in made.values()] == [63, 63, 63]
    for data in made.values():
        assert np.sort(data.tasks["level"].labels[..., 0], axis=1).tolist() == [[0, 1, 2]] * 63
    assert [len(data.subjects) for data in imported("onestopenglish", tmp_path / "one").values()] == [189]


def test_omniglot_is_dealt_out_by_drawer(tmp_path: Path) -> None:
    made = imported("omniglot", tmp_path / "out", Options(institutions=4), only_modalities={"strokes"})
    apart(made)
    assert [len(data.subjects) for data in made.values()] == [5] * 4
    assert [int(data.held_out.sum()) for data in made.values()] == [1] * 4
    for data in made.values():
        assert data.weights.shape == (5, 242)
        strokes = data.modalities["strokes"]
        assert (strokes.length, strokes.width) == (64, 4)
        assert (strokes.values[strokes.steps].min(), strokes.values[:, :, 0, 2].min()) == (-1, 1)  # a stroke begins
        assert (data.tasks["alphabet"].classes, data.tasks["character"].classes) == (8, 242)
    images = load(tmp_path / "out" / "institution-1", only_modalities={"image"}).modalities["image"]
    assert images.width == 784
    ink = (images.values > 0).mean()
    assert 0.01 < ink < 0.2  # ink is bright, and little of the page


def test_fsdd_is_dealt_out_by_speaker(tmp_path: Path) -> None:
    made = imported("fsdd", tmp_path / "out")
    apart(made)
    for data in made.values():
        assert data.weights.shape == (3, 500)
        assert int(data.held_out.sum()) == 1
        speech = data.modalities["speech"]
        assert (speech.length, speech.width) == (32, 32)
        assert speech.steps[..., 0].all()
        assert np.bincount(data.tasks["digit"].labels.astype(int).ravel()).tolist() == [150] * 10
        assert set(data.groups["accent"].codes.ravel().tolist()) < set(range(5))


def test_fsdd_by_index_says_that_it_depends_on_the_speaker(tmp_path: Path) -> None:
    made = imported("fsdd", tmp_path / "out", Options(split="index", institutions=6), only_modalities=set())
    assert [int(data.held_out.sum()) for data in made.values()] == [50] * 6
    assert "speaker-dependent" in (tmp_path / "out" / "institution-1" / "dataset.toml").read_text()
    with pytest.raises(UsageError, match="a speaker to train on and one to test on"):
        run_import("fsdd", source("fsdd"), tmp_path / "two", Options(institutions=4), quiet)


def test_a_unit_of_records_leaves_speakers_whole(tmp_path: Path) -> None:
    made = imported("fsdd", tmp_path / "out", Options(unit="record"), only_modalities=set())
    for data in made.values():
        assert data.weights.shape == (1500, 1)
        held = {record.split("_")[1] for record in data.records[data.held_out, 0]}
        rest = {record.split("_")[1] for record in data.records[~data.held_out, 0]}
        assert len(held) == 1
        assert not held & rest


REFUSED: dict[str, tuple[str, Options, str]] = {
    "no such importer": ("mnist", Options(), "no importer is called 'mnist'"),
    "no such choice": ("sra", Options(by="region"), "--by region is unknown. Choose from group, module"),
    "an option without use": ("oulad", Options(split="index"), "Leave the option out"),
    "a number without use": ("oulad", Options(institutions=3), "follows from --by"),
    "too many": ("omniglot", Options(institutions=11), "Ask for 1 to 10"),
    "fewer than one": ("omniglot", Options(institutions=-1), "Ask for 1 to 10"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_options_are_refused(tmp_path: Path, name: str) -> None:
    importer, options, text = REFUSED[name]
    with pytest.raises(UsageError, match=text):
        run_import(importer, tmp_path, tmp_path / "out", options, quiet)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_source_that_is_not_there_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        run_import(name, tmp_path / "none", tmp_path / "out", Options(), quiet)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="does not exist"):
        run_import(name, tmp_path / "empty", tmp_path / "out", Options(), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def spoil(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


def inner(folder: Path) -> None:
    """Damage the compressed bytes of a member, not the archive's list of members."""
    path = folder / "images_background_small1.zip"
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("images_background_small1/Latin/character26/0708_20.png").header_offset
    raw = bytearray(path.read_bytes())
    raw[start + 120 : start + 140] = bytes(20)
    path.write_bytes(raw)


DAMAGED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "half a table": ("sra", spoil("sra_3way.csv.gz")),
    "half an archive": ("omniglot", spoil("strokes_background_small2.zip")),
    "a damaged member": ("omniglot", inner),
    "half an array": ("fsdd", spoil("fsdd_int16_8k.npz")),
    "half a list of speakers": ("fsdd", spoil("speakers.json")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_source_leaves_nothing(tmp_path: Path, name: str) -> None:
    importer, damage = DAMAGED[name]
    shutil.copytree(source(importer), tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(CorruptError, match=r"Fetch the source again"):
        run_import(importer, tmp_path / "source", tmp_path / "out", Options(), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_import_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(what: str, done: int, _total: int) -> None:
        if what == "writing" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_import("sra", source("sra"), tmp_path / "out", Options(), interrupt)
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OperatorError, match="is not empty"):
        run_import("sra", source("sra"), tmp_path / "out", Options(), quiet)
    (tmp_path / "out" / "mine").unlink()
    run_import("sra", source("sra"), tmp_path / "out", Options(), quiet)
