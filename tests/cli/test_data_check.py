"""`collegium data check` on what spreadsheets and registers really write: ids, labels, numbers, files, limits."""

import gzip
import json
import struct
import wave
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from collegium.crypto.errors import CorruptError
from collegium.node.data.arrays import load, load_file
from collegium.node.data.utf8 import Utf8Count

if TYPE_CHECKING:
    from ..firstweek.schools import Answer
    from .conftest import Run

SECRET = "Mia-Szabo-private"  # stands for what a pupil wrote or is called: no message may repeat it
TOML = """format = 1
[unit]
subject = "pupil"
table = "work"
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "about"
kind = "tabular"
columns = [{ name = "age", low = 5, high = 20 }, { name = "town", levels = ["north", "south"] }]
[[task]]
name = "result"
kind = "binary"
column = "result"
positive = "pass"
[split]
share = 0.3
salt = "s"
"""
HEADER = "id,pupil,age,town,result"
Rows = Sequence[Sequence[object]]


def table(rows: Rows, header: str = HEADER, separator: str = ",") -> str:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    return "\r\n".join(lines).replace(",", separator) + "\r\n"


def pupils(count: int = 40) -> list[list[object]]:
    return [
        [f"r{n}", f"s{n}", 8 + n % 5, ("north", "south")[n % 2], ("pass", "fail")[n % 3 == 0]] for n in range(count)
    ]


@pytest.fixture
def school(tmp_path: Path) -> Path:
    write(tmp_path, pupils())
    return tmp_path


def write(folder: Path, rows: Rows, toml: str = TOML) -> None:
    (folder / "dataset.toml").write_text(toml, encoding="utf-8")
    (folder / "work.csv").write_text(table(rows), encoding="utf-8", newline="")


def problems(answer: "Answer") -> list[str]:
    assert answer.code == 3, answer.out + answer.err
    return [problem["text"].rpartition("work.csv: ")[2] for problem in answer.value["problems"]]


def column(answer: "Answer", name: str) -> dict[str, Any]:
    (matching,) = [entry for entry in answer.value["columns"] if entry["column"] == name]
    return matching  # type: ignore[no-any-return]


# ---- the charter


