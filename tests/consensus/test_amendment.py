"""G10: the charter in force is the founding one with what a quorum passed, for the rounds after that and no other."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from collegium.consensus.components import fold_round, origin
from collegium.consensus.fold import fold_block, next_state
from collegium.consensus.ledger import genesis
from collegium.consensus.rounds import closable
from collegium.consensus.summary import Summary, state_digest, summary
from collegium.consensus.withdrawal import placed
from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.amendment import (
    AMENDMENT_LIMIT,
    Amendment,
    Changes,
    Closing,
    Limits,
    Opening,
    Recipe,
    amended,
    read,
)
from collegium.protocol.blocks import Close
from collegium.protocol.charter import Charter
from collegium.protocol.components import ComponentSpec, TensorSpec, base_digest, base_vector
from collegium.protocol.learning import Modality, PrivacyFloor, Task
from collegium.protocol.membership import Ballot, Motion
from collegium.protocol.records import GENESIS, Offer, WithdrawalStatement
from collegium.sims.paper.paper_federation import PaperFederation
from collegium.sims.scenarios.amending import KINDS, statement

T = "head/task0"


class House(PaperFederation):
    """A federation on paper whose members amend."""

    def offer(self) -> None:
        self.decide(self.record(who, Offer(tuple(self.ledger.charter.specs), ())) for who in self.ids)

    def motion(self, changes: Changes, number: int = 0, federation: bytes = b"") -> Motion:
        charter = self.ledger.charter
        said = Amendment(federation or charter.federation, number or charter.number + 1, changes)
        return Motion("amend", charter.federation, schema.dump(said), "", self.ledger.height + 50)

    def amend(self, changes: Changes, voters: int = 3, closes: tuple[Close, ...] = ()) -> None:
        """A member proposes it, and so many vote for it, in the next block."""
        self.decide([self.record(self.ids[0], self.motion(changes))])
        opened = self.ledger.roll.motions[-1].digest
        self.decide([self.record(who, Ballot(opened, 1)) for who in self.ids[1:voters]], closes)

    def close(self, number: int, who: int = 4) -> None:
        self.decide([self.update(one, T, number) for one in self.ids[:who]], [Close(T, number)])

    def refused(self) -> set[str]:
        return {refusal.reason for refusal in self.ledger.refusals}


@pytest.fixture
def house() -> House:
    made = House()
    made.offer()
    return made


def recipe(charter: Charter, **changed: int) -> Changes:
    has = charter.learning
    now = Recipe(has.steps, has.sample_rate, has.recovery_share, has.planned_rounds, has.min_students)
    return Changes(recipe=(replace(now, **changed),))


def limits(charter: Charter, **changed: int) -> Changes:
    now = Limits(**{name: getattr(charter.rules, name) for name in Limits.__slots__})
    return Changes(limits=(replace(now, **changed),))


def head(charter: Charter, name: str, bound: int = 1000, rule: str = "mean") -> ComponentSpec:
    tensors = (TensorSpec("weight", (8,), bound),)
    base = base_digest(base_vector(charter.seed, name, tensors))
    return replace(charter.specs[T], name=name, tensors=tensors, base=base, rule=rule)


def test_an_amendment_is_in_force_from_the_block_after_a_quorum_passed_it(house: House) -> None:
    """The block that passes it still closes by the older charter, and nothing is in force without a quorum."""
    house.close(1)
    before = house.ledger.charter
    updates = [house.update(one, T, 2) for one in house.ids[:2]]
    house.decide(updates)
    house.amend(KINDS["all of them"](before), voters=2)
    assert house.ledger.charter is before
    opened = house.ledger.roll.motions[-1].digest
    house.decide([house.record(house.ids[2], Ballot(opened, 1))], [Close(T, 2)])  # two updates are enough, here
    assert house.ledger.components[T].round == 2
    assert house.ledger.charter.number == 1
    assert house.ledger.charter.specs[T].min_updates == 4
    house.decide([house.update(one, T, 3) for one in house.ids[:3]])
    assert not closable(house.ledger.charter, house.ledger, T)
    house.decide([house.update(house.ids[3], T, 3)], [Close(T, 3)])
    assert house.ledger.components[T].round == 3


def test_whoever_starts_from_the_founding_charter_reaches_the_same_one(house: House) -> None:
    blocks = []
    fresh = House()
    blocks.append(fresh.decide(fresh.record(who, Offer(tuple(fresh.names), ())) for who in fresh.ids))
    for what in ("a voice", "median", "fewer steps"):
        motion = fresh.motion(KINDS[what](fresh.ledger.charter))
        blocks.append(fresh.decide([fresh.record(fresh.ids[0], motion)]))
        opened = fresh.ledger.roll.motions[-1].digest
        blocks.append(fresh.decide([fresh.record(who, Ballot(opened, 1)) for who in fresh.ids[1:3]]))
    ledger = genesis(fresh.charter)
    for stored in blocks:
        ledger = fold_block(ledger, stored.block, stored.records)
    assert ledger == fresh.ledger
    assert ledger.charter.digest == fresh.ledger.charter.digest != fresh.charter.digest
    assert (ledger.charter.federation, ledger.charter.number) == (fresh.charter.federation, 3)


def test_the_header_commits_to_the_charter_in_force(house: House) -> None:
    """Through the digest of the ledger's state; its bytes are in the summary, so an outsider has the charter too."""
    house.amend(KINDS["a voice"](house.charter))
    other = replace(house.ledger, charter=amended(house.charter, statement(house.charter, "fewer steps")))
    assert state_digest(other) != state_digest(house.ledger)
    told = Summary.read(summary(house.ledger), 1 << 20)
    assert read(told.charter, house.charter) == house.ledger.charter
    with pytest.raises(RemoteProtocolError, match="wrong-federation"):
        read(told.charter, replace(house.charter, created=7))
    assert Summary.read(summary(genesis(house.charter)), 1 << 20).charter == b""


