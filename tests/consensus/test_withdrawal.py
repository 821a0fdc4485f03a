"""Withdrawals by scope, by motion and by rewind: what leaves the lists, what may not come back, what survives (G7)."""

from dataclasses import replace
from typing import Any

import pytest

from collegium.consensus.fold import apply_records
from collegium.consensus.ledger import ComponentLedger
from collegium.consensus.summary import state_digest
from collegium.consensus.withdrawal import MAX_AT_A_HEIGHT, check_terms, linked
from collegium.crypto.errors import RemoteProtocolError
from collegium.protocol import schema
from collegium.protocol.amendment import Amendment, Changes, amended
from collegium.protocol.membership import Ballot, Motion
from collegium.protocol.records import Idle, Offer
from collegium.sims.paper.sequences import A, B, House, sequence_holds


@pytest.fixture
def house() -> House:
    made = House()
    for _ in range(3):
        made.round(A, B)
    return made


ALL, BUT_0 = [0, 1, 2, 3, 4], [1, 2, 3, 4]


def test_g7_a_component_is_withdrawn_and_the_others_stay(house: House) -> None:
    me = house.ids[0]
    assert not house.withdraw(me, "components", components=(A,))
    assert house.counted(A) == [BUT_0] * 3
    assert house.counted(B) == [ALL] * 3
    assert (house.ledger.components[A].generation, house.ledger.components[B].generation) == (1, 0)
    assert [len(e.blobs) for e in house.ledger.components[A].erasures] == [3]
    assert house.withdraw(me, "components", components=(A,)) == {"withdrawn-already"}
    # It goes on: not in the round that was under way, but from the next on.
    assert house.say((me, house.update(me, A, 4))) == {"withdrawn"}
    house.round(A, who=house.ids[1:])
    house.round(A)
    assert house.counted(A)[3:] == [BUT_0, ALL]


def test_g7_rounds_are_withdrawn(house: House) -> None:
    me = house.ids[0]
    assert not house.withdraw(me, "rounds", components=(A,), first=2, last=3)
    assert house.counted(A) == [ALL, BUT_0, BUT_0]
    house.round(A)
    assert house.counted(A)[3] == ALL, "round 4 is none of these"


def test_g7_single_updates_are_withdrawn_again_and_again(house: House) -> None:
    me = house.ids[0]
    for number in (3, 1):
        update = house.entry(me, B, number).update
        assert not house.withdraw(me, "updates", updates=(update,))
        assert house.withdraw(me, "updates", updates=(update,)) == {"withdrawn-already"}
    assert house.counted(B) == [BUT_0, ALL, BUT_0]
    assert house.ledger.components[B].generation == 2
    foreign = house.entry(house.ids[1], B, 2).update
    assert house.withdraw(me, "updates", updates=(foreign,)) == {"withdrawn-already"}, "another member's"
    assert house.counted(B)[1] == ALL


def test_g7_what_no_round_counted_waits_for_no_certificate(house: House) -> None:
    """No state held it; if no round closes any more, none would ever be certified without it."""
    me = house.ids[0]
    update = house.update(me, A, 4)
    house.say((me, update))
    (pending,) = house.ledger.components[A].pending
    assert not house.withdraw(me, "updates", updates=(pending.update,))
    component = house.ledger.components[A]
    assert (component.pending, component.erasures, component.generation) == ((), (), 0)
    assert house.say((me, update)) == {"withdrawn"}


def test_a_round_that_too_few_can_send_for_is_skipped(house: House) -> None:
    """Of 5 hosts a round needs 2 updates. The fifth one's update for the skipped round is late, and counts."""
    open_ = {"components": (A,), "first": 4, "last": 4}
    for who in house.ids[:3]:
        assert not house.withdraw(who, "rounds", **open_), "no block has what it takes back"
        assert house.withdraw(who, "rounds", **open_) == {"withdrawn-already"}
        assert house.say((who, house.update(who, A, 4))) == {"withdrawn"}
    assert house.ledger.components[A].round == 3, "two can still send"
    last = house.ids[4]
    assert not house.say((last, house.update(last, A, 4)))
    assert not house.withdraw(house.ids[3], "rounds", **open_)
    component = house.ledger.components[A]
    assert (component.round, component.generation, house.counted(A)[3]) == (4, 0, [])
    assert [p.author for p in component.pending] == [last.public_key]
    assert house.ledger.components[B].round == 3, "it is not named"
    assert not house.round(A, who=house.ids[:4])
    assert house.counted(A)[4] == ALL
    assert [e.staleness for e in house.ledger.components[A].rounds[4].entries] == [0, 0, 0, 0, 1]


