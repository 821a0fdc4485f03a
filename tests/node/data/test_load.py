"""The loader: what it makes of a good folder, and what it says of a bad one."""

import gzip
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from collegium.crypto.errors import CorruptError, OperatorError, UsageError
from collegium.node.data import files
from collegium.node.data.arrays import Dataset, TaskArray, in_test, load
from collegium.node.data.entries import TableEntry
from collegium.node.data.manifest import read_manifest
from collegium.node.data.records import subject_ids
from collegium.node.data.tables import Table

MANIFEST = """
format = 1
[unit]
subject = "student"
table = "people"
max_records = 2
[tables.people]
path = "people.csv"
key = "record"
[tables.scores]
path = "scores.csv.gz"
key = "record"
[tables.pixels]
path = "pixels.parquet"
key = "record"
[[modality]]
name = "about"
kind = "tabular"
table = "people"
columns = [{ name = "age", low = 0, high = 100, missing = true }, { name = "town", levels = ["Rome", "Oslo"] }]
[[modality]]
name = "scores"
kind = "series"
table = "scores"
time = "day"
until = 50
max_len = 3
columns = [{ name = "score", low = 0, high = 10 }]
[[modality]]
name = "image"
kind = "image"
table = "pixels"
prefix = "p"
low = 0
high = 4
[[task]]
name = "pass"
kind = "binary"
table = "people"
column = "result"
positive = ["Pass", "Distinction"]
[[task]]
name = "grade"
kind = "multiclass"
column = "grade"
classes = ["A", "B", "C"]
[split]
share = 0.5
salt = "pepper"
"""
PEOPLE = """record,student,age,town,result,grade
r1,ann,50,Rome,Pass,A
r2,bob,,Lima,Fail,B
r3,ann,25,,Distinction,
r4,cat,150,Oslo,,C
r5,ann,1,Rome,Pass,A
r6,dan,,,Fail,C
"""
SCORES = """record,day,score
r1,30,10
r1,10,0
r1,20,5
r1,40,7.5
r1,51,1
r4,-3,2.5
r5,1,1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    (tmp_path / "people.csv").write_text(PEOPLE)
    (tmp_path / "scores.csv.gz").write_bytes(gzip.compress(SCORES.encode()))
    pixels = {"record": ["r4", "r1"], "p10": [4, 4], "p2": [2, 2], "p1": [0, 0], "px": [9, 9]}
    pyarrow.parquet.write_table(pa.table(pixels), tmp_path / "pixels.parquet")
    return tmp_path


def test_subjects_and_weights(folder: Path) -> None:
    data = load(folder)
    assert data.subjects == ("ann", "bob", "cat", "dan")
    assert data.weights.tolist() == [[0.5, 0.5], [1, 0], [1, 0], [1, 0]]  # ann's third record is above max_records
    assert data.weights.dtype == np.float32


def test_tabular_bounds_levels_other_and_missing(folder: Path) -> None:
    about = load(folder).modalities["about"]
    assert about.values.shape == (4, 2, 1, 5)
    assert about.values[0, 0, 0].tolist() == [0, 0, 1, 0, 0]
    assert about.values[1, 0, 0].tolist() == [0, 1, 0, 0, 1]  # age missing, town other
    assert about.values[0, 1, 0].tolist() == [-0.5, 0, 0, 0, 0]  # town missing
    assert about.values[2, 0, 0].tolist() == [1, 0, 0, 1, 0]  # clamped
    assert about.steps[:, :, 0].tolist() == [[True, True], [True, False], [True, False], [False, False]]
    assert not about.values[3].any()  # dan says nothing: the modality is missing


def test_series_are_ordered_cut_and_masked(folder: Path) -> None:
    scores = load(folder).modalities["scores"]
    assert scores.values.shape == (4, 2, 3, 1)
    assert scores.values[0, 0, :, 0].tolist() == [0, 1, 0.5]  # days 20, 30, 40; day 10 is beyond max_len, 51 too late
    assert scores.steps[0, 0].all()
    assert scores.steps[2, 0].tolist() == [True, False, False]
    assert int(scores.steps.sum()) == 4


def test_image_columns_are_in_numeric_order(folder: Path) -> None:
    image = load(folder).modalities["image"]
    assert image.values[0, 0, 0].tolist() == [-1, 0, 1]
    assert image.steps[:, 0, 0].tolist() == [True, False, True, False]


def codes(task: TaskArray) -> list[list[float]]:
    assert task.labels.shape[2] == 1
    assert task.labels.dtype == np.float32
    return np.nan_to_num(task.labels[:, :, 0], nan=-1.0).tolist()  # type: ignore[no-any-return]


def test_labels(folder: Path) -> None:
    tasks = load(folder).tasks
    assert codes(tasks["pass"]) == [[1, 1], [0, -1], [-1, -1], [0, -1]]
    assert codes(tasks["grade"]) == [[0, -1], [1, -1], [2, -1], [2, -1]]
    assert (tasks["pass"].classes, tasks["grade"].classes) == (2, 3)


def test_the_split_is_by_subject_and_salt(folder: Path) -> None:
    data = load(folder)
    for subject, held_out in zip(data.subjects, data.held_out, strict=True):
        fraction = int.from_bytes(sha256(b"pepper" + subject.encode()).digest()[:8], "big") / 2**64
        assert bool(held_out) == (fraction < 0.5) == in_test("pepper", subject, 0.5)
    share = np.mean([in_test("s", str(number), 0.25) for number in range(10_000)])
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 10_000) ** 0.5


def test_csv_and_parquet_give_the_same(folder: Path, tmp_path: Path) -> None:
    before = load(folder)
    people = [line.split(",") for line in PEOPLE.strip().split("\n")]
    columns = {name: [row[n] or None for row in people[1:]] for n, name in enumerate(people[0])}
    columns["age"] = [None if age is None else float(age) for age in columns["age"]]  # type: ignore[misc]
    pyarrow.parquet.write_table(pa.table(columns), folder / "people.parquet")
    (folder / "dataset.toml").write_text(MANIFEST.replace("people.csv", "people.parquet"))
    assert same(before, load(folder))


def same(one: Dataset, other: Dataset) -> bool:
    return (
        one.subjects == other.subjects
        and all(np.array_equal(one.modalities[name].values, other.modalities[name].values) for name in one.modalities)
        and all(np.array_equal(one.tasks[name].labels, other.tasks[name].labels, equal_nan=True) for name in one.tasks)
    )


def test_no_thread_of_arrow_touches_an_object_of_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lets go of such an object while the interpreter ends aborts the process: exit status 134."""
    read, threads = files._Utf8.read, set()

    def noted(stream: Any, size: int = -1) -> bytes:
        threads.add(threading.get_ident())
        return read(stream, size)

    monkeypatch.setattr(files._Utf8, "read", noted)
    assert subject_ids(read_manifest(folder))
    assert threads == {threading.get_ident()}


