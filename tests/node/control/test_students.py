"""The control API about students: left out, withdrawn now or at a time, at the price that was asked about."""

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from collegium.consensus.ledger import Withdrawn
from collegium.consensus.withdrawal import MAX_AT_A_HEIGHT
from collegium.crypto.errors import RefusedError
from collegium.node.core.events import RequestWithdrawal, SetPaused
from collegium.node.unlearning.requests import check_own
from collegium.node.unlearning.students import Seen
from collegium.protocol.records import MAX_UPDATES

from .test_app import call

if TYPE_CHECKING:
    from .conftest import FakeDaemon

REMOVE = {"subjects": ["s-17"], "pause": False, "at_most": -1}


def test_a_student_is_left_out_and_what_saw_them_withdrawn(daemon: "FakeDaemon") -> None:
    component = next(iter(daemon.core.ledger.components.values()))
    mine = [e.update for r in component.rounds for e in r.entries if e.author == daemon.core.me]
    # The last one never entered the ledger, and whom the first one saw is not written down.
    daemon.seen = Seen(frozenset((*mine, bytes(32))), frozenset((mine[0], bytes(32))), in_data=False)
    look = call(daemon, "POST", "/unlearn/look", json={"subjects": ["s-17"]}).json()
    assert (look["would_withdraw"], look["of_unknown_students"], look["own_updates"]) == (len(mine), 1, len(mine))
    assert (look["in_data"], look["drawn"], look["left_out"]) == (False, False, False)
    assert (daemon.excluded, daemon.submitted) == ([], []), "to look changes nothing"
    answer = call(daemon, "POST", "/unlearn/students", json=REMOVE)
    assert (answer.status_code, answer.json()["withdrawn_updates"]) == (202, len(mine))
    assert (answer.json()["of_unknown_students"], answer.json()["in_data"]) == (1, False)
    assert answer.json()["updates"] == sorted(update.hex() for update in (*mine, bytes(32)))
    assert daemon.excluded == ["s-17"]
    assert daemon.submitted == [RequestWithdrawal("updates", updates=tuple(sorted(mine)))]
    assert b"s-17" not in answer.content
    assert answer.json()["under_former_keys"] == {}
    for wrong in ("", "x" * 1025):
        assert (
            call(daemon, "POST", "/unlearn/students", json=REMOVE | {"subjects": ["s-18", wrong]}).json()["exit_code"]
            == 2
        )
    assert daemon.excluded == ["s-17"]


