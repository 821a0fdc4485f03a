"""Several texts of a record in a table: their order, what is not read, and what is wrong with a declaration."""

from pathlib import Path

import pytest

from collegium.crypto.errors import CorruptError, UsageError
from collegium.node.data.arrays import Dataset, load
from collegium.node.data.summary import summarise

TEXTS = """
format = 1
[unit]
subject = "id"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "id"
[tables.essays]
path = "essays.csv"
key = "id"
[[modality]]
name = "essays"
kind = "text"
table = "essays"
columns = ["title", "essay"]
order = "written"
texts = 2
[[task]]
name = "pass"
kind = "binary"
column = "result"
positive = ["yes"]
[split]
share = 0.5
salt = "pepper"
"""
ESSAYS = """id,written,title,essay
ann,2026-03-02,second,II
bob,2026-01-01,only,
ann,1.12.2025,zero,0
ann,2026-03-02 10:30,third,III
ann,2026-03-01T08:00,first,I
ann,2026-03-03,,
cat,7.3.2026,seven,VII
cat,2026-03-07T01:00+03:00,six,VI
cat,,,
"""


def texts_of(folder: Path, toml: str = TEXTS, essays: str = ESSAYS, *, tolerant: bool = False) -> Dataset:
    (folder / "dataset.toml").write_text(toml)
    (folder / "pupils.csv").write_text("id,result\nann,yes\nbob,no\ncat,yes\ndan,no\n")
    (folder / "essays.csv").write_text(essays)
    return load(folder, tolerant=tolerant)


def test_several_texts_of_a_record_are_read_in_their_order_the_last_ones_in_the_last_places(tmp_path: Path) -> None:
    data = texts_of(tmp_path)
    essays = data.modalities["essays"]
    assert essays.texts is not None
    assert essays.texts[:, 0].tolist() == [
        ["second", "II", "third", "III"],  # of four; the row without any text does not count
        ["", "", "only", ""],
        ["six", "VI", "seven", "VII"],
        ["", "", "", ""],
    ]
    assert essays.steps[:, 0].tolist() == [[True] * 4, [False, False, True, False], [True] * 4, [False] * 4]
    assert (essays.length, data.findings.unread_texts) == (4, {"essays": (1, 2)})
    (warning,) = [w for w in summarise(data)["warnings"] if "texts" in w]
    assert warning == (
        "modality 'essays': 1 record has more texts than are read: 2 texts are left away, the oldest ones. Raise"
        " `texts` if they matter"
    )


def test_several_texts_are_one_with_a_separator(tmp_path: Path) -> None:
    data = texts_of(tmp_path, TEXTS.replace("texts = 2", 'texts = 3\nseparator = "\\n"'))
    essays = data.modalities["essays"]
    assert essays.texts is not None
    assert essays.texts[:, 0].tolist()[0] == ["first\nsecond\nthird", "I\nII\nIII"]
    assert essays.texts[:, 0].tolist()[1:] == [["only", ""], ["six\nseven", "VI\nVII"], ["", ""]]
    assert (essays.length, data.findings.unread_texts) == (2, {"essays": (1, 1)})


def test_of_equal_places_the_file_has_the_order(tmp_path: Path) -> None:
    data = texts_of(tmp_path, essays="id,written,title,essay\nann,1,b,\nann,1,a,\nann,0,c,\n")
    assert data.modalities["essays"].texts[0, 0].tolist() == ["b", "", "a", ""]  # type: ignore[index]


def test_rows_that_repeat_an_earlier_one_are_named_by_their_lines(tmp_path: Path) -> None:
    copies = "ann,1.3.2026 08:00,first,I\nbob,2026-01-01,only,\nann,2026-03-01T08:00,first,II\ndan,2026-01-01,only,\n"
    data = texts_of(tmp_path, essays=ESSAYS + copies)
    (warning,) = [w for w in summarise(data)["warnings"] if "repeat" in w]
    assert warning == (
        "modality 'essays': essays.csv has 2 rows that repeat an earlier one of the same record, with the same place"
        " in the order and the same text: line 11 (as 6), 12 (as 3). Each is read as a text of its own: remove it if it"
        " was copied by mistake"
    )
    assert data.modalities["essays"].texts[1, 0].tolist() == ["only", "", "only", ""]  # type: ignore[index]
    assert not [w for w in summarise(texts_of(tmp_path))["warnings"] if "repeat" in w]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "is empty"),
        ("03/01/2026", "is neither a number nor a date"),
        ("31.2.2026", "is neither a number nor a date"),
    ],
)
def test_a_text_without_a_place_in_the_order_leaves_its_student_out(tmp_path: Path, cell: str, said: str) -> None:
    essays = ESSAYS.replace("2026-03-01T08:00", cell)
    data = texts_of(tmp_path, essays=essays, tolerant=True)
    assert (data.left_out, data.subjects) == (("ann",), ("bob", "cat", "dan"))
    (problem,) = data.findings.problems
    assert f"essays.csv: column 'written', line 6 {said}" in problem.text
    assert not cell or cell not in str(problem)


def test_a_number_among_dates_leaves_its_student_out(tmp_path: Path) -> None:
    data = texts_of(tmp_path, essays=ESSAYS.replace("2026-03-02,second", "20260302,second"), tolerant=True)
    assert data.left_out == ("ann",)
    (problem,) = data.findings.problems
    assert "line 2 is a number, and most of this column are dates" in problem.text


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ('order = "written"\ntexts = 2', 'order = "written"', "texts is missing"),
        ('order = "written"\n', "", "need an order"),
        ("texts = 2", "texts = 33", "66 passages"),
        ('table = "essays"\n', "", "one row a record"),
        ("texts = 2", "texts = 0", "a whole number from 1 to 64"),
        ('order = "written"', 'order = "day"', "no column 'day'"),
    ],
)
def test_what_is_wrong_with_a_declaration_of_several_texts_is_named(
    tmp_path: Path, there: str, here: str, said: str
) -> None:
    assert there in TEXTS
    with pytest.raises(UsageError) as error:
        texts_of(tmp_path, TEXTS.replace(there, here))
    assert said in f"{error.value.message} {error.value.advice}"


def test_a_second_text_without_an_order_is_a_problem_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="a second row for this record") as error:
        texts_of(tmp_path, TEXTS.replace('order = "written"\ntexts = 2\n', ""))
    assert "order" in error.value.advice
