"""The importers: nobody is in two places, nothing tells the outcome, all or nothing is written.

On the real sources where they are, and single records of small ones that the tests write in the same form.
"""

import gzip
import io
import json
import shutil
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from collegium.crypto.errors import CorruptError, OperatorError, UsageError
from collegium.node.data.arrays import Dataset, load
from collegium.node.data.importers.common import Options
from collegium.node.data.importers.registry import IMPORTERS, run_import
from collegium.node.data.manifest import read_manifest

from ...public_data import public_data

FOLDERS = {"omniglot": "omniglot_small"}


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


def source(name: str) -> Path:
    return public_data(FOLDERS.get(name, name))


def imported(
    name: str, out: Path, options: Options | None = None, only_modalities: set[str] | None = None
) -> dict[str, Dataset]:
    made = run_import(name, source(name), out, options or Options(), quiet)
    assert sorted(path.name for path in out.iterdir()) == sorted(folder.name for _, folder in made)
    return {institution: load(folder, only_modalities=only_modalities) for institution, folder in made}


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
        assert (data.modalities["demographics"].width, data.modalities["assessments"].width) == (10, 13)
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
    assert all(set(range(8)) <= numbers for numbers in weeks.values())
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


def test_saf_has_the_languages_apart_and_its_own_split(tmp_path: Path) -> None:
    made = imported("saf", tmp_path / "out")
    sizes = {name: (len(data.subjects), int(data.held_out.sum())) for name, data in made.items()}
    assert sizes == {"english-a": (864, 126), "english-b": (864, 126), "german": (1805, 271)}
    german = made["german"].tasks["half"].labels[:, 0, 0]
    assert int(german.sum()) == 1417


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


def made_of(name: str, folder: Path, options: Options | None = None) -> dict[str, Dataset]:
    out = folder / "out"
    return {written: load(data) for written, data in run_import(name, folder, out, options or Options(), quiet)}


def rows_of(folder: Path, table: str) -> dict[str, dict[str, Any]]:
    """The rows of a table that an importer wrote, by the first column."""
    rows = pyarrow.parquet.read_table(folder / f"{table}.parquet").to_pylist()
    return {str(next(iter(row.values()))): row for row in rows}


def label(data: Dataset, task: str, record: str) -> str:
    ((subject, index),) = np.argwhere(data.records == record).tolist()
    labels = data.tasks[task]
    return labels.class_names[int(labels.labels[subject, index, 0])]


def is_held_out(data: Dataset, record: str) -> bool:
    ((subject, _),) = np.argwhere(data.records == record).tolist()
    return bool(data.held_out[subject])


def write_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), buffer)
    path.write_bytes(gzip.compress(buffer.getvalue()))


def answer(number: str, label: str, split: str, corpus: str = "sciEntsBank", module: str = "EM") -> dict[str, str]:
    return {
        "corpus": corpus, "question_id": "Q", "module": module, "question": f"Why {number}?",
        "reference_answer": f"Because of {number}.", "answer_id": number, "answer": f"It is {number}", "label": label,
        "split": split,
    }  # fmt: skip


def test_sra_records_keep_their_texts_and_labels(tmp_path: Path) -> None:
    rows = [
        answer("EM.1.7.1", "correct", "train"),
        answer("EM.1.8.1", "incorrect", "train"),
        answer("EM.1.9.1", "contradictory", "test-unseen-answers"),
        answer("EM.2.9.1", "correct", "test-unseen-questions"),
        answer("FN.1.5.1", "incorrect", "test-unseen-answers", module="FN"),
        answer("FN.1.6.1", "correct", "train", module="FN"),
        *(answer(f"F-Q.sbj{n}-l1.qa{n}", "incorrect", "train", "beetle", "F") for n in range(12)),
        answer("F-Q.sbjb3-l1.qa9", "correct", "test-unseen-answers", "beetle", "F"),
    ]
    write_gz(tmp_path / "sra_3way.csv.gz", rows)
    made = made_of("sra", tmp_path)
    assert sorted(made) == ["beetle", "scientsbank-a", "scientsbank-b"]
    expected = {
        "scientsbank-b": {"EM.1.7.1": "correct", "EM.1.8.1": "incorrect", "EM.1.9.1": "contradictory"},
        "scientsbank-a": {"FN.1.5.1": "incorrect", "FN.1.6.1": "correct"},
    }
    for name, records in expected.items():
        data = made[name]
        assert {record: label(data, "grade", record) for record in data.records.ravel()} == records
        texts = data.modalities["answer"].texts
        assert texts is not None
        for (subject, _), record in np.ndenumerate(data.records):
            assert texts[subject, 0].tolist() == [f"Why {record}?", f"Because of {record}.", f"It is {record}"]
    assert [is_held_out(made["scientsbank-b"], f"EM.1.{n}.1") for n in (7, 8, 9)] == [False, False, True]
    assert label(made["beetle"], "grade", "F-Q.sbjb3-l1.qa9") == "correct"
    assert "sbjb3" in made["beetle"].subjects