def test_a_folder_is_held_to_the_charter_of_the_home(
    run: "Run", school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, model = tmp_path / "home", tmp_path / "model.toml"
    model.write_text(run("charter", "model", school).out)
    member = run("init", "--home", home, "--name", "north", "--data", school, "--lot-size", 4, "--json").value["member"]
    words = ("charter", "create", "--home", home, "--name", "n", "--member", member, "--model", model)
    made = run(*words, "--fault-model", "crash", "--no-dp")
    assert made.code == 0, made.err
    config = home / "config.toml"
    config.write_text(config.read_text().replace('policy = "dp"', 'policy = "open"'))
    fine = run("data", "check", "--home", home)  # its own folder
    assert (fine.code, "can train on this folder" in fine.out) == (0, True), fine.err

    right = config.read_text()
    for lot, warned in (
        (40, "lot_size declares 400 students, and the data have 40"),
        (1, "10 students are declared, and the charter asks for 20: this node hosts and does not train"),
    ):
        config.write_text(right.replace("lot_size = 4.0", f"lot_size = {lot}.0"))
        (told,) = run("data", "check", "--home", home, "--json").value["warnings"]
        assert told.startswith(warned), told
    config.write_text(right)

    for old, new, message in (
        ("high = 20", "high = 21", "modality 'about' is declared otherwise in"),
        ('["north", "south"]', '["south", "north"]', "modality 'about' is declared otherwise in"),
        ('kind = "binary"\ncolumn = "result"\npositive = "pass"',
         'kind = "ordinal"\ncolumn = "result"\nclasses = ["fail", "pass", "more"]',
         "task 'result': the data have ordinal"),
    ):  # fmt: skip
        assert TOML.count(old) == 1
        write(school, pupils(), TOML.replace(old, new))
        answer = run("data", "check", school, "--home", home)
        text = " ".join(answer.err.split())
        assert (answer.code, message in text) == (2, True), answer.out + answer.err
        assert "as the other members do" in text
        assert "charter.bin" in text
        assert "can train" not in answer.out
        assert run("data", "check", school).code == 0, "no home is at hand"
        monkeypatch.setenv("COLLEGIUM_HOME", str(home))
        assert run("data", "check", school).code == 2
        monkeypatch.delenv("COLLEGIUM_HOME")


# ---- ids

SAME = ["s2", "s2 ", " s2", "s2\u00a0", "\ufeffs2", "s2\u200b", "\ts2"]
ACCENTS = ["Zo\u00e9", "Zoe\u0301"]


def test_one_pupil_in_several_spellings_is_one_subject(run: "Run", school: Path) -> None:
    names = [*SAME, *ACCENTS]
    write(school, [[f"r{n}", f'"{name}"', 9, "north", "pass"] for n, name in enumerate(names)])
    answer = run("data", "check", school, "--json")
    assert (answer.code, answer.value["subjects"], answer.value["records"]) == (0, 2, len(names))
    assert answer.value["near_ids"] == []
    assert load(school).subjects == ("s2", "Zo\u00e9")


def test_ids_that_may_be_one_pupil_are_named_and_strict_refuses_them(run: "Run", school: Path) -> None:
    names = ["s2", "S2", "0s2", "\uff53\uff12", "s3", "1001", "1001.0", "0", "00"]
    write(school, [[f"r{n}", name, 9, "north", "pass"] for n, name in enumerate(names)])
    answer = run("data", "check", school, "--json")
    assert (answer.code, answer.value["subjects"]) == (0, 9)
    assert answer.value["near_ids"] == [["s2", "S2", "0s2", "\uff53\uff12"], ["1001", "1001.0"], ["0", "00"]]
    assert "'s2', 'S2', '0s2'" in run("data", "check", school).out
    assert run("data", "check", school, "--strict").code == 1
    write(school, pupils())
    assert run("data", "check", school, "--strict").code == 0


def test_keys_join_across_tables_in_any_spelling(run: "Run", school: Path) -> None:
    toml = TOML.replace('name = "about"', 'name = "about"\ntable = "more"')
    write(school, [["r1", "ann", 9, "north", "pass"], ["\u00e9", "bob", 9, "north", "fail"]],
          toml + '[tables.more]\npath = "more.csv"\nkey = "Nr"\n')  # fmt: skip
    (school / "more.csv").write_text("\ufeffNr , age\u00a0,town\nr1 ,8,south\ne\u0301,9,north \n", encoding="utf-8")
    answer = run("data", "check", school, "--json")
    assert answer.code == 0, answer.out + answer.err
    assert answer.value["modalities"][0]["present"] == 2
    assert load(school).modalities["about"].values[1, 0, 0].tolist()[1:] == [1, 0, 0]


def test_the_split_does_not_depend_on_the_spelling(run: "Run", school: Path) -> None:
    write(school, [[f"r{n}", f"{'' if n < 40 else ' '}s{n % 40}\u00a0", 9, "north", "pass"] for n in range(80)])
    assert run("data", "check", school, "--json").value["subjects"] == 40
    plain = load(school)
    write(school, pupils())
    assert plain.subjects == load(school).subjects
    assert plain.held_out.tolist() == load(school).held_out.tolist()


# ---- labels, levels, numbers


def test_a_space_after_a_label_changes_nothing(run: "Run", school: Path) -> None:
    rows = [[*row[:4], f"{row[4]} " if n % 4 == 0 else row[4]] for n, row in enumerate(pupils())]
    write(school, rows)
    summary = run("data", "check", school, "--json").value
    assert summary["tasks"][0]["counts"] == {"other": 14, "pass": 26}


@pytest.mark.parametrize("written", ["Pass", "PASS", "p ass", "\uff50ass"])
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_label_in_another_case_or_with_a_space_is_an_error(run: "Run", school: Path, written: str, kind: str) -> None:
    toml = TOML if kind == "binary" else TOML.replace('"binary"', '"multiclass"').replace(
        'positive = "pass"', 'classes = ["pass", "fail"]')  # fmt: skip
    rows = pupils()
    rows[20][4] = written
    write(school, rows, toml)
    messages = problems(run("data", "check", school, "--json"))
    assert messages == ["column 'result', line 22 is written otherwise than the declared 'pass': case or space differs"]
    assert "error: " in run("data", "check", school).out


def test_a_level_in_another_case_is_an_error_and_two_that_differ_so_are_named(run: "Run", school: Path) -> None:
    rows = pupils()
    rows[1][3], rows[2][3], rows[3][3] = "North", "east", "EAST"
    write(school, rows)
    messages = problems(run("data", "check", school, "--json"))
    assert messages[0].startswith("column 'town', line 3 is written otherwise than the declared 'north'")
    assert "column 'town', lines 4 and 5: two values differ in case or space alone" in messages[1]
    assert load(school, tolerant=True).left_out == ("s1",)  # east and EAST are both "other": nobody is left out


def test_no_in_two_spellings_is_named_and_counts_as_no(run: "Run", school: Path) -> None:
    rows = pupils()
    rows[3][4] = "Fail"
    write(school, rows)
    answer = run("data", "check", school, "--json")
    assert "lines 2 and 5: two values differ" in problems(answer)[0]
    assert answer.value["tasks"][0]["counts"] == {"other": 14, "pass": 26}
    assert answer.value["left_out_subjects"] == 0
    assert column(answer, "result")["other"] == 14
    assert column(answer, "result")["words"] == [["fail", 13]]


def test_a_known_no_makes_all_other_values_errors(run: "Run", school: Path) -> None:
    rows = pupils()
    rows[5][4] = "witdrawn"
    write(school, rows, TOML.replace('"pass"', '"pass"\nnegative = "fail"'))
    answer = run("data", "check", school, "--json")
    assert problems(answer) == ["column 'result', line 7 is no class of 'result'"]
    assert set(answer.value["tasks"][0]["counts"]) == {"fail", "pass"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["north", "south"]', '["north", "North "]', "[[columns]] town: levels: 'north' and 'North' are one word"),
        ('["north", "south"]', '["n orth", "NORTH"]', "town: levels: 'n orth' and 'NORTH' are one word"),
        ('["north", "south"]', '["north", "north\u00a0"]', "town: levels names 'north' twice"),
        ('["north", "south"]', '["no\u00e9", "noe\u0301"]', "town: levels names 'no\u00e9' twice"),
        ('["north", "south"]', "[3, '3.0']", "town: levels: '3' and '3.0' are one word"),
        ('["north", "south"]', "[]", "town: levels is empty"),
        ('positive = "pass"', 'positive = ["pass", "Pass"]', "result: positive: 'pass' and 'Pass' are one word"),
        ('positive = "pass"', "positive = []", "result: positive: too few values"),
        ('positive = "pass"', 'positive = "pass"\nnegative = "PASS"', "positive and negative: 'pass' and 'PASS'"),
        ('positive = "pass"', 'positive = "pass"\nnegative = "pass"', "positive and negative: 'pass' is in both"),
        ('"binary"\ncolumn = "result"\npositive = "pass"', '"multiclass"\ncolumn = "result"\nclasses = ["a", "A"]',
         "result: classes: 'a' and 'A' are one word"),
        ('"binary"\ncolumn = "result"\npositive = "pass"', '"multilabel"\ncolumn = "result"\nclasses = ["a", "None"]',
         "result: separator and none"),
        ('share = 0.3\nsalt = "s"', 'column = "town"\ntest = ["Train"]', "train and test: 'train' and 'Train'"),
        ("[split]", '[sensitive]\ncolumns = [{ name = "town", levels = [] }]\n[split]', "town: levels is empty"),
        ("[split]", '[sensitive]\ncolumns = [{ name = "town", levels = ["a", "A"] }]\n[split]', "levels: 'a' and 'A'"),
        ("[[task]]", '[[modality]]\nname = "ABOUT"\nkind = "text"\ncolumns = ["town"]\n[[task]]',
         "modality 'ABOUT' is there twice (also as 'about')"),
        ('"about"', '"ab\u2800out"', r"name = 'ab\u2800out' has characters that cannot be seen"),
        ('name = "result"', 'name = "re\U0001d173sult"', r"name = 're\U0001d173sult' has characters"),
    ],
)  # fmt: skip
def test_words_that_are_declared_twice_or_not_at_all_are_refused(
    run: "Run", school: Path, old: str, new: str, message: str
) -> None:
    assert old in TOML
    write(school, pupils(), TOML.replace(old, new))
    answer = run("data", "check", school)
    assert (answer.code, str(school / "dataset.toml") in answer.err, message in answer.err) == (2, True, True), (
        answer.err
    )


