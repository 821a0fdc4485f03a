"""Alarms: each problem once, with a clear end; a delivery that fails is made up for."""

import json
import stat
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from collegium.crypto.errors import CorruptError, OperatorError
from collegium.node.alarms import record
from collegium.node.alarms.backoff import LONGEST, Backoff
from collegium.node.alarms.deliver import deliver
from collegium.node.alarms.due import Change, Message, due, message, trial, watched
from collegium.node.alarms.record import Raised
from collegium.node.alarms.watch import Watch
from collegium.node.home import Home
from collegium.node.home.config import Alarm
from collegium.node.views.note import OF_THE_DATA, Level, Note, NoteKind

from ...waiting import until

LOST = Note(NoteKind.TOO_FEW_CONNECTED, "Connected to 1 of 3.", "Look.")
LOST_LATER = Note(NoteKind.TOO_FEW_CONNECTED, "Connected to 0 of 3.", "Look.")
CATCHING_UP = Note(NoteKind.CATCHING_UP, "Catching up.", "It goes on by itself.")


def ballot(digest: str) -> Note:
    return Note(NoteKind.BALLOT_WAITS, f"A motion waits for your ballot: {digest}.", "Vote.", digest)


class Told:
    """A command that writes what it is reported to a file; it fails as long as `down` is there."""

    def __init__(self, folder: Path) -> None:
        self.down, self.out = folder / "down", folder / "reported"
        code = (
            f"import pathlib, sys\nif pathlib.Path({str(self.down)!r}).exists(): sys.exit('the line is down')\n"
            f"open({str(self.out)!r}, 'a').write(sys.stdin.read() + chr(10))"
        )
        self.alarm = Alarm((sys.executable, "-c", code), "", 60)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(one["alarm"], one["kind"]) for one in self.messages]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def look(home: Home, box: Told, notes: list[Note], now: float) -> None:
    """One look of a daemon that has just started: what it knows, it has from disk."""
    trio.run(Watch(home, box.alarm, "north", "schools").look, record.load(home), notes, now)


def test_a_problem_is_told_once_when_it_lasts_and_its_end_once(home: Home, tmp_path: Path) -> None:
    box = Told(tmp_path)
    look(home, box, [LOST, CATCHING_UP], 1000.0)
    look(home, box, [LOST], 1059.0)
    assert box.said == []
    look(home, box, [LOST_LATER], 1060.0)
    look(home, box, [LOST], 5000.0)
    assert box.said == [("begins", "too-few-connected")]
    (begins,) = box.messages
    assert begins == {
        "alarm": "begins", "kind": "too-few-connected", "level": "critical", "found": "Connected to 1 of 3.",
        "advice": "Look.", "since": "1970-01-01T00:16:40+00:00", "node": "north", "federation": "schools",
    }  # fmt: skip
    look(home, box, [], 6000.0)
    look(home, box, [], 7000.0)
    assert box.said == [("begins", "too-few-connected"), ("ends", "too-few-connected")]
    assert record.load(home) == ()


def test_a_problem_that_ends_before_it_is_told_is_told_never(home: Home, tmp_path: Path) -> None:
    box = Told(tmp_path)
    look(home, box, [LOST], 1000.0)
    look(home, box, [], 1030.0)
    look(home, box, [LOST], 1061.0)  # another one: its time begins now
    assert box.said == []
    assert [one.since for one in record.load(home)] == [1061.0]


def test_a_daemon_that_goes_on_reports_an_end_once(home: Home, tmp_path: Path) -> None:
    reported = Told(tmp_path)
    watch = Watch(home, reported.alarm, "north", "schools")

    async def looks() -> None:
        raised: tuple[Raised, ...] = ()
        for now, notes in enumerate([[LOST], [LOST], [LOST], [], [], [], [LOST], [LOST]]):
            raised = await watch.look(raised, notes, 60.0 * now)

    trio.run(looks)
    assert [change for change, _ in reported.said] == ["begins", "ends", "begins"]


def test_a_webhook_hears_nothing_that_tells_of_the_data(home: Home) -> None:
    """G6: that students are left out depends on their data, and a webhook may be outside of the house."""
    notes = [Note(kind, "20 students.", "", "x") for kind in OF_THE_DATA]
    watch = Watch(home, Alarm(webhook="http://127.0.0.1:9/", after_seconds=0), "north", "schools")
    assert trio.run(watch.look, (), notes, 0.0) == ()
    box = Alarm(("/nowhere/at-all",), after_seconds=0)
    alarming = [note for note in notes if note.level != Level.INFO]
    assert len(trio.run(Watch(home, box, "north", "schools").look, (), notes, 0.0)) == len(alarming) > 0