def test_column_names_are_read_where_the_first_block_ends_within_a_cell(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("Id,Essay\n" + "".join(f'r{n},"{"y" * 40}\n{"z" * 30} ""q""\n\nend"\n' for n in range(20_000)))
    entry = TableEntry("long", file, "Id")
    assert files.header(entry) == ["Id", "Essay"]
    assert files.read(entry, ["Id"]).data.num_rows == 20_000


def test_a_split_column(folder: Path) -> None:
    (folder / "dataset.toml").write_text(MANIFEST.split("[split]", maxsplit=1)[0] + '[split]\ncolumn = "side"\n')
    sides = dict(
        zip(["r1", "r2", "r3", "r4", "r5", "r6"], ["test", "train", "test", "train", "test", "test"], strict=True)
    )

    def rewrite() -> None:
        lines = PEOPLE.strip().split("\n")
        (folder / "people.csv").write_text("\n".join([lines[0] + ",side", *(f"{x},{sides[x[:2]]}" for x in lines[1:])]))

    rewrite()
    assert load(folder).held_out.tolist() == [True, False, False, True]
    sides["r3"] = "train"
    rewrite()
    with pytest.raises(CorruptError, match=r"'side', line 4: this subject is in train and in test"):
        load(folder)
    sides["r3"] = "maybe"
    rewrite()
    with pytest.raises(CorruptError, match="'side', line 4 is no part of the split"):
        load(folder)


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return apply


def zipped(old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        assert old in SCORES
        (folder / "scores.csv.gz").write_bytes(gzip.compress(SCORES.replace(old, new, 1).encode()))

    return apply


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def folder_instead(folder: Path) -> None:
    (folder / CSV).unlink()
    (folder / CSV).mkdir()


HEADER = b"record,student,age,town,result,grade\n"
TOML, CSV = "dataset.toml", "people.csv"
BAD: dict[str, tuple[Callable[[Path], None], type[OperatorError], str]] = {
    "no manifest": (lambda folder: (folder / TOML).unlink(), UsageError, "dataset.toml"),
    "not TOML": (edit(TOML, "format = 1", "format = "), UsageError, "is not TOML"),
    "a later format": (edit(TOML, "format = 1", "format = 2"), UsageError, "format is not known"),
    "an unknown key": (edit(TOML, "max_records", "maximum"), UsageError, r"\[unit\]: unknown key 'maximum'"),
    "a number as text": (edit(TOML, "share = 0.5", 'share = "half"'), UsageError, "share cannot be 'half'"),
    "true as a number": (edit(TOML, "max_records = 2", "max_records = true"), UsageError, "records cannot be True"),
    "no bounds": (edit(TOML, "low = 0, high = 100, ", ""), UsageError, "age: no bounds and no levels"),
    "bounds the wrong way": (edit(TOML, "low = 0, high = 100", "low = 9, high = 1"), UsageError, "are no bounds"),
    "a bound that is no number": (edit(TOML, "low = 0,", "low = nan,"), UsageError, "low cannot be nan"),
    "an unknown table": (edit(TOML, 'table = "scores"', 'table = "x"'), UsageError, "table 'x' is unknown"),
    "an unknown kind": (edit(TOML, 'kind = "series"', 'kind = "smell"'), UsageError, "kind = 'smell' is unknown"),
    "an identifier as a feature": (edit(TOML, 'name = "age"', 'name = "record"'), UsageError, "no feature"),
    "a task without values": (edit(TOML, '["Pass", "Distinction"]', "[]"), UsageError, "too few values"),
    "a class twice": (edit(TOML, '"A", "B"', '"A", "A"'), UsageError, "classes names 'A' twice"),
    "a modality twice": (edit(TOML, 'name = "image"', 'name = "about"'), UsageError, "'about' is there twice"),
    "a share above 1": (edit(TOML, "share = 0.5", "share = 1.5"), UsageError, "not in"),
    "a prefix that fits nothing": (edit(TOML, 'prefix = "p"', 'prefix = "q"'), UsageError, "no column q0"),
    "no such file": (lambda folder: (folder / CSV).unlink(), UsageError, "people.csv does not exist"),
    "a folder for a file": (folder_instead, UsageError, "people.csv is a folder, not a file"),
    "no such column": (edit(CSV, "town", "city"), UsageError, "people.csv: no column 'town'"),
    "text in a number": (edit(CSV, "25", "old"), CorruptError, "people.csv: column 'age', line 4 is not a number"),
    "infinity": (edit(CSV, "25", "inf"), CorruptError, "column 'age', line 4 is infinite"),
    "an unknown class": (edit(CSV, "Fail,B", "Fail,Z"), CorruptError, "column 'grade', line 3 is no class"),
    "a record twice": (edit(CSV, "r2,", "r1,"), CorruptError, "column 'record', line 3: this record is there"),
    "an empty subject": (edit(CSV, "r2,bob", "r2,"), CorruptError, "column 'student', line 3 is empty"),
    "a ragged line": (edit(CSV, "r2,bob", "r2,bob,x"), CorruptError, "people.csv: line 3 has 7 cells, not 6"),
    "a quotation mark that nothing ends": (edit(CSV, "Lima", '"Lima'), CorruptError, "a cell of line 3 begins with a"),
    "one in the last column": (edit(CSV, "Pass,A\n", 'Pass,"A\n'), CorruptError, "and none ends it"),
    "no rows": (lambda folder: write(folder / CSV, HEADER), UsageError, "people.csv has no records. Below"),
    "another spelling of a needed key": (
        edit(TOML, "max_len", "maxlen"),
        UsageError,
        r"dataset.toml \[\[modality\]\] scores: unknown key 'maxlen'. Did you mean max_len",
    ),
    "another spelling of a bound": (edit(TOML, "high = 100", "hihg = 9"), UsageError, "'hihg'. Did you mean high"),
    "a key of another kind": (edit(TOML, 'prefix = "p"', 'prefix="p"\nrate=8'), UsageError, "unknown key 'rate'"),
    "a key at the top": (edit(TOML, "[split]", "[spilt]"), UsageError, "dataset.toml: unknown key 'spilt'. Did you"),
    "a column twice": (edit(CSV, "town,", "age,"), CorruptError, "column 'age' is there twice"),
    "a long line": (edit(CSV, "Lima", "L" * (1 << 22)), CorruptError, "people.csv: a line is too long. At most 10"),
    "names in another encoding": (
        lambda folder: write(folder / CSV, HEADER.replace(b"town", b"t\xf6wn")),
        CorruptError,
        "people.csv: the line of column names is not UTF-8",
    ),
    "an empty file": (lambda folder: write(folder / CSV, b""), CorruptError, "cannot be read"),
    "a damaged Parquet file": (
        lambda folder: write(folder / "pixels.parquet", b"PAR1"),
        CorruptError,
        "pixels.parquet cannot be read",
    ),
    "a damaged gzip file": (
        lambda folder: write(folder / "scores.csv.gz", gzip.compress(SCORES.encode())[:30]),
        CorruptError,
        "scores.csv.gz cannot be read",
    ),
    "a series without a time": (zipped("r1,20,5", "r1,,5"), CorruptError, "column 'day', line 4 is empty"),
    "an unknown record": (zipped("r1,20,5", "r9,20,5"), CorruptError, "line 4: this record is unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused_with_the_place_and_advice(folder: Path, name: str) -> None:
    spoil, kind, text = BAD[name]
    load(folder)
    spoil(folder)
    with pytest.raises(kind, match=text):
        load(folder)


@pytest.mark.parametrize("town", ['5" pipe', '"Lima"', '"Li""ma"', '"Lima, ""old"""', '";"'])
def test_quotation_marks_that_end_or_begin_no_cell_are_text(folder: Path, town: str) -> None:
    edit(CSV, "Lima", town)(folder)
    assert len(Table(TableEntry("t", folder / CSV, "record", ()), ["town"]).cells("town").codes) == 6


STRANGE: dict[str, tuple[list[object], str]] = {
    "a struct": ([{"x": 1}, {"x": 2}], "struct<x: int64>"),
    "a list": ([[1], [2]], "list<element: int64>"),
    "bytes": ([b"\xff", b"\xfe"], "binary"),
}


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("column", ["record", "town", "age"])
def test_a_parquet_column_of_another_type_is_named(folder: Path, name: str, column: str) -> None:
    values, kind = STRANGE[name]
    edit(TOML, "people.csv", "people.parquet")(folder)
    columns: dict[str, list[object]] = {
        "record": ["r1", "r4"], "student": ["a", "b"], "age": [1.0, 2.0], "town": ["Rome", "Oslo"],
        "result": ["Pass", "Fail"], "grade": ["A", "B"],
    }  # fmt: skip
    pyarrow.parquet.write_table(pa.table(columns), folder / "people.parquet")
    (folder / "scores.csv.gz").write_bytes(gzip.compress(b"record,day,score\nr1,1,1\n"))
    load(folder)
    pyarrow.parquet.write_table(pa.table(columns | {column: values}), folder / "people.parquet")
    expected = "numbers were" if column == "age" else "text in UTF-8, or numbers, were"
    where = rf"people.parquet \(table 'people'\): column '{column}'"
    with pytest.raises(CorruptError, match=rf"{where} holds {kind}; {expected} expected. Export"):
        load(folder)


def test_passages_of_another_type_are_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"a": [b"\xff"]}), tmp_path / "t.parquet")
    with pytest.raises(CorruptError, match=r"table 't'\): column 'a' holds binary"):
        Table(TableEntry("t", tmp_path / "t.parquet", "k", ()), ["a"]).passages("a")


def test_a_gap_needs_a_mask_unless_the_whole_row_is_empty(folder: Path) -> None:
    edit(TOML, ", missing = true", "")(folder)
    with pytest.raises(CorruptError, match=r"column 'age', line 3 is empty.*missing = true"):
        load(folder)
    edit(CSV, "r2,bob,,Lima", "r2,bob,,")(folder)
    assert not load(folder).modalities["about"].steps[1].any()


def test_every_record_its_own_subject(folder: Path) -> None:
    edit(TOML, 'subject = "student"', 'kind = "record"')(folder)
    data = load(folder)
    assert data.subjects == ("r1", "r2", "r3", "r4", "r5", "r6")
    assert data.weights.tolist() == [[1.0]] * 6


def test_a_modality_with_two_rows_for_a_record_is_refused(folder: Path) -> None:
    pixels = {"record": ["r4", "r4"], "p1": [0, 0]}
    pyarrow.parquet.write_table(pa.table(pixels), folder / "pixels.parquet")
    with pytest.raises(CorruptError, match=r"pixels.parquet: column 'record', row 2: a second row"):
        load(folder)