def test_what_is_not_declared_missing_or_clamped_is_counted_and_named(run: "Run", school: Path) -> None:
    rows = pupils()
    cells = [(-999, "west"), (-999, "west"), (9999, SECRET), ("1e308", "NA"), (21, ""), (2, "N/A")]
    for n, two in enumerate(cells):
        rows[n][2:4] = two
    write(school, rows)
    answer = run("data", "check", school, "--json")
    assert answer.code == 0
    age, town = column(answer, "age"), column(answer, "town")
    assert (age["below"], age["above"]) == (3, 3)
    assert age["sentinels"] == [["-999", 2], ["9999", 1], ["1e+308", 1]]
    assert (town["other"], town["words"], town["missing"]) == (3, [["west", 2]], 3)
    assert sorted(town["missing_words"]) == [["N/A", 1], ["NA", 1]]
    shown = run("data", "check", school)
    assert "-999 occurs 2 times outside the bounds and looks like a code for no value" in shown.out
    assert "(west 2)" in shown.out
    assert SECRET not in shown.out
    assert run("data", "check", school, "--strict").code == 1


@pytest.mark.parametrize("code", [-1, -32768, 32767, -2147483648, 2147483647])
def test_what_programs_write_for_no_value_is_named_as_the_file_has_it(run: "Run", school: Path, code: int) -> None:
    """-1, and the edges of the whole numbers of 16 and 32 bits."""
    rows = pupils()
    rows[0][2] = code
    write(school, rows)
    answer = run("data", "check", school, "--json")
    assert (answer.code, column(answer, "age")["sentinels"]) == (0, [[str(code), 1]])
    (of_age,) = (warning for warning in answer.value["warnings"] if "'age'" in warning)
    assert f"{code} occurs 1 time outside the bounds and looks like a code for no value" in of_age
    rows[0][2] = code - 2 if code > 0 else code + 2 if code < -1 else -2
    write(school, rows)
    answer = run("data", "check", school, "--json")
    assert column(answer, "age")["sentinels"] == [], "its neighbour is a number like others"
    (of_age,) = (warning for warning in answer.value["warnings"] if "'age'" in warning)
    assert "which are clamped" in of_age


def test_minus_one_is_a_number_where_numbers_may_be_negative(run: "Run", school: Path) -> None:
    rows = pupils()
    rows[0][2] = -1
    for low, sentinels, below in (("-0.5", [], 1), ("-1", [], 0), ("0", [["-1", 1]], 1)):
        write(school, rows, TOML.replace("low = 5", f"low = {low}"))
        age = column(run("data", "check", school, "--json"), "age")
        assert (age["sentinels"], age["below"]) == (sentinels, below)


@pytest.mark.parametrize(
    ("dropped", "message"), [(1, "1 record does not pass keep"), (2, "2 records do not pass keep")]
)
def test_one_is_no_plural(run: "Run", school: Path, dropped: int, message: str) -> None:
    rows = pupils()
    for row in rows[:dropped]:
        row[3] = "elsewhere"
    write(
        school,
        rows,
        TOML.replace('key = "id"', 'key = "id"\nkeep = [{ column = "town", values = ["north", "south"] }]'),
    )
    answer = run("data", "check", school)
    assert (answer.code, message in answer.out, "for each subject  1 record\n" in answer.out) == (0, True, True), (
        answer.out
    )


