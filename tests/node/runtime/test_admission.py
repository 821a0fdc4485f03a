"""Admission: what a candidate and a former member may ask for, and what becomes of it (G6, G9)."""

from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from collegium.crypto.errors import CorruptError, RefusedError, RemoteProtocolError, UsageError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.core.messages import JoinAnswer, JoinRequest, SyncRequest, SyncResponse
from collegium.node.home import Home, invitations
from collegium.node.home.invitations import from_text, to_text
from collegium.node.runtime.admission import JOIN_PROTOCOL, SYNC_PROTOCOL, Admission
from collegium.node.runtime.candidate import check_charter
from collegium.protocol import schema
from collegium.protocol.blocks import Head
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.protocol.membership import Application, token_digest
from collegium.protocol.signing import sign
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.small import small_charter

NEW = Identity.from_seed(sha256(b"newcomer"))
OTHER = Identity.from_seed(sha256(b"other"))


class Place:
    """One member's admission, without a network."""

    def __init__(self, root: Path) -> None:
        self.cluster = Cluster(4, 4, Invariants, rounds=3)
        self.cluster.start()
        assert self.cluster.run(lambda: self.cluster.all_closed(3))
        self.home = Home(root / "home")
        self.home.make()
        self.now = 1_000_000.0
        self.submitted: list[ev.Event] = []
        self.node = self.cluster.nodes[0]
        signed = SignedCharter(schema.dump(self.cluster.charter), ())
        for node in self.cluster.nodes:
            signed = add_signature(self.cluster.charter, signed, node.identity)
        self.signed = signed
        self.admission = self.open()

    def open(self) -> Admission:
        host: Any = SimpleNamespace(
            home=self.home, core=self.node.core, store=self.node.store, submit=self.submitted.append
        )
        return Admission(host, self.node.identity, self.signed, lambda: self.now)

    def invite(self, name: str = "", days: float = 1, key: str = "", hold: bool = False) -> Identity:
        """Return the key of the invitation's token."""
        text = to_text(run(self.admission.invite(name, ("/ip4/192.0.2.1/tcp/1/p2p/x",), days, key, hold, True)))
        return Identity.from_seed(from_text(text).value.token)

    def request(self, token: Identity, request: JoinRequest) -> JoinAnswer:
        handler = self.admission.handlers(token.public_key)[JOIN_PROTOCOL]
        return schema.load(JoinAnswer, run(handler(token.public_key, schema.dump(request))), JoinAnswer.LIMIT)

    def apply(self, token: Identity, /, who: Identity = NEW, name: str = "new", **changed: Any) -> str:
        value = Application(self.cluster.federation, who.public_key, name, (), token_digest(token.public_key))
        return self.request(token, JoinRequest("apply", sign(who, replace(value, **changed)).wire)).state

    def settle(self) -> None:
        """Let the core do what the token submitted, and everybody vote yes."""
        for event in self.submitted:
            self.node.deliver(event)
        self.submitted.clear()
        self.cluster.run(lambda: False, self.cluster.now + 3000)