def test_notes_that_cannot_be_looked_at_do_not_end_the_daemon(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.node.alarms.watch.EVERY", 0.0)
    looks: list[int] = []

    async def look() -> list[Note]:
        looks.append(1)
        raise CorruptError("peers.json is damaged")

    async def run() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Watch(home, Alarm(("true",)), "north", "schools").run, look)
                await until(lambda: len(looks) > 2)
                scope.cancel()

    trio.run(run)


def test_two_of_a_kind_are_two_problems(home: Home, tmp_path: Path) -> None:
    box = Told(tmp_path)
    look(home, box, [ballot("aa"), ballot("bb")], 0.0)
    look(home, box, [ballot("aa"), ballot("bb")], 60.0)
    look(home, box, [ballot("bb")], 90.0)
    assert box.said == [("begins", "ballot-waits")] * 2 + [("ends", "ballot-waits")]
    assert "aa" in box.messages[-1]["found"]


def test_what_did_not_arrive_is_told_as_soon_as_it_can_be(home: Home, tmp_path: Path) -> None:
    box = Told(tmp_path)
    box.down.touch()
    look(home, box, [LOST], 0.0)
    look(home, box, [LOST], 100.0)
    look(home, box, [LOST], 200.0)
    assert box.said == []
    assert not any(one.reported for one in record.load(home))
    box.down.unlink()
    look(home, box, [LOST], 300.0)
    assert box.said == [("begins", "too-few-connected")]
    box.down.touch()
    look(home, box, [], 400.0)
    box.down.unlink()
    look(home, box, [], 500.0)
    assert box.said[1:] == [("ends", "too-few-connected")]


def test_a_target_that_fails_is_tried_ever_more_rarely_and_at_once_when_it_took_one() -> None:
    waits, now, backoff = [], 1e9, Backoff()
    assert backoff.over(-1e9), "no clock is early before the first failure"
    for _ in range(10):
        backoff = backoff.failed(now)
        waits.append(backoff.wait)
        assert not backoff.over(now + backoff.wait - 0.01)
        now += backoff.wait
        assert backoff.over(now)
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]


def test_a_daemon_leaves_a_target_that_fails_alone_for_a_while(home: Home, tmp_path: Path) -> None:
    """One look every 5 s for three hours, with the target down for the first two: 18 tries, and each problem once."""
    box = Told(tmp_path)
    tries: list[float] = []

    async def took(to: Alarm, told: Message) -> None:
        tries.append(trio.current_time())
        if trio.current_time() - start < 7200:
            raise OperatorError("it is down", "Mend it.")
        with box.out.open("a") as out:
            out.write(json.dumps(told) + "\n")

    async def looks() -> None:
        watch, raised = Watch(home, box.alarm, "north", "schools"), tuple[Raised, ...]()
        for second in range(0, 3 * 3600, 5):
            raised = await watch.look(raised, [LOST, ballot("aa")], float(second))
            await trio.sleep(5)

    clock = MockClock(autojump_threshold=0)
    start = clock.current_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("collegium.node.alarms.watch.deliver", took)
        trio.run(looks, clock=clock)
    assert len([at for at in tries if at - start < 7200]) == 18
    assert all(later - earlier <= LONGEST + 5 for earlier, later in pairwise(tries))
    assert box.said == [("begins", "too-few-connected"), ("begins", "ballot-waits")]


def test_a_record_that_cannot_be_read_tells_once_more_and_stops_nothing(home: Home, tmp_path: Path) -> None:
    box = Told(tmp_path)
    for damage in ("{", "[{}]", '[{"kind": "unheard-of"}]', "7", '[{"kind": "paused", "subject": 1}]'):
        home.alarms.write_text(damage)
        assert record.load(home) == ()
    look(home, box, [LOST], 0.0)
    look(home, box, [LOST], 60.0)
    assert box.said == [("begins", "too-few-connected")]
    assert stat.S_IMODE(home.alarms.stat().st_mode) == 0o600


def test_what_a_command_says_when_it_fails_is_told_with_advice(tmp_path: Path) -> None:
    box = Told(tmp_path)
    box.down.touch()
    with pytest.raises(OperatorError, match=r"ended with 1: the line is down") as error:
        trio.run(deliver, box.alarm, trial("north", "schools", 0.0))
    assert "--test" in error.value.advice
    with pytest.raises(OperatorError, match="cannot be run: No such file"):
        trio.run(deliver, Alarm(("/nowhere/at-all",)), trial("north", "schools", 0.0))


def test_nothing_is_due_of_what_asks_for_nobody() -> None:
    assert watched((), [CATCHING_UP], 0.0) == ()
    old = Raised(NoteKind.PAUSED, "", 0.0, "Paused.", "", reported=True)
    (over,) = due(watched([old], [], 9.0), [], 9.0, 60)
    assert (over.change, over.after) == (Change.ENDS, None)
    assert message(over.change, old, "n", "f")["alarm"] == "ends"