def test_a_code_for_no_value_can_be_declared(run: "Run", school: Path) -> None:
    rows = pupils()
    rows[0][2], rows[1][2], rows[2][3] = -999, "-999.0", "k.A."
    toml = TOML.replace('key = "id"', 'key = "id"\nmissing_values = [-999, "-999.0", "k.A."]')
    write(school, rows, toml.replace("high = 20 }", "high = 20, missing = true }"))
    answer = run("data", "check", school, "--json")
    assert answer.code == 0, answer.out
    assert (column(answer, "age")["missing"], column(answer, "age")["below"]) == (2, 0)
    assert column(answer, "town")["missing"] == 1


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "nan", ""])
def test_a_word_for_no_value_cannot_be_a_class_or_level(run: "Run", school: Path, word: str) -> None:
    for old, new in (('"south"', f'"{word}"'), ('positive = "pass"', f'positive = ["{word}"]')):
        (school / "dataset.toml").write_text(TOML.replace(old, new))
        answer = run("data", "check", school)
        assert answer.code == 2
        assert "can never occur" in answer.err


def test_a_whole_number_with_decimals_is_no_other_class(run: "Run", school: Path) -> None:
    toml = TOML.replace('"binary"', '"multiclass"').replace('positive = "pass"', 'classes = ["1", "2"]')
    rows = [[f"r{n}", f"s{n}", 9, "north", ("1", "2", '"1,0"', "2.0")[n]] for n in range(4)]
    write(school, rows, toml)
    answer = run("data", "check", school, "--json")
    assert problems(answer) == [
        f"column 'result', line {line} is the declared '{word}' in another number format"
        for line, word in ((4, 1), (5, 2))
    ]
    assert "not 3,0 or 3.0" in answer.value["problems"][0]["advice"]
    write(school, [[f"r{n}", f"s{n}", 9, ("7", "7.0")[n % 2], "pass"] for n in range(4)], TOML.replace("south", "7"))
    assert len(problems(run("data", "check", school, "--json"))) == 2, "a level of a feature as well"


@pytest.mark.parametrize(("declared", "cell"), [(",", "8.5"), (".", '"8,5"')])
def test_the_wrong_decimal_sign_is_named_and_its_cells_are_not_called_empty(
    run: "Run", school: Path, declared: str, cell: str
) -> None:
    rows = pupils()
    for row in rows[:30]:
        row[2] = cell
    write(school, rows, TOML.replace('key = "id"', f'key = "id"\ndecimal = "{declared}"'))
    answer = run("data", "check", school, "--json")
    right = "." if declared == "," else ","
    assert f'write decimal = "{right}" in [tables.work]' in answer.value["problems"][0]["advice"]
    age = column(answer, "age")
    assert (age["values"], age["unreadable"], age["missing"]) == (10, 30, 0)


def test_a_column_wholly_beyond_its_bounds_is_an_error(run: "Run", school: Path) -> None:
    rows = pupils()
    write(school, rows, TOML.replace("low = 5, high = 20", "low = 0, high = 1"))
    answer = run("data", "check", school, "--json")
    assert (answer.code, answer.value["left_out_subjects"], answer.value["problem_count"]) == (3, 0, 1)
    assert (
        "all 40 numbers are outside the declared bounds (0 below low, 40 above high)"
        in answer.value["problems"][0]["text"]
    )
    assert not any("clamped" in warning for warning in answer.value["warnings"])
    rows[0][2] = 1
    write(school, rows, TOML.replace("low = 5, high = 20", "low = 0, high = 1"))
    assert run("data", "check", school).code == 0, "one number within them: a warning"


def test_a_row_of_totals_is_warned_of(run: "Run", school: Path) -> None:
    assert (
        run("data", "check", school).out.splitlines()[-1] == "No errors, no warnings: a node can train on this folder."
    )
    write(school, [*pupils(), ["r99", "Summe", 20, "north", "pass"]])
    shown = run("data", "check", school)
    assert shown.code == 0
    assert "'Summe' looks like a row of totals" in " ".join(shown.out.split())
    assert "No errors, warnings: 1." in shown.out.splitlines()[-1]


# ---- lines, rows, quoting

