"""The kinds of modality and task beyond columns of numbers, filters, groups, and records to predict."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collegium.crypto.errors import CorruptError, OperatorError, UsageError
from collegium.node.data import records
from collegium.node.data.arrays import load, load_file
from collegium.node.data.layout import layout_digest, modality_layout
from collegium.node.data.manifest import read_manifest
from collegium.node.data.summary import summarise

from .test_audio import tone, write_wav

MANIFEST = """
format = 1
[unit]
subject = "student"
table = "work"
[tables.work]
path = "work.csv"
key = "id"
keep = [{ column = "course", values = ["maths", "art"] }]
[tables.clicks]
path = "clicks.csv"
key = "id"
keep = [{ column = "day", low = 0, high = 56 }]
[[modality]]
name = "essay"
kind = "text"
columns = ["question", "answer"]
[[modality]]
name = "voice"
kind = "audio"
file = "clip"
rate = 8000
max_seconds = 1
bands = 8
frames = 4
normalise = false
[[modality]]
name = "scan"
kind = "image"
file = "page"
size = 2
invert = true
[[modality]]
name = "clicks"
kind = "series"
table = "clicks"
time = "day"
max_len = 3
resample = true
columns = [{ name = "count", low = 0, high = 10 }]
[[task]]
name = "pass"
kind = "binary"
column = "mark"
positive = ["good", "fair"]
[[task]]
name = "level"
kind = "ordinal"
column = "level"
classes = ["low", "middle", "high"]
[[task]]
name = "points"
kind = "regression"
column = "points"
low = 0
high = 20
[[task]]
name = "topics"
kind = "multilabel"
column = "topics"
classes = ["algebra", "logic", "sets"]
[sensitive]
columns = [{ name = "gender", levels = ["f", "m"] }]
[split]
share = 0
salt = ""
"""
WORK = '''id,student,course,question,answer,clip,page,mark,level,points,topics,gender
a1,ann,maths,Why?,Because.,a1.wav,a1.png,good,high,20,algebra; sets,f
a2,ann,art,,NA,,,bad,low,-5,none,f
b1,bob,maths,"Two

paragraphs","Say ""so""",b1.wav,,fair,middle,15,logic,x
c1,cat,sport,?,?,gone.wav,gone.png,odd,odd,9,odd,m
d1,dan,maths,  ,,,,,,,,
'''
CLICKS = "id,day,count\n" + "".join(f"a1,{day},{day}\n" for day in range(9))
CLICKS += "b1,60,9\nb1,-1,9\nb1,5,5\nc1,1,1\nzz,99,1\n"
TOML, CSV = "dataset.toml", "work.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / TOML).write_text(MANIFEST)
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    (folder / CSV).write_text(WORK)
    (folder / "clicks.csv").write_text(CLICKS)
    write_wav(folder / "a1.wav", tone(1000, 0.6))
    write_wav(folder / "b1.wav", tone(1000, 2.0))
    Image.fromarray(np.array([[255, 0], [255, 51]], dtype=np.uint8)).save(folder / "a1.png")


def test_filters_drop_records_and_all_that_belongs_to_them(folder: Path) -> None:
    data = load(folder)
    assert data.subjects == ("ann", "bob", "dan")
    assert data.records.tolist() == [["a1", "a2"], ["b1", ""], ["d1", ""]]
    assert (data.filtered, data.unread) == (1, 0)
    assert data.weights.tolist() == [[0.5, 0.5], [1, 0], [1, 0]]


def test_text_has_segments_and_no_width(folder: Path) -> None:
    essay = load(folder).modalities["essay"]
    assert (essay.kind, essay.width, essay.length, essay.values.shape) == ("text", 0, 2, (3, 2, 2, 0))
    assert essay.texts is not None
    assert essay.texts[0].tolist() == [["Why?", "Because."], ["", "NA"]]  # NA is a word in a sentence
    assert essay.texts[1, 0].tolist() == ["Two\n\nparagraphs", 'Say "so"']
    assert essay.steps.tolist() == [[[1, 1], [0, 1]], [[1, 1], [0, 0]], [[0, 0], [0, 0]]]


def test_audio_is_masked_after_its_end(folder: Path) -> None:
    voice = load(folder).modalities["voice"]
    assert voice.values.shape == (3, 2, 4, 8)
    assert voice.steps.tolist() == [[[1, 1, 0, 0], [0] * 4], [[1] * 4, [0] * 4], [[0] * 4, [0] * 4]]
    assert not voice.values[~voice.steps].any()
    assert voice.texts is None
    assert (voice.values[0, 0, 0] == voice.values[1, 0, 0]).all()


def test_image_files_are_scaled_and_inverted(folder: Path) -> None:
    scan = load(folder).modalities["scan"]
    assert scan.values[0, 0, 0].tolist() == pytest.approx([-1, 1, -1, 0.6])
    assert scan.steps[:, :, 0].tolist() == [[True, False], [False, False], [False, False]]
    (folder / TOML).write_text(MANIFEST.replace("invert = true", "low = 0\nhigh = 51"))
    assert load(folder).modalities["scan"].values[0, 0, 0].tolist() == [1, -1, 1, 1]


def test_a_long_series_is_thinned_evenly(folder: Path) -> None:
    clicks = load(folder).modalities["clicks"]
    assert clicks.values[0, 0, :, 0].tolist() == pytest.approx([-1, -0.2, 0.6])  # days 0, 4, 8 of nine
    assert clicks.values[1, 0, :, 0].tolist() == [0, 0, 0]  # only day 5 is within the filter
    assert clicks.steps[1, 0].tolist() == [True, False, False]
    (folder / TOML).write_text(MANIFEST.replace("resample = true\n", ""))
    assert load(folder).modalities["clicks"].values[0, 0, :, 0].tolist() == pytest.approx([0.2, 0.4, 0.6])


def test_a_row_of_a_series_has_the_place_of_its_slot(folder: Path) -> None:
    slots = MANIFEST.replace("max_len = 3\nresample = true", 'slot = "task"\nslots = ["quiz", "essay", "talk"]')
    (folder / TOML).write_text(slots)
    # Two quizzes: the later one. A word that is no slot is not read.
    (folder / "clicks.csv").write_text("id,day,count,task\na1,9,2,talk\na1,2,9,quiz\na1,5,7,quiz\nb1,3,5,walk\n")
    clicks = load(folder).modalities["clicks"]
    assert clicks.values[0, 0, :, 0].tolist() == pytest.approx([0.4, 0, -0.6])
    assert clicks.steps[:2, 0].tolist() == [[True, False, True], [False, False, False]]
    here, otherwise = (
        layout_digest(modality_layout(next(e for e in read_manifest(folder).modalities if e.name == "clicks")))
        for text in (slots, slots.replace('"quiz", "essay"', '"essay", "quiz"'))
        if (folder / TOML).write_text(text)
    )
    assert here != otherwise, "who declares the places otherwise reads other numbers"
    for wrong, said in (
        (slots.replace('slot = "task"\n', ""), "slot and slots go together"),
        (slots.replace("slot =", "max_len = 3\nslot ="), "max_len with slots"),
    ):
        (folder / TOML).write_text(wrong)
        with pytest.raises(UsageError, match=said):
            load(folder)


def test_labels_of_every_kind(folder: Path) -> None:
    tasks = load(folder).tasks
    labels = {name: np.nan_to_num(task.labels, nan=-9).tolist() for name, task in tasks.items()}
    assert labels["pass"] == [[[1], [0]], [[1], [-9]], [[-9], [-9]]]
    assert labels["level"] == [[[2], [0]], [[1], [-9]], [[-9], [-9]]]
    assert labels["points"] == [[[1], [-1]], [[0.5], [-9]], [[-9], [-9]]]  # -5 is clamped to 0
    none, gap = [0, 0, 0], [-9, -9, -9]
    assert labels["topics"] == [[[1, 0, 1], none], [[0, 1, 0], gap], [gap, gap]]
    assert {name: task.classes for name, task in tasks.items()} == {"pass": 2, "level": 3, "points": 1, "topics": 3}
    assert (tasks["points"].low, tasks["points"].high, tasks["level"].high) == (0, 20, 0)
    assert tasks["pass"].class_names == ("other", "good or fair")
    assert tasks["topics"].class_names == ("algebra", "logic", "sets")
    assert tasks["points"].class_names == ()
    assert all(task.labels.dtype == np.float32 for task in tasks.values())


def test_groups_have_other_and_unknown(folder: Path) -> None:
    gender = load(folder).groups["gender"]
    assert gender.levels == ("f", "m", "other")
    assert gender.codes.tolist() == [[0, 0], [2, -1], [-1, -1]]
    (folder / TOML).write_text(MANIFEST.replace('["f", "m"]', '["other", "f"]'))
    gender = load(folder).groups["gender"]
    assert (gender.levels, gender.codes[1, 0]) == (("other", "f"), 0)


def test_modalities_that_are_not_wanted_are_not_read(folder: Path) -> None:
    for name in ("a1.wav", "b1.wav", "a1.png", "clicks.csv"):
        (folder / name).unlink()
    assert list(load(folder, only_modalities={"essay", "nothing"}).modalities) == ["essay"]
    with pytest.raises(CorruptError, match=r"'clip', line 2: the file does not exist"):
        load(folder, only_modalities={"voice"})


def test_too_large_an_array_is_refused_before_it_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 3 * 2 * 4 * 8 * 4 - 1)
    with pytest.raises(UsageError, match=r"modality 'voice' would need .* GiB \(3 × 2 × 4 × 8 values\)"):
        load(folder)
    monkeypatch.undo()
    huge = MANIFEST.replace("max_len = 3", "max_len = 65536")
    one = 'columns = [{ name = "count", low = 0, high = 10 }]'
    wide = ", ".join(f'{{ name = "count{n}", low = 0, high = 1 }}' for n in range(6000))
    (folder / TOML).write_text(huge.replace(one, f"columns = [{wide}]"))
    names = ",".join(f"count{n}" for n in range(6000))
    (folder / "clicks.csv").write_text(f"id,day,{names}\n")
    with pytest.raises(UsageError, match=r"modality 'clicks' would need 8.8 GiB"):
        load(folder)


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return apply


BAD: dict[str, tuple[Callable[[Path], object], type[OperatorError], str]] = {
    "a clip outside the folder": (edit(CSV, "a1.wav", "../a1.wav"), CorruptError, r"'clip', line 2: .*leads out"),
    "a clip by an absolute path": (edit(CSV, "a1.wav", "/etc/passwd"), CorruptError, r"'clip', line 2: .*leads out"),
    "an image outside the folder": (edit(CSV, "a1.png", "x/../../y"), CorruptError, r"'page', line 2: .*leads out"),
    "a table outside the folder": (edit(TOML, "work.csv", "../work.csv"), UsageError, r"tables.work\]: .*leads out"),
    "no such clip": (edit(CSV, "b1.wav", "c.wav"), CorruptError, r"'clip', line 4: the file does not exist"),
    "a clip that is none": (lambda folder: (folder / "b1.wav").write_bytes(b"RIFF"), CorruptError, "line 4: .*no .wav"),
    "a clip of another rate": (edit(TOML, "rate = 8000", "rate = 16000"), CorruptError, "line 2: .*8000 samples"),
    "an image that is none": (lambda folder: (folder / "a1.png").write_bytes(b"x"), CorruptError, "line 2: .*no PNG"),
    "an unknown level": (edit(CSV, "middle", "highest"), CorruptError, "'level', line 4 is no class"),
    "an unknown topic": (edit(CSV, "algebra; sets", "algebra;set"), CorruptError, "'topics', line 2 is no class"),
    "none among topics": (edit(CSV, "algebra; sets", "algebra;none"), CorruptError, "'topics', line 2 is no class"),
    "a point that is no number": (edit(CSV, ",15,", ",many,"), CorruptError, "'points', line 4 is not a number"),
    "a row for an unknown record": (edit("clicks.csv", "b1,5", "b9,5"), CorruptError, "line 13: this record is"),
    "two rows for a record": (edit(CSV, "b1,bob", "a1,bob"), CorruptError, "twice, first in line 2"),
    "a dropped record twice": (edit(CSV, "c1,cat", "a1,cat"), CorruptError, "there twice, in line 5"),
    "a filter on no column": (edit(TOML, '"course"', '"subject"'), UsageError, "no column 'subject'"),
    "a filter that keeps nothing": (edit(TOML, '["maths", "art"]', '["x"]'), UsageError, "has no rows that are kept"),
    "a filter of both kinds": (edit(TOML, '["maths", "art"]', '["x"], low = 1'), UsageError, "either values or bounds"),
    "a filter of neither kind": (edit(TOML, ', values = ["maths", "art"]', ""), UsageError, "either values or bounds"),
    "a group without its column": (edit(TOML, '"gender"', '"sex"'), UsageError, "no column 'sex'"),
    "a label as a feature": (edit(TOML, '"answer"', '"mark"'), UsageError, "'mark' is no feature: it is the label"),
    "the subject as a feature": (edit(TOML, '"answer"', '"student"'), UsageError, "no feature: it is the subject"),
    "text without columns": (edit(TOML, '["question", "answer"]', "[]"), UsageError, "columns is empty"),
    "audio without a rate": (edit(TOML, "rate = 8000\n", ""), UsageError, "voice: rate is missing"),
    "audio of no length": (edit(TOML, "max_seconds = 1", "max_seconds = 0"), UsageError, "not in"),
    "more frames than samples": (edit(TOML, "frames = 4", "frames = 9000"), UsageError, "less than a sample"),
    "an image of file and prefix": (edit(TOML, "size = 2", 'prefix = "p"'), UsageError, "either prefix or columns or"),
    "an image without a size": (edit(TOML, "size = 2\n", ""), UsageError, "scan: size is missing"),
    "an unknown kind of task": (edit(TOML, '"ordinal"', '"ranking"'), UsageError, "kind = 'ranking' is unknown"),
    "an order of one class": (edit(TOML, '["low", "middle", "high"]', '["low"]'), UsageError, "too few values"),
    "regression without bounds": (edit(TOML, "high = 20\n", ""), UsageError, "points: high is missing"),
    "a class that is none": (edit(TOML, '"logic", "sets"', '"logic", "none"'), UsageError, "separator and none"),
    "a class with a separator": (edit(TOML, '"logic", "sets"', '"logic;sets"'), UsageError, "separator and none"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused_with_the_place(folder: Path, name: str) -> None:
    spoil, kind, text = BAD[name]
    spoil(folder)
    with pytest.raises(kind, match=text):
        load(folder)


def test_what_is_wrong_in_a_dropped_row_does_not_matter(folder: Path) -> None:
    assert "gone.wav" in WORK
    assert "zz,99" in CLICKS
    load(folder)


def test_a_file_to_predict_may_lack_subject_and_labels(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("new")
    write_wav(elsewhere / "n.wav", tone(500))
    (elsewhere / "new.csv").write_text("id,question,answer,clip,extra\nn1,Q,A,n.wav,1\nn2,Q,B,,2\n")
    data = load_file(folder, elsewhere / "new.csv")
    assert data.subjects == ("n1", "n2")
    assert data.held_out.all()
    assert data.records.tolist() == [["n1"], ["n2"]]
    assert data.modalities["essay"].texts is not None
    assert data.modalities["essay"].texts[:, 0, 1].tolist() == ["A", "B"]
    assert data.modalities["voice"].steps.any(2).tolist() == [[True], [False]]
    for name, shape in (("scan", (2, 1, 1, 4)), ("clicks", (2, 1, 3, 1))):
        assert data.modalities[name].values.shape == shape
        assert not data.modalities[name].steps.any()
    assert all(np.isnan(task.labels).all() for task in data.tasks.values())
    assert (data.groups["gender"].codes == -1).all()
    before = load(folder)
    assert {name: (m.kind, m.width, m.length) for name, m in data.modalities.items()} == {
        name: (m.kind, m.width, m.length) for name, m in before.modalities.items()
    }


def test_a_file_to_predict_is_read_whole_and_checked(folder: Path) -> None:
    rows = [f"n{number},ann,maths,Q,A,high" for number in range(40)]  # more than max_records
    (folder / "new.csv").write_text("\n".join(["id,student,course,question,answer,level", *rows]))
    data = load_file(folder, folder / "new.csv")
    assert (data.weights > 0).sum() == 40
    assert (data.tasks["level"].labels[0, :, 0] == 2).all()
    (folder / "new.csv").write_text("id,level\nn1,high\nn2,odd\n")
    with pytest.raises(CorruptError, match=r"new.csv: column 'level', line 3 is no class"):
        load_file(folder, folder / "new.csv")
    (folder / "new.csv").write_text("name,level\nn1,high\n")
    with pytest.raises(UsageError, match=r"new.csv: no column 'id'"):
        load_file(folder, folder / "new.csv")
    with pytest.raises(UsageError, match=r"none.csv does not exist"):
        load_file(folder, folder / "none.csv")


def test_a_folder_to_predict_is_laid_out_alike(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    fill(other)
    data, before = load_file(folder, other), load(folder)
    for name, modality in before.modalities.items():
        assert np.array_equal(modality.values, data.modalities[name].values)
        assert np.array_equal(modality.steps, data.modalities[name].steps)
    assert data.held_out.all()
    assert not before.held_out.any()
    (other / "clicks.csv").unlink()
    assert not load_file(folder, other).modalities["clicks"].steps.any()


def test_pixels_by_prefix_keep_their_width_when_a_file_has_none(tmp_path: Path) -> None:
    (tmp_path / TOML).write_text(
        'format = 1\n[unit]\nkind = "record"\n[tables.t]\npath = "t.csv"\nkey = "id"\n[[modality]]\nname = "i"\n'
        'kind = "image"\nprefix = "p"\nlow = 0\nhigh = 1\n[[task]]\nname = "y"\nkind = "binary"\ncolumn = "y"\n'
        'positive = "1"\n[split]\nshare = 0.5\nsalt = ""\n'
    )
    (tmp_path / "t.csv").write_text("id,p0,p1,p2,y\n1,0,1,0,1\n")
    (tmp_path / "new.csv").write_text("id\n7\n")
    data = load_file(tmp_path, tmp_path / "new.csv")
    assert data.modalities["i"].values.shape == (1, 1, 1, 3)
    (tmp_path / "new.csv").write_text("id,p0,p1,p2\n7,1,1,0\n")
    assert load_file(tmp_path, tmp_path / "new.csv").modalities["i"].values[0, 0, 0].tolist() == [1, 1, -1]
    (tmp_path / "new.csv").write_text("id,p1\n7,1\n")
    with pytest.raises(UsageError, match=r"new.csv: modality 'i' lacks columns p0, p2"):
        load_file(tmp_path, tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("id,p0,p1,p2,p03\n7,1,1,0,1\n")
    with pytest.raises(UsageError, match=r"new.csv: modality 'i' does not know column p03.*3 columns p0, p1"):
        load_file(tmp_path, tmp_path / "new.csv")


def test_a_part_of_a_modality_is_refused_in_a_file_to_predict(folder: Path) -> None:
    (folder / "new.csv").write_text("id,answer\nn1,A\n")
    with pytest.raises(UsageError, match=r"new.csv: modality 'essay' lacks column question"):
        load_file(folder, folder / "new.csv")
    # A column that another modality reads too tells of that one alone.
    note = '[[modality]]\nname = "note"\nkind = "text"\ncolumns = ["answer"]\n[[task]]'
    edit(TOML, "[[task]]", note)(folder)
    data = load_file(folder, folder / "new.csv")
    assert data.modalities["note"].steps.any()
    assert not data.modalities["essay"].steps.any()
    (folder / "new.csv").write_text("id,question\nn1,Q\n")
    with pytest.raises(UsageError, match=r"new.csv: modality 'essay' lacks column answer"):
        load_file(folder, folder / "new.csv")


def test_a_missing_image_or_clip_of_a_file_to_predict_is_named(folder: Path) -> None:
    (folder / "new.csv").write_text("id,page\nn1,a1.png\nn2,\nn3,none.png\n")
    with pytest.raises(CorruptError, match=r"new.csv: column 'page', line 4: the file does not exist"):
        load_file(folder, folder / "new.csv")
    (folder / "new.csv").write_text("id,page\nn1,a1.png\nn2,\n")
    assert load_file(folder, folder / "new.csv").modalities["scan"].steps.any(2).tolist() == [[True], [False]]


def test_a_file_to_predict_without_rows_is_said_to_have_no_records(folder: Path) -> None:
    (folder / "new.csv").write_text("id,question,answer\n")
    with pytest.raises(UsageError, match=r"new.csv has no records. Below the line of column names") as caught:
        load_file(folder, folder / "new.csv")
    assert "institution" not in str(caught.value)


def test_the_summary_counts_what_is_there_and_warns(folder: Path) -> None:
    summary = summarise(load(folder))
    assert (summary["subjects"], summary["records"], summary["filtered_records"]) == (3, 4, 1)
    assert summary["records_per_subject"] == {"min": 1, "median": 1.0, "max": 2}
    voice = next(entry for entry in summary["modalities"] if entry["name"] == "voice")
    assert (voice["present"], voice["missing"], voice["mean_steps"]) == (2, 2, 3.0)
    tasks = {entry["name"]: entry for entry in summary["tasks"]}
    assert tasks["level"]["counts"] == {"low": 1, "middle": 1, "high": 1}
    assert tasks["topics"]["counts"] == {"algebra": 1, "logic": 1, "sets": 1}
    assert tasks["points"]["mean"] == pytest.approx(35 / 3)
    assert summary["groups"][0]["unknown"] == 1
    assert [cell["records"] for cell in summary["groups"][0]["cells"]] == [2, 0, 1]
    assert all(cell["too_small"] for cell in summary["groups"][0]["cells"])
    assert summary["warnings"] == [
        "column 'points' of table 'work' (task 'points'): 1 below low and 0 above high, which are clamped",
        "no subject is held out: there is nothing to evaluate on",
        "modality 'voice': 1 of the recordings is longer than max_seconds, and cut there",
    ]
    edit(TOML, 'table = "work"\n', 'table = "work"\nmax_records = 1\n')(folder)
    edit(TOML, 'file = "page"', 'file = "course2"')(folder)
    edit(TOML, "share = 0", "share = 0.999999")(folder)
    columns = WORK.replace("gender\n", "gender,course2\n").replace("fair,middle", "good,high")
    for end in (",f", ",x", ",m", ",,,,,"):
        columns = columns.replace(f"{end}\n", f"{end},\n")
    (folder / CSV).write_text(columns)
    warnings = "\n".join(summarise(load(folder))["warnings"])
    assert "max_records leaves out 1 record:" in warnings
    assert "every subject is held out" in warnings
    assert "modality 'scan' is missing from every record" in warnings
    assert "task 'pass' has one class only" in warnings


def test_recordings_that_are_cut_are_counted(folder: Path) -> None:
    """b1.wav has two seconds, and max_seconds is one."""
    (cut,) = [warning for warning in summarise(load(folder))["warnings"] if "recordings" in warning]
    assert cut.startswith("modality 'voice': 1 of the recordings is longer than max_seconds")


def test_a_file_under_another_form_of_its_name_is_pointed_at(folder: Path) -> None:
    """As a zip program of another system leaves it; the name itself is not shown."""
    composed, decomposed = "Zoë.png", unicodedata.normalize("NFD", "Zoë.png")
    (folder / "a1.png").rename(folder / decomposed)
    (folder / CSV).write_text(WORK.replace("a1.png", composed), encoding="utf-8")
    with pytest.raises(CorruptError, match="differs only in case or in how its accents are written") as caught:
        load(folder)
    assert "Zo" not in str(caught.value)