def test_known_records_of_sra(tmp_path: Path) -> None:
    made = imported("sra", tmp_path / "out")
    expected = {
        "EM.45b.299.1": ("We evaporated the water.", "correct", True),
        "EM.45b.452.1": ("We kept the salt in the vial and put the water in the Petri dish.", "incorrect", True),
        "EM.45b.113.1": ("Let the water evaporate and the salt is left behind.", "correct", False),
    }
    data = made["scientsbank-b"]
    texts = data.modalities["answer"].texts
    assert texts is not None
    for record, (words, grade, held_out) in expected.items():
        assert (label(data, "grade", record), is_held_out(data, record)) == (grade, held_out)
        assert texts[data.records == record][0, 2] == words
    assert label(data, "grade", "EM.16b.321.1") == "contradictory"
    assert label(made["beetle"], "grade", "FaultFinding-BULB_C_VOLTAGE_EXPLAIN_WHY1.sbj8-l1.qa226") == "incorrect"


def spoken(folder: Path) -> dict[str, list[int]]:
    """Write six speakers' clips of two digits as the source does; return the samples of each."""
    clips = {f"{digit}_{speaker}_{index}": [1000 * digit + 10 * index + number, -5]
             for number, speaker in enumerate(("ada", "bob", "cat", "dan", "eve", "fay"))
             for digit in (3, 8) for index in (4, 5)}  # fmt: skip
    parts = [name.split("_") for name in clips]
    np.savez(
        folder / "fsdd_int16_8k.npz",
        audio=np.array([value for samples in clips.values() for value in samples], dtype=np.int16),
        n=np.array([2] * len(clips), dtype=np.int32),
        digit=np.array([int(digit) for digit, _, _ in parts], dtype=np.int8),
        index=np.array([int(index) for _, _, index in parts], dtype=np.int16),
        speaker=np.array([speaker for _, speaker, _ in parts]),
    )
    accents = {name: {"accent": "south" if name == "bob" else "north"} for _, name, _ in parts}
    (folder / "speakers.json").write_text(json.dumps(accents))
    return clips


def samples_of(path: Path) -> list[int]:
    with wave.open(str(path), "rb") as clip:
        assert clip.getframerate() == 8000
        return np.frombuffer(clip.readframes(clip.getnframes()), dtype="<i2").tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("split", ["speaker", "index"])
def test_fsdd_clips_keep_their_digit_speaker_and_samples(tmp_path: Path, split: str) -> None:
    clips = spoken(tmp_path)
    made = made_of("fsdd", tmp_path, Options(split=split))
    seen = set()
    for clip, data in made.items():
        for (subject, _), record in np.ndenumerate(data.records):
            digit, speaker, index = record.split("_")
            assert label(data, "digit", record) == digit
            assert samples_of(tmp_path / "out" / clip / "audio" / f"{record}.wav") == clips[record]
            held_out = speaker in {"eve", "fay"} if split == "speaker" else index == "4"
            assert is_held_out(data, record) == held_out
            if split == "speaker":
                assert data.subjects[subject] == speaker
            accent = data.groups["accent"]
            code = accent.codes[data.records == record][0]
            assert accent.levels[code] == ("south" if speaker == "bob" else "north")
            seen.add(record)
    assert seen == set(clips)


