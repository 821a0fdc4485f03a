"""What the daemon does when a consent ends: nothing that is seen, until a time that has nothing to do with it."""

import copy
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from collegium.crypto.errors import RefusedError
from collegium.node.core import events as ev
from collegium.node.core.core import handle, start_node
from collegium.node.home.timetable import timetable
from collegium.node.learner.answers import Opened
from collegium.node.runtime.consenting import keep_consents, last_day
from collegium.node.unlearning.students import load_excluded
from collegium.node.views.context import Context
from collegium.node.views.unlearn import scheduled

from .test_exclusion import FAR, OTHER, WHO, T, again, looks, sent_with

EVERYBODY = (WHO, OTHER, "student-9")


def read(runtime: Any, *refused: str, unclear: Collection[str] = ()) -> None:
    """The learner has read the data, and these do not consent."""
    counts = {"yes": 3 - len(refused), "no": 0, "lapsed": len(refused), "unreadable": len(unclear)}
    runtime.jobs._on_learner_ready(Opened({T: 1}, 3, 0, EVERYBODY, 0, (), counts, refused, tuple(unclear)))


def test_who_lapses_is_withdrawn_at_the_next_time_in_one_batch_and_is_not_left_out_for_good(runtime: Any) -> None:
    updates = sorted(sent_with(runtime, name, round_=n) for n, name in enumerate((WHO, OTHER), 1))
    kept = sent_with(runtime, "student-9", round_=3)
    runtime.core.signing = True
    read(runtime)
    assert looks(runtime) == []
    read(runtime, WHO)
    assert looks(runtime) == []
    (request,) = runtime.scheduled
    due = datetime.fromtimestamp(request.at)
    assert (due.weekday(), due.hour, due.minute) == (6, 2, 0), "Sunday at 02:00, whenever the consent ended"
    assert WHO not in runtime.home.scheduled.read_text()
    read(runtime, WHO, OTHER)
    assert looks(runtime) == []
    assert {request.at for request in runtime.scheduled} == {request.at}
    (batch,) = scheduled(cast("Context", SimpleNamespace(ledger=runtime.core.ledger, scheduled=runtime.scheduled)))
    assert (batch["students"], batch["lapsed"], batch["updates"]) == (2, 2, 2)
    after = again(runtime)
    after.core.in_flight.update(runtime.core.in_flight)
    after.core.signing = True
    assert looks(after, request.at - time.time() - 60) == []
    assert looks(after, request.at - time.time() + 60) == [ev.RequestWithdrawal("updates", updates=tuple(updates))]
    for update in updates:
        del after.core.in_flight[update]
    assert looks(after, request.at - time.time() + 60) == []
    assert (after.scheduled, list(after.core.in_flight)) == ((), [kept])
    read(after, WHO, OTHER)
    assert looks(after) == []
    assert after.scheduled == (), "nothing is left that saw them"
    assert load_excluded(runtime.home).total == 0, "who consents again is in again"


def test_a_new_consent_takes_the_withdrawal_back_and_nothing_else_does(runtime: Any) -> None:
    sent_with(runtime, WHO)
    read(runtime, WHO)
    looks(runtime)
    with pytest.raises(RefusedError, match="consent has ended"):
        trio.run(runtime.cancel, WHO)
    read(runtime, unclear=[WHO])
    looks(runtime)
    assert len(runtime.scheduled) == 1, "a cell that cannot be read is no new consent"
    runtime.jobs._on_learner_ready(Opened({}, everybody=EVERYBODY))
    looks(runtime)
    assert len(runtime.scheduled) == 1, "nor is a dataset.toml without the columns"
    read(runtime)
    looks(runtime)
    assert runtime.scheduled == ()
    trio.run(runtime.put_off, FAR, False, [WHO])
    read(runtime, WHO)
    read(runtime)
    looks(runtime)
    assert [request.at for request in runtime.scheduled] == [FAR], "what the student asked for stays"