def test_a_withdrawal_is_put_off_with_others_and_taken_back(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    component = next(iter(daemon.core.ledger.components.values()))
    mine = [e.update for r in component.rounds for e in r.entries if e.author == daemon.core.me]
    first = min(r.number for r in component.rounds for e in r.entries if e.author == daemon.core.me)
    wait = daemon.charter.rules.refold_horizon * 9 // 10 - 1 - (component.round - first)
    daemon.seen = Seen(frozenset(mine), frozenset(), in_data=True, to_come=(7,))
    assert call(daemon, "POST", "/unlearn/look", json={"subjects": ["s-17"]}).json()["scheduled"] == [7]
    at = 2_000_000_000
    for others, name in enumerate(("s-17", "s-18")):
        body = {"students": [[name, name.upper()]], "at": at, "pause": name == "s-18", "at_most": -1}
        answer = call(daemon, "POST", "/unlearn/schedule", json=body)
        assert (answer.status_code, answer.json()["will_withdraw"]) == (202, len(mine))
        assert (answer.json()["with_others"], answer.json()["rounds_left"]) == (others, wait)
    assert (daemon.excluded, daemon.submitted) == (["s-17", "S-17", "s-18", "S-18"], []), "out now, withdrawn later"
    (batch,) = call(daemon, "GET", "/unlearn").json()["scheduled"]
    assert (batch["at"], batch["students"], batch["updates"]) == ("2033-05-18T03:33:20.000Z", 2, len(mine))
    assert batch["pauses"]
    (found,) = [f for f in call(daemon, "GET", "/status").json()["findings"] if f["kind"] == "withdrawal-scheduled"]
    assert (found["level"], "2 students are left out, and" in found["found"]) == ("info", True)
    wrongs: list[dict[str, object]] = [
        {"at": 0},
        {"at": 2**60},
        {"students": [[""]]},
        {"students": []},
        {"students": ["s-17"]},
    ]
    for wrong in wrongs:
        body = {"students": [["s-17"]], "at": at, "pause": False, "at_most": -1, **wrong}
        assert call(daemon, "POST", "/unlearn/schedule", json=body).json()["exit_code"] == 2
    by_others = Withdrawn(daemon.core.me, 9, "refold", 9, daemon.core.me, scope="updates", updates=tuple(mine[:1]))
    monkeypatch.setattr(daemon.core, "ledger", replace(daemon.core.ledger, withdrawn=(by_others,)))
    (batch,) = call(daemon, "GET", "/unlearn").json()["scheduled"]
    assert batch["updates"] == len(mine) - 1, "what another batch withdrew is not to come"
    by_others = replace(by_others, updates=tuple(mine))
    monkeypatch.setattr(daemon.core, "ledger", replace(daemon.core.ledger, withdrawn=(by_others,)))
    (found,) = [f for f in call(daemon, "GET", "/status").json()["findings"] if f["kind"] == "withdrawal-scheduled"]
    assert "no update is to be withdrawn for them" in found["found"]
    answer = call(daemon, "POST", "/unlearn/cancel", json={"subjects": ["s-17", "s-18"]})
    assert answer.json() == {"cancelled": 2, "readmitted": 2}


def test_nothing_is_withdrawn_at_a_higher_price_than_was_asked_about(daemon: "FakeDaemon") -> None:
    component = next(iter(daemon.core.ledger.components.values()))
    mine = [e.update for r in component.rounds for e in r.entries if e.author == daemon.core.me]
    daemon.seen = Seen(frozenset(mine), frozenset(), in_data=True)
    now = {"subjects": ["s-17"], "pause": True}
    later = {"students": [["s-17"]], "at": 2_000_000_000, "pause": True}
    for path, body in (("/unlearn/students", now), ("/unlearn/schedule", later)):
        refused = call(daemon, "POST", path, json={**body, "at_most": len(mine) - 1})
        assert (refused.status_code, refused.json()["exit_code"]) == (409, 5)
        assert f"{len(mine)} updates would be withdrawn now, {len(mine) - 1} when it was asked" in refused.text
    assert (daemon.excluded, daemon.submitted, daemon.scheduled) == ([], [], ()), "nothing was done"
    for path, body in (("/unlearn/schedule", later), ("/unlearn/students", now)):
        assert call(daemon, "POST", path, json={**body, "at_most": len(mine)}).status_code == 202
    paused, withdrawn = daemon.submitted
    assert paused == SetPaused(True), "before anything else is trained"
    assert isinstance(withdrawn, RequestWithdrawal)


def test_updates_beyond_the_refold_horizon_are_told_and_not_withdrawn(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    """design.md section 9: the last `refold_horizon` closed rounds are refolded, and no more."""
    component = next(iter(daemon.core.ledger.components.values()))
    mine = {r.number: e.update for r in component.rounds for e in r.entries if e.author == daemon.core.me}
    assert {component.round - 1, component.round} <= mine.keys()
    rules = replace(daemon.charter.rules, refold_horizon=1)
    other = replace(daemon.core.ledger, charter=replace(daemon.charter, rules=rules))
    monkeypatch.setattr(daemon.core, "ledger", other)
    daemon.seen = Seen(frozenset(mine.values()), frozenset(), in_data=True)
    answer = call(daemon, "POST", "/unlearn/students", json=REMOVE).json()
    assert (answer["withdrawn_updates"], answer["beyond_refold_horizon"]) == (1, len(mine) - 1)
    assert daemon.submitted == [RequestWithdrawal("updates", updates=(mine[component.round],))]
    assert check_own(daemon.core, RequestWithdrawal("updates", updates=(mine[component.round],)))
    with pytest.raises(RefusedError, match="nothing to withdraw"):
        check_own(daemon.core, RequestWithdrawal("updates", updates=(mine[component.round - 1],)))


def test_what_is_withdrawn_is_settled_when_it_counts_nowhere(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = daemon.core.ledger
    name, component = next(iter(ledger.components.items()))
    mine = [e.update.hex() for r in component.rounds for e in r.entries if e.author == daemon.core.me]

    def settled(*updates: str) -> Any:
        return call(daemon, "POST", "/unlearn/settled", json={"updates": list(updates)}).json()

    assert settled() == {"left": 0, "certified": True}
    assert settled(*mine, "00" * 32)["left"] == len(mine)
    refolded = replace(component, generation=1, rounds=())
    monkeypatch.setattr(daemon.core, "ledger", replace(ledger, components={**ledger.components, name: refolded}))
    assert settled(*mine) == {"left": 0, "certified": False}
    assert settled() == {"left": 0, "certified": True}, "nothing of this student's is refolded"
    headers = [SimpleNamespace(digest=bytes.fromhex(u), value=SimpleNamespace(component="head/task1")) for u in mine]
    with monkeypatch.context() as patch:
        patch.setattr(daemon.store, "headers", lambda: headers)
        assert settled(*mine) == {"left": 0, "certified": True}, "another component's refold is not waited for"
    monkeypatch.setattr(daemon.core, "in_flight", {bytes.fromhex(mine[0]): None})
    assert settled(*mine)["left"] == 1, "it may yet come to count"


def test_what_a_former_key_sent_is_told_and_not_withdrawn_in_vain(daemon: "FakeDaemon") -> None:
    """A statement under the key in use would not reach it."""
    component = next(iter(daemon.core.ledger.components.values()))
    entries = [e for r in component.rounds for e in r.entries]
    mine = {e.update for e in entries if e.author == daemon.core.me}
    old = next(e.author for e in entries if e.author != daemon.core.me)
    under_old = {e.update for e in entries if e.author == old}
    daemon.seen = Seen(frozenset(mine | under_old), frozenset(), in_data=True)
    answer = call(daemon, "POST", "/unlearn/students", json=REMOVE).json()
    assert answer["under_former_keys"] == {old.hex(): len(under_old)}
    assert (answer["withdrawn_updates"], answer["updates"]) == (len(mine), sorted(header.hex() for header in mine))
    assert daemon.submitted == [RequestWithdrawal("updates", updates=tuple(sorted(mine)))]


def test_no_more_is_withdrawn_at_a_time_than_a_height_takes(
    daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch
) -> None:
    most = MAX_AT_A_HEIGHT // 2 * MAX_UPDATES
    value = SimpleNamespace(author=daemon.core.me)
    waiting = {n.to_bytes(32): SimpleNamespace(header=SimpleNamespace(value=value)) for n in range(most + 70)}
    monkeypatch.setattr(daemon.core, "in_flight", waiting)
    daemon.seen = Seen(frozenset(waiting), frozenset(), in_data=True)
    answer = call(daemon, "POST", "/unlearn/students", json=REMOVE).json()
    assert (answer["withdrawn_updates"], answer["remaining"], len(answer["updates"])) == (most, 70, most)
    assert len(daemon.submitted) == MAX_AT_A_HEIGHT // 2, "each may give rounds up with a statement of its own"
    for update in answer["updates"]:
        del waiting[bytes.fromhex(update)]
    answer = call(daemon, "POST", "/unlearn/students", json=REMOVE).json()
    assert (answer["withdrawn_updates"], answer["remaining"]) == (70, 0)
