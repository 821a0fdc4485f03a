"""Random rounds and withdrawals in the ledger alone: each sequence ends as the fold of the remaining members (G7).

Blobs are synthetic: sixteen bytes of a digest stand for the integers of an update.
"""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, assert_never

import numpy as np

from ...consensus.components import Entry, Round, origin, replay
from ...consensus.cut import order
from ...consensus.fold import next_state
from ...consensus.ledger import Ledger, genesis
from ...consensus.membership import Outcome
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.blocks import Close
from ...protocol.claims import NO_EPSILON, Claim
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.components import state_digest as digest_of
from ...protocol.membership import Ballot, Motion
from ...protocol.records import (
    GENESIS,
    SCOPES,
    Ack,
    Body,
    Offer,
    Record,
    Scope,
    Update,
    Withdrawal,
    WithdrawalStatement,
    ack_message,
    kind_of,
)
from ...protocol.signing import Signed, sign
from ...protocol.update import Engaged, Integers, UpdateHeader
from ..simulator.small import small_charter

A, B = "head/task0", "head/task1"


class House:
    """Members that say whole rounds over two components, and withdraw."""

    def __init__(self, count: int = 5, *, statistics: int = 0, horizon: int = 1000) -> None:
        self.ids = sorted((Identity.from_seed(sha256(b"w%d" % n)) for n in range(count)), key=lambda i: i.public_key)
        self.charter = small_charter(self.ids, components=2, statistics=statistics, horizon=horizon)
        self.ledger: Ledger = genesis(self.charter)
        self.heads: dict[bytes, tuple[int, bytes]] = {}
        self.salt = 0
        self.specs = {spec.name: spec for spec in self.charter.components}
        self.say(*((who, Offer(tuple(sorted(self.specs)), ())) for who in self.ids))

    def record(self, who: Identity, body: Body) -> Signed[Record]:
        """Sign the next record of a feed."""
        seq, prev = self.heads.get(who.public_key, (0, GENESIS))
        value = Record(self.charter.federation, who.public_key, seq + 1, prev, kind_of(body), schema.dump(body))
        made = sign(who, value)
        self.heads[who.public_key] = (seq + 1, made.digest)
        return made

    def say(self, *statements: tuple[Identity, Body], close: tuple[Close, ...] = ()) -> set[str]:
        """Agree on these in one block; return the reasons for which records were refused."""
        records = order(self.record(who, body) for who, body in statements)
        self.ledger, _ = next_state(self.ledger, records, close)
        return {refusal.reason for refusal in self.ledger.refusals}

    def update(self, who: Identity, name: str, number: int, generation: int | None = None) -> Update:
        """Make an update that every member acknowledged."""
        c, spec = self.ledger.components[name], self.specs[name]
        base = spec.base if spec.is_statistic else sha256(b"base")
        self.salt += 1
        header = sign(
            who,
            UpdateHeader(
                federation=self.charter.federation,
                author=who.public_key,
                component=name,
                round=number,
                generation=c.generation if generation is None else generation,
                base=base,
                blob=sha256(b"%d" % self.salt),
                size=100,
                steps=1 if spec.is_statistic else 4,
                sample_rate=MILLION if spec.is_statistic else 100_000,
                lot=1000,
                engaged=(Engaged(name, base, 0, spec.clip_norm, MILLION),),
                claims=(Claim("made-up", (), NO_EPSILON, 0),),
            ),
        )
        text = ack_message(self.charter.federation, header.digest)
        return Update(header.wire, tuple(Ack(h.public_key, h.sign("ack", text)) for h in self.ids))

    def round(self, *names: str, who: list[Identity] | None = None) -> set[str]:
        """Close the next round of these components with all members' updates."""
        numbers = {name: self.ledger.components[name].round + 1 for name in names}
        statements = [(i, self.update(i, name, number)) for i in who or self.ids for name, number in numbers.items()]
        return self.say(*statements, close=tuple(Close(name, number) for name, number in sorted(numbers.items())))

    def terms(self, owner: Identity, scope: str = "all", mode: str = "refold", **more: Any) -> WithdrawalStatement:
        """Withdraw part of an owner's feed so far."""
        through = self.heads[owner.public_key][0]
        made = WithdrawalStatement(self.charter.federation, owner.public_key, scope, mode, through)
        return replace(made, **more)

    def withdraw(self, owner: Identity, scope: str = "all", **more: Any) -> set[str]:
        """Have an owner withdraw; return the reasons for which it was refused."""
        return self.say((owner, self.statement(owner, scope, **more)))

    def statement(self, owner: Identity, scope: str = "all", **more: Any) -> Withdrawal:
        """Sign a withdrawal as its owner."""
        return Withdrawal(sign(owner, self.terms(owner, scope, **more)).wire)

    def propose(self, proposer: Identity, owner: Identity, mode: str, scope: str = "all", **more: Any) -> set[str]:
        """Propose that an owner's contributions be withdrawn."""
        terms = schema.dump(self.terms(owner, scope, mode, **more))
        action = {"refold": "withdraw", "rewind": "rewind"}.get(mode, mode)
        return self.say((proposer, Motion(action, owner.public_key, terms, "", self.ledger.height + 100)))

    def vote(self, *who: Identity) -> set[str]:
        """Vote yes on the one open motion."""
        (motion,) = self.ledger.roll.motions
        return self.say(*((i, Ballot(motion.digest, 1)) for i in who))

    def outcome(self) -> Outcome:
        """Return how the last motion ended."""
        return self.ledger.roll.outcomes[-1]

    def counted(self, name: str) -> list[list[int]]:
        """Return whose updates count, round by round."""
        keys = [i.public_key for i in self.ids]
        return [[keys.index(e.author) for e in r.entries] for r in self.ledger.components[name].rounds]

    def entry(self, owner: Identity, name: str, number: int) -> Entry:
        """Return an owner's entry in a round."""
        entries = self.ledger.components[name].rounds[number - 1].entries
        return next(e for e in entries if e.author == owner.public_key)


