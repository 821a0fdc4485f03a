"""The founder's desk and an invited member, each against a hostile other side (G9)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from collegium.crypto.errors import CorruptError, OperatorError, RefusedError, RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.founding import guest, messages
from collegium.node.founding.desk import Desk
from collegium.node.founding.messages import PROTOCOL, FoundingAnswer, FoundingRequest, Word
from collegium.node.home import Home
from collegium.protocol import schema
from collegium.protocol.charter import Charter, Member, SignedCharter, add_signature, dump_file
from collegium.protocol.membership import Application, Invitation, token_digest
from collegium.protocol.signing import sign
from collegium.sims.simulator.small import small_charter

FOUNDER, EAST, WEST, THIEF = (Identity.from_seed(sha256(name)) for name in (b"north", b"east", b"west", b"thief"))
ADDRESS = "/ip4/192.0.2.1/tcp/4001"
DAY = 86_400


class Place:
    """A founder's desk without a network, and two invited members."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "north")
        self.home.make()
        self.now = 1_000_000.0
        self.desk = self.open()
        self.desk.invite(["east", "west"], 7)
        self.invited = {name: signed.value for name, signed in self.desk.invitations()}

    def open(self) -> Desk:
        return Desk(self.home, FOUNDER, "north", (ADDRESS,), clock=lambda: self.now)

    def token(self, name: str) -> bytes:
        return Identity.from_seed(self.invited[name].token).public_key

    def raw(self, name: str, data: bytes) -> bytes:
        handler = self.desk.handlers(self.token(name))[PROTOCOL]

        async def ask() -> bytes:
            return await handler(self.token(name), data)

        return trio.run(ask)

    def ask(self, name: str, what: str, statement: bytes = b"", have: bytes = guest.NONE) -> FoundingAnswer:
        answer = self.raw(name, schema.dump(FoundingRequest(what, statement, have)))
        return schema.load(FoundingAnswer, answer, FoundingAnswer.LIMIT)

    def enter(self, name: str, who: Identity, title: str = "", port: int = 4002, **changed: Any) -> FoundingAnswer:
        value = Application(
            self.invited[name].federation,
            who.public_key,
            title or name,
            (f"/ip4/192.0.2.1/tcp/{port}",),
            token_digest(self.token(name)),
        )
        return self.ask(name, messages.ENTER, sign(who, replace(value, **changed)).wire)

    def all_in(self) -> None:
        self.enter("east", EAST)
        self.enter("west", WEST, port=4003)

    def charter(self, name: str = "first") -> Charter:
        people = sorted(self.desk.people(), key=lambda member: member.key)
        return replace(small_charter([FOUNDER]), name=name, members=tuple(people))

    def put(self, name: str = "first") -> Charter:
        """A draft that its founder signed."""
        charter = self.charter(name)
        self.desk.put(charter, schema.dump(charter))
        self.desk.sign()
        return charter

    def say(self, name: str, who: Identity, charter: Charter, word: str, signature: bytes = b"") -> FoundingAnswer:
        if word == messages.SIGNED and not signature:
            signature = who.sign("charter", charter.federation)
        value = Word(self.invited[name].federation, who.public_key, charter.federation, word, signature)
        return self.ask(name, messages.SAY, sign(who, value).wire)

    def states(self) -> dict[str, str]:
        return {place.invited_as: place.state for place in self.desk.places()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_founding_goes_its_way_and_a_new_process_goes_on_at_every_stage(place: Place) -> None:
    assert place.enter("east", EAST) == FoundingAnswer("waiting", b"", ("west",), ())
    place.desk = place.open()
    assert place.enter("east", EAST) == FoundingAnswer("waiting", b"", ("west",), ()), "again: nothing changes"
    assert place.enter("west", WEST, port=4003).awaited == ()
    charter = place.charter()
    place.desk.put(charter, schema.dump(charter))
    assert place.ask("east", "look").state == "waiting", "its founder has not signed it"
    place.desk.sign()
    answer = place.ask("east", "look")
    assert (answer.state, answer.awaited) == ("draft", ("east", "west"))
    assert place.ask("east", "look", have=charter.federation).charter == b"", "it is held"
    place.say("east", EAST, charter, "reviewed")
    assert place.states() == {"east": "reviewed", "west": "joined"}
    place.desk = place.open()
    assert place.states() == {"east": "reviewed", "west": "joined"}
    assert place.say("west", WEST, charter, "refused").refused == ("west",)
    place.say("east", EAST, charter, "signed")
    place.desk = place.open()
    assert place.states() == {"east": "signed", "west": "refused"}
    assert place.say("west", WEST, charter, "signed").state == "complete", "it has changed its mind"
    complete = place.ask("east", "look", have=charter.federation)
    assert complete.state == "complete"
    guest.check_complete(complete.charter, place.invited["east"], charter)
    place.say("east", EAST, charter, "kept")
    place.desk = place.open()
    assert (place.states(), place.desk.complete) == ({"east": "kept", "west": "signed"}, True)


def test_only_a_token_that_was_given_out_is_let_in_and_only_while_it_is_good(place: Place) -> None:
    assert place.desk.handlers(THIEF.public_key) == {}
    assert place.desk.handlers(FOUNDER.public_key) == {}
    place.enter("east", EAST)
    place.now += 8 * DAY
    assert place.desk.handlers(place.token("west")) == {}
    assert place.ask("east", "look").state == "waiting", "it came in time"
    assert place.states()["west"] == "expired"
    place.desk.invite([], 7)
    (renewed,) = place.desk.invitations()
    assert renewed[0] == "west"
    assert renewed[1].value.token != place.invited["west"].token
    place.desk.leave_out(["west"])
    assert place.desk.handlers(Identity.from_seed(renewed[1].value.token).public_key) == {}
    with pytest.raises(RefusedError, match="was not invited"):
        place.desk.leave_out(["nobody"])


BAD_ENTRIES: dict[str, Callable[[Place], object]] = {
    "invitation-used": lambda place: place.enter("east", THIEF),
    "name-taken": lambda place: place.enter("west", WEST, "east", port=4003),
    "key-used": lambda place: place.enter("west", EAST, port=4003),
    "addresses-unusable": lambda place: place.enter("west", WEST, port=4002),
    "address": lambda place: place.enter("west", WEST, addresses=("/ip4/0.0.0.0/tcp/1",)),
    "name": lambda place: place.enter("west", WEST, "we\u200bst", port=4003),
    "other-invitation": lambda place: place.enter("west", WEST, token=bytes(32)),
    "wrong-federation": lambda place: place.enter("west", WEST, federation=bytes(32)),
    "bad-signature": lambda place: place.enter("west", THIEF, author=WEST.public_key),
    "not-entered": lambda place: place.ask("west", "look"),
    "unknown-request": lambda place: place.ask("east", "charter"),
    "oversized": lambda place: place.raw("east", bytes(FoundingRequest.LIMIT + 1)),
    "malformed": lambda place: place.raw("east", b"\xc1"),
    "key-mismatch": lambda place: place.say("west", WEST, place.charter(), "signed"),
    "other-draft": lambda place: place.say("east", EAST, place.charter(), "signed"),
}


@pytest.mark.parametrize("reason", BAD_ENTRIES)
def test_a_bad_request_is_refused_by_name_and_changes_nothing(place: Place, reason: str) -> None:
    place.enter("east", EAST)
    before = place.home.founding.read_bytes()
    with pytest.raises(RemoteProtocolError) as refused:
        BAD_ENTRIES[reason](place)
    assert refused.value.reason == reason
    assert place.home.founding.read_bytes() == before
    assert not place.home.charter.exists()


def test_what_is_said_of_a_draft_is_said_by_its_member_of_this_draft_with_its_own_signature(place: Place) -> None:
    place.all_in()
    charter = place.put()
    other = place.charter("second")
    calls: dict[str, Callable[[], object]] = {
        "bad-signature": lambda: place.say("east", EAST, charter, "signed", THIEF.sign("charter", charter.federation)),
        "other-draft": lambda: place.say("east", EAST, other, "signed"),
        "key-mismatch": lambda: place.say("east", WEST, charter, "signed"),
        "not-complete": lambda: place.say("east", EAST, charter, "kept"),
        "unknown-word": lambda: place.say("east", EAST, charter, "perhaps"),
        "draft-is-out": lambda: place.enter("east", EAST, "easter"),
    }
    for reason, call in calls.items():
        with pytest.raises(RemoteProtocolError) as refused:
            call()
        assert refused.value.reason == reason
    assert place.desk.signers() == []
    place.say("east", EAST, charter, "signed")
    place.say("east", EAST, charter, "refused")
    assert place.states()["east"] == "signed", "a signature stays"


def test_a_draft_changes_until_another_member_signed_it(place: Place) -> None:
    place.all_in()
    place.put()
    second = place.put("second")
    assert place.ask("east", "look").state == "draft"
    place.say("east", EAST, second, "signed")
    third = place.charter("third")
    changes: tuple[Callable[[], object], ...] = (
        lambda: place.desk.put(third, schema.dump(third)),
        lambda: place.desk.leave_out(["west"]),
        lambda: place.desk.invite(["a fourth"], 7),
    )
    for change in changes:
        with pytest.raises(RefusedError, match="east signed the draft"):
            change()
    place.desk.put(second, schema.dump(second))
    assert place.desk.signers() == ["east"]


def test_without_a_member_its_draft_is_taken_back(place: Place) -> None:
    place.all_in()
    place.put()
    place.desk.leave_out(["west"])
    assert place.desk.handlers(place.token("west")) == {}
    assert place.ask("east", "look").state == "waiting"
    place.desk.leave_out(["west"])  # the same command again
    assert place.states() == {"east": "joined"}
    assert [member.name for member in place.charter().members if member.name != "north"] == ["east"]


def test_a_member_takes_no_draft_that_has_it_otherwise(place: Place) -> None:
    invitation: Invitation = place.invited["east"]
    place.all_in()
    charter = place.charter()
    mine = charter.member(EAST.public_key)
    assert mine is not None

    def sent(charter: Charter, *signers: Identity) -> bytes:
        signed = SignedCharter(schema.dump(charter), ())
        for signer in signers:
            signed = add_signature(charter, signed, signer)
        return dump_file(signed)

    assert guest.check_draft(sent(charter, FOUNDER), invitation, mine)[0] == charter

    def members(change: Callable[[Member], Member | None]) -> Charter:
        return replace(charter, members=tuple(m for old in charter.members if (m := change(old)) is not None))

    without = members(lambda m: None if m == mine else m)
    renamed = members(lambda m: replace(m, name="easter") if m == mine else m)
    moved = members(lambda m: replace(m, addresses=(ADDRESS,)) if m == mine else m)
    no_founder = members(lambda m: None if m.key == FOUNDER.public_key else m)
    for data, problem in (
        (sent(charter), "founder has not signed"),
        (sent(without, FOUNDER), "does not have this member's key"),
        (sent(renamed, FOUNDER), "has this member as easter"),
        (sent(moved, FOUNDER), "has this member as east at"),
        (sent(no_founder, WEST), "founder is no member"),
        (sent(charter, FOUNDER)[:-3], "damaged"),
        (bytes(3 << 20), "damaged"),
    ):
        with pytest.raises(OperatorError, match=problem):
            guest.check_draft(data, invitation, mine)
    with pytest.raises(RefusedError, match="west did not sign it"):
        guest.check_complete(sent(charter, FOUNDER, EAST), invitation, charter)
    other = place.charter("second")
    with pytest.raises(CorruptError, match="another charter"):
        guest.check_complete(sent(other, FOUNDER, EAST, WEST), invitation, charter)


def test_a_damaged_record_is_named(place: Place) -> None:
    place.home.founding.write_bytes(place.home.founding.read_bytes()[:-1])
    with pytest.raises(CorruptError, match=r"founding\.bin is damaged"):
        place.open()