def run(awaitable: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await awaitable

    return trio.run(wait)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_candidate_may_fetch_the_charter_and_apply_once(place: Place) -> None:
    token = place.invite("school")
    assert set(place.admission.handlers(token.public_key)) == {JOIN_PROTOCOL}
    assert place.request(token, JoinRequest("charter", b"")).charter == dump_file(place.signed)
    assert place.apply(token) == "waiting"
    (admit,) = place.submitted
    assert isinstance(admit, ev.ProposeMotion)
    assert admit.subject == NEW.public_key
    assert place.apply(token) == "waiting", "asking again does no harm"
    with pytest.raises(RemoteProtocolError, match="invitation-used"):
        place.apply(token, OTHER)
    with pytest.raises(RemoteProtocolError, match="invitation-used"):
        place.apply(token, NEW, "another name")
    place.settle()
    assert place.apply(token) == "proposed"
    motion = place.node.core.ledger.roll.motions[0]  # type: ignore[union-attr]  # it runs
    for node in place.cluster.nodes[1:3]:
        node.deliver(ev.Cast(motion.digest, True))
    place.settle()
    assert place.apply(token) == "admitted"
    run(place.admission.maintain())
    assert not place.submitted


def test_a_refused_application_is_not_proposed_again(place: Place) -> None:
    token = place.invite()
    place.apply(token)
    place.settle()
    motion = place.node.core.ledger.roll.motions[0]  # type: ignore[union-attr]  # it runs
    for node in place.cluster.nodes[1:3]:
        node.deliver(ev.Cast(motion.digest, False))
    place.settle()
    assert place.apply(token) == "refused"
    run(place.admission.maintain())
    assert not place.submitted


def test_a_refused_application_is_not_proposed_again_when_the_ledger_has_forgotten_it(place: Place) -> None:
    token = place.invite()
    place.apply(token)
    place.settle()
    run(place.admission.maintain())
    core = place.node.core
    assert core is not None
    core.ledger = replace(core.ledger, roll=replace(core.ledger.roll, motions=(), outcomes=()))  # 1,024 others ended
    run(place.admission.maintain())
    assert place.apply(token) == "refused"
    place.admission = place.open()
    run(place.admission.maintain())
    assert place.apply(token) == "refused", "nor after a restart"
    assert not place.submitted


@pytest.mark.parametrize("hold", [False, True])
def test_who_applied_by_an_invitation_that_was_withdrawn_meanwhile_is_not_proposed(place: Place, hold: bool) -> None:
    token = place.invite(hold=hold)
    assert place.apply(token) == ("held" if hold else "waiting")
    place.submitted.clear()  # no quorum was connected
    run(place.admission.withdraw(token.public_key.hex()))
    run(place.admission.maintain())
    assert not place.submitted
    (issued,) = place.admission.issued
    assert place.admission.state(issued) == "withdrawn"


def test_a_held_application_waits_for_the_operator(place: Place) -> None:
    token = place.invite(hold=True)
    assert place.apply(token) == "held"
    run(place.admission.maintain())
    assert not place.submitted


@pytest.mark.parametrize("how", ["never given", "expired", "withdrawn"])
def test_what_opens_nothing(place: Place, how: str) -> None:
    token = OTHER if how == "never given" else place.invite()
    if how == "expired":
        place.now += 86_401
    if how == "withdrawn":
        run(place.admission.withdraw(token.public_key.hex()))
    assert not place.admission.handlers(token.public_key)
    assert not place.open().handlers(token.public_key), "nor after a restart"


def test_what_is_refused_at_admission_by_name(place: Place) -> None:
    token = place.invite(key=OTHER.public_key.hex())
    with pytest.raises(RemoteProtocolError, match="key-mismatch"):
        place.apply(token)
    assert place.apply(token, OTHER) == "waiting"
    token = place.invite()
    name = place.cluster.charter.members[0].name
    for reason, changed in {
        "name-taken": {"name": name},
        "name": {"name": "a\x1b[2J"},
        "address": {"addresses": ("\u202e",)},
        "other-invitation": {"token": bytes(32)},
        "wrong-federation": {"federation": bytes(32)},
    }.items():
        with pytest.raises(RemoteProtocolError, match=reason):
            place.apply(token, **changed)  # type: ignore[arg-type]  # fields of an application
    member = place.cluster.nodes[1].identity
    with pytest.raises(RemoteProtocolError, match="key-retired"):
        place.apply(token, member)
    good = sign(NEW, Application(place.cluster.federation, NEW.public_key, "x", (), token_digest(token.public_key)))
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        place.request(token, JoinRequest("apply", bytes(64) + good.wire[64:]))
    with pytest.raises(RemoteProtocolError, match="unknown-request"):
        place.request(token, JoinRequest("ledger", b""))
    handler = place.admission.handlers(token.public_key)[JOIN_PROTOCOL]
    for junk in (b"", b"\xff" * 9000, schema.dump(JoinRequest("apply", b"x"))):
        with pytest.raises(RemoteProtocolError):
            run(handler(token.public_key, junk))
    assert place.apply(token) == "waiting", "none of that used the invitation up"


def test_two_applications_at_once_do_not_both_use_one_invitation(place: Place) -> None:
    token = place.invite()
    handler = place.admission.handlers(token.public_key)[JOIN_PROTOCOL]
    answers: list[str] = []

    async def one(who: Identity, name: str) -> None:
        value = Application(place.cluster.federation, who.public_key, name, (), token_digest(token.public_key))
        try:
            data = await handler(token.public_key, schema.dump(JoinRequest("apply", sign(who, value).wire)))
            answers.append(schema.load(JoinAnswer, data, JoinAnswer.LIMIT).state)
        except RemoteProtocolError as error:
            answers.append(error.reason)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, NEW, "a")
            nursery.start_soon(one, OTHER, "b")

    trio.run(both)
    assert sorted(answers) == ["invitation-used", "waiting"]


