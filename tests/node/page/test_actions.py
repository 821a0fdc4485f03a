"""Actions on the page: done once, after they are confirmed, by a form of this session; no id gets into an address."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from collegium.crypto.errors import OperatorError, RefusedError
from collegium.node.control.client import Client
from collegium.node.core import events as ev
from collegium.node.core.state import PAUSED_FLAG
from collegium.node.explaining import Explanation, Proof, Role
from collegium.node.home.invitations import from_text
from collegium.node.page.actions import ACTIONS, READS, members
from collegium.node.page.actions.forms import CAUTION, LIMIT
from collegium.node.page.app import build
from collegium.node.page.content import PLACES
from collegium.node.page.source import Look, Receipt, Source
from collegium.sims.simulator.cluster import Cluster

from ...waiting import LIMIT as PATIENCE
from ...waiting import wait_for
from ..control.conftest import daemon, grown_cluster  # noqa: F401 - fixtures
from ..control.test_client import serving
from ..control.test_membership import NEW, held, proposed  # noqa: F401 - a fixture
from .test_pages import OF_FILES, Shape
from .test_pages import source as reading

if TYPE_CHECKING:
    from ..control.conftest import FakeDaemon

TOKEN = "of-this-session"
STUDENT = "S4-005 Ćirić"


class Removals:
    """Students as the commands would remove them: what is asked is noted."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[str, ...]] = []
        self.alike: list[str] = []
        self.fault: Exception | None = None
        self.updates = frozenset({b"u" * 32})
        self.limits: list[int | None] = []

    def similar(self, ids: Sequence[str], /) -> list[str]:
        return [name for name in self.alike if name not in ids]

    def look(self, ids: Sequence[str], /) -> Look:
        if self.fault is not None:
            raise self.fault
        return Look(tuple(ids), ("3 updates saw this student",) * len(ids), "Withdraw 3 updates?", self.updates)

    def price(self, updates: Collection[bytes], /) -> list[str]:
        return [f"passed: AUC 0.9 now, 0.8 without {len(updates)}."]

    def forget(self, ids: Sequence[str], tell: Callable[[str], None], /, at_most: int | None) -> list[Receipt]:
        self.limits.append(at_most)
        if at_most is not None and at_most < len(self.updates):
            raise RefusedError("the price rose")
        tell("3 updates are being withdrawn.")
        self.forgotten.append(tuple(ids))
        return [Receipt(name, b"receipt of one", "ab" * 32, "") for name in ids]


