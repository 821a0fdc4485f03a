"""Motions, ballots and invitations over the control API, and how members and motions are shown."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node import views
from collegium.node.control.app import build
from collegium.node.control.facts import context_of
from collegium.node.core import events as ev
from collegium.node.core.messages import JoinRequest
from collegium.node.home.invitations import from_text
from collegium.node.runtime.admission import JOIN_PROTOCOL
from collegium.protocol import schema
from collegium.protocol.membership import Application, Rekeying, token_digest
from collegium.protocol.signing import sign
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

if TYPE_CHECKING:
    from .conftest import FakeDaemon

NEW, OTHER = (Identity.from_seed(sha256(word)) for word in (b"newcomer", b"other"))


def call(daemon: "FakeDaemon", method: str, path: str, **options: Any) -> Any:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(daemon))
        async with httpx.AsyncClient(transport=transport, base_url="http://node/v1") as client:
            return await client.request(method, path, **options)

    return trio.run(ask)


def propose(daemon: "FakeDaemon", action: str, who: str = "", statement: bytes = b"", reason: str = "") -> Any:
    body = {"action": action, "who": who, "statement": statement.hex(), "reason": reason, "heights": 50}
    return call(daemon, "POST", "/motions", json=body)


def test_a_motion_is_submitted_by_name_key_or_not_at_all(daemon: "FakeDaemon") -> None:
    other = daemon.charter.member(daemon.network.members[1])
    assert other is not None
    for who in (other.name, other.key.hex(), other.key.hex()[:8]):
        assert propose(daemon, "expel", who, reason="noise").status_code == 202
    assert daemon.submitted == [ev.ProposeMotion("expel", other.key, b"", "noise", 50)] * 3
    daemon.submitted.clear()
    assert propose(daemon, "leave").status_code == 202
    assert daemon.submitted == [ev.ProposeMotion("leave", daemon.core.me, b"", "", 50)]
    daemon.submitted.clear()
    wire = sign(NEW, Rekeying(daemon.core.federation, NEW.public_key, daemon.core.me)).wire
    assert propose(daemon, "rekey", daemon.core.me.hex(), wire).status_code == 202
    daemon.submitted.clear()
    me = daemon.charter.member(daemon.core.me)
    assert me is not None
    for action, who, reason in (
        ("expel", me.name, "self-target"),
        ("promote", other.name, "unknown-action"),
        ("expel", NEW.public_key.hex(), "not-a-member"),
        ("rekey", other.name, "statement"),
    ):
        answer = propose(daemon, action, who)
        assert (answer.status_code, answer.json()["exit_code"]) == (409, 5), answer.json()
        assert answer.json()["error"].startswith(reason)
    assert propose(daemon, "expel", "nobody").status_code == 400
    assert call(daemon, "POST", "/motions", json={"action": "expel"}).status_code == 400
    assert call(daemon, "POST", "/ballots", json={"motion": "abcdef", "yes": True, "anyway": False}).status_code == 400
    assert not daemon.submitted


def test_invitations_are_given_listed_and_withdrawn(daemon: "FakeDaemon") -> None:
    body = {"name": "school", "days": 7, "key": "", "hold": True, "charter": False}
    given = call(daemon, "POST", "/invitations", json=body).json()
    value = from_text(given["text"]).value
    assert (value.author, value.federation) == (daemon.core.me, daemon.core.federation)
    assert all("/p2p/" in address for address in value.addresses)
    assert call(daemon, "POST", "/invitations", json=body).status_code == 400, "one is open under this name"
    for wrong in ({"days": 0}, {"days": 1000}, {"key": "zz"}, {"key": "00"}):
        assert call(daemon, "POST", "/invitations", json=body | {"name": "x"} | wrong).status_code == 400
    (shown,) = call(daemon, "GET", "/invitations").json()["invitations"]
    assert (shown["name"], shown["state"], shown["applicant"]) == ("school", "not used", None)
    assert "text" not in shown
    assert call(daemon, "DELETE", "/invitations", json={"invitation": "other"}).status_code == 400
    assert call(daemon, "DELETE", "/invitations", json={"invitation": "school"}).status_code == 200
    assert call(daemon, "GET", "/invitations").json()["invitations"][0]["state"] == "withdrawn"


def held(daemon: "FakeDaemon", name: str, who: Identity, applicant: str) -> str:
    """Give out an invitation to hold, and apply by it; return its id."""
    body = {"name": name, "days": 7, "key": "", "hold": True, "charter": False}
    given = call(daemon, "POST", "/invitations", json=body).json()
    token = Identity.from_seed(from_text(given["text"]).value.token).public_key
    wire = sign(who, Application(daemon.core.federation, who.public_key, applicant, (), token_digest(token))).wire
    request = schema.dump(JoinRequest("apply", wire))
    trio.run(partial(daemon.admission.handlers(token)[JOIN_PROTOCOL], token, request))
    return str(given["invitation"])


def vote(daemon: "FakeDaemon", motion: str, *, yes: bool = True) -> Any:
    return call(daemon, "POST", "/ballots", json={"motion": motion, "yes": yes, "anyway": False})


def test_a_held_application_is_decided_by_its_name_its_key_or_its_invitation(daemon: "FakeDaemon") -> None:
    token = held(daemon, "", NEW, "school-e")
    held(daemon, "the school in the valley", OTHER, "school-f")
    for word in ("school-e", NEW.public_key.hex()[:8], NEW.public_key.hex(), token, token[:4].upper()):
        assert vote(daemon, word).status_code == 202, word
        (proposed,) = daemon.submitted
        assert isinstance(proposed, ev.ProposeMotion)
        assert (proposed.action, proposed.subject) == ("admit", NEW.public_key)
        daemon.submitted.clear()
    for word in ("", "school", token[:3], "nobody", "school-f"):
        assert vote(daemon, word).status_code == 400, word
    notes = [note for note in views.status(context_of(daemon))["notes"] if "Pending application" in note]
    assert len(notes) == 2
    assert "school-e" in notes[0]
    assert token in notes[0]
    assert NEW.public_key.hex()[:16] in notes[0]
    assert "school-f" in notes[1]
    assert "as the school in the valley" in notes[1]
    answer = vote(daemon, "the school in the valley", yes=False).json()
    assert answer == {"submitted": False, "withdrawn": "the school in the valley"}
    assert vote(daemon, "school-e", yes=False).json()["withdrawn"] == "school-e"
    for word in ("school-e", "school-f"):
        assert vote(daemon, word).status_code == 400, "it was turned down"
    assert {g["state"] for g in call(daemon, "GET", "/invitations").json()["invitations"]} == {"withdrawn"}
    assert not [note for note in views.status(context_of(daemon))["notes"] if "Pending application" in note]
    assert not daemon.submitted


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(daemon: "FakeDaemon") -> None:
    held(daemon, "", NEW, "Lycee Pasteur")
    answer = vote(daemon, "lycee pastuer").json()
    assert answer["exit_code"] == 2
    assert "Did you mean 'Lycee Pasteur'?" in answer["advice"]
    assert "Did you mean" not in vote(daemon, "nothing like it").json()["advice"]


def test_a_name_that_is_nearly_a_motions_is_answered_with_that_one(daemon: "FakeDaemon", proposed: Cluster) -> None:
    core = proposed.nodes[1].core
    assert core is not None
    daemon.core = core
    (motion,) = views.motions(context_of(daemon))["open"]
    name = motion["subject"]["name"]
    assert f"Did you mean {name!r}?" in vote(daemon, f"{name}x").json()["advice"]


def test_a_candidate_is_shown_by_its_name_and_its_key(daemon: "FakeDaemon", proposed: Cluster) -> None:
    core = proposed.nodes[1].core
    assert core is not None
    daemon.core = core
    ended = views.motions(context_of(daemon))["ended"]
    assert ended[0]["what"] == f"admit newcomer (key {NEW.public_key.hex()[:16]})"
    context = replace(context_of(daemon), me=OTHER.public_key, title="school-f")
    assert views.status(context)["member"] == {"name": "school-f", "key": OTHER.public_key.hex()}
    assert any("waits to be admitted" in note for note in views.status(context)["notes"])


def test_an_applicant_cannot_choose_the_name_by_which_it_is_approved(daemon: "FakeDaemon") -> None:
    """An operator who means another school would let it in."""
    held(daemon, "vendor", OTHER, "school-e")
    for yes in (True, False):
        assert vote(daemon, "school-e", yes=yes).status_code == 400
    assert not daemon.submitted
    held(daemon, "school-e", NEW, "vendor")
    assert vote(daemon, "school-e").status_code == 202
    (proposed,) = daemon.submitted
    assert isinstance(proposed, ev.ProposeMotion)
    assert proposed.subject == NEW.public_key


def test_a_name_of_two_held_applications_decides_nothing(daemon: "FakeDaemon") -> None:
    first = held(daemon, "", NEW, "twice")
    held(daemon, "", OTHER, "twice")
    answer = vote(daemon, "twice")
    assert (answer.status_code, "more than one" in answer.json()["error"]) == (400, True)
    assert not daemon.submitted
    assert vote(daemon, first).status_code == 202


def test_a_name_of_a_held_application_and_a_motion_decides_nothing(daemon: "FakeDaemon", proposed: Cluster) -> None:
    core = proposed.nodes[1].core
    assert core is not None
    core.options = daemon.core.options
    daemon.core = core
    (motion,) = core.ledger.roll.motions
    name = core.ledger.roll.seats[motion.subject].name
    held(daemon, name, OTHER, "school-e")
    for yes in (True, False):
        assert vote(daemon, name, yes=yes).status_code == 400
    assert not daemon.submitted
    assert vote(daemon, motion.digest.hex()).status_code == 202


def test_a_withdrawal_to_carry_is_checked_first(daemon: "FakeDaemon") -> None:
    for wrong in ("zz", "00" * 70):
        assert call(daemon, "POST", "/unlearn/carried", json={"statement": wrong}).status_code in (400, 409)
    assert not daemon.submitted


@pytest.fixture(scope="module")
def proposed() -> Cluster:
    """Four members; one is admitted, one expelled, and one more motion is open."""
    cluster = Cluster(4, 8, Invariants, rounds=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    application = Application(cluster.federation, NEW.public_key, "newcomer", (), token_digest(sha256(b"d")))
    who = cluster.nodes[3].identity.public_key
    admit = ev.ProposeMotion("admit", NEW.public_key, sign(NEW, application).wire, "", 100)
    votes = [ev.ProposeMotion("expel", who, b"", "", 100), admit]
    for vote in votes:
        for node in cluster.nodes[:3]:
            node.deliver(vote)
        cluster.run(lambda: False, cluster.now + 2000)
    cluster.nodes[0].deliver(ev.ProposeMotion("expel", cluster.nodes[2].identity.public_key, b"", "noise", 100))
    cluster.run(lambda: False, cluster.now + 2000)
    return cluster


def test_members_and_motions_are_shown(daemon: "FakeDaemon", proposed: Cluster) -> None:
    core = proposed.nodes[1].core
    assert core is not None
    daemon.core = core
    context = context_of(daemon)
    motions = views.motions(context)
    (motion,) = motions["open"]
    assert (motion["action"], motion["reason"], motion["your_ballot"], motion["needed"]) == (
        "expel",
        "noise",
        "not cast",
        3,
    )
    assert [(m["action"], m["result"]) for m in motions["ended"]] == [("admit", "passed"), ("expel", "passed")]
    states = {p["name"]: p["state"] for p in views.peers(context)["peers"]}
    assert states["newcomer"] == "never heard of"
    assert list(states.values()).count("expelled") == 1
    assert len(states) == 5
    newcomer = views.member(context, views.find_member(context, "newcomer"))
    assert newcomer["since_height"] > 0
    assert newcomer["ended_motions"][0]["motion"] == newcomer["admitted_by"]
    assert any("waits for your ballot" in note for note in views.status(context)["notes"])
    for word in (motion["motion"][:8], motion["subject"]["name"]):
        assert [m.digest.hex() for m in views.motions_named(context, word)] == [motion["motion"]]
    ended = motions["ended"][0]
    for word in (ended["motion"][:8], "newcomer"):
        refused = call(daemon, "POST", "/ballots", json={"motion": word, "yes": True, "anyway": False})
        assert refused.status_code >= 400
        assert f"passed at height {ended['at_height']}" in refused.text, "it is not said that there is none"
    assert call(daemon, "GET", "/members/newcomer").json()["key"] == NEW.public_key.hex()
    assert (
        call(daemon, "POST", "/ballots", json={"motion": motion["motion"], "yes": True, "anyway": False}).status_code
        == 202
    )
    assert daemon.submitted == [ev.Cast(bytes.fromhex(motion["motion"]), True)]
