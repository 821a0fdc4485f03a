"""What the daemon does when one student is to be left out: one at a time, with nothing kept that learned from them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from collegium.consensus.components import Entry, Round
from collegium.crypto.errors import CorruptError, RefusedError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.crypto.keyfile import seal
from collegium.node.core import events as ev
from collegium.node.core.in_flight import InFlightUpdate
from collegium.node.home import keys
from collegium.node.learner.answers import Opened
from collegium.node.learner.messages import Open
from collegium.node.runtime.learner import LearnerError
from collegium.node.runtime.runtime import Runtime
from collegium.node.unlearning.students import NONE, exclude, load_excluded
from collegium.protocol.claims import NO_EPSILON, Claim
from collegium.protocol.signing import Signed, sign
from collegium.protocol.update import Engaged, UpdateHeader

T, WHO, OTHER = "head/task0", "student-7", "student-8"


def again(runtime: Any) -> Runtime:
    """The daemon after a restart."""
    return Runtime(
        runtime.home, runtime.config, runtime.charter, runtime.signed_charter, runtime.identity, runtime.store
    )


def header(runtime: Any, manifest: bytes, round_: int = 1, author: Identity | None = None) -> Signed[UpdateHeader]:
    identity = author or runtime.identity
    return sign(
        identity,
        UpdateHeader(
            federation=runtime.core.federation, author=identity.public_key, component=T, round=round_, generation=0,
            base=bytes(32), blob=sha256(bytes([round_])), size=9, steps=1, sample_rate=1000, lot=100_000,
            engaged=(Engaged(T, bytes(32), 0, 1000, 1000),), claims=(Claim("made-up", (), NO_EPSILON, 0),),
            manifest=manifest,
        ),
    )  # fmt: skip


def in_round(runtime: Any, round_: int) -> None:
    """Let the ledger be past rounds that counted nobody."""
    ledger = runtime.core.ledger
    component = replace(ledger.components[T], round=round_)
    runtime.core.ledger = replace(ledger, components={**ledger.components, T: component})


def test_several_at_once_are_left_out_one_after_the_other(runtime: Any, tmp_path: Path) -> None:
    runtime.jobs.config = replace(runtime.config, data=replace(runtime.config.data, path=tmp_path))
    names, at_work, most = [f"student-{n}" for n in range(6)], 0, 0
    submitted: list[ev.Event] = []
    runtime.submit = runtime.jobs.submit = submitted.append

    async def reopen(opening: Open) -> None:
        nonlocal at_work, most
        assert ev.LearnerReads() in submitted, "no draw is paid for before the worker has the data again"
        at_work += 1
        most = max(most, at_work)
        await trio.sleep(0.02)
        at_work -= 1

    runtime.learner.reopen = reopen

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(runtime.exclude, name)

    trio.run(all_of_them)
    left_out = load_excluded(runtime.home)
    assert [name for name in names if left_out.has(name)] == names
    assert most == 1


def test_what_private_components_learned_goes_too(runtime: Any) -> None:
    folder = runtime.home.private
    folder.mkdir(mode=0o700)
    for name in ("adapter-essay", "writer-work"):
        (folder / f"{name}.safetensors").write_bytes(b"learned from all")
    trio.run(runtime.exclude, WHO)
    assert list(folder.iterdir()) == []
    (folder / "adapter-essay.safetensors").write_bytes(b"learned without")
    trio.run(runtime.exclude, WHO)
    again(runtime)
    assert len(list(folder.iterdir())) == 1, "again changes nothing"
    exclude(runtime.home, OTHER)  # and the power fails
    again(runtime)
    assert list(folder.iterdir()) == []


def test_private_adapters_are_due_again_when_the_worker_is_back(runtime: Any) -> None:
    runtime.jobs._personalised, runtime.jobs._reopening = (2, 8), True
    runtime.jobs._evaluated_at_home = ev.Evaluate(())
    runtime.jobs._on_learner_ready(Opened({}))
    assert (runtime.jobs._personalised, runtime.jobs._evaluated_at_home) == ((0, 0), None)
    runtime.jobs._personalised = (2, 8)
    runtime.jobs._on_learner_ready(Opened({}))
    assert runtime.jobs._personalised == (2, 8), "a worker that fell over has learned from nobody else"


def test_g7_nothing_is_learned_at_home_while_the_node_is_on_hold(runtime: Any) -> None:
    """A home that lost the list of removed students would train them on the removed ones."""
    jobs, asked = runtime.jobs, list[object]()

    async def request(message: object) -> None:
        asked.append(message)
        raise LearnerError("no data")

    async def states(_chains: object) -> dict[str, bytes]:
        return {}

    jobs.learner.request, jobs._states = request, states
    jobs._evaluated = ev.Evaluate((("head/task0", 2 * jobs.config.learning.personalise_every, 0, b""),))
    runtime.core.removals_unknown = True
    trio.run(jobs._at_home)
    assert asked == []
    runtime.core.removals_unknown = False
    trio.run(jobs._at_home)
    assert len(asked) == 1


def test_what_the_worker_had_answered_already_is_waited_for(runtime: Any) -> None:
    root = runtime.exclusion.manifests.put([WHO])
    sent = header(runtime, root)
    runtime.core.run = SimpleNamespace(number=3)
    seen = []

    async def ask() -> None:
        seen.append(await runtime.exclude(WHO))

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.3)
            assert not seen
            runtime.core.in_flight[sent.digest] = InFlightUpdate(sent)
            runtime.core.run = None

    trio.run(both)
    assert seen[0].updates == {sent.digest}
    assert not seen[0].unknown


def test_an_update_that_a_block_takes_meanwhile_is_seen(runtime: Any) -> None:
    sent = header(runtime, runtime.exclusion.manifests.put([WHO]))
    runtime.core.in_flight[sent.digest] = InFlightUpdate(sent)
    stored = runtime.store.headers

    def counted_meanwhile() -> Any:
        headers = stored()
        runtime.store.apply([ev.PutHeader(sent)])
        runtime.core.in_flight.pop(sent.digest, None)
        return headers

    runtime.store.headers = counted_meanwhile
    assert trio.run(runtime.exclude, WHO).updates == {sent.digest}


def test_of_what_nobody_wrote_down_it_is_not_said_that_it_saw_nobody(runtime: Any) -> None:
    manifests = runtime.exclusion.manifests
    named, unnamed = header(runtime, manifests.put([OTHER])), header(runtime, NONE, 2)
    lost, seen = header(runtime, sha256(b"gone"), 3), header(runtime, manifests.put([WHO]), 4)
    runtime.store.apply([ev.PutHeader(signed) for signed in (named, unnamed, lost, seen)])
    seen_before = trio.run(runtime.exclude, WHO)
    assert seen_before.updates == {unnamed.digest, lost.digest, seen.digest}
    assert seen_before.unknown == {unnamed.digest, lost.digest}
    assert seen_before.in_data is None
    runtime.jobs._on_learner_ready(Opened({}, everybody=(OTHER,)))
    assert trio.run(runtime.exclude, WHO).in_data is False
    assert trio.run(runtime.exclude, OTHER).in_data is True


def test_what_was_sent_under_an_earlier_key_is_ones_own(runtime: Any) -> None:
    old = Identity.from_seed(bytes(range(32)))
    sent = header(runtime, runtime.exclusion.manifests.put([WHO]), author=old)
    runtime.store.apply([ev.PutHeader(sent)])
    assert not trio.run(runtime.exclude, WHO).updates
    ledger, me = runtime.core.ledger, runtime.core.me
    seats = {**ledger.roll.seats, me: replace(ledger.roll.seats[me], predecessor=old.public_key)}
    runtime.core.ledger = replace(ledger, roll=replace(ledger.roll, seats=seats))
    assert trio.run(runtime.exclude, WHO).updates == {sent.digest}


def test_what_was_sent_before_a_return_with_a_new_key_is_ones_own(runtime: Any) -> None:
    old = Identity.from_seed(bytes(range(32)))
    drawn = runtime.exclusion.manifests.put([WHO])
    sent = header(runtime, drawn, author=old)
    runtime.store.apply([ev.PutHeader(sent)])
    assert not trio.run(runtime.exclude, WHO).updates
    keys.kept(runtime.home, old.public_key).write_bytes(seal(old, None))
    assert trio.run(runtime.exclude, WHO).updates == {sent.digest}
    in_round(runtime, 1)
    runtime.exclusion.forget_manifests(set())
    assert drawn not in runtime.exclusion.manifests.roots(), "nothing of it is in force"


def test_manifests_stay_as_long_as_their_updates_may_count(runtime: Any) -> None:
    manifests = runtime.exclusion.manifests
    past, in_flight, ahead = (manifests.put([WHO]) for _ in range(3))
    headers = [header(runtime, past, 1), header(runtime, in_flight, 2), header(runtime, ahead, 3)]
    runtime.store.apply([ev.PutHeader(signed) for signed in headers])
    in_round(runtime, 2)
    runtime.exclusion.forget_manifests({headers[1].digest})
    assert set(manifests.roots()) == {in_flight, ahead}


@pytest.mark.parametrize("known", [True, False])
def test_a_list_of_who_is_left_out_that_is_lost_is_not_taken_for_empty(runtime: Any, known: bool) -> None:
    trio.run(runtime.exclude, WHO)
    trio.run(runtime.exclude, OTHER)
    path = runtime.home.root / "excluded.json"
    path.unlink()
    if known:
        exclude(runtime.home, WHO)  # an old backup of it
    with pytest.raises(CorruptError, match="lost or old"):
        trio.run(runtime.exclude, "student-9")
    with pytest.raises(CorruptError, match="lost or old"):
        again(runtime)


# ---- withdrawals that are put off

FAR = 2_000_000_000  # a time to come, in Unix seconds


def sent_with(runtime: Any, *students: str, round_: int = 1) -> bytes:
    """An update in flight that saw these students."""
    made = header(runtime, runtime.exclusion.manifests.put(students), round_)
    runtime.store.apply([ev.PutHeader(made)])
    runtime.core.in_flight[made.digest] = InFlightUpdate(made)
    return made.digest


def looks(runtime: Any, seconds: float = 0.0) -> list[ev.Event]:
    """What the daemon hands to its core when it looks for what is due, at a clock so far ahead."""
    submitted: list[ev.Event] = []

    async def once() -> None:
        with trio.move_on_after(0.5), time_ahead(seconds):
            await runtime.exclusion.carry_out(submitted.append)

    trio.run(once)
    return submitted


@contextmanager
def time_ahead(seconds: float) -> Iterator[None]:
    real = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("collegium.node.unlearning.exclusion.time.time", lambda: real() + seconds)
        yield


def test_who_is_put_off_is_left_out_at_once_and_withdrawn_in_its_time_across_a_restart(runtime: Any) -> None:
    seen, other = sent_with(runtime, WHO), sent_with(runtime, OTHER, round_=2)
    before = int(time.time())
    assert trio.run(runtime.put_off, FAR, False, [WHO]).updates == {seen}
    assert load_excluded(runtime.home).has(WHO)
    assert looks(runtime) == []
    assert WHO not in runtime.home.scheduled.read_text(), "no id is on the disk"
    after = again(runtime)
    (request,) = after.scheduled
    assert (request.updates, request.at, request.asked >= before) == ((seen,), FAR, True)
    after.core.in_flight.update(runtime.core.in_flight)
    assert looks(after, FAR) == [], "nothing is asked for before it can be signed"
    after.core.signing = True
    assert looks(after, FAR) == [ev.RequestWithdrawal("updates", updates=(seen,))]
    del after.core.in_flight[seen]
    assert other in after.core.in_flight
    assert looks(after, FAR) == []
    assert after.scheduled == (), "it is over when the updates count nowhere"
    assert again(after).scheduled == ()
    with pytest.raises(RefusedError, match="no withdrawal is to come"):
        trio.run(after.cancel, WHO)
    assert load_excluded(runtime.home).has(WHO), "left out for good"


def test_all_that_are_due_are_one_batch_and_the_node_pauses_if_one_asked_for_it(runtime: Any) -> None:
    updates = sorted(sent_with(runtime, name, round_=n) for n, name in enumerate((WHO, OTHER), 1))
    trio.run(runtime.put_off, FAR, False, [WHO])
    trio.run(runtime.put_off, FAR - 1, True, [OTHER])
    later = sent_with(runtime, "student-9", round_=3)
    trio.run(runtime.put_off, FAR + 1_000_000, False, ["student-9"])
    runtime.core.signing = True
    ahead = FAR + 1 - time.time()
    assert looks(runtime, ahead) == [
        ev.SetPaused(True),
        ev.RequestWithdrawal("updates", updates=tuple(updates)),
    ]
    assert [request.updates for request in runtime.scheduled if request.at > FAR] == [(later,)]


def test_several_of_one_command_are_all_put_off_each_with_its_updates(runtime: Any) -> None:
    updates = [sent_with(runtime, name, round_=n) for n, name in enumerate((WHO, OTHER), 1)]
    trio.run(runtime.put_off, FAR, False, [WHO], [OTHER])
    assert {request.updates for request in runtime.scheduled} == {(updates[0],), (updates[1],)}


def test_the_node_pauses_in_its_time_once_though_nothing_is_left_to_withdraw(runtime: Any) -> None:
    seen = sent_with(runtime, WHO)
    trio.run(runtime.put_off, FAR, True, [WHO])
    del runtime.core.in_flight[seen]
    assert looks(runtime, FAR) == [ev.SetPaused(True)]
    assert looks(runtime, FAR) == []
    with pytest.raises(RefusedError, match="no withdrawal is to come"):
        trio.run(runtime.cancel, WHO)
    assert load_excluded(runtime.home).has(WHO), "left out for good"


def test_it_is_made_before_its_time_where_an_update_would_leave_the_refold_horizon(runtime: Any) -> None:
    seen = sent_with(runtime, WHO)
    ledger, horizon = runtime.core.ledger, runtime.core.charter.rules.refold_horizon
    trio.run(runtime.put_off, FAR, False, [WHO])
    runtime.core.signing = True

    def in_round_one(closed: int) -> list[ev.Event]:
        entry = Entry(seen, runtime.core.me, bytes(32), 9, 0, 1)
        component = replace(ledger.components[T], round=closed, rounds=(Round(1, 1, (entry,), 0, bytes(32)),))
        runtime.core.ledger = replace(ledger, components={**ledger.components, T: component})
        return looks(runtime)

    margin = max(3, horizon // 10)
    assert in_round_one(horizon - margin - 1) == []
    assert in_round_one(horizon - margin) == [ev.RequestWithdrawal("updates", updates=(seen,))]
    (request,) = again(runtime).scheduled
    assert request.at <= time.time(), "once it is signed it is no longer to come"
    with pytest.raises(RefusedError, match="cannot be taken back"):
        trio.run(runtime.cancel, WHO)


def test_a_request_that_is_cancelled_lets_the_student_in_again_and_no_other(runtime: Any) -> None:
    sent_with(runtime, WHO, OTHER)
    trio.run(runtime.exclude, OTHER)
    trio.run(runtime.put_off, FAR, False, [WHO])
    trio.run(runtime.put_off, FAR, False, [OTHER])
    with pytest.raises(RefusedError, match="id 2 of 2"):
        trio.run(runtime.cancel, WHO, "student-9")
    assert len(runtime.scheduled) == 2
    assert trio.run(runtime.cancel, WHO, OTHER) == (2, 1)
    left_out = load_excluded(runtime.home)
    assert (left_out.has(WHO), left_out.has(OTHER)) == (False, True), "who was removed before stays out"
    after = again(runtime)
    assert after.scheduled == ()
    with pytest.raises(RefusedError, match="no withdrawal is to come"):
        trio.run(after.cancel, WHO)


def test_all_ids_of_a_student_are_taken_back_together(runtime: Any) -> None:
    trio.run(runtime.put_off, FAR, False, [WHO, "STUDENT-7"], [OTHER])
    assert trio.run(again(runtime).cancel, "STUDENT-7") == (1, 1)
    left_out = load_excluded(runtime.home)
    assert [left_out.has(name) for name in (WHO, "STUDENT-7", OTHER)] == [False, False, True]
    assert len(again(runtime).scheduled) == 1


def test_after_a_crash_while_it_is_put_off_the_student_is_out_and_can_be_let_in_again(runtime: Any) -> None:
    """A kill -9 before the request is on disk: the worker restarts meanwhile, which takes seconds."""

    async def killed() -> None:
        raise KeyboardInterrupt

    runtime.exclusion._reopen = killed
    with pytest.raises(BaseException):  # noqa: B017, PT011 - as trio hands it on
        trio.run(runtime.put_off, FAR, False, [WHO])
    after = again(runtime)
    assert (load_excluded(runtime.home).has(WHO), after.scheduled) == (True, ())
    assert trio.run(after.cancel, WHO) == (1, 1)
    assert not load_excluded(runtime.home).has(WHO)
    with pytest.raises(BaseException):  # noqa: B017, PT011
        trio.run(runtime.put_off, FAR, False, [WHO])
    assert trio.run(again(runtime).exclude, WHO).left_out
    with pytest.raises(RefusedError, match="no withdrawal is to come"):
        trio.run(again(runtime).cancel, WHO)
    assert load_excluded(runtime.home).has(WHO), "removed for good after all"


def test_a_cancellation_goes_on_after_a_crash(runtime: Any) -> None:
    trio.run(runtime.put_off, FAR, False, [WHO])
    (request,) = runtime.scheduled
    runtime.exclusion._keep(runtime.exclusion.schedule.put([replace(request, cancelled=True)]))
    assert again(runtime).scheduled == ()
    assert not load_excluded(runtime.home).has(WHO)


def test_who_is_removed_now_after_all_is_due_and_cannot_be_let_in_again(runtime: Any) -> None:
    seen = sent_with(runtime, WHO)
    trio.run(runtime.put_off, FAR, False, [WHO])
    assert trio.run(runtime.exclude, WHO).updates == {seen}
    with pytest.raises(RefusedError, match="cannot be taken back"):
        trio.run(runtime.cancel, WHO)
    runtime.core.signing = True
    assert looks(runtime) == [ev.RequestWithdrawal("updates", updates=(seen,))], "as if the command had been killed"


def test_a_second_request_takes_the_place_of_the_first(runtime: Any) -> None:
    sent_with(runtime, WHO)
    trio.run(runtime.put_off, FAR, False, [WHO])
    trio.run(runtime.put_off, FAR + 5, True, [WHO])
    for daemon in (runtime, again(runtime)):
        (request,) = daemon.scheduled
        assert (request.at, request.pause) == (FAR + 5, True)
    assert trio.run(runtime.cancel, WHO) == (1, 1), "the first request left the student out, provisionally"


def test_a_list_of_what_is_to_be_withdrawn_that_is_lost_or_damaged_stops_the_daemon(runtime: Any) -> None:
    trio.run(runtime.put_off, FAR, False, [WHO])
    path = runtime.home.scheduled
    kept = path.read_bytes()
    for damage in (kept[:-9], kept.replace(b'"at"', b'"to"'), b'{"over": -1, "requests": []}'):
        path.write_bytes(damage)
        with pytest.raises(CorruptError, match="damaged"):
            again(runtime)
    path.unlink()
    with pytest.raises(CorruptError, match="lost or old"):
        again(runtime)
