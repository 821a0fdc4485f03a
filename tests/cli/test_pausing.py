"""`node pause` and `node resume`, with a daemon and without."""

from typing import TYPE_CHECKING, Any

from collegium.node.home import Home

from ..waiting import LIMIT
from .test_node import alone

if TYPE_CHECKING:
    from .conftest import Run

__all__ = ["alone"]


def warnings(run: "Run", home: Home) -> list[Any]:
    checks = run("doctor", "--no-data", "--home", home.root, "--json").value["checks"]
    return [(check["found"], check["advice"]) for check in checks if check["found"].startswith("This node is paused")]


def test_a_pause_outlasts_the_daemon_and_everything_says_so(run: "Run", alone: Home) -> None:
    words = ("--home", alone.root, "--json")
    asked = run("node", "pause", *words)  # before the first start: so a federation waits until all have looked
    assert asked.value == {"was": False, "training": False, "running": False, "paused": True}, asked.err
    assert len(warnings(run, alone)) == 1
    assert "collegium node resume" in warnings(run, alone)[0][1]
    try:
        started = run("node", "start", "--wait", LIMIT, *words)
        assert started.code == 0, started.err
        assert "paused" in started.value["paused"][0]
        assert run("node", "status", *words).value["paused"]
        assert "paused" in run("node", "status", "--home", alone.root).out
        assert len(warnings(run, alone)) == 1, "the daemon and the files say it once"
        assert run("node", "resume", *words).value == {"was": True, "training": False, "running": True, "paused": False}
        now = run("node", "status", *words).value
        assert not now["paused"]
        assert not [note for note in now["notes"] if "paused" in note]
        assert run("node", "resume", *words).value["was"] is False
        assert run("node", "pause", *words).value["was"] is False
    finally:
        run("node", "stop", "--force", "--home", alone.root)
    assert run("node", "status", *words).value["paused"]
    assert run("node", "resume", *words).value["was"] is True
    assert not run("node", "status", *words).value["paused"]