def test_of_two_at_once_one_passes_and_the_other_is_void(house: House) -> None:
    one, other = (house.motion(KINDS[what](house.charter)) for what in ("a voice", "fewer steps"))
    house.decide([house.record(house.ids[0], one), house.record(house.ids[1], other)])
    first, second = (motion.digest for motion in house.ledger.roll.motions)
    house.decide([house.record(who, Ballot(name, 1)) for who in house.ids[2:] for name in (first, second)])
    outcomes = {o.motion.digest: (o.result, o.why) for o in house.ledger.roll.outcomes}
    assert outcomes == {first: ("passed", ""), second: ("void", "amendment-number")}
    assert house.ledger.charter.number == 1


def test_an_update_in_flight_is_judged_by_the_charter_at_its_close(house: House) -> None:
    """Those of 4 steps are void when 2 are allowed, and a round that counts nothing lets their authors go on."""
    house.decide([house.update(one, T, 1) for one in house.ids])
    assert len(house.ledger.components[T].pending) == 4
    house.amend(recipe(house.charter, steps=2))
    c = house.ledger.components[T]
    assert (c.pending, c.round, c.rounds[-1].entries) == ((), 1, ())
    house.decide([house.update(house.ids[0], T, 2)])
    assert house.refused() == {"steps-above"}


def test_a_wider_recipe_voids_nothing(house: House) -> None:
    house.decide([house.update(one, T, 1) for one in house.ids])
    house.amend(recipe(house.charter, steps=8), closes=(Close(T, 1),))
    assert len(house.ledger.components[T].rounds[0].entries) == 4


def test_a_retired_component_has_no_round_and_can_be_withdrawn_from() -> None:
    house = House(components=2)
    house.offer()
    house.close(1)
    house.decide([house.update(one, T, 2) for one in house.ids])
    house.amend(Changes(retire=(T,)))
    c = house.ledger.components[T]
    assert c.pending == ()
    assert c.hosts
    house.decide([house.update(house.ids[0], T, 2)])
    assert house.refused() == {"component-retired"}
    assert not closable(house.ledger.charter, house.ledger, T)
    with pytest.raises(RemoteProtocolError, match="not-closable"):
        next_state(house.ledger, [house.record(house.ids[1], Offer((T,), ()))], [Close(T, 2)])
    terms = WithdrawalStatement(house.charter.federation, house.ids[0].public_key, "all", "refold", 99)
    assert dict(placed(house.ledger.charter, house.ledger, terms, 9, b"").since)[T] == 1
    with pytest.raises(RemoteProtocolError, match="retired already"):
        amended(house.ledger.charter, house.motion(Changes(retire=(T,))).statement)