def test_known_clips_of_fsdd(tmp_path: Path) -> None:
    made = imported("fsdd", tmp_path / "out", only_modalities=set())
    with np.load(source("fsdd") / "fsdd_int16_8k.npz") as archive:
        audio, ends = archive["audio"], np.cumsum(archive["n"])
        names = [archive[key][1234] for key in ("digit", "speaker", "index")]
    assert [str(name) for name in names] == ["4", "george", "4"]
    assert label(made["institution-1"], "digit", "4_george_4") == "4"
    assert label(made["institution-2"], "digit", "0_jackson_0") == "0"
    assert label(made["institution-2"], "digit", "9_jackson_49") == "9"
    samples = samples_of(tmp_path / "out" / "institution-1" / "audio" / "4_george_4.wav")
    assert samples == audio[ends[1233] : ends[1234]].tolist()
    assert len(samples) == 3479


def test_onestopenglish_records_keep_their_level_and_text(tmp_path: Path) -> None:
    levels = {"ele": "elementary", "int": "intermediate", "adv": "advanced"}
    rows = [{"article": f"art{n}", "level": level, "text": f"{level} words {n}"} for n in range(12) for level in levels]
    write_gz(tmp_path / "onestopenglish.csv.gz", rows)
    (data,) = made_of("onestopenglish", tmp_path).values()
    texts = data.modalities["text"].texts
    assert texts is not None
    for n in range(12):
        for level, name in levels.items():
            assert label(data, "level", f"art{n}-{level}") == name
            assert texts[data.records == f"art{n}-{level}"].tolist() == [[f"{level} words {n}"]]


def test_omniglot_drawings_keep_their_character_and_pixels(tmp_path: Path) -> None:
    for archive in ("background_small1", "background_small2"):
        with (
            zipfile.ZipFile(tmp_path / f"images_{archive}.zip", "w") as images,
            zipfile.ZipFile(tmp_path / f"strokes_{archive}.zip", "w") as strokes,
        ):
            for number, alphabet in enumerate(("Greek", "Latin")):
                for drawer in range(1, 21):
                    member = f"{alphabet}/character0{number + 1}/{number + 1:04}_{drawer:02}"
                    pixels = np.full((28, 28), 255, dtype=np.uint8)
                    pixels[drawer, number] = 0
                    buffer = io.BytesIO()
                    Image.fromarray(pixels).save(buffer, "PNG")
                    images.writestr(f"images_{archive}/{member}.png", buffer.getvalue())
                    points = f"START\n{drawer},-{number + 1},0\n{drawer},-9,5\nBREAK\n"
                    strokes.writestr(f"strokes_{archive}/{member}.txt", points)
    made = made_of("omniglot", tmp_path)
    for data in made.values():
        for (subject, index), record in np.ndenumerate(data.records):
            number, drawer = int(record[:4]) - 1, int(record[5:])
            assert data.subjects[subject] == f"drawer-{drawer:02}"
            assert label(data, "alphabet", record) == ("Greek", "Latin")[number]
            assert label(data, "character", record) == ("Greek/character01", "Latin/character02")[number]
            ink = np.argwhere(data.modalities["image"].values[subject, index, 0].reshape(28, 28) > 0)
            assert ink.tolist() == [[drawer, number]]
    strokes_table = rows_of(tmp_path / "out" / "institution-1", "strokes")
    assert {"0001_01", "0002_19"} <= set(strokes_table)


def test_known_students_of_oulad(tmp_path: Path) -> None:
    made = imported("oulad", tmp_path / "out", only_modalities=set())
    table = pyarrow.csv.read_csv(source("oulad") / "student.csv.gz").to_pylist()
    results = {f"{r['code_module']}-{r['code_presentation']}-{r['id_student']}": r for r in table}
    checked: set[str] = set()
    for module in ("AAA", "GGG"):
        data = made[module]
        for (subject, k), record in np.ndenumerate(data.records):
            if not record:
                continue
            row = results[record]
            result = str(row["final_result"])
            checked.add(result)
            assert str(row["id_student"]) == data.subjects[subject]
            assert (data.tasks["pass"].labels[subject, k, 0] == 1) == (result in {"Pass", "Distinction"})
            assert (data.tasks["withdraw"].labels[subject, k, 0] == 1) == (result == "Withdrawn")
            if result != "Withdrawn":
                assert label(data, "grade", record) == result
            gender = data.groups["gender"]
            assert gender.levels[gender.codes[subject, k]] == str(row["gender"])
    assert checked == {"Pass", "Distinction", "Fail", "Withdrawn"}