def test_private_adapters_forget_who_does_not_consent_any_more_and_stay_otherwise(runtime: Any) -> None:
    folder = runtime.home.private
    folder.mkdir(mode=0o700)
    path = folder / "adapter-essay.safetensors"
    path.write_bytes(b"learned from all")
    read(runtime)
    assert path.exists(), "all consent, as before"
    read(runtime, WHO)
    assert not path.exists()
    path.write_bytes(b"learned without")
    read(again(runtime), WHO)
    assert path.exists()


@pytest.mark.parametrize("asked", [True, False])
def test_g6_the_data_are_read_again_at_the_same_time_each_day(monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    now, read_at = datetime(2026, 7, 30, 9, 0, tzinfo=UTC), list[datetime]()

    def clock() -> datetime:
        nonlocal now
        now += timedelta(minutes=20)  # each look at the clock
        return now

    async def reopen() -> None:
        read_at.append(now)

    async def no_sleep(_seconds: float) -> None:
        if now > datetime(2026, 8, 2, tzinfo=UTC):
            raise TimeoutError
        await trio.lowlevel.checkpoint()

    look = timetable("03:00")
    assert look is not None
    monkeypatch.setattr("collegium.node.runtime.consenting.trio.sleep", no_sleep)
    with pytest.raises(TimeoutError):
        trio.run(keep_consents, look, lambda: asked, reopen, clock)
    assert [at.strftime("%d %H") for at in read_at] == (["31 03", "01 03"] if asked else [])


@pytest.mark.parametrize(
    ("text", "moment", "day"),
    [
        ("00:00", "2026-07-31T00:00", "2026-07-31"),
        ("00:00", "2026-07-31T23:59", "2026-07-31"),
        ("03:00", "2026-07-31T02:00", "2026-07-31"),
        ("03:00", "2026-07-31T03:00", "2026-08-01"),
        ("Sun 03:00", "2026-07-31T03:00", "2026-08-02"),
    ],
)
def test_a_consent_has_to_hold_until_the_next_look(text: str, moment: str, day: str) -> None:
    look = timetable(text)
    assert look is not None
    assert last_day(look, datetime.fromisoformat(moment)) == date.fromisoformat(day)


def test_the_learner_is_told_the_day(runtime: Any, tmp_path: Path) -> None:
    runtime.jobs.config = replace(runtime.config, data=replace(runtime.config.data, path=tmp_path))
    opening = runtime.jobs._opening()
    assert opening is not None
    assert opening.day == datetime.now(UTC).date().isoformat()


def test_g6_what_leaves_a_node_is_the_same_to_the_byte_whether_a_consent_has_ended_or_not(
    runtime: Any, tmp_path: Path
) -> None:
    """A look at the consents, from the restart of the learner to the first messages after it."""
    runtime.jobs.config = replace(runtime.config, data=replace(runtime.config.data, path=tmp_path))
    sent_with(runtime, WHO, OTHER)

    async def opened(_opening: object) -> None:
        pass

    def left(*refused: str) -> tuple[list[ev.Event], list[bytes]]:
        submitted: list[ev.Event] = []
        runtime.core.signing = False  # until a start
        core = copy.deepcopy(runtime.core)
        runtime.core.signing = True  # what is due could be withdrawn
        runtime.jobs.submit, runtime.learner.reopen = submitted.append, opened
        trio.run(runtime.jobs.reopen)
        read(runtime, *refused)
        submitted += looks(runtime)
        messages, now = list[bytes](), 0
        effects = start_node(core, now)
        waiting = list[ev.Event](submitted)
        for now in range(10_000, 400_000, 10_000):
            messages += [effect.data for effect in effects if isinstance(effect, ev.Publish)]
            waiting += [ev.TimerFired(effect.timer) for effect in effects if isinstance(effect, ev.SetTimer)]
            effects = handle(core, [waiting.pop(0)], now) if waiting else []
        return submitted, messages

    nobody, one, all_of_them = left(), left(WHO), left(*EVERYBODY)
    assert nobody[0] == one[0] == all_of_them[0] == [ev.LearnerReads(), ev.LearnerReady((T,))]
    assert nobody[1], "the node does send something"
    assert nobody[1] == one[1] == all_of_them[1]
    assert len(runtime.scheduled) == 2, "and yet it knows"