def test_rounds_fold_by_the_rule_of_their_time(house: House) -> None:
    """A refold of an older round uses the older rule, and a voted rule stays when it is voted back."""
    house.close(1)
    house.amend(KINDS["median"](house.charter))
    house.close(2)
    house.amend(Changes(closing=(Closing(T, "mean", 2),)))
    house.close(3)
    c, spec = house.ledger.components[T], house.ledger.charter.specs[T]
    assert [round_.rule for round_ in c.rounds] == ["", "median", "mean"]
    assert spec.rule == "mean"
    rows = {e.update: [0, 0, 0, 100][n % 4] for r in c.rounds for n, e in enumerate(r.entries)}

    def moved(index: int) -> int:
        values = lambda entry: (origin(spec) + rows[entry.update]).astype(spec.integer_type)  # noqa: E731
        return int(fold_round(origin(spec), spec, c.rounds[index], values)[0][0])

    assert (moved(0) > 0, moved(1), moved(2) > 0) == (True, 0, True)
    assert Summary.read(summary(house.ledger), 1 << 20).rules == {T: ((2, "median"), (3, "mean"))}


def test_the_refold_horizon_only_grows_and_never_reaches_back_to_what_was_pruned() -> None:
    house = House(horizon=2)
    house.offer()
    for number in range(1, 5):
        house.close(number)
    with pytest.raises(RemoteProtocolError, match="only grow"):
        amended(house.charter, house.motion(limits(house.charter, refold_horizon=1)).statement)
    house.amend(limits(house.charter, refold_horizon=50))
    terms = WithdrawalStatement(house.charter.federation, house.ids[0].public_key, "all", "refold", 99)
    assert dict(placed(house.ledger.charter, house.ledger, terms, 9, b"").since)[T] == 3
    house.close(5)
    assert dict(placed(house.ledger.charter, house.ledger, terms, 9, b"").since)[T] == 3


def test_spend_statements_of_an_older_recipe_stay_valid(house: House) -> None:
    """A lower sample rate is no reason to refuse what a member truthfully says that it spent before."""
    house.amend(recipe(house.charter, sample_rate=10_000))
    assert (house.ledger.charter.learning.sample_rate, house.ledger.charter.widest_rate) == (10_000, 100_000)


def test_quotas_deadline_and_pace_change_from_the_next_block_on(house: House) -> None:
    house.amend(limits(house.charter, records_per_height=1, pace=5000))
    assert house.ledger.charter.rules.pace == 5000
    many = [house.record(house.ids[0], Offer((T,), (), ())), house.record(house.ids[0], Offer((), ()))]
    with pytest.raises(RemoteProtocolError, match="quota-records"):
        next_state(house.ledger, many, [])


OPENED: dict[str, Callable[[Charter], Opening]] = {
    "there is one of that name": lambda c: Opening((), (), (), (c.specs[T],)),
    "would move outputs": lambda c: Opening((), (), (), (head(c, "skip/task0"),)),
    "would move outputs of": lambda c: Opening((), (), (), (head(c, "backbone", 0),)),
    "its base does not match": lambda c: Opening(
        (), (Task("new", "binary", 2, ("made-up",)),), (), (replace(head(c, "head/new"), base=sha256(b"x")),)
    ),
    "not sorted by name": lambda c: Opening(
        (), (Task("a", "binary", 2, ("made-up",)),), (), (head(c, "head/b"), head(c, "head/a"))
    ),
    "the floors are not": lambda c: Opening(
        (Modality("v", "audio", 4, 8),), (Task("new", "binary", 2, ("v",)),), (), (head(c, "head/new"),)
    ),
    "no component of it opens": lambda c: Opening(
        (),
        (Task("idle", "binary", 2, ("made-up",)), Task("new", "binary", 2, ("made-up",))),
        (),
        (head(c, "head/new"),),
    ),
    "data under": lambda c: Opening(
        (Modality("v", "audio", 4, 8),),
        (Task("new", "binary", 2, ("v",)),),
        (PrivacyFloor("v", "dp", 1000, 10),),
        (head(c, "head/new"),),
    ),
    "modalities do not fit": lambda c: Opening(
        (), (Task("new", "binary", 2, ("nothing",)),), (), (head(c, "head/new"),)
    ),
    "a rule must be": lambda c: Opening(
        (), (Task("new", "binary", 2, ("made-up",)),), (), (head(c, "head/new", rule="sometimes"),)
    ),
}


