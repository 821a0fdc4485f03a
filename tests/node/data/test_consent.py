"""Consents in the unit table: who is read on which day, and what is wrong with a cell or a declaration."""

from datetime import date
from pathlib import Path

import pytest

from collegium.crypto.errors import CorruptError, UsageError
from collegium.node.data.arrays import Dataset, load, load_file
from collegium.node.data.manifest import read_manifest
from collegium.node.data.summary import summarise

TOML = """
format = 1
[unit]
subject = "id"
table = "pupils"
consent = "consent"
consent_yes = ["yes", "oui"]
consent_until = "until"
[tables.pupils]
path = "pupils.csv"
key = "row"
[[modality]]
name = "marks"
kind = "tabular"
columns = [{ name = "mark", low = 0, high = 20 }]
[[task]]
name = "pass"
kind = "binary"
column = "result"
positive = ["1"]
[split]
share = 0
salt = ""
"""
HEAD = "row,id,mark,result,consent,until\n"
ROWS = """1,ann,5,1,yes,
2,bob,9,0,oui,2026-07-31
3,cat,9,0,yes,30.7.2026
4,dan,9,0,no,2027-01-01
5,eve,9,0,,
6,fay,9,0,yes,2026-07-31T12:00
7,gus,9,0,yes,2026-12-01
8,gus,9,0,no,2026-12-01
"""


def pupils(folder: Path, day: str, rows: str = ROWS, toml: str = TOML) -> Dataset:
    (folder / "dataset.toml").write_text(toml)
    (folder / "pupils.csv").write_text(HEAD + rows)
    return load(folder, tolerant=True, day=date.fromisoformat(day))


def test_who_consents_on_the_day_is_read_and_nobody_else(tmp_path: Path) -> None:
    """A row without a word of consent is a no for its student; a consent with an hour ends before that day."""
    data = pupils(tmp_path, "2026-07-31")
    assert data.subjects == ("ann", "bob")
    assert data.consents == {"yes": 2, "no": 3, "lapsed": 2, "unreadable": 0}
    assert set(data.refused) == {"cat", "dan", "eve", "fay", "gus"}
    assert data.modalities["marks"].values.shape[0] == data.weights.shape[0] == len(data.held_out) == 2
    assert pupils(tmp_path, "2026-08-01").subjects == ("ann",), "the file is the same, the day is not"
    assert pupils(tmp_path, "2026-07-30").subjects == ("ann", "bob", "cat", "fay")
    assert summarise(data)["consents"] == data.consents


@pytest.mark.parametrize(
    ("cells", "what"),
    [("Yes,", "written otherwise"), ("yes,soon", "is no date"), ("yes,46234", "is no date")],
)
def test_a_cell_that_cannot_be_read_leaves_its_student_out_and_says_where(
    tmp_path: Path, cells: str, what: str
) -> None:
    data = pupils(tmp_path, "2026-07-31", ROWS + f"9,hal,9,0,{cells}\n")
    assert data.subjects == ("ann", "bob")
    assert (data.left_out, data.unclear) == (("hal",), ("hal",))
    assert data.consents == {"yes": 2, "no": 3, "lapsed": 2, "unreadable": 1}
    (problem,) = data.findings.problems
    assert what in problem.text
    assert "line 10" in problem.text
    with pytest.raises(CorruptError, match=what):
        load(tmp_path)


def test_without_the_column_all_is_as_it_was(tmp_path: Path) -> None:
    toml = "\n".join(line for line in TOML.splitlines() if not line.startswith("consent"))
    data = pupils(tmp_path, "2026-07-31", toml=toml)
    assert (len(data.subjects), data.consents, data.refused) == (7, None, ())


def test_nobody_is_predicted_who_does_not_consent_where_the_file_says_it(tmp_path: Path) -> None:
    pupils(tmp_path, "2026-07-31")
    new = tmp_path / "new.csv"
    new.write_text("row,id,mark,consent\n1,ida,3,yes\n2,jon,3,no\n")
    assert load_file(tmp_path, new).subjects == ("ida",)
    new.write_text("row,id,mark\n1,ida,3\n2,jon,3\n")
    assert load_file(tmp_path, new).subjects == ("ida", "jon")


def test_nobody_consents(tmp_path: Path) -> None:
    data = pupils(tmp_path, "2026-07-31", "1,ann,5,1,no,\n")
    assert data.subjects == ()
    with pytest.raises(UsageError, match="nobody consents"):
        summarise(data)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('consent_yes = ["yes", "oui"]', "", "without consent_yes"),
        ('consent = "consent"\n', "", "go with consent"),
        ('consent_until = "until"', 'consent_until = "consent"', "are both"),
        ('name = "mark"', 'name = "until"', "a consent"),
    ],
)
def test_a_declaration_that_is_wrong_is_refused(tmp_path: Path, old: str, new: str, what: str) -> None:
    (tmp_path / "dataset.toml").write_text(TOML.replace(old, new))
    with pytest.raises(UsageError, match=what):
        read_manifest(tmp_path)