def test_a_skipped_round_keeps_no_update_that_is_too_late_for_the_next_one(house: House) -> None:
    """As a round that closes: an update counts `max_staleness` rounds after its own, and is not kept for longer."""
    latest = house.charter.rules.max_staleness
    last = house.ids[4]
    assert not house.say((last, house.update(last, A, 4)))
    for skips in range(latest + 1):
        component = house.ledger.components[A]
        assert (component.round, len(component.pending)) == (3 + skips, 1)
        open_ = {"components": (A,), "first": 4 + skips, "last": 4 + skips}
        assert not any(house.withdraw(who, "rounds", **open_) for who in house.ids[:4])
    component = house.ledger.components[A]
    assert (component.round, component.pending) == (4 + latest, ())


def test_a_round_is_not_skipped_for_those_who_do_not_train(house: House) -> None:
    """Four say that they do not train. With the fifth, which took its update back, too few would be left again."""
    idle = (Idle(A, "plan-done"), Idle(B, "plan-done"))
    house.say(*((who, Offer((A, B), (), idle)) for who in house.ids[:4]))
    assert not house.withdraw(house.ids[4], "rounds", components=(A,), first=4, last=4)
    assert house.ledger.components[A].round == 3


def test_no_round_of_a_retired_component_is_skipped(house: House) -> None:
    """Its rounds are over: what is given up opens no other one."""
    house.ledger = replace(house.ledger, charter=amended(house.charter, retiring(house)))
    for who in house.ids[:4]:
        assert not house.withdraw(who, "rounds", components=(A,), first=4, last=4)
    assert house.ledger.components[A].round == 3


def retiring(house: House) -> bytes:
    """The first amendment: it retires a component."""
    return schema.dump(Amendment(house.charter.federation, 1, Changes(retire=(A,))))


def test_g7_overlapping_withdrawals_in_one_block_are_one_generation(house: House) -> None:
    me, other = house.ids[:2]
    bodies = (
        (me, house.statement(me, "rounds", components=(A,), first=1, last=2)),
        (me, house.statement(me, "components", components=(A,))),
        (other, house.statement(other)),
    )
    assert not house.say(*bodies)
    assert house.counted(A) == [[2, 3, 4]] * 3
    assert (house.ledger.components[A].generation, house.ledger.components[B].generation) == (1, 1)
    assert not house.withdraw(me), "what it has in B is in force still"
    assert house.counted(B) == [[2, 3, 4]] * 3
    assert (house.ledger.components[A].generation, house.ledger.components[B].generation) == (1, 2)


@pytest.mark.parametrize(
    ("scope", "more"),
    [
        ("some", {}),
        ("all", {"components": (A,)}),
        ("all", {"first": 1, "last": 1}),
        ("components", {}),
        ("components", {"components": (B, A)}),
        ("components", {"components": (A, A)}),
        ("components", {"components": (A,), "updates": (bytes(32),)}),
        ("rounds", {"components": (A,)}),
        ("rounds", {"components": (A,), "first": 3, "last": 2}),
        ("rounds", {"first": 1, "last": 2}),
        ("updates", {}),
        ("updates", {"updates": (b"b" * 32, b"a" * 32)}),
    ],
)
def test_a_withdrawal_says_one_thing(house: House, scope: str, more: dict[str, Any]) -> None:
    before = house.counted(A)
    assert house.withdraw(house.ids[0], scope, **more) == {"unknown-withdrawal"}
    assert house.counted(A) == before
    assert house.ledger.withdrawn == ()


def test_an_unknown_component_and_a_rewind_of_ones_own_are_refused(house: House) -> None:
    me = house.ids[0]
    assert house.withdraw(me, "components", components=("head/none",)) == {"unknown-component"}
    assert house.withdraw(me, mode="rewind") == {"unknown-withdrawal"}
    with pytest.raises(RemoteProtocolError, match="unknown-withdrawal"):
        check_terms(house.terms(me, mode="erase"))
    assert house.ledger.withdrawn == ()


