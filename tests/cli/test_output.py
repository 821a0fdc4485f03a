"""What was written by others cannot act on the terminal on which ids are compared."""

import json

import pytest

from collegium.cli.output import console, emit, facts, say, table
from collegium.protocol.names import shown, visible

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


def test_what_can_be_seen_is_shown_as_it_is() -> None:
    for text in ("Universität Zürich", "北京大学", "Εθνικό", "a\u0301"):
        assert shown(text) == text
    assert shown("a\nb", breaks=True) == "a\nb"
