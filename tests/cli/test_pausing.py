"""`node pause` and `node resume`, with a daemon and without."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from collegium.node.home import Home
from collegium.node.home.quiet import DAYS

from ..waiting import LIMIT
from .test_node import alone

if TYPE_CHECKING:
    from .conftest import Run

__all__ = ["alone"]


def warnings(run: "Run", home: Home) -> list[Any]:
    checks = run("doctor", "--no-data", "--home", home.root, "--json").value["checks"]
    return [(check["found"], check["advice"]) for check in checks if check["found"].startswith("This node is paused")]


def all_but_one_day() -> str:
    """Quiet hours that are on now, and for two days to come."""
    off = (datetime.now() + timedelta(days=3)).weekday()
    return ",".join(day for number, day in enumerate(DAYS) if number != off) + " 00:00-24:00"


def test_a_pause_outlasts_the_daemon_and_everything_says_so(run: "Run", alone: Home) -> None:
    words = ("--home", alone.root, "--json")
    text = alone.config.read_text()
    alone.config.write_text(text.replace("quiet_hours = []", f'quiet_hours = ["{all_but_one_day()}"]'))
    asked = run("node", "pause", *words)  # before the first start: so a federation waits until all have looked
    assert asked.value == {"was": False, "training": False, "running": False, "paused": True}, asked.err
    assert len(warnings(run, alone)) == 1
    assert "collegium node resume" in warnings(run, alone)[0][1]
    try:
        started = run("node", "start", "--wait", LIMIT, *words)
        assert started.code == 0, started.err
        assert "paused" in started.value["paused"][0]
        assert "it trains nothing until" in started.value["quiet"][0]
        assert run("node", "status", *words).value["paused"]
        assert "paused" in run("node", "status", "--home", alone.root).out
        assert len(warnings(run, alone)) == 1, "the daemon and the files say it once"
        assert run("node", "resume", *words).value == {"was": True, "training": False, "running": True, "paused": False}
        now = run("node", "status", *words).value
        assert not now["paused"]
        assert not [note for note in now["notes"] if "paused" in note]
        assert now["quiet_hours"]["now"]
        assert [f["level"] for f in now["findings"] if f["kind"] == "quiet-hours"] == ["info"]
        (idle,) = {(one["why"], one["reason"], one["meaning"]) for one in now["training"]["idle"]}
        assert idle[:2] == ("no-data", "no-data"), "this home has no data: that goes before"
        assert "config.toml was written" not in run("node", "status", "--home", alone.root).out
        given = alone.config.read_text()
        alone.config.write_text(text)
        shown = run("node", "status", "--home", alone.root).out
        assert "00:00-24:00 local time" in shown, "what is in force"
        assert "config.toml was written after the daemon had started" in shown
        alone.config.write_text(given)
        assert run("node", "resume", *words).value["was"] is False
        assert run("node", "pause", *words).value["was"] is False
    finally:
        run("node", "stop", "--force", "--home", alone.root)
    assert run("node", "status", *words).value["paused"]
    assert run("node", "resume", *words).value["was"] is True
    assert not run("node", "status", *words).value["paused"]
    text = " ".join(run("node", "status", "--home", alone.root).out.split())
    assert "00:00-24:00 local time; now, until" in text
    checks = run("doctor", "--no-data", "--home", alone.root, "--json").value["checks"]
    assert [one["verdict"] for one in checks if "quiet hours" in one["found"]] == ["ok"]