def test_the_scope_is_part_of_the_state(house: House) -> None:
    """G1: what bars later updates is under the ledger's digest."""
    me = house.ids[0]
    house.withdraw(me, "updates", updates=(house.entry(me, A, 1).update,))
    (withdrawal,) = house.ledger.withdrawn
    parts: list[dict[str, object]] = [
        {"scope": "all"},
        {"updates": ()},
        {"components": (A,)},
        {"first": 1},
        {"last": 1},
        {"since": ()},
        {"rounds": ()},
        {"mode": "rewind"},
        {"through": 1},
        {"motion": bytes(32)},
    ]
    changed = [replace(house.ledger, withdrawn=(replace(withdrawal, **part),)) for part in parts]  # type: ignore[arg-type]
    assert len({state_digest(ledger) for ledger in (house.ledger, *changed)}) == len(parts) + 1


# ---- by motion


def test_g7_members_withdraw_what_another_one_contributed(house: House) -> None:
    owner, *others = house.ids
    assert not house.propose(others[0], owner, "refold", "rounds", components=(A,), first=1, last=1)
    assert house.counted(A) == [ALL] * 3, "one vote decides nothing"
    assert house.vote(owner) == {"no-vote"}
    house.vote(*others[1:3])
    assert house.outcome().result == "passed"
    assert house.counted(A) == [BUT_0, ALL, ALL]
    (withdrawal,) = house.ledger.withdrawn
    assert (withdrawal.author, withdrawal.motion) == (owner.public_key, house.outcome().motion.digest)


def test_what_is_not_in_force_cannot_be_proposed_and_a_motion_overtaken_is_void(house: House) -> None:
    owner, *others = house.ids
    assert house.propose(others[0], owner, "refold", "rounds", components=(A,), first=7, last=9) == {
        "withdrawn-already"
    }
    assert not house.propose(others[0], owner, "refold")
    house.withdraw(owner)
    house.vote(*others[1:3])
    assert (house.outcome().result, house.outcome().why) == ("void", "withdrawn-already")
    assert house.ledger.components[A].generation == 1


def test_a_motions_terms_are_its_own(house: House) -> None:
    owner, other, third = house.ids[:3]
    terms = schema.dump(house.terms(owner))
    cases = {
        "key-mismatch": Motion("withdraw", third.public_key, terms, "", 100),
        "unknown-withdrawal": Motion("rewind", owner.public_key, terms, "", 100),
        "statement": Motion("withdraw", owner.public_key, b"", "", 100),
    }
    for reason, motion in cases.items():
        assert house.say((other, motion)) == {reason}, reason
    assert house.ledger.roll.motions == ()


def test_g7_no_withdrawal_is_ever_forgotten() -> None:
    """What is barred stays barred, however much its owner withdraws after it: its bytes are gone everywhere."""
    house = House()
    for _ in range(20):
        house.round(A)
    owner, *others = house.ids
    last = house.ledger.components[A].round
    update = house.update(owner, A, last + 1)
    house.say((owner, update))
    house.propose(others[0], owner, "refold", "rounds", components=(A,), first=last, last=last + 1)
    house.vote(*others[1:3])
    assert [p.author for p in house.ledger.components[A].pending] == []
    for number in range(1, last):
        assert not house.withdraw(owner, "updates", updates=(house.entry(owner, A, number).update,))
    assert len(house.ledger.withdrawn) == last
    assert house.say((owner, update)) == {"withdrawn"}, "with its old acknowledgements"
    assert house.counted(A) == [BUT_0] * last


def test_g9_a_member_withdraws_so_often_at_one_height(house: House) -> None:
    """Each is held against every list: a flood of void ones would stop the others."""
    me = house.ids[0]
    bodies = [(me, house.statement(me, "rounds", components=(A,), first=99, last=99)) for _ in range(MAX_AT_A_HEIGHT)]
    assert house.say(*bodies, (me, house.statement(me))) == {"withdrawn-already", "quota-withdrawals"}
    assert house.counted(A) == [ALL] * 3
    assert not house.withdraw(me), "at the next height it can"