class Operator:
    """A browser of the operator: it follows redirects as a browser does, and sends forms as pages have them."""

    def __init__(self, daemon: "FakeDaemon", *, acts: bool = True) -> None:  # noqa: F811 - the fixture
        self.students = Removals()
        self.explained: list[tuple[str, str, str | None, str | None]] = []
        acting = (self.students, self._explains) if acts else (None, None)
        self.source = Source(daemon.home, reading(daemon).from_store, *acting)
        app = build(self.source)

        async def with_session(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": {"form_token": TOKEN, "open_for": self.open_for}}, receive, send)

        self._app: Any = with_session
        self.addresses: list[str] = []
        self.open_for = CAUTION

    def _explains(self, file: str, role: Role, task: str | None, record: str | None, /) -> Explanation:
        self.explained.append((file, role, task, record))
        states = {"head/task0": (2, 0, "cd" * 32)}
        proof = Proof(role, "task0", record, "ab" * 32, 7, "ef" * 32, states, "a method", "00" * 32, "11" * 32)
        yours = [{"modality": "about", "feature": "hours", "value": "<7>", "fixed": False, "effect": 1.0}]
        says = {"result": "good", "chances": {"good": 0.8}, "yours": yours, "changes": []}
        return Explanation(proof, says, {"result": "bad"})

    def ask(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://page", follow_redirects=True) as client:
                answer = await client.request(method, path, **options)
                self.addresses += [str(one.request.url) for one in (*answer.history, answer)]
                return answer

        return trio.run(asked)

    def send(self, path: str, **fields: str) -> httpx.Response:
        """Send a form, with the token; return the page that it leads to, once it is no longer under way."""
        page = self.ask(path, "POST", data={"token": TOKEN, **fields})
        wait_for(lambda: "data-again" not in self.ask(page.url.path).text, seconds=PATIENCE)
        return self.ask(page.url.path)

    def confirm(self, page: httpx.Response, option: int = 0) -> httpx.Response:
        """Press the button of a plan or a choice."""
        return self.send(page.url.path, **{**hidden(page.text), "option": str(option)})


def hidden(page: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(number|option)" value="([^"]*)">', page))


def text(page: httpx.Response) -> str:
    return Shape(page.text).texts


def obey(daemon: "FakeDaemon") -> None:  # noqa: F811
    """Pause and resume as the core does."""
    from collegium.node.core.events import Event, PutFlag, SetPaused

    submit = daemon.submit

    def obeyed(event: Event) -> None:
        submit(event)
        if isinstance(event, SetPaused):
            daemon.store.apply([PutFlag(PAUSED_FLAG, int(event.on))])

    daemon.submit = obeyed  # type: ignore[method-assign]


def test_nothing_is_done_before_it_is_confirmed_and_then_once(daemon: "FakeDaemon") -> None:  # noqa: F811
    obey(daemon)
    operator = Operator(daemon)
    with serving(daemon):
        plan = operator.send("/act/pause")
        assert plan.status_code == 200
        assert "Pause this node's training?" in text(plan)
        assert "spends no ε" in text(plan)
        assert "collegium node pause" in text(plan)
        assert not daemon.submitted
        done = operator.confirm(plan)
        assert "Paused: this node trains nothing" in text(done)
        again = operator.confirm(plan)  # the browser's button, pressed twice
        assert again.url.path == done.url.path
        assert daemon.submitted == [ev.SetPaused(True)]
        assert "Resumed" in text(operator.confirm(operator.send("/act/resume")))
    assert daemon.submitted == [ev.SetPaused(True), ev.SetPaused(False)]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (urlencode({"motion": "x"}), "application/x-www-form-urlencoded", 403),
        (urlencode({"token": "wrong"}), "application/x-www-form-urlencoded", 403),
        (urlencode({"token": ""}), "application/x-www-form-urlencoded", 403),
        (f"token={TOKEN}&token={TOKEN}", "application/x-www-form-urlencoded", 400),
        (f"token={TOKEN}&a=%ff", "application/x-www-form-urlencoded", 400),
        (f"token={TOKEN}&a=" + "x" * LIMIT, "application/x-www-form-urlencoded", 400),
        (f"token={TOKEN}" + "".join(f"&f{n}=1" for n in range(60)), "application/x-www-form-urlencoded", 400),
        (f'{{"token": "{TOKEN}"}}', "application/json", 400),
        (f"token={TOKEN}", "text/plain", 400),
        (f"token={TOKEN}", "", 400),
        (f"token={TOKEN}", "multipart/form-data", 400),
        (f"token={TOKEN}", "multipart/form-data; boundary=x", 400),
        ("--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 400),
    ],
)
def test_what_is_no_form_of_this_session_does_nothing(
    daemon: "FakeDaemon",  # noqa: F811
    body: str,
    kind: str,
    status: int,
) -> None:
    """A form of another site has no token, and a browser sends JSON of another site only after asking."""
    operator = Operator(daemon)
    with serving(daemon):
        answer = operator.ask("/act/pause", "POST", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, text(answer)
        assert "/asked/" not in answer.text
        assert operator.ask("/asked/none", "POST", data={"token": "wrong"}).status_code == 403
    assert not daemon.submitted


def test_a_page_that_was_just_opened_confirms_nothing(daemon: "FakeDaemon") -> None:  # noqa: F811
    """Whoever took the link has the session until the operator's own browser opens it, seconds later."""
    obey(daemon)
    operator = Operator(daemon)
    operator.open_for = CAUTION - 0.1
    with serving(daemon):
        plan = operator.send("/act/pause")
        refused = operator.ask(plan.url.path, "POST", data={"token": TOKEN, **hidden(plan.text)})
        assert (refused.status_code, "Go back and press the button again" in text(refused)) == (403, True)
        assert not daemon.submitted
        operator.open_for = CAUTION
        assert "Paused" in text(operator.confirm(plan))


def test_a_page_without_a_session_takes_no_form(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    operator._app = build(operator.source)
    assert operator.ask("/act/pause", "POST", data={"token": ""}).status_code == 403


def test_a_page_that_only_reads_has_no_actions(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon, acts=False)
    with serving(daemon):
        for name in ACTIONS.keys() - READS:
            assert operator.ask(f"/act/{name}", "POST", data={"token": TOKEN}).status_code == 403, name
        for place in PLACES:
            if place.path not in OF_FILES:
                forms = re.findall(r'action="/act/([a-z-]+)"', operator.ask(place.path).text)
                assert set(forms) <= READS, place.name
        assert operator.ask("/act/none", "POST", data={"token": TOKEN}).status_code == 404
        assert operator.ask("/act/pause").status_code == 405
    assert not daemon.submitted


def test_without_a_daemon_there_is_nothing_to_ask(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    assert '"/act/pause"' not in operator.ask("/").text
    page = operator.send("/act/pause")
    assert "No daemon runs" in text(page)
    assert "collegium node start" in text(page)


def test_an_explanation_is_asked_for_by_a_form_and_shown_once_confirmed(daemon: "FakeDaemon") -> None:  # noqa: F811
    """No daemon is needed; no id and no path gets into an address."""
    operator = Operator(daemon)
    assert "a role are needed" in text(operator.send("/act/explain", file="new.csv", role="parent"))
    fields = {"file": "/school/new.csv", "role": "student", "task": "task0", "record": STUDENT}
    plan = operator.send("/act/explain", **fields)
    assert "Explain results to this reader: student?" in text(plan)
    assert not operator.explained
    page = operator.confirm(plan)
    assert operator.explained == [("/school/new.csv", "student", "task0", STUDENT)]
    assert "result for you is good, with a probability of 80%" in text(page)
    assert "learned from its own students the result is another one: bad" in text(page)
    assert "&lt;7&gt;" in page.text
    assert "<7>" not in page.text
    assert json.loads(operator.ask(f"{page.url.path}/file/0").content)["proof"]["height"] == 7
    assert not any("school" in address or "005" in address for address in operator.addresses)


def test_every_form_leads_to_an_action_and_every_action_has_one(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    found: set[str] = set()
    with serving(daemon):
        record = daemon.store.block(1).records[0].digest.hex()  # type: ignore[union-attr]
        other = daemon.network.members[1].hex()
        for path in [*(p.path for p in PLACES if p.path not in OF_FILES), f"/ledger/{record}", f"/members/{other}"]:
            found |= set(re.findall(r'action="/act/([a-z-]+)"', operator.ask(path).text))
        held(daemon, "open to all", NEW, "newcomer")
        Client(daemon.home).invite("not used yet")
        page = operator.ask("/members")
        assert page.status_code == 200, text(page)
        found |= set(re.findall(r'action="/act/([a-z-]+)"', page.text))
    only_after = {"resume", "verify-withdrawal", "certificate"}  # while paused; after a withdrawal: tests/firstweek
    only_after |= {"explain"}  # on a page that reads files: tests/cli/test_explain.py
    assert found == ACTIONS.keys() - only_after


def test_an_invitation_is_made_shown_once_and_withdrawn(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    with serving(daemon) as client:
        plan = operator.send("/act/invite", name="Lycée", days="9", hold="yes")
        assert "5 members would be in, of whom 4 have to agree, instead of 3 of 4" in text(plan)
        assert "waits here until you approve it" in text(plan)
        assert "collegium peer invite" in text(plan)
        assert not client.invitations()["invitations"]
        done = operator.confirm(plan)
        (given,) = client.invitations()["invitations"]
        assert (given["name"], given["hold"]) == ("Lycée", True)
        file = operator.ask(f"{done.url.path}/file/0")
        assert file.headers["content-disposition"] == 'attachment; filename="invitation-Lyc-e.txt"'
        assert from_text(file.text.strip()).value.author == daemon.core.me
        assert file.text.strip() in unescape(done.text)
        gone = operator.confirm(operator.send("/act/uninvite", invitation=given["invitation"]))
        assert "Nobody is let in" in text(gone)
        assert client.invitations()["invitations"][0]["state"] == "withdrawn"
        for wrong in ("0", "366", "many", ""):
            assert "1 to 365 days" in text(operator.send("/act/invite", name="x", days=wrong))


def test_a_vote_and_an_expulsion_name_their_consequences(
    daemon: "FakeDaemon",  # noqa: F811
    proposed: Cluster,  # noqa: F811
) -> None:
    core = proposed.nodes[1].core
    assert core is not None
    core.options = daemon.core.options
    daemon.core = core
    operator = Operator(daemon)
    with serving(daemon) as client:
        (motion,) = client.motions()["open"]
        plan = operator.send("/act/vote", motion=motion["motion"], yes="yes")
        assert "A ballot is final" in text(plan)
        assert "its key never comes back" in text(plan)
        assert "1 of 3 voted yes so far" in text(plan)
        assert not daemon.submitted
        operator.confirm(plan)
        assert daemon.submitted == [ev.Cast(bytes.fromhex(motion["motion"]), True)]
        operator.confirm(operator.send("/act/vote", motion=motion["motion"], yes="no"))
        assert daemon.submitted[-1] == ev.Cast(bytes.fromhex(motion["motion"]), False)
        daemon.submitted.clear()

        other = next(key for key in sorted(core.ledger.members) if key != core.me)
        plan = operator.send("/act/expel", who=other.hex(), reason="sends noise")
        assert "3 members would remain, of whom 3 have to agree" in text(plan)
        assert "--reason 'sends noise'" in text(plan)
        operator.confirm(plan)
        assert daemon.submitted == [ev.ProposeMotion("expel", other, b"", "sends noise", 500)]
        assert "too long" in text(operator.send("/act/expel", who=other.hex(), reason="é" * 300))
        assert "no member" in text(operator.send("/act/expel", who="nobody"))
        assert "any more" in text(operator.send("/act/vote", motion="ab" * 32, yes="yes"))
        assert len(daemon.submitted) == 1


def test_an_application_is_admitted_or_turned_down(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    with serving(daemon) as client:
        which = held(daemon, "the school in the valley", NEW, "newcomer")
        plan = operator.send("/act/vote", motion=which, yes="yes")
        assert "under a name that it chose itself" in text(plan)
        assert "by telephone" in text(plan)
        operator.confirm(plan)
        (sent,) = daemon.submitted
        assert isinstance(sent, ev.ProposeMotion)
        assert (sent.action, sent.subject) == ("admit", NEW.public_key)
        assert "was turned down" in text(operator.confirm(operator.send("/act/vote", motion=which, yes="no")))
        assert client.invitations()["invitations"][0]["withdrawn"]


def test_every_action_of_a_motion_has_its_consequence(daemon: "FakeDaemon") -> None:  # noqa: F811
    from collegium.protocol.membership import ACTIONS as MOTIONS

    subject = {"name": "east", "key": daemon.network.members[1].hex()}
    with serving(daemon) as client:
        for action in MOTIONS:
            motion: Any = {"action": action, "what": f"{action} east", "subject": subject, "scope": "everything"}
            said = " ".join(members._if_passed(client, motion))
            assert said.startswith("If it passes")
            assert f"{action} east." not in said, "it has a sentence of its own"


def test_students_are_forgotten_after_the_price_and_no_id_is_in_an_address(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    with serving(daemon), capture_logs() as logs:
        plan = operator.send("/act/forget", students=f" {STUDENT} \r\n\r\nS4-006")
        assert "AUC 0.9 now, 0.8 without 1" in text(plan)
        assert "Withdraw 3 updates?" in text(plan)
        assert STUDENT in text(plan), "the operator sees who is meant"
        assert operator.students.forgotten == []
        operator.students.updates |= {b"v" * 32}  # the federation goes on meanwhile
        again = operator.confirm(plan)
        assert operator.students.forgotten == []
        assert "the price rose from 1 update to 2" in text(again)
        assert "AUC 0.9 now, 0.8 without 2" in text(again)
        operator.students.updates |= {b"w" * 32}
        done = operator.confirm(again)
        assert operator.students.limits == [1, None]
        assert operator.students.forgotten == [(STUDENT, "S4-006")]
        assert "ab" * 32 in text(done)
        assert operator.ask(f"{done.url.path}/file/1").content == b"receipt of one"
        assert operator.ask(f"{done.url.path}/file/2").status_code == 400

        operator.students.fault = KeyError(STUDENT)
        failed = operator.send("/act/forget", students=STUDENT)
        assert "internal error: KeyError" in text(failed)
    assert logs
    assert not [address for address in operator.addresses if "S4" in address or "iri" in address]
    assert "S4" not in str(logs)


def test_a_daemons_fault_logs_no_id(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async def fails(*subjects: str) -> Any:
        raise KeyError(*subjects)

    monkeypatch.setattr(daemon, "exclude", fails)
    failing = pytest.raises(OperatorError, match="internal error: KeyError")
    with serving(daemon) as client, capture_logs() as logs, failing:
        client.forget_students(STUDENT)
    assert logs
    assert "S4" not in str(logs)


def test_ids_that_are_spelt_alike_are_asked_about_first(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    operator.students.alike = ["s4-005"]
    with serving(daemon):
        choice = operator.send("/act/forget", students="S4-005")
        assert "this id, which differs" in text(choice)
        plan = operator.confirm(choice, 1)
        assert "Forget 1 student?" in text(plan)
        operator.confirm(plan)
        operator.confirm(operator.confirm(operator.send("/act/forget", students="S4-005"), 0))
        assert operator.students.forgotten == [("S4-005",), ("S4-005", "s4-005")]
        wrong = operator.send("/act/forget", students="S4-005")
        assert (
            operator.ask(wrong.url.path, "POST", data={"token": TOKEN, "number": "0", "option": "7"}).status_code == 400
        )


def test_a_contribution_is_withdrawn_after_the_price(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    with serving(daemon):
        plan = operator.send("/act/withdraw", component="head/task0", rounds="1..2")
        assert "AUC 0.9 now, 0.8 without" in text(plan)
        assert "cannot be taken back" in text(plan)
        assert "recovery rounds follow" in text(plan)
        assert "collegium unlearn request --component head/task0 --rounds 1..2" in text(plan)
        assert "contributes no more" not in text(plan)
        assert not daemon.submitted
        operator.confirm(plan)
        assert daemon.submitted == [ev.RequestWithdrawal("rounds", ("head/task0",), 1, 2)]
        plan = operator.send("/act/withdraw")
        assert "This node then contributes no more." in text(plan)
        operator.confirm(plan)
        assert daemon.submitted[1:] == [ev.RequestWithdrawal()]
        for fields in (
            {"rounds": "1"},
            {"component": "head/task0", "rounds": "2..1"},
            {"component": "x", "rounds": "a"},
        ):
            refused = operator.send("/act/withdraw", **fields)
            assert "The rounds are" in text(refused)
        assert "Nothing was done" in text(operator.send("/act/withdraw", component="head/none"))
        assert len(daemon.submitted) == 2


def test_a_file_of_somebody_is_taken_byte_by_byte_and_said_to_be_none(daemon: "FakeDaemon") -> None:  # noqa: F811
    operator = Operator(daemon)
    taken: list[bytes] = []

    def check(_source: Source, fields: Any) -> Any:
        taken.append(fields.upload)
        return ACTIONS["check-file"].make(_source, fields)

    every = bytes(range(256)) * 9 + b"\r\n--\r\n\r\n--x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("collegium.node.page.app.ACTIONS", {"check-file": ACTIONS["check-file"]._replace(make=check)})
        for content in (every, b"", b"\r\n", b"collegium/1 inclusion\nshort"):
            page = operator.ask(
                "/act/check-file",
                "POST",
                data={"token": TOKEN, "student": "ö", "key": ""},
                files={"file": ('a"b.bin', content)},
            )
            wait_for(lambda path=page.url.path: "data-again" not in operator.ask(path).text)  # type: ignore[misc]
            shown = text(operator.ask(page.url.path))
            assert "no proof" in shown or "the file is damaged" in shown, shown
    assert taken == [every, b"", b"\r\n", b"collegium/1 inclusion\nshort"]


def test_what_was_asked_for_is_forgotten_after_a_while(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from collegium.node.page.actions import tickets

    operator = Operator(daemon)
    with serving(daemon):
        plan = operator.send("/act/forget", students=STUDENT)
        monkeypatch.setattr(tickets, "AGE", -1.0)
        assert operator.ask(plan.url.path).status_code == 400
        monkeypatch.setattr(tickets, "AGE", 1800.0)
        monkeypatch.setattr(tickets, "MOST", 1)
        other = operator.send("/act/forget", students=STUDENT)
        assert operator.ask(plan.url.path).status_code == 400, "the oldest made room"
        assert operator.ask(other.url.path).status_code == 200
    assert operator.students.forgotten == []
