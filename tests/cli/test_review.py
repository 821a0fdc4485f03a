"""`charter review`, and that `charter sign` shows it and asks before it signs."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.crypto.fingerprint import fingerprint

from .terminal import Terminal
from .test_charter import create, node
from .test_screens import COLLEGIUM

if TYPE_CHECKING:
    from .conftest import Run

MODEL = """[training]
students = 3000
[[modality]]
name = "table"
kind = "tabular"
width = 20
privacy = "open"
[[modality]]
name = "essay"
kind = "tabular"
width = 20
epsilon = 2.0
[[task]]
name = "grade"
kind = "binary"
modalities = ["table"]
[[task]]
name = "style"
kind = "binary"
modalities = ["essay"]
"""


def test_a_fingerprint_is_25_digits_of_83_bits() -> None:
    one = fingerprint(bytes(32))
    assert re.fullmatch(r"(\d{5} ){4}\d{5}", one)
    assert one == "28914 52436 56526 66429 23746"  # of every release: people compare them across versions
    assert fingerprint(bytes(31) + b"\x01") != one


def test_a_review_says_everything_that_a_member_agrees_to(run: "Run", tmp_path: Path) -> None:
    members = [node(run, tmp_path, name, 4001 + n) for n, name in enumerate("abcd")]
    (tmp_path / "model.toml").write_text(MODEL)
    words = [word for member in members for word in ("--member", member["member"])]
    options = ("--name", "district", "--pace", "12h", "--rounds", "8", "--start", "2099-01-01T06:00")
    refused = run("charter", "create", "--home", tmp_path / "a", *options, "--model", tmp_path / "model.toml", *words)
    assert refused.code == 2, "a start so far ahead"
    made = run("charter", "create", "--home", tmp_path / "a", *options[:-2], "--model", tmp_path / "model.toml", *words)
    assert made.code == 0, made.err
    review = run("charter", "review", "--home", tmp_path / "a", "--json").value
    assert [(m["name"], m["fingerprint"]) for m in review["members"]] == [
        (name, fingerprint(bytes.fromhex(member["public_key"]))) for name, member in zip("abcd", members, strict=True)
    ]
    assert review["fingerprint"] == fingerprint(bytes.fromhex(review["federation"]))
    assert {p["modality"]: (p["policy"], p["epsilon"]) for p in review["privacy"]} == {
        "table": ("open", None),
        "essay": ("dp", 2.0),
    }
    repeated = [one for one in review["leaves"] if not one["once"]]
    assert all(one["bytes_a_day"] == 2 * one["bytes"] for one in repeated), "two rounds a day at 12 h"
    assert review["bytes_a_round"] == sum(one["bytes"] for one in repeated)
    assert {(one["rule"], one["liars"]) for one in repeated} == {("clip+nnm+trimmed_mean", 1)}
    assert review["quiet_hours"] is None
    config = tmp_path / "a" / "config.toml"
    config.write_text(config.read_text().replace("quiet_hours = []", 'quiet_hours = ["Mon-Fri 07:30-18:00"]'))
    screen = " ".join(run("charter", "review", "--home", tmp_path / "a").out.split())
    for text in (
        "this node does not train at Mon-Fri 07:30-18:00 local time (its config.toml)",
        "What leaves this house",
        "NOT noised: updates may show what single records are like",
        "a round every 12 h at most: the 8 planned ones take 84 h or longer",
        "tolerates 1 member that lies in 4 updates",
        "What can never be changed",
        "a round waits 1 min for a member that is late",
        "members that declare at least 20 students",
        review["fingerprint"],
    ):
        assert text in screen
    assert run("charter", "review", tmp_path / "a" / "charter.bin").code == 0
    once = sum(one["bytes"] for one in review["leaves"] if one["once"])
    assert review["bytes_planned_rounds"] == once + 8 * review["bytes_a_round"]
    assert review["bytes_recovery_rounds"] == 5 * review["bytes_a_round"]
    assert (review["student"]["epsilon_with_reserve"], review["student"]["reserve_estimated"]) == (2.0, False)
    assert review["student"]["epsilon"] == pytest.approx(1.5, abs=0.01)
    assert "planned rounds over essay; 2 once rounds after withdrawals have spent the reserve, too" in screen
    assert run("charter", "review", tmp_path / "none").code == 2


DATA = """format = 1
[unit]
subject = "student"
max_records = 1
[tables.marks]
path = "marks.csv"
key = "pupil"
[[modality]]
name = "table"
kind = "tabular"
columns = [{ name = "hours", low = 0, high = 40 }, { name = "town", levels = ["north", "south"] }]
[[modality]]
name = "clicks"
kind = "tabular"
columns = [{ name = "visits", low = 0, high = 40 }]
[[task]]
name = "grade"
kind = "binary"
column = "result"
positive = ["pass"]
[sensitive]
columns = [{ name = "gender", levels = ["f", "m"] }]
[split]
share = 0.5
salt = "x"
"""


def test_a_review_names_the_columns_of_this_house(run: "Run", tmp_path: Path) -> None:
    home, folder = tmp_path / "a", tmp_path / "data"
    member = node(run, tmp_path, "a", 4001)["member"]
    (tmp_path / "model.toml").write_text(MODEL)
    words = ("--name", "t", "--model", tmp_path / "model.toml", "--member", member, "--anyway")
    assert run("charter", "create", "--home", home, *words).code == 0
    assert "names no data folder" in " ".join(run("charter", "review", "--home", home).out.split())
    folder.mkdir()
    (home / "config.toml").write_text(f'[data]\npath = "{folder}"\n')
    assert "Not known: " in run("charter", "review", "--home", home).out
    (folder / "dataset.toml").write_text(DATA)
    here = run("charter", "review", "--home", home, "--json").value["here"]["columns"]
    assert [(feed["what"], feed["name"], feed["columns"]) for feed in here["feeds"]] == [
        ("modality", "table", ["hours", "town"]),
        ("task", "grade", ["result"]),
    ], "clicks are in no modality of this charter"
    assert (here["keys"], here["groups"]) == (["pupil", "student"], ["gender"])
    screen = " ".join(run("charter", "review", "--home", home).out.split())
    assert "modality table marks.csv hours, town" in screen
    assert "gender: only for figures by group, kept here" in screen
    assert run("charter", "review", home / "charter.bin", "--home", tmp_path / "nobody", "--json").value["here"] is None


def test_a_charter_that_the_data_folder_does_not_fit_is_not_signed(run: "Run", tmp_path: Path) -> None:
    home, folder, model = tmp_path / "a", tmp_path / "data", tmp_path / "model.toml"
    member = node(run, tmp_path, "a", 4001)["member"]
    folder.mkdir()
    (folder / "dataset.toml").write_text(DATA)
    (folder / "marks.csv").write_text("pupil,student,hours,town,visits,result,gender\np,s,1,north,1,pass,f\n")
    model.write_text(run("charter", "model", folder).out)
    words = ("--name", "t", "--no-dp", "--model", model, "--member", member, "--anyway")
    assert run("charter", "create", "--home", home, *words).code == 0
    config = f'[data]\npath = "{folder}"\n[privacy]\npolicy = "open"\n'
    (home / "config.toml").write_text(config)
    for old, new, told in (
        (
            "high = 40 }, {",
            "high = 50 }, {",
            "of as many features (4): so a name, a bound or",
        ),
        ('"north", "south"', '"north", "south", "east"', "of 4 features, fewer than the 5 here"),
        ('"north", "south"', '"south", "north"', "here and in the charter columns 'town' levels: south, north; north,"),
        ('kind = "binary"', 'kind = "ordinal"', "task 'grade' is ordinal of 2 classes in"),
        ('name = "table"\nkind = "tabular"', 'name = "table"\nkind = "text"', "modality 'table' is text in"),
        ('name = "grade"', 'name = "mark"', "it has modalities table, clicks and tasks mark, the charter"),
    ):
        changed = DATA.replace(old, new)
        assert changed != DATA
        if "ordinal" in new:
            changed = changed.replace('positive = ["pass"]', 'classes = ["fail", "pass"]')
        if "text" in new:
            columns = '[{ name = "hours", low = 0, high = 40 }, { name = "town", levels = ["north", "south"] }]'
            changed = changed.replace(columns, '["hours"]')
        (folder / "dataset.toml").write_text(changed)
        refused = run("charter", "sign", "--home", home, "--yes")
        text = " ".join(refused.err.split())
        assert (refused.code, told in text) == (5, True), text
        assert "with the founder's, mend the one that is wrong, and run the same command again" in text
        screen = " ".join(run("charter", "review", "--home", home).out.split())
        assert "does NOT fit the charter" in screen
        assert told in screen
        assert not run("charter", "verify", "--home", home, "--json").value["members"][0]["signed"]
    assert run("charter", "sign", "--home", home, "--yes", "--anyway").code == 0
    (folder / "dataset.toml").write_text(DATA)
    signed = run("charter", "sign", "--home", home, "--yes")
    assert (signed.code, "to 0.1 times the number of students" in " ".join(signed.out.split())) == (0, True), signed
    assert "NOT fit" not in run("charter", "review", "--home", home).out


def test_a_review_warns_of_what_its_author_was_warned_of(run: "Run", tmp_path: Path) -> None:
    """Noise against gradients, by the number of students that this house declares."""
    home, model = tmp_path / "a", tmp_path / "model.toml"
    member = node(run, tmp_path, "a", 4001)["member"]
    for students, word in ((40, "the noise adds up to a norm of"), (200, "may learn little")):
        model.write_text(MODEL.replace("students = 3000", f"students = {students}"))
        words = ("--name", "t", "--model", model, "--member", member, "--anyway", "--rounds", 8, "--out")
        made = run("charter", "create", "--home", home, *words, tmp_path / f"{students}.bin")
        assert word in made.err, made.err
        (home / "config.toml").write_text(f"[learning]\nlot_size = {students / 10}\n")
        told = run("charter", "review", tmp_path / f"{students}.bin", "--home", home)
        assert word in " ".join(told.out.split())


def test_signing_without_a_terminal_shows_the_review_and_does_nothing(run: "Run", tmp_path: Path) -> None:
    create(run, tmp_path / "a", node(run, tmp_path, "a", 4001)["member"])
    before = (tmp_path / "a" / "charter.bin").read_bytes()
    asked = run("charter", "sign", "--home", tmp_path / "a")
    assert (asked.code, "Sign this charter?" in asked.err) == (2, True)
    assert "What leaves this house" in asked.out
    assert (tmp_path / "a" / "charter.bin").read_bytes() == before
    signed = run("charter", "sign", "--yes", "--home", tmp_path / "a")
    assert (signed.code, "What leaves this house" in signed.out) == (0, True)
    assert run("charter", "sign", "--home", tmp_path / "a").code == 0, "it has signed: nothing is asked again"


@pytest.fixture
def at_a_terminal() -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(*words: object) -> Terminal:
        started.append(Terminal([*COLLEGIUM, *map(str, words)]))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_at_a_terminal_no_signs_nothing_and_yes_signs(
    run: "Run", tmp_path: Path, at_a_terminal: Callable[..., Terminal]
) -> None:
    create(run, tmp_path / "a", node(run, tmp_path, "a", 4001)["member"])
    for answer, code in (("n", 5), ("y", 0)):
        seen = at_a_terminal("--home", tmp_path / "a", "charter", "sign")
        seen.until(lambda screen: "Sign this charter? [y/N]" in screen.text)
        seen.send(answer + "\n")
        screen = seen.end()
        assert seen.code == code
        digits = run("charter", "review", "--home", tmp_path / "a", "--json").value["fingerprint"]
        assert digits in screen.scroll
    assert run("charter", "verify", "--home", tmp_path / "a").code == 0