def sequence_holds(seed: int) -> bool:
    """Play one sequence; whether lists and states are those of the survivors."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, labelled so
    house = House(4)
    spec = house.charter.components[0]
    gone: set[bytes] = set()
    frozen: dict[str, list[Round]] = {A: [], B: []}
    for _ in range(chance.randint(3, 7)):
        house.round(A, B)
        for name in (A, B):
            frozen[name].append(house.ledger.components[name].rounds[-1])
        if chance.random() < 0.6:
            gone |= _withdraw_something(house, chance, frozen)
    for name in (A, B):
        want = [replace(r, entries=tuple(e for e in r.entries if e.update not in gone)) for r in frozen[name]]
        c = house.ledger.components[name]
        kept = [r.entries for r in c.rounds if r.number in {w.number for w in want}]
        if kept != [r.entries for r in want] or _folded_state(spec, c.rounds) != _folded_state(spec, want):
            return False
        if {e.blob for r in want for e in r.entries} & {b for e in c.erasures for b in e.blobs}:
            return False
    return True


def _withdraw_something(house: House, chance: random.Random, frozen: dict[str, list[Round]]) -> set[bytes]:
    """Withdraw at random; return the updates that the statement covers, computed apart from the ledger."""
    owner, name = chance.choice(house.ids), chance.choice([A, B])
    mine = {
        part: [(r.number, e.update) for r in frozen[part] for e in r.entries if e.author == owner.public_key]
        for part in (A, B)
    }
    scope = chance.choice(list(SCOPES.values()))
    low = chance.randint(1, len(frozen[name]))
    picked = tuple(sorted(update for _, update in chance.sample(mine[name], min(2, len(mine[name])))))
    if scope == "updates" and not picked:
        return set()
    scopes: dict[Scope, dict[str, Any]] = {
        "all": {},
        "components": {"components": (name,)},
        "rounds": {"components": (name,), "first": low, "last": low + 1},
        "updates": {"updates": picked},
    }
    more = scopes[scope]
    if chance.random() < 0.3:
        others = [i for i in house.ids if i is not owner]
        if not house.propose(others[0], owner, "refold", scope, **more):
            house.vote(*others[1:])
    else:
        house.withdraw(owner, scope, **more)
    match scope:
        case "all":
            return {update for part in (A, B) for _, update in mine[part]}
        case "components":
            return {update for _, update in mine[name]}
        case "rounds":
            return {update for number, update in mine[name] if low <= number <= low + 1}
        case "updates":
            return set(picked)
        case _:
            assert_never(scope)


def _folded_state(spec: ComponentSpec, rounds: Iterable[Round]) -> bytes:
    def values(entry: Entry) -> Integers:
        return np.frombuffer(entry.blob[:16], dtype=np.int8)

    state, _ = replay(origin(spec), spec, rounds, values)
    return digest_of("x", state)