def test_a_motion_reaches_no_further_than_its_subject_has_said(house: House) -> None:
    owner, other = house.ids[:2]
    assert house.propose(other, owner, "refold", through=house.heads[owner.public_key][0] + 1) == {"through-ahead"}
    assert not house.propose(other, owner, "refold")


def test_g7_a_rewind_reaches_no_further_than_each_components_own_horizon() -> None:
    """Bytes that are older may be gone, however rarely the other component closes."""
    house = House(horizon=5)
    house.round(A)
    for _ in range(12):
        house.round(B)
    owner, *others = house.ids
    house.propose(others[0], owner, "rewind", "components", components=(A,))
    house.vote(*others[1:])
    assert house.counted(A) == [[], []]
    assert house.counted(B) == [*[ALL] * 7, *[[]] * 6]


# ---- rewind


def test_g7_a_rewind_goes_back_to_before_the_first_update_everywhere(house: House) -> None:
    owner, *others = house.ids
    first = house.entry(owner, A, 2)
    assert not house.propose(others[0], owner, "rewind", "updates", updates=(first.update,))
    house.vote(*others[1:])
    assert house.outcome().result == "passed"
    # A: round 2, which counted it, and what followed. B: its round 2 closed in the same block, and was trained before.
    assert house.counted(A) == [ALL, [], [], []]
    assert house.counted(B) == [ALL, ALL, [], []]
    assert [house.ledger.components[name].generation for name in (A, B)] == [1, 1]
    (withdrawal,) = house.ledger.withdrawn
    assert (withdrawal.mode, dict(withdrawal.since), dict(withdrawal.rounds)) == ("rewind", {A: 2, B: 3}, {A: 3, B: 3})
    erased = {blob for e in house.ledger.components[A].erasures for blob in e.blobs}
    assert len(erased) == 10, "everybody's: they learned from it"
    # In flight for the round that was under way: void, whoever made it, and whatever generation it says.
    for generation in (0, 1):
        assert house.say((others[1], house.update(others[1], A, 4, generation))) == {"withdrawn"}
    house.round(A, B)
    assert house.counted(A)[-1] == ALL, "the owner too: that update alone was withdrawn"


def test_everybody_votes_on_a_rewind_and_nobody_alone(house: House) -> None:
    owner, *others = house.ids
    assert not house.propose(owner, owner, "rewind")
    assert house.counted(A) == [ALL] * 3, "everybody's ε pays for it"
    house.vote(*others[:2])
    assert house.ledger.roll.motions, "three of five are no quorum"
    house.vote(others[2])
    assert house.outcome().result == "passed"
    assert house.counted(A) == [[], [], [], []] == house.counted(B)


def test_a_rewind_and_a_withdrawal_in_one_block(house: House) -> None:
    owner, other, *rest = house.ids
    house.propose(other, owner, "rewind", "rounds", components=(B,), first=3, last=3)
    (motion,) = house.ledger.roll.motions
    ballots = [(i, Ballot(motion.digest, 1)) for i in rest]
    assert not house.say(*ballots, (other, house.statement(other)))
    assert house.counted(B) == [[0, 2, 3, 4], [0, 2, 3, 4], [], []]
    assert house.counted(A) == [[0, 2, 3, 4]] * 3 + [[]]
    assert [house.ledger.components[name].generation for name in (A, B)] == [1, 1]


SUM = "statistic/task0"