def test_who_was_a_member_is_told_what_was_agreed_until_then_and_no_more(place: Place) -> None:
    gone = place.cluster.nodes[3].identity.public_key
    assert not place.admission.handlers(gone), "members do not ask by invitation"
    place.cluster.nodes[3].deliver(ev.ProposeMotion("leave", gone, b"", "", 100))
    place.settle()
    core = place.node.core
    assert core is not None
    until = core.ledger.roll.seats[gone].until
    place.node.deliver(ev.ProposeMotion("expel", place.cluster.nodes[2].identity.public_key, b"", "", 100))
    place.settle()
    assert core.ledger.height > until
    handlers = place.admission.handlers(gone)
    assert set(handlers) == {SYNC_PROTOCOL}
    heads: tuple[Head, ...] = ()
    request = schema.dump(SyncRequest(place.cluster.federation, 0, heads, b""))
    answer = schema.load(SyncResponse, run(handlers[SYNC_PROTOCOL](gone, request)), 6 << 20)
    assert answer.height == until
    assert len(answer.blocks) == until
    assert not answer.messages
    agreed = {r.wire for n in range(1, until + 1) for r in place.node.store.block(n).records}  # type: ignore[union-attr]  # it is there
    assert set(answer.records) == agreed


def test_a_candidate_takes_no_charter_but_the_invitations_signed_by_all(place: Place) -> None:
    invitation = from_text(
        to_text(run(place.admission.invite("x", ("/ip4/192.0.2.1/tcp/1",), 1, "", False, True)))
    ).value
    assert check_charter(dump_file(place.signed), invitation) == place.cluster.charter
    first, last = place.cluster.nodes[0].identity, place.cluster.nodes[3].identity
    partly = SignedCharter(schema.dump(place.cluster.charter), ())
    for node in place.cluster.nodes[:3]:
        partly = add_signature(place.cluster.charter, partly, node.identity)
    name = next(m.name for m in place.cluster.charter.members if m.key == last.public_key)
    with pytest.raises(RefusedError, match=f"not signed by {name}"):
        check_charter(dump_file(partly), invitation)
    other = small_charter([first, OTHER])
    signed = SignedCharter(schema.dump(other), ())
    for identity in (first, OTHER):
        signed = add_signature(other, signed, identity)
    with pytest.raises(CorruptError, match="not the invitation's"):
        check_charter(dump_file(signed), invitation)


# ---- the text and the file


def test_an_invitation_survives_being_pasted_and_shows_every_change(place: Place) -> None:
    signed = run(place.admission.invite("x", ("/ip4/192.0.2.1/tcp/1",), 1, "", False, True))
    text = to_text(signed)
    assert from_text(text) == signed
    assert from_text("\n".join(text[i : i + 70] for i in range(0, len(text), 70)) + "\n") == signed
    for wrong in (text[:-30], text.replace("A", "B", 1), "http://x", "", "collegium:", text[10:], "collegium:\u00e9"):
        with pytest.raises(UsageError, match="no intact invitation"):
            from_text(wrong)


def test_the_member_keeps_no_token_and_a_damaged_file_is_named(place: Place) -> None:
    token = place.invite("x")
    kept = place.home.invitations.read_text()
    assert token.public_key.hex() in kept
    assert token.seed.hex() not in kept
    assert place.home.invitations.stat().st_mode & 0o777 == 0o600
    for junk in ("", "[]", '{"invitations": [{"token_key": "00"}]}', kept.replace('"hold": false', '"hold": "x"')):
        place.home.invitations.write_text(junk)
        with pytest.raises(CorruptError, match="invitations"):
            invitations.load(place.home)


def test_invitations_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "MAX_OPEN", 2)
    place.invite("a")
    place.invite("b")
    with pytest.raises(UsageError, match="are open"):
        place.invite("c")
    place.now += 2 * 86_400
    place.invite("d")
    assert [issued.name for issued in invitations.load(place.home)] == ["d"]
