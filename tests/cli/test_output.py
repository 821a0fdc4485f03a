"""What was written by others cannot act on the terminal on which ids are compared."""

import errno
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.cli import component, output
from collegium.cli.output import console, emit, facts, say, table
from collegium.node.home import Home
from collegium.protocol.names import shown, visible

from .test_data import MANIFEST

if TYPE_CHECKING:
    from .conftest import Run

EVIL = "Nor\x1b[2K\x1b[1Ath \u202e\x9b31m\u200b\u2028\U000e0041x\r"


@pytest.mark.parametrize("way", ["table", "facts", "print", "say", "json"])
def test_nothing_printed_acts_on_the_terminal(capsys: pytest.CaptureFixture[str], way: str) -> None:
    out = console()
    if way == "table":
        table(out, ("a", "b"), [(EVIL, "line\nbreak")], empty="")
    elif way == "facts":
        facts(out, [("a", EVIL), ("b", "line\nbreak")])
    elif way == "print":
        out.print(EVIL)
    elif way == "say":
        say(EVIL)
    else:
        emit({"name": EVIL}, True, lambda _: None)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert all(visible(line) for line in text.split("\n"))
    assert ("\\x1b[2K" in text) or way == "json"
    if way == "json":
        assert json.loads(text) == {"name": EVIL}
    if way in ("table", "facts"):
        assert "line\\nbreak" in text


def test_no_error_acts_on_the_terminal(run: "Run", tmp_path: Path) -> None:
    """The name of a file that was sent, and columns of somebody's table: the message and the advice quote them."""
    for words in (("charter", "show", tmp_path / EVIL), ("--home", tmp_path / EVIL, "peer", "list"), (EVIL,)):
        answer = run(*words)
        assert (answer.code, answer.out, "\\x1b[2K" in answer.err) == (2, "", True), answer.err
        assert all(visible(line) for line in answer.err.split("\n"))
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    (tmp_path / "work.csv").write_text(f'id,student,answer,grade,"points{EVIL}",gender\nr1,s1,words,low,10,f\n')
    answer = run("data", "check", tmp_path)
    message, advice = answer.err.splitlines()[:2]
    assert (answer.code, "\\x1b[2K" in advice, "no column 'points'" in message) == (2, True, True), answer.err
    assert all(visible(line) for line in answer.err.split("\n"))


def test_a_traceback_that_no_file_takes_does_not_either(run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise ZeroDivisionError(EVIL)

    def full(**_: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(component, "existing_home", fail)
    monkeypatch.setattr(tempfile, "mkstemp", full)
    answer = run("component", "list")
    assert (answer.code, "Traceback" in answer.err, "the lines above" in answer.err) == (1, True, True), answer.err
    assert all(visible(line) for line in answer.err.split("\n"))


def test_what_can_be_seen_is_shown_as_it_is() -> None:
    for text in ("Universität Zürich", "北京大学", "Εθνικό", "a\u0301"):
        assert shown(text) == text
    assert shown("a\nb", breaks=True) == "a\nb"


SHOWN = (
    "node status",
    "doctor",
    "doctor --no-data",
    "privacy show --no-forecast",
    "privacy log",
    "peer list",
    "peer motions",
    "ledger verify --no-states",
    "ledger log",
    "round list",
    "component list",
    "charter show",
    "unlearn status",
    "charter verify",
)


@pytest.mark.parametrize("words", SHOWN)
def test_no_line_in_a_pipe_ends_in_a_space(words: str, home: Home, run: "Run") -> None:
    answer = run(*words.split(), "--home", home.root)
    assert answer.out
    assert [line for line in (answer.out + answer.err).splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize(("columns", "room"), [("", 80), ("50", 50), ("120", 120), ("nonsense", 80)])
def test_facts_in_a_pipe_keep_to_80_columns(
    columns: str, room: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLUMNS says otherwise. A value with a word that does not fit stays in one piece on the line of its name."""
    monkeypatch.setenv("COLUMNS", columns)
    digest = "0123456789abcdef" * 10
    text = "it waits to be admitted, and until then no member lets it in: " * 4
    facts(console(), [("a long name of a fact", text), ("digest", f"--pin 7:{digest}"), ("none", None)])
    *lines, long, last = capsys.readouterr().out.splitlines()
    assert long == f"digest                 --pin 7:{digest}"
    assert last == "none                   –"
    assert max(map(len, lines)) <= room
    assert max(map(len, lines)) > room - 10
    assert " ".join(" ".join(lines).split()) == f"a long name of a fact {text.strip()}"


def test_a_message_at_a_terminal_breaks_no_word_and_keeps_its_indentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = (
        "  Training again in 5 recovery rounds, with fresh draws and noise, is charged to essays and to scores alike."
    )
    output.say(text)
    assert capsys.readouterr().err == text + "\n", "one line for grep"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    output.say(text)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("  ") and len(line) <= 80 for line in lines)
    assert " ".join(" ".join(lines).split()) == text.strip()


def test_a_table_in_a_pipe_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    table(console(), ("one", "two"), [("a " * 300, "b"), ("c", "d " * 300)], empty="")
    assert len(capsys.readouterr().out.splitlines()) == 3