@pytest.mark.parametrize(
    ("scope", "more", "own"),
    [
        ("all", {}, True),
        ("components", {"components": (A,)}, False),
        ("components", {"components": (A, SUM)}, True),
        ("rounds", {"components": (A, SUM), "first": 1, "last": 9}, True),
        ("rounds", {"components": (A, SUM), "first": 2, "last": 9}, False),
    ],
)
def test_g7_of_a_statistic_a_rewind_takes_the_subjects_own(scope: str, more: dict[str, Any], own: bool) -> None:
    """Nobody's sum learned from another's: what the others gave stays, and only the subject may give again."""
    house = House(statistics=1)
    house.round(A, B, SUM)
    house.round(A, B)
    owner, *others = house.ids
    assert not house.propose(others[0], owner, "rewind", scope, **more)
    house.vote(*others[1:])
    assert house.counted(A)[-1] == house.counted(B)[-1] == []
    assert house.counted(SUM) == [BUT_0 if own else ALL], "and no empty round is put after it"
    assert house.ledger.components[SUM].generation == int(own)
    assert [(w.mode, w.components == (SUM,)) for w in house.ledger.withdrawn] == [("rewind", False), ("refold", True)][
        : 1 + own
    ], "the subject's sums alone, in a withdrawal of their own"
    erased = {blob for e in house.ledger.components[SUM].erasures for blob in e.blobs}
    assert len(erased) == int(own)
    assert house.say((others[0], house.update(others[0], SUM, 2))) == {"counted-already"}
    refused = house.say((owner, house.update(owner, SUM, 2)), (owner, house.update(owner, SUM, 3)))
    assert refused == ({"withdrawn"} if own else {"counted-already"}), "the round after those that it reached is void"
    assert bool(house.ledger.components[SUM].pending) is own


def test_g7_a_rewind_names_a_single_sum(house: House) -> None:
    """Of an update of a statistic nobody else's rounds go back."""
    house = House(statistics=1)
    house.round(A, SUM)
    owner, *others = house.ids
    house.propose(others[0], owner, "rewind", "updates", updates=(house.entry(owner, SUM, 1).update,))
    house.vote(*others[1:])
    assert house.counted(SUM) == [BUT_0]
    assert house.counted(A) == [ALL]


def test_g7_a_rewind_of_updates_takes_the_sum_among_them_out(house: House) -> None:
    """One motion names an update of a head and one of a statistic: rounds of the one go back, the other's part goes."""
    house = House(statistics=1)
    house.round(A, B, SUM)
    house.round(A, B)
    owner, *others = house.ids
    named = tuple(sorted((house.entry(owner, A, 2).update, house.entry(owner, SUM, 1).update)))
    house.propose(others[0], owner, "rewind", "updates", updates=named)
    house.vote(*others[1:])
    assert house.counted(A) == [ALL, [], []]
    assert house.counted(SUM) == [BUT_0]
    assert [w.mode for w in house.ledger.withdrawn] == ["rewind", "refold"]


def test_beyond_the_horizon_nothing_is_rewound() -> None:
    house = House(horizon=2)
    for _ in range(4):
        house.round(A, B)
    owner, *others = house.ids
    house.propose(others[0], owner, "rewind")
    house.vote(*others[1:])
    assert house.counted(A) == [ALL, ALL, [], [], []]


def test_what_shares_a_modality_is_linked_by_way_of_others(house: House) -> None:
    learning = house.charter.learning
    names, kind, task = ("a", "b", "c", "d"), learning.modalities[0], learning.tasks[0]
    floors = tuple(replace(learning.floors[0], modality=name) for name in names)
    pairs = {"task0": ("a", "b"), "task1": ("b", "c"), "task2": ("d",)}
    tasks = tuple(replace(task, name=name, modalities=read) for name, read in pairs.items())
    modalities = tuple(replace(kind, name=name) for name in names)
    spec = house.charter.components[0]
    charter = replace(
        house.charter,
        learning=replace(learning, modalities=modalities, tasks=tasks, floors=floors),
        components=tuple(replace(spec, name=f"head/{name}") for name in pairs),
    )
    assert linked(charter, [A]) == {A, B}
    assert linked(charter, ["head/task2"]) == {"head/task2"}


# ---- G7 as a property


def test_g7_fifty_random_sequences_end_as_the_fold_of_the_survivors() -> None:
    """Rounds, withdrawals of every scope, motions and returns: the state is the rule on what nobody withdrew."""
    for seed in range(50):
        assert sequence_holds(seed), seed


def test_apply_records_alone_leaves_the_ledger_before_untouched(house: House) -> None:
    me, before = house.ids[0], house.ledger
    kept = {name: c.rounds for name, c in before.components.items()}
    after = apply_records(before, [house.record(me, house.statement(me))])
    assert isinstance(after.components[A], ComponentLedger)
    assert {name: c.rounds for name, c in before.components.items()} == kept
    assert after.components[A].rounds != kept[A]
