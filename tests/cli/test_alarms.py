"""`[alarm]` and `collegium node alarms`, with a real daemon: that a problem begins and ends is reported."""

import json
import sys
from typing import TYPE_CHECKING, Any

from collegium.node.home import Home

from ..waiting import wait_for
from .test_node import alone  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from .conftest import Run


def test_an_operator_is_told_that_a_problem_began_and_that_it_ended(run: "Run", alone: Home) -> None:  # noqa: F811
    where = ("--home", alone.root)
    assert "no alarms: [alarm] in config.toml names no command" in run("node", "alarms", *where).out
    nobody = run("node", "alarms", "--test", *where)
    assert nobody.code == 2
    assert "Set command or webhook in [alarm]" in nobody.err

    folder = alone.root / "reported"
    code = f"import sys; open({str(folder)!r}, 'a').write(sys.stdin.read() + chr(10))"
    text = alone.config.read_text()
    for old, new in (
        ("[alarm]\n", "[alarm]\n"),
        ("command = []", f"command = {json.dumps([sys.executable, '-c', code])}"),
        ("after_seconds = 60", "after_seconds = 0"),
    ):
        assert old in text
        text = text.replace(old, new)
    alone.config.write_text(text)

    def messages(kind: str) -> list[dict[str, Any]]:
        lines = folder.read_text().splitlines() if folder.exists() else []
        return [one for one in map(json.loads, lines) if one["kind"] == kind]

    tried = run("node", "alarms", "--test", *where)
    assert (tried.code, "the test message was taken" in tried.out) == (0, True), tried.err
    (trial,) = messages("test")
    assert (trial["alarm"], trial["node"], trial["federation"]) == ("test", "alone", "solo")

    try:
        assert run("node", "pause", *where).code == 0
        assert run("node", "start", *where).code == 0
        wait_for(lambda: messages("paused"), seen=alone.log.read_text)
        listed = run("node", "alarms", "--json", *where).value
        (paused,) = [one for one in listed["problems"] if one["kind"] == "paused"]
        assert paused["reported"]
        assert paused["found"] in [f["found"] for f in run("node", "status", "--json", *where).value["findings"]]
        told = "config.toml was written after the daemon had started"
        assert told not in run("node", "alarms", *where).out
        alone.config.write_text(text.replace("after_seconds = 0", "after_seconds = 5"))
        assert told in run("node", "alarms", *where).out
        assert told in run("node", "status", *where).out
        assert "warning, since " in run("node", "alarms", *where).out
        assert run("node", "resume", *where).code == 0
        wait_for(lambda: len(messages("paused")) == 2, seen=alone.log.read_text)
        assert [one["alarm"] for one in messages("paused")] == ["begins", "ends"]
    finally:
        run("node", "stop", *where)