WRONG: dict[str, tuple[Callable[[list[list[object]]], object], str]] = {
    "text for a number": (lambda rows: rows[20].__setitem__(2, SECRET), "column 'age', line 22 is not a number"),
    "an underscore": (lambda rows: rows[20].__setitem__(2, "1_0"), "column 'age', line 22 is not a number"),
    "a gap": (lambda rows: rows[20].__setitem__(2, ""), "column 'age', line 22 is empty"),
    "infinity": (lambda rows: rows[20].__setitem__(2, "inf"), "column 'age', line 22 is infinite"),
    "one cell more": (lambda rows: rows[20].append(SECRET), "line 22 has 6 cells, not 5"),
    "one cell less": (lambda rows: rows[20].pop(), "line 22 has 4 cells, not 5"),
    "no pupil": (lambda rows: rows[20].__setitem__(1, " "), "column 'pupil', line 22 is empty"),
    "no id": (lambda rows: rows[20].__setitem__(0, ""), "column 'id', line 22 is empty"),
    "an id twice": (lambda rows: rows[20].__setitem__(0, "r1"),
                    "column 'id', line 22: this record is there twice, first in line 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_cell_is_named_by_its_line_in_the_spreadsheet(run: "Run", school: Path, name: str) -> None:
    spoil, text = WRONG[name]
    rows = pupils()
    rows[3][0] = '"r3\nin two lines"'  # a spreadsheet counts it once
    spoil(rows)
    write(school, rows)
    answer = run("data", "check", school, "--json")
    assert problems(answer) == [text]
    shown = run("data", "check", school)
    assert shown.code == 3
    assert text in shown.out
    assert SECRET not in shown.out + shown.err + answer.out


def test_empty_rows_are_skipped_and_counted_and_lines_stay_right(run: "Run", school: Path) -> None:
    rows = pupils()
    text = table(rows[:10]) + "\r\n,,,,\r\n , ,\u00a0,,\r\n" + table(rows[10:], "").lstrip()
    assert run("data", "check", school, "--json").value["empty_rows"] == {}
    text = text.replace("\r\nr30,", f"\r\nr30,s30,{SECRET},north,pass\r\nr31b,") + ",,,,\r\n,,,,\r\n"
    (school / "work.csv").write_text(text, encoding="utf-8", newline="")
    answer = run("data", "check", school, "--json")
    assert answer.value["empty_rows"] == {"work": 5}
    assert problems(answer) == ["column 'age', line 35 is not a number"]
    assert "5 in work" in run("data", "check", school).out


def test_keep_comes_before_everything_else(run: "Run", school: Path) -> None:
    rows: list[list[object]] = [["", "", "x", "old", "?"], *pupils(), ["r99", "s99", "x", "old", "Pass"]]
    write(
        school,
        rows,
        TOML.replace('key = "id"', 'key = "id"\nkeep = [{ column = "town", values = ["north", "south"] }]'),
    )
    answer = run("data", "check", school, "--json")
    assert (answer.code, answer.value["subjects"], answer.value["filtered_records"]) == (0, 40, 2)
    rows[5][3] = "NORTH"
    write(
        school,
        rows,
        TOML.replace('key = "id"', 'key = "id"\nkeep = [{ column = "town", values = ["north", "south"] }]'),
    )
    assert (
        "'town', line 7 is written otherwise than the declared 'north'"
        in problems(run("data", "check", school, "--json"))[0]
    )


def test_a_split_with_words_of_its_own(run: "Run", school: Path) -> None:
    toml = TOML.replace('share = 0.3\nsalt = "s"', 'column = "town"')
    toml = toml.replace(', { name = "town", levels = ["north", "south"] }', "")
    write(school, pupils(), toml)
    answer = run("data", "check", school)
    assert answer.code == 3
    assert "column 'town', line 2 is no part of the split" in answer.err
    assert "train = [...]" in answer.err
    write(school, pupils(), toml + 'train = ["north"]\ntest = ["south"]\n')
    summary = run("data", "check", school, "--json").value
    assert (summary["subjects"], summary["held_out_subjects"]) == (40, 20)


# ---- how files are written

FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "semicolons": (
        lambda path: path.write_text(table(pupils(), separator=";"), encoding="utf-8-sig"),
        'separator = ";"',
        'separator = ";"',
    ),
    "tabs": (lambda path: path.write_text(table(pupils(), separator="\t")), r'separator = "\t"', r'separator = "\t"'),
    "UTF-16": (
        lambda path: path.write_text(table(pupils()), encoding="utf-16"),
        'encoding = "utf-16"',
        'encoding = "utf-16"',
    ),
    "Windows": (
        lambda path: path.write_bytes(table(pupils()).replace("s7,", "Zo\u00e9,").encode("cp1252")),
        'encoding = "windows-1252"',
        'encoding = "windows-1252"',
    ),
    "a decimal comma": (
        lambda path: path.write_text(table(pupils()).replace("s7,10", 's7,"10,5"')),
        'decimal = ","',
        'decimal = ","',
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_how_a_file_is_written_is_recognised_and_can_be_declared(run: "Run", school: Path, name: str) -> None:
    make, advice, key = FILES[name]
    make(school / "work.csv")
    answer = run("data", "check", school)
    assert answer.code in (2, 3)
    assert advice in answer.out + answer.err
    (school / "dataset.toml").write_text(TOML.replace('key = "id"', f'key = "id"\n{key}'))
    checked = run("data", "check", school, "--json")
    assert (checked.code, checked.value["subjects"]) == (0, 40), checked.out


def test_one_cell_in_another_encoding_leaves_one_pupil_out(run: "Run", school: Path) -> None:
    (school / "work.csv").write_bytes(table(pupils()).encode().replace(b"s7,10,south", b"s7,10,s\xfcd"))
    messages = problems(run("data", "check", school, "--json"))
    assert messages == ["column 'town', line 9 is not UTF-8"]
    assert load(school, tolerant=True).left_out == ("s7",)


def test_a_workbook_is_named_as_one(run: "Run", school: Path) -> None:
    with zipfile.ZipFile(school / "work.csv", "w") as book:
        book.writestr("xl/workbook.xml", "<workbook/>")
    answer = run("data", "check", school)
    assert answer.code == 3
    assert "workbook, not CSV" in answer.err
    (school / "work.csv").write_bytes(gzip.compress(table(pupils()).encode()))
    assert "Let its name end in .csv.gz" in run("data", "check", school).err


def test_a_number_with_groups_of_thousands_gets_its_own_advice(run: "Run", school: Path) -> None:
    rows = pupils()
    rows[3][2] = '"1,234.5"'
    write(school, rows)
    assert "without a separator between thousands" in run("data", "check", school).out


# ---- files that data name, and limits

IMAGES = TOML.replace('kind = "tabular"\ncolumns = [{ name = "age", low = 5, high = 20 }, { name = "town", levels = '
                      '["north", "south"] }]', 'kind = "image"\nfile = "town"\nsize = 4')  # fmt: skip


def test_backslashes_of_windows_are_slashes(run: "Run", school: Path) -> None:
    (school / "scans").mkdir()
    Image.new("L", (8, 8), 9).save(school / "scans" / "a.png")
    write(school, [["r1", "ann", 9, "scans\\a.png", "pass"], ["r2", "bob", 9, "..\\a.png", "fail"],
                   ["r3", "cat", 9, "C:\\a.png", "fail"]], IMAGES)  # fmt: skip
    answer = run("data", "check", school, "--json")
    assert answer.value["modalities"][0]["present"] == 1
    assert problems(answer) == [f"column 'town', line {line}: the path leads out of the data folder" for line in (3, 4)]


@pytest.mark.parametrize("which", ["image", "table", "manifest"])
def test_a_symbolic_link_that_leads_out_is_refused_and_not_quoted(
    run: "Run", school: Path, tmp_path_factory: pytest.TempPathFactory, which: str
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_text(f"{SECRET},{SECRET}\n{SECRET} = \n")
    write(school, [["r1", "ann", 9, "a.png", "pass"], ["r2", "bob", 9, "", "fail"]], IMAGES)
    name = {"image": "a.png", "table": "work.csv", "manifest": "dataset.toml"}[which]
    (school / name).unlink(missing_ok=True)
    (school / name).symlink_to(outside)
    answer = run("data", "check", school)
    assert answer.code in (2, 3)
    assert "a symbolic link leads out of the data folder" in answer.out + answer.err
    assert SECRET not in answer.out + answer.err
    (school / name).unlink()
    (school / "kept").mkdir()
    Image.new("L", (8, 8), 9).save(school / "kept" / "b.png")
    if which == "image":  # one that stays inside is followed
        (school / name).symlink_to(school / "kept" / "b.png")
        assert run("data", "check", school, "--json").value["modalities"][0]["present"] == 1


def test_a_packed_file_unfolds_to_its_limit_and_no_further(run: "Run", school: Path) -> None:
    toml = TOML.replace("work.csv", "work.csv.gz")
    with gzip.open(school / "work.csv.gz", "wb") as file:
        file.write(table(pupils()).encode())
        for _ in range(40):
            file.write(b'r,"' + b"x" * 100_000 + b'",9,north,pass\r\n' * 1)
    (school / "dataset.toml").write_text(toml.replace('key = "id"', 'key = "id"\nmax_mib = 2'))
    answer = run("data", "check", school)
    assert answer.code == 3
    assert "more than 10000000 rows or 2 MiB unpacked" in answer.err
    assert "max_mib in [tables.work]" in answer.err
    with gzip.open(school / "work.csv.gz", "wb") as file:
        file.write(table(pupils()).encode() + b"\r\n" * 100_000)
    (school / "dataset.toml").write_text(toml.replace('key = "id"', 'key = "id"\nmax_rows = 5000'))
    assert "more than 5000 rows" in run("data", "check", school).err


def test_parquet_is_bounded_too(run: "Run", school: Path) -> None:
    rows = pupils()
    columns = {name: [row[n] for row in rows] for n, name in enumerate(HEADER.split(","))}
    pyarrow.parquet.write_table(pa.table(columns), school / "work.parquet")
    toml = TOML.replace("work.csv", "work.parquet")
    (school / "dataset.toml").write_text(toml)
    assert run("data", "check", school, "--json").value["subjects"] == 40
    (school / "dataset.toml").write_text(toml.replace('key = "id"', 'key = "id"\nmax_rows = 39'))
    assert "more than 39 rows" in run("data", "check", school).err
    columns["town"] = ["x" * (1 << 16)] * 40  # a word of a dictionary: small in the file, and here
    pyarrow.parquet.write_table(pa.table(columns), school / "work.parquet")
    (school / "dataset.toml").write_text(toml.replace('key = "id"', 'key = "id"\nmax_mib = 1'))
    answer = run("data", "check", school, "--json")
    assert (answer.code, column(answer, "town")["other"]) == (0, 40)
    columns["town"] = [f"{n}" + "x" * (1 << 16) for n in range(40)]
    pyarrow.parquet.write_table(pa.table(columns), school / "work.parquet")
    assert "1 MiB unpacked" in run("data", "check", school).err


def extensible(path: Path, samples: np.ndarray, *, width: int = 3, rate: int = 8000, kind: int = 1) -> None:
    """Write a .wav as recorders do: WAVE_FORMAT_EXTENSIBLE, with a chunk of odd length before the samples."""
    raw = np.round(samples * 2.0 ** (8 * width - 1)).astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    guid = struct.pack("<H", kind) + bytes.fromhex("000000001000800000aa00389b71")
    head = struct.pack("<HHIIHHHHI", 0xFFFE, 1, rate, rate * width, width, 8 * width, 22, 8 * width, 4) + guid
    chunks = b"fmt " + struct.pack("<I", len(head)) + head + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(raw)) + raw
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


def test_extensible_clips_of_24_bit_sound_as_plain_ones(run: "Run", school: Path) -> None:
    tone = 0.5 * np.sin(np.arange(8000) / 5)
    with wave.open(str(school / "plain.wav"), "wb") as clip:
        clip.setparams((1, 2, 8000, 0, "NONE", ""))
        clip.writeframes(np.round(tone * 2**15).astype("<i2").tobytes())
    extensible(school / "extensible.wav", tone)
    extensible(school / "float.wav", tone, width=4, kind=3)
    toml = IMAGES.replace('"image"', '"audio"').replace("size = 4", "rate = 8000\nmax_seconds = 1.0")
    names = ("plain", "extensible", "float")
    write(school, [[f"r{n}", f"s{n}", 9, f"{name}.wav", "pass"] for n, name in enumerate(names)], toml)
    answer = run("data", "check", school, "--json")
    assert problems(answer) == ["column 'town', line 4: the file cannot be read: it is not PCM"]
    values = load(school, tolerant=True).modalities["about"].values
    assert np.abs(values[0] - values[1]).max() < 0.05


def test_files_of_several_sampling_rates_are_told_at_once(run: "Run", school: Path) -> None:
    """Whichever rate is declared, the advice leads to the same one."""
    rates = (16000, 8000, 44100, 8000)
    for number, rate in enumerate(rates):
        with wave.open(str(school / f"{number}.wav"), "wb") as clip:
            clip.setparams((1, 2, rate, 0, "NONE", ""))
            clip.writeframes(bytes(2 * rate))
    rows = [[f"r{n}", f"s{n}", 9, f"{n}.wav", "pass"] for n in range(len(rates))]
    for declared in (8000, 16000, 22050):
        toml = IMAGES.replace('"image"', '"audio"').replace("size = 4", f"rate = {declared}\nmax_seconds = 1.0")
        write(school, rows, toml)
        summary = json.dumps(run("data", "check", school, "--json").value)
        for part in ("2 files have 8000 (lines 3, 5)", "1 file has 16000 (line 2)", "1 file has 44100 (line 4)"):
            assert part in summary
        assert "Resample the files with 16000 and the files with 44100 to 8000" in summary
        assert ("declare rate = 8000 in every institution" in summary) == (declared != 8000)


def test_one_file_of_another_sampling_rate_does_not_make_all_others_wrong(run: "Run", school: Path) -> None:
    rates = (16000, 16000, 8000)
    for number, rate in enumerate(rates):
        with wave.open(str(school / f"{number}.wav"), "wb") as clip:
            clip.setparams((1, 2, rate, 0, "NONE", ""))
            clip.writeframes(bytes(2 * rate))
    toml = IMAGES.replace('"image"', '"audio"').replace("size = 4", "rate = 16000\nmax_seconds = 1.0")
    write(school, [[f"r{n}", f"s{n}", 9, f"{n}.wav", "pass"] for n in range(len(rates))], toml)
    summary = json.dumps(run("data", "check", school, "--json").value)
    assert "Resample the files with 8000 to 16000" in summary
    assert "in every institution" not in summary


# ---- what training makes of it


def test_whether_a_pupil_is_left_out_depends_on_their_own_rows(run: "Run", school: Path) -> None:
    """G6: taking one pupil away changes nothing for any other, whatever is wrong in the tables."""
    rows = pupils(12)
    rows[1][2], rows[2][3], rows[3][4], rows[4][0], rows[5][2] = "old", "North", "PASS", "", ""
    rows += [["x1", "s1", 9, "north", "pass"], ["x6", "s6", 9, "north", "pass"], ["x6", "s6", 9, "north", "fail"]]
    write(school, rows)
    assert run("data", "check", school).code == 3
    whole = load(school, tolerant=True)
    assert set(whole.left_out) == {"s1", "s2", "s3", "s4", "s5", "s6"}
    for gone in {str(row[1]) for row in rows}:
        write(school, [row for row in rows if row[1] != gone])
        left = load(school, tolerant=True)
        assert set(left.subjects) == set(whole.subjects) - {gone}
        assert set(left.left_out) == set(whole.left_out) - {gone}
        for index, name in enumerate(left.subjects):
            before = whole.subjects.index(name)
            one, other = left.modalities["about"].values[index], whole.modalities["about"].values[before]
            assert np.array_equal(one[: len(other)], other[: len(one)])


def test_a_record_to_predict_is_read_in_any_spelling(school: Path) -> None:
    (school / "new.csv").write_text("\ufeffid ,pupil,age,town\nn1\u00a0, s1 ,9, north\n", encoding="utf-8")
    data = load_file(school, school / "new.csv")
    assert (data.subjects, data.records.tolist()) == (("s1",), [["n1"]])
    assert data.modalities["about"].values[0, 0, 0].tolist()[1:] == [1, 0, 0]


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_file_without_its_line_of_names_has_no_pupil_quoted(run: "Run", school: Path, separator: str) -> None:
    rows = pupils()
    rows[0][1] = SECRET
    (school / "work.csv").write_text(table(rows[1:], ",".join(map(str, rows[0])), separator), encoding="utf-8")
    answer = run("data", "check", str(school))
    assert answer.code == 2
    assert "no column" in answer.err
    assert "put the column names there" in answer.err
    assert ("separator" in answer.err) == (separator == ";")
    for cell in (SECRET, "r0", "north"):
        assert cell not in answer.err + answer.out


def test_a_slip_in_a_column_name_is_named(run: "Run", school: Path) -> None:
    for name in ("Result", "results"):
        (school / "work.csv").write_text(table(pupils(), HEADER.replace("result", name)), encoding="utf-8", newline="")
        answer = run("data", "check", school)
        assert answer.code == 2
        assert f"There is a column {name!r}" in " ".join(answer.err.split())


def test_a_file_in_utf8_that_is_declared_otherwise_is_called_so(run: "Run", school: Path) -> None:
    (school / "work.csv").write_text(table(pupils()), encoding="utf-8-sig", newline="")
    (school / "dataset.toml").write_text(TOML.replace('key = "id"', 'key = "id"\nencoding = "windows-1252"'))
    answer = run("data", "check", school)
    assert answer.code == 3
    assert 'is UTF-8, not WINDOWS-1252 Write encoding = "utf-8"' in " ".join(answer.err.split())


# ---- UTF-8 that is declared as something else


def declared_as(school: Path, encoding: str, toml: str = TOML) -> None:
    (school / "dataset.toml").write_text(toml.replace('key = "id"', f'key = "id"\nencoding = "{encoding}"'), "utf-8")


@pytest.mark.parametrize("encoding", ["windows-1252", "iso-8859-15", "windows-1250", "windows-1251"])
def test_utf8_that_is_declared_otherwise_is_an_error_that_names_the_key(
    run: "Run", school: Path, encoding: str
) -> None:
    rows = pupils()
    rows[3][1] = "Jörg"
    text = table(rows).replace("north", "Köln")
    (school / "work.csv").write_bytes(text.encode())
    declared_as(school, encoding, TOML.replace("north", "Köln"))
    answer = run("data", "check", school, "--json")
    assert answer.code == 3
    (problem,) = answer.value["problems"]
    assert problem["text"].endswith(f"work.csv is UTF-8, not {encoding.upper()}: letters with accents are read wrong")
    assert problem["advice"] == 'Write encoding = "utf-8" in [tables.work] of dataset.toml, or save it as declared.'
    assert answer.value["left_out_subjects"] == 0, "it is said; of one student's name alone it may follow (G6)"
    assert load(school, tolerant=True).subjects
    declared_as(school, "utf-8", TOML.replace("north", "Köln"))
    assert run("data", "check", school).code == 0


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_a_file_to_predict_in_another_encoding_is_to_be_saved_as_the_table_is(school: Path, written: str) -> None:
    """The declared file is right as it is: dataset.toml stays."""
    declared = "utf-8" if written == "iso-8859-1" else "windows-1252"
    declared_as(school, declared)
    (school / "new.csv").write_text(table(pupils()).replace("north", "Köln"), encoding=written, newline="")
    with pytest.raises(CorruptError) as caught:
        load_file(school, school / "new.csv")
    told = f"Save it in {declared.upper()}, as [tables.work] of dataset.toml declares, and leave"
    assert told in str(caught.value)


def test_a_column_of_a_file_in_utf8_that_is_declared_otherwise_is_not_called_missing_alone(
    run: "Run", school: Path
) -> None:
    (school / "work.csv").write_bytes(table(pupils(), HEADER.replace("town", "Straße")).encode())
    declared_as(school, "windows-1252", TOML.replace('"town"', '"Straße"'))
    answer = run("data", "check", school)
    assert answer.code == 2
    assert 'The file is UTF-8. Write encoding = "utf-8" in [tables.work]' in answer.err


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("windows-1252", ("Köln", "Ângoulême")),
        ("windows-1250", ("Łódź", "Gdańsk »Ł« …")),
        ("windows-1251", ("Псков", "«США»")),
        ("iso-8859-15", ("Œuvre", "500 €")),
    ],
)
def test_what_is_in_the_declared_encoding_is_not_taken_for_utf8(
    run: "Run", school: Path, encoding: str, words: tuple[str, str]
) -> None:
    one, other = words
    (school / "work.csv").write_bytes(table(pupils()).replace("north", one).replace("south", other).encode(encoding))
    declared_as(school, encoding, TOML.replace("north", one).replace("south", other))
    answer = run("data", "check", school)
    assert answer.code == 0, answer.err


def test_a_file_to_predict_in_utf8_is_refused_where_another_encoding_is_declared(school: Path) -> None:
    declared_as(school, "windows-1252")
    (school / "new.csv").write_bytes("id,pupil,age,town\nn1,Jörg,9,north\n".encode())
    with pytest.raises(CorruptError, match="is UTF-8, not WINDOWS-1252"):
        load_file(school, school / "new.csv")


def test_a_letter_may_lie_on_both_sides_of_a_piece_of_the_file() -> None:
    text = ("a" * 7 + "ü€😀ö").encode() * 9
    for size in range(1, 12):
        count = Utf8Count()
        for start in range(0, len(text), size):
            count.feed(text[start : start + size])
        count.feed(b"")
        assert (count.letters, count.strays) == (36, 0), size
    count = Utf8Count()
    count.feed("Grüße aus Köln, Ÿ»".encode("windows-1252"))
    count.feed(b"")
    assert not count.is_utf8