REFUSED: dict[str, tuple[str, Options, str]] = {
    "no such importer": ("mnist", Options(), "no importer is called 'mnist'"),
    "no such choice": ("sra", Options(by="region"), "--by region is unknown. Choose from group, module"),
    "an option without use": ("oulad", Options(unit="record"), "Leave the option out"),
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


# ---- the sources as they were published, and the commands


def published_oulad(folder: Path) -> None:
    """Write the Open University's own files, as they are quoted there, of six presentations and five students each."""
    modules = {"AAA": ("2013J", "2014J"), "CCC": ("2014B", "2014J"), "GGG": ("2013B", "2013J")}
    info, registration, assessments, handed, sites, views = [], [], [], [], [], []
    number = 0
    for module, presentations in modules.items():
        for presentation in presentations:
            key = f'"{module}","{presentation}"'
            number += 1
            assessments += [f'{key},"{number}1","TMA","19","10"', f'{key},"{number}2","Exam","","100"']
            sites.append(f'"{number}7",{key},"oucontent","",""')
            students = [f"{number}0{digit}" for digit in range(5)]
            if (module, presentation) == ("AAA", "2014J"):
                students[0] = "100"  # who was there the year before
            for index, student in enumerate(students):
                result = ("Pass", "Fail", "Withdrawn", "Distinction", "Pass")[index]
                info.append(
                    f'{key},"{student}","{"MF"[index % 2]}","Scotland","HE Qualification","10-20","0-35","0","60",'
                    f'"{"YN"[index % 2]}","{result}"'
                )
                registration.append(f'{key},"{student}","-{index + 1}","{"12" if index == 1 else ""}"')
                handed += [
                    f'"{number}1","{student}","18","0","{70 + index}"',
                    f'"{number}2","{student}","200","0","50"',
                ]
                views += [f'{key},"{student}","{number}7","{day}","3"' for day in (-1, 0, 6, 7, 56, 200)]
    shared = '"code_module","code_presentation"'
    files = {
        "studentInfo": (f'{shared},"id_student","gender","region","highest_education","imd_band","age_band",'
                        '"num_of_prev_attempts","studied_credits","disability","final_result"', info),
        "studentRegistration": (f'{shared},"id_student","date_registration","date_unregistration"', registration),
        "assessments": (f'{shared},"id_assessment","assessment_type","date","weight"', assessments),
        "studentAssessment": ('"id_assessment","id_student","date_submitted","is_banked","score"', handed),
        "vle": (f'"id_site",{shared},"activity_type","week_from","week_to"', sites),
        "studentVle": (f'{shared},"id_student","id_site","date","sum_click"', views),
    }  # fmt: skip
    for name, (head, rows) in files.items():
        (folder / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")


def test_the_open_universitys_own_files_are_read(tmp_path: Path) -> None:
    published_oulad(tmp_path)
    made = made_of("oulad", tmp_path)
    apart_or_small = {name: (len(data.subjects), int((data.weights > 0).sum())) for name, data in made.items()}
    assert apart_or_small == {"AAA": (7, 8), "CCC": (8, 8), "GGG": (8, 8)}  # place 1 left on day 12
    person = rows_of(tmp_path / "out" / "AAA", "students")["AAA-2013J-100"]
    assert (person["disability"], person["imd_band"], person["registered"], person["score"]) == (
        "true",
        "10-20",
        -1,
        50,
    )
    weeks = pyarrow.parquet.read_table(tmp_path / "out" / "GGG" / "clicks.parquet").to_pylist()
    by_week = {row["week"]: row for row in weeks if row["record"] == "GGG-2013B-500"}
    assert sorted(by_week) == [-1, 0, 1, 2, 3, 4, 5, 6, 7]
    assert np.expm1([by_week[week]["oucontent"] for week in (-1, 0, 1, 2, 7)]) == pytest.approx([3, 6, 3, 0, 0])
    handed = pyarrow.parquet.read_table(tmp_path / "out" / "CCC" / "assessments.parquet").to_pylist()
    assert {(row["day"], row["late"], row["banked"], row["type"]) for row in handed} == {(18, -1, "false", "TMA")}
    (tmp_path / "vle.csv").unlink()
    with pytest.raises(UsageError, match=r"vle\.csv or vle\.csv\.gz does not exist"):
        run_import("oulad", tmp_path, tmp_path / "again", Options(), quiet)


SENSITIVE = {"gender", "disability", "imd_band", "age_band", "region"}


def test_sensitive_attributes_are_groups_and_no_features(tmp_path: Path) -> None:
    published_oulad(tmp_path)
    made = made_of("oulad", tmp_path)
    for name, data in made.items():
        manifest = read_manifest(tmp_path / "out" / name)
        assert not SENSITIVE & {column.name for entry in manifest.modalities for column in entry.columns}
        assert set(data.groups) == SENSITIVE
        assert (data.groups["gender"].codes[data.weights > 0] >= 0).all()


def test_the_last_presentation_is_held_out_and_nobody_is_on_both_sides(tmp_path: Path) -> None:
    published_oulad(tmp_path)
    made = made_of("oulad", tmp_path, Options(split="presentation"))
    for name, last in (("AAA", "2014J"), ("CCC", "2014J"), ("GGG", "2013J")):
        data = made[name]
        for (subject, _), record in np.ndenumerate(data.records):
            assert not record or data.held_out[subject] == (record.split("-")[1] == last)
    # student 100 came back in the last one: that record would put them on both sides
    assert [record for record in made["AAA"].records.ravel() if record.endswith("-100")] == ["AAA-2013J-100"]
    by = made_of_options(tmp_path, Options(by="presentation"))
    assert sorted(by) == ["AAA-2013J", "AAA-2014J", "CCC-2014B", "CCC-2014J", "GGG-2013B", "GGG-2013J"]
    with pytest.raises(UsageError, match="one presentation of its module only"):
        run_import("oulad", tmp_path, tmp_path / "none", Options(by="presentation", split="presentation"), quiet)


def made_of_options(folder: Path, options: Options) -> dict[str, Path]:
    return dict(run_import("oulad", folder, folder / "others", options, quiet))


def test_oulad_by_presentation(tmp_path: Path) -> None:
    made = imported("oulad", tmp_path / "out", Options(split="presentation"), only_modalities=set())
    subjects = [subject for data in made.values() for subject in data.subjects]
    assert len(subjects) == len(set(subjects))
    assert sum(bool(data.held_out.any()) for data in made.values()) >= 5
    for data in made.values():
        sides: dict[str, set[bool]] = {}
        for (subject, _), record in np.ndenumerate(data.records):
            if record:
                sides.setdefault(record.split("-")[1], set()).add(bool(data.held_out[subject]))
        assert sides == {name: {name == max(sides) and len(sides) > 1} for name in sides}  # of AAA there is one here


def question(path: Path, module: str, answers: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    student_answers = "".join(f'<studentAnswer id="{name}" accuracy="{label}">It is {name} &amp; so</studentAnswer>'
                   for name, label in answers.items())  # fmt: skip
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<question id="Q" module="{module}">\n'
        "<questionText>Why?</questionText>"
        '<referenceAnswers><referenceAnswer id="a0" category="GOOD">Perhaps.</referenceAnswer>'
        '<referenceAnswer id="a1" category="BEST">Because.</referenceAnswer></referenceAnswers>'
        f"<studentAnswers>{student_answers}</studentAnswers></question>"
    )


def test_the_published_xml_of_sra_is_read(tmp_path: Path) -> None:
    train, test = tmp_path / "training" / "3way", tmp_path / "test" / "3way"
    question(train / "sciEntsBank" / "EM-1.xml", "EM", {"EM.1.7.1": "correct", "EM.1.8.1": "incorrect"})
    question(test / "sciEntsBank" / "test-unseen-answers" / "EM-1.xml", "EM", {"EM.1.9.1": "contradictory"})
    question(train / "beetle" / "F.xml", "F", {f"F-Q.sbj{n}-l1.qa{n}": "correct" for n in range(9)})
    question(tmp_path / "training" / "2way" / "sciEntsBank" / "EM-1.xml", "EM", {"EM.1.1.1": "correct"})
    made = made_of("sra", tmp_path)
    assert sorted(made) == ["beetle", "scientsbank-b"]
    data = made["scientsbank-b"]
    assert [is_held_out(data, f"EM.1.{n}.1") for n in (7, 8, 9)] == [False, False, True]
    assert label(data, "grade", "EM.1.9.1") == "contradictory"
    texts = data.modalities["answer"].texts
    assert texts is not None
    assert texts[data.records == "EM.1.7.1"].tolist() == [["Why?", "Because.", "It is EM.1.7.1 & so"]]


@pytest.mark.parametrize(("split", "wanted"), [("test-unseen-answers", "train"), ("train", "test-unseen-questions")])
def test_a_source_without_the_part_that_is_asked_for_is_refused(tmp_path: Path, split: str, wanted: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_gz(source / "sra_3way.csv.gz", [answer(f"EM.1.{n}.1", "correct", split) for n in range(3)])
    test = "unseen-answers" if wanted == "train" else "unseen-questions"
    with pytest.raises(CorruptError, match=rf"no SciEntsBank answer of the part '{wanted}'. It has {split}\."):
        run_import("sra", source, tmp_path / "out", Options(test=test), quiet)
    write_gz(source / "sra_3way.csv.gz", [answer("EM.1.1.1", "correct", "dev")])
    with pytest.raises(CorruptError, match=r"answer 1 of .* is of no known part: its split is none of train, test-"):
        run_import("sra", source, tmp_path / "out", Options(), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("split", ["training", "", "test-unseen-domains"])
def test_beetle_beside_it_hides_no_part_that_is_missing(tmp_path: Path, split: str) -> None:
    """Its answers are in no part, so that it would be written alone, and thousands of others dropped without a word."""
    source = tmp_path / "source"
    source.mkdir()
    beetle = answer("FaultFinding.sbj3-l1.qa1", "correct", "train") | {"corpus": "beetle"}
    write_gz(source / "sra_3way.csv.gz", [beetle, *(answer(f"EM.1.{n}.1", "correct", split) for n in range(3))])
    with pytest.raises(CorruptError):
        run_import("sra", source, tmp_path / "out", Options(), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("published", [True, False])
def test_the_published_recordings_of_fsdd_are_read(tmp_path: Path, published: bool) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number, speaker in enumerate(("ada", "bob", "cat", "dan")):
        for index in (4, 5):
            with wave.open(str(folder / f"7_{speaker}_{index}.wav"), "wb") as clip:
                clip.setparams((1, 2, 8000, 0, "NONE", ""))
                clip.writeframes(np.full(400, 100 * number + index, dtype="<i2").tobytes())
    if published:
        about = {name: {"gender": "female", "accent": "north"} for name in ("ada", "bob", "cat", "dan")}
        (tmp_path / "metadata.py").write_text(f"metadata = {about}\n")
    made = made_of("fsdd", tmp_path)
    assert sorted(made) == ["institution-1", "institution-2"]
    assert {name for data in made.values() for name in data.groups} == ({"accent"} if published else set())
    data = made["institution-2"]
    assert sorted(data.subjects) == ["bob", "dan"]
    assert is_held_out(data, "7_dan_4")
    assert samples_of(tmp_path / "out" / "institution-2" / "audio" / "7_dan_4.wav") == [304] * 400
    (folder / "7_ada_4.wav").write_bytes(b"RIFF")
    with pytest.raises(CorruptError, match=r"7_ada_4\.wav cannot be read"):
        run_import("fsdd", tmp_path, tmp_path / "again", Options(), quiet)


LACKING = {
    "sra": ("sra_3way.csv.gz", "corpus,module\nb,EM\n", "no column question"),
    "onestopenglish": ("onestopenglish.csv.gz", "article,text\na,b\n", "no column level"),
    "oulad": ("assessments.csv", "code_module\nAAA\n", "no column code_presentation"),
}


@pytest.mark.parametrize("name", LACKING)
def test_a_source_without_a_column_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    file, text, message = LACKING[name]
    (tmp_path / "source").mkdir()
    data = text.encode()
    (tmp_path / "source" / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)
    with pytest.raises(CorruptError, match=message):
        run_import(name, tmp_path / "source", tmp_path / "out", Options(), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
