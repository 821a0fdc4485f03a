"""The second verifier follows motions as members do: quotas, new keys, who may vote, and what becomes void (G10)."""

import random
from types import ModuleType

import pytest

from collegium.consensus.cut import order
from collegium.consensus.fold import next_state
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.protocol.membership import Ballot, Motion, Rekeying
from collegium.protocol.names import visible
from collegium.protocol.records import Body
from collegium.protocol.signing import sign
from collegium.sims.paper import verifying
from collegium.sims.paper.sequences import House
from collegium.sims.scenarios.amending import statement


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return verifying.load_independent()


class Both(House):
    """Members whose blocks the second verifier follows as well."""

    def __init__(self, module: ModuleType, seed: int) -> None:
        self.chance, self.follower = random.Random(seed), None
        super().__init__()
        signed = SignedCharter(schema.dump(self.charter), ())
        for who in self.ids:
            signed = add_signature(self.charter, signed, who)
        self.federation = module.Federation(dump_file(signed))
        self.follower = module.InForce(self.federation)
        self.every = {who.public_key: who for who in self.ids}

    def block(self, *statements: tuple[Identity, Body]) -> None:
        """Agree on these, and compare what both know of motions and of the charter."""
        records = order(self.record(who, body) for who, body in statements)
        self.ledger, _ = next_state(self.ledger, records, ())
        follower, height = self.follower, self.ledger.height
        assert follower is not None
        for record in records:
            value = record.value
            follower.read({"kind": value.kind, "author": value.author, "body": value.body}, record.digest, height)
        self.federation.members = sorted(self.ledger.members)
        follower.decide(height)
        assert follower.number == self.ledger.charter.number
        mine = {m.digest: (m.subject, m.yes, m.no) for m in self.ledger.roll.motions}
        assert {name: (m["subject"], m["yes"], m["no"]) for name, m in follower.open.items()} == mine

    def something(self, who: Identity) -> Body:
        """A motion or a ballot of a member, often one that is refused."""
        draw, me = self.chance, who.public_key
        other = draw.choice(self.ledger.members)
        if self.ledger.roll.motions and draw.random() < 0.6:
            return Ballot(draw.choice(self.ledger.roll.motions).digest, int(draw.random() < 0.8))
        what = draw.choice(["amend", "amend", "amend", "expel", "rekey", "rekey", "leave", "dance"])
        subject, said, federation = other, b"", self.charter.federation
        if what == "amend":
            subject, said = federation, statement(self.ledger.charter, draw.choice(["median", "a bare head", "retire"]))
        elif what == "rekey":
            subject = draw.choice([me, other])
            new = Identity.from_seed(sha256(draw.randbytes(8)))
            self.every[new.public_key] = new
            said = sign(new, Rekeying(federation, new.public_key, subject)).wire
        elif what == "leave" and draw.random() < 0.8:
            what = "expel"
        reason = draw.choice(["", "", "", "as agreed", "a\u200bb"])
        expiry = self.ledger.height + draw.choice([20, 21, 25, 40, 19])
        return Motion(what, subject, said, reason, expiry)


@pytest.mark.parametrize("seed", range(12))
def test_both_follow_motions_alike(module: ModuleType, seed: int) -> None:
    both = Both(module, seed)
    for _ in range(40):
        members = [both.every[key] for key in both.ledger.members]
        speakers = both.chance.sample(members, min(len(members), both.chance.randrange(1, 4)))
        both.block(*((who, both.something(who)) for who in speakers))


def test_a_vote_goes_over_to_a_members_new_key_and_a_fifth_motion_is_refused(module: ModuleType) -> None:
    both = Both(module, 0)
    first, *others = both.ids
    said = statement(both.ledger.charter, "median")
    motion = Motion("amend", both.charter.federation, said, "", both.ledger.height + 50)
    new = Identity.from_seed(sha256(b"new"))
    rekeying = sign(new, Rekeying(both.charter.federation, new.public_key, first.public_key)).wire
    both.block((first, motion))
    both.block((first, Motion("rekey", first.public_key, rekeying, "", both.ledger.height + 50)))
    assert new.public_key in both.ledger.members
    (opened,) = both.ledger.roll.motions
    for who in others[:2]:
        both.block((who, Ballot(opened.digest, 1)))
    assert both.ledger.charter.number == 0
    both.block((others[2], Ballot(opened.digest, 1)))  # with the vote of the replaced key they are four of five
    assert both.ledger.charter.number == 1
    for what, counts in (("a bare head", 1), ("retire", 2)):
        said = statement(both.ledger.charter, what)
        both.block((others[0], Motion("amend", both.charter.federation, said, "", both.ledger.height + 50)))
        assert len(both.ledger.roll.motions) == counts
    for subject in others[1:3]:
        both.block((others[0], Motion("expel", subject.public_key, b"", "", both.ledger.height + 50)))
    both.block((others[0], Motion("expel", others[3].public_key, b"", "", both.ledger.height + 50)))
    assert len(both.ledger.roll.motions) == 4, "the quota of one author"


def test_both_take_the_same_characters_for_hidden(module: ModuleType) -> None:
    for code in (*range(0x10000), *range(0x13400, 0x13450), *range(0x16FE0, 0x17000), *range(0x1BC90, 0x1BCB0),
                 *range(0x1D150, 0x1D180), *range(0xE0000, 0xE0210)):  # fmt: skip
        assert (module.HIDDEN.search(chr(code)) is None) == visible(chr(code)), hex(code)