@pytest.mark.parametrize("problem", OPENED)
def test_what_cannot_open_is_refused_with_the_reason(house: House, problem: str) -> None:
    motion = house.motion(Changes(opening=(OPENED[problem](house.charter),)))
    with pytest.raises(RemoteProtocolError, match=problem.rstrip(" of") if problem.endswith(" of") else problem):
        amended(house.charter, motion.statement)
    house.decide([house.record(house.ids[0], motion)])
    assert house.refused() == {"amendment-void"}
    assert not house.ledger.roll.motions


def test_a_skip_that_begins_at_zero_may_open_for_a_task_that_exists(house: House) -> None:
    house.amend(Changes(opening=(Opening((), (), (), (head(house.charter, "skip/task0", 0),)),)))
    assert "skip/task0" in house.ledger.components
    assert house.ledger.opened == {"skip/task0"}


def test_what_is_no_amendment_of_this_charter_is_refused_by_name(house: House) -> None:
    honest = KINDS["fewer steps"](house.charter)
    wrong = (
        (house.motion(honest, number=2), "amendment-number"),
        (house.motion(honest, federation=sha256(b"x")), "wrong-federation"),
        (house.motion(Changes()), "amendment-void"),
        (house.motion(recipe(house.charter)), "amendment-void"),
        (house.motion(Changes(closing=(Closing("head/none", "mean", 1),))), "amendment-void"),
        (replace(house.motion(honest), subject=house.ids[1].public_key), "key-mismatch"),
        (replace(house.motion(honest), statement=b""), "statement"),
        (replace(house.motion(honest), statement=b"\xc0"), "invalid"),
        (replace(house.motion(honest), action="expel", subject=house.ids[1].public_key), "statement"),
    )
    for who, (motion, reason) in zip(house.ids * 3, wrong, strict=False):
        house.decide([house.record(who, motion)])
        assert house.refused() == {reason}, motion
    assert not house.ledger.roll.motions


def test_two_amendments_fit_into_the_proof_of_a_fork(house: House) -> None:
    """A record that nobody could prove to be forked would be refused."""
    from collegium.protocol.records import PROVABLE

    padded = Motion("amend", house.charter.federation, bytes(AMENDMENT_LIMIT), "x" * 512, 2**40)
    assert len(house.record(house.ids[0], padded).wire) <= PROVABLE


def test_a_charter_in_force_keeps_what_nobody_may_change(house: House) -> None:
    charter: Charter = house.charter
    for what in KINDS:
        changed = amended(charter, statement(charter, what)) if what != "retire" else charter
        for name, spec in charter.specs.items():
            now = changed.specs[name]
            assert replace(now, min_updates=spec.min_updates) == spec
        assert (changed.seed, changed.members, changed.name) == (charter.seed, charter.members, charter.name)
        assert changed.rules.fault_model == charter.rules.fault_model
        assert changed.federation == charter.federation


def test_nobody_else_than_members_votes(house: House) -> None:
    stranger = Identity.from_seed(sha256(b"stranger"))
    house.decide([house.record(house.ids[0], house.motion(KINDS["median"](house.charter)))])
    with pytest.raises(RemoteProtocolError, match="not-a-member"):
        next_state(house.ledger, [house.record(stranger, Ballot(house.ledger.roll.motions[0].digest, 1))], [])
    assert house.ledger.block != GENESIS
