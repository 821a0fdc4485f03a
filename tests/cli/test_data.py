"""`collegium data`: what it prints of a folder, and its exit codes."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Run

MANIFEST = """
format = 1
[unit]
subject = "student"
max_records = 1
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "answer"
kind = "text"
columns = ["answer"]
[[task]]
name = "grade"
kind = "ordinal"
column = "grade"
classes = ["low", "high"]
[[task]]
name = "points"
kind = "regression"
column = "points"
low = 0
high = 20
[sensitive]
columns = [{ name = "gender", levels = ["f", "m"] }]
[split]
share = 0.5
salt = "x"
"""
TOWN = """
[[modality]]
name = "town"
kind = "tabular"
columns = [{ name = "town", levels = ["north", "south"] }]
"""
WORK = "id,student,answer,grade,points,gender\n" + "".join(
    f"r{number},s{number},words,{('low', 'high')[number % 2]},10,{'f' if number % 9 else 'm'}\n"
    for number in range(240)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    (tmp_path / "work.csv").write_text(WORK + "again,s1,words,low,10,f\n")
    return tmp_path


def test_check_says_what_is_there(run: "Run", folder: Path) -> None:
    answer = run("data", "check", folder)
    assert answer.code == 0
    for part in ("240, ", "low 120, high 120", "0 to 20, mean 10", "too small to report", "max_records leaves out 1"):
        assert part in answer.out
    assert "other" not in answer.out  # a level that nobody has
    summary = run("data", "check", folder, "--json").value
    assert (summary["subjects"], summary["unread_records"]) == (240, 1)
    assert [cell["too_small"] for cell in summary["groups"][0]["cells"]] == [False, True, True]
    assert summary["modalities"][0]["present"] == 240


def test_check_counts_the_subjects_of_a_group_as_evaluation_does(run: "Run", folder: Path) -> None:
    rows = [f"r{n},s{n % 40},words,low,10,f\n" for n in range(400)]  # 400 records of 40 subjects
    (folder / "work.csv").write_text(WORK.split("\n", 1)[0] + "\n" + "".join(rows))
    text = MANIFEST.replace("max_records = 1", "max_records = 10").replace("share = 0.5", "share = 0.99")
    (folder / "dataset.toml").write_text(text)
    summary = run("data", "check", folder, "--json").value
    cell = summary["groups"][0]["cells"][0]
    held_out = summary["held_out_subjects"]
    assert (cell["held_out"], cell["held_out_subjects"], cell["too_small"]) == (10 * held_out, held_out, True)
    assert 30 < held_out <= 40
    assert "subjects held out" in run("data", "check", folder).out


def test_check_warns_of_words_that_no_cell_holds_and_quotes_no_cell(run: "Run", folder: Path) -> None:
    """A group and a category whose declared words are in no cell: the figures of "other" would be all there is."""
    toml = MANIFEST.replace('["f", "m"]', '["female", "male"]').replace("[[task]]", f"{TOWN}[[task]]", 1)
    (folder / "dataset.toml").write_text(toml)
    lines = WORK.splitlines()
    (folder / "work.csv").write_text("\n".join([f"{lines[0]},town", *(f"{line},east" for line in lines[1:])]))
    warnings = run("data", "check", folder, "--json").value["warnings"]
    about = [warning for warning in warnings if "none of the declared words" in warning]
    assert [warning.split(" (")[0] for warning in about] == [
        "column 'town' of table 'work'", "column 'gender' of table 'work'"
    ]  # fmt: skip
    assert all("its 240 cells that are filled hold none" in warning for warning in about)
    assert "east" not in " ".join(warnings)


def test_check_fails_as_training_would(run: "Run", folder: Path) -> None:
    (folder / "work.csv").write_text(WORK.replace("low", "lowest", 1))
    answer = run("data", "check", folder, "--json")
    assert answer.code == 3
    assert answer.value["problems"][0]["text"].endswith("work.csv: column 'grade', line 2 is no class of 'grade'")
    assert answer.value["left_out_subjects"] == 1
    assert "training leaves out 1 subject." in run("data", "check", folder).out.splitlines()[-1]


def test_a_folder_that_is_none_and_a_dataset_toml_that_is_no_toml_are_named(run: "Run", folder: Path) -> None:
    for path, text in (
        (folder / "none", "none: there is no such folder"),
        (folder / "work.csv", "is a file Give the"),
    ):
        answer = run("data", "check", path)
        assert answer.code == 2
        assert text in " ".join(answer.err.split())
    good = (folder / "dataset.toml").read_text()
    for old, new, message in (
        ('kind = "text"', "kind = text", "Text needs quotation marks"),
        ("format = 1", "format = ", "Correct the line named here;"),
    ):
        assert old in good
        (folder / "dataset.toml").write_text(good.replace(old, new, 1))
        answer = run("data", "check", folder)
        assert answer.code == 2
        assert message in " ".join(answer.err.split())
    (folder / "dataset.toml").write_text("# \u00e9\n" + good, encoding="latin-1")
    assert "not UTF-8" in " ".join(run("data", "check", folder).err.split())


def test_import_writes_folders_that_check_accepts(run: "Run", tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = [f"art{number},{level},words" for number in range(4) for level in ("ele", "int", "adv")]
    text = "article,level,text\n" + "\n".join(rows)
    (source / "onestopenglish.csv.gz").write_bytes(gzip.compress(text.encode()))
    out = tmp_path / "out"
    answer = run("data", "import", "onestopenglish", source, out, "--institutions", "2", "--json")
    assert answer.code == 0
    assert [entry["name"] for entry in answer.value["institutions"]] == ["institution-1", "institution-2"]
    for entry in answer.value["institutions"]:
        summary = run("data", "check", entry["folder"], "--json").value
        assert (summary["subjects"], summary["records"]) == (2, 6)
    again = run("data", "import", "onestopenglish", source, out)
    assert again.code == 2
    assert "is not empty" in again.err
    assert run("data", "import", "mnist", source, tmp_path / "x").code == 2
    assert run("data", "import", "onestopenglish", source, tmp_path / "x", "--by", "level").code == 2


def test_texts_that_are_cut_are_told_of(run: "Run", tmp_path: Path) -> None:
    long, short = " ".join(["word"] * 127), " ".join(["word"] * 126)
    (tmp_path / "t.csv").write_text(f"id,text,label\n1,{long},yes\n2,{short},no\n3,{long},no\n4,,yes\n5,{short},yes\n")
    (tmp_path / "dataset.toml").write_text(
        'format = 1\n[unit]\nsubject = "id"\n[tables.t]\npath = "t.csv"\nkey = "id"\n'
        '[[modality]]\nname = "essay"\nkind = "text"\ncolumns = ["text"]\n'
        '[[task]]\nname = "pass"\nkind = "binary"\ncolumn = "label"\npositive = ["yes"]\n'
        '[split]\nshare = 0.0\nsalt = "x"\n'
    )
    warnings = run("data", "check", tmp_path, "--json").value["warnings"]
    (may_be,) = [warning for warning in warnings if "may be cut" in warning]
    assert may_be.startswith("modality 'essay': 2 records have a text of over 63 words")
    (cut,) = [warning for warning in warnings if "only its beginning is read" in warning]
    assert cut.startswith("modality 'essay': 2 records have a text of over 126 words")
