"""One student is forgotten, as the command tells it: what it waits for, what it warns of, and the receipt's key."""

import io
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import deletion_receipts, removal
from collegium.crypto.errors import RefusedError
from collegium.crypto.identity import Identity
from collegium.crypto.keyfile import seal
from collegium.node.home import Home, keys
from collegium.protocol.records import WithdrawalStatement
from collegium.protocol.signing import open_signed

from .conftest import fill

if TYPE_CHECKING:
    from collegium.sims.simulator.cluster import Cluster

    from .conftest import Run


@pytest.fixture
def receipt(cluster: "Cluster", tmp_path: Path) -> dict[str, Any]:
    """A receipt by the member that withdrew all: none of its updates is in force."""
    home, file = Home(tmp_path / "withdrawn"), tmp_path / "anna.receipt"
    fill(home, cluster, cluster.nodes[0])
    return {"file": file, **deletion_receipts.write(home, "anna", file)}


def test_a_receipt_is_verified_with_its_key_which_is_not_in_it(run: "Run", receipt: dict[str, Any]) -> None:
    file, key = receipt["file"], receipt["key"]
    answer = run("unlearn", "verify", file, "--subject", "anna", "--key", key, "--json")
    result = answer.value
    assert (answer.code, result["verified"], result["updates_in_force"]) == (7, False, 0)
    assert result["result"] == "nothing-in-force"
    screen = run("unlearn", "verify", file, "--subject", "whoever", "--key", key)
    assert (screen.code, "nothing shown" in screen.out, "verified" in screen.out) == (7, True, False), screen.out
    assert bytes.fromhex(key) not in file.read_bytes()
    assert key.encode() not in file.read_bytes()
    assert "key" not in result


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--subject", "anna"), 2, "--key HEX"),
        (("--key", "00" * 32), 2, "--subject ID"),
        (("--subject", "anna", "--key", "00" * 31), 2, "64 hexadecimal"),
        (("--subject", "anna", "--key", "no"), 2, "64 hexadecimal"),
        (("--subject", "anna", "--key", "00" * 32), 6, "not the one of this receipt"),
    ],
)
def test_without_its_key_a_receipt_is_not_read(
    run: "Run", receipt: dict[str, Any], words: tuple[str, ...], code: int, message: str
) -> None:
    answer = run("unlearn", "verify", receipt["file"], *words)
    assert (answer.code, message in answer.err) == (code, True), answer.err


class FakeClient:
    """A daemon that says what it is told to say."""

    def __init__(self, answers: list[bool], **sent: object) -> None:
        self.answers, self.sent = answers, sent
        self.asked: list[list[str]] = []
        self.forgotten: list[str] = []
        self.requests = 0
        self.updates = ["aa" * 32, "bb" * 32]
        self.known: set[str] = set()  # who is in the data, whatever is told of all
        self.strangers: set[str] = set()  # who is nowhere, whatever is told of all
        self.put_off: tuple[int, bool, tuple[list[str], ...]] | None = None
        self.cancelled: tuple[str, ...] = ()
        self.paused = False
        self.limits: list[int | None] = []  # of updates: what the operator was asked about
        self.meanwhile = 0  # updates that come while the operator is asked, each time

    def status(self) -> dict[str, object]:
        return {}

    def look_for_students(self, *subjects: str) -> dict[str, object]:
        student = {"in_data": True, "drawn": True, "left_out": False, "of_unknown_students": 0}
        here: dict[str, object] = {"in_data": True} if self.known.issuperset(subjects) else {}
        if self.strangers.intersection(subjects):
            here = {"in_data": False, "drawn": False, "would_withdraw": 0}
        more = {"own_updates": 3, "own_rounds": 3, "updates": self.updates, "scheduled": [], "rounds_left": 90}
        return {**student, **more, "would_withdraw": self.would_withdraw, **self.sent, **here}

    def withdrawals(self) -> dict[str, object]:
        return {"scheduled": [{"students": 2, "local": "Sun 2099-09-06 02:00 UTC"}]}

    @property
    def would_withdraw(self) -> int:
        return len(self.updates)

    def _price(self, at_most: int | None) -> None:
        self.limits.append(at_most)
        self.updates += ["cc" * 32] * self.meanwhile
        if at_most is not None and self.would_withdraw > at_most:
            raise RefusedError("the price rose", "Nothing was done.")

    def put_students_off(self, at: int, *students: list[str], pause: bool, at_most: int | None) -> dict[str, object]:
        self._price(at_most)
        self.put_off = (at, pause, students)
        plain = {"excluded": True, "in_data": True, "drawn": True, "at": at, "will_withdraw": 2, "with_others": 1}
        return {
            **plain,
            "of_unknown_students": 0,
            "under_former_keys": {},
            "beyond_refold_horizon": 0,
            "rounds_left": 90,
        }

    def cancel_students(self, *subjects: str) -> dict[str, object]:
        self.cancelled = subjects
        return {"cancelled": len(subjects), "readmitted": 1}

    def forget_students(self, *subjects: str, pause: bool = False, at_most: int | None = None) -> dict[str, object]:
        self._price(at_most)
        self.paused |= pause
        self.forgotten.extend(subjects)
        self.requests += 1
        plain = {"excluded": True, "in_data": True, "withdrawn_updates": 2, "of_unknown_students": 0}
        return {
            **plain,
            "remaining": 0,
            "under_former_keys": {},
            "beyond_refold_horizon": 0,
            "updates": ["aa", "bb"],
            **self.sent,
        }

    def settled(self, updates: list[str]) -> bool:
        self.asked.append(updates)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def forget(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch, client: FakeClient, *words: object) -> Any:
    monkeypatch.setattr("collegium.node.control.client.Client", lambda opened: client)
    return run("unlearn", "subject", "anna", "--yes", "--wait", "1", "--home", home.root, *words)


def test_a_student_is_forgotten_when_just_these_updates_are_settled(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient([False, False, True])
    answer = forget(run, home, monkeypatch, client)
    assert (answer.code, client.asked) == (0, [["aa", "bb"]] * 3)
    assert "2 updates saw this student and are being withdrawn." in answer.err
    assert "not in the data" not in answer.err
    assert "not recorded" not in answer.err
    answer = forget(run, home, monkeypatch, FakeClient([False]))
    assert (answer.code, "have not certified" in answer.err) == (4, True)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"in_data": False}, "This id is not in the data here, but in a training run of the past."),
        ({"in_data": None}, "No learner has read the data"),
        (
            {"would_withdraw": 0, "withdrawn_updates": 0, "left_out": True},
            "0 updates saw this student: they are left out already",
        ),
        (
            {"would_withdraw": 0, "withdrawn_updates": 0, "own_updates": 0},
            "0 updates saw this student: no update of this node",
        ),
        (
            {"would_withdraw": 0, "withdrawn_updates": 0},
            "not drawn in the 3 rounds in which this node counts. A step draws",
        ),
        ({"would_withdraw": 0, "withdrawn_updates": 0, "own_rounds": 1}, "not drawn in the 1 round in which"),
        ({"of_unknown_students": 1}, "The students of 1 of them are not recorded"),
        ({"beyond_refold_horizon": 3}, "3 more are beyond"),
    ],
)
def test_what_is_not_known_of_a_student_is_told(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch, sent: dict[str, object], sentence: str
) -> None:
    answer = forget(run, home, monkeypatch, FakeClient([True], **sent))
    assert (answer.code, sentence in answer.err) == (0, True), answer.err


def test_an_id_that_nobody_has_is_refused_unless_it_is_said(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient([True], in_data=False, drawn=False, would_withdraw=0, withdrawn_updates=0)
    refused = forget(run, home, monkeypatch, client)
    assert (refused.code, client.forgotten) == (5, []), refused.err
    assert "Nobody has this id" in refused.err
    assert "--anyway" in refused.err
    assert "anna" not in refused.err
    answer = forget(run, home, monkeypatch, client, "--anyway", "--json")
    assert (answer.code, answer.value["id_known"], answer.value["in_data"]) == (0, False, False)
    assert answer.value["why_none"] == "nobody here has this id"
    assert client.forgotten == ["anna"]
    assert "0 updates saw this student: nobody here has this id" in answer.err
    client.known = {"Anna"}
    client.forgotten.clear()
    answer = forget(run, home, monkeypatch, client, "--also", "Anna")
    assert (answer.code, client.forgotten) == (0, ["Anna"]), "what is advised for a spelling of nobody's can be done"
    assert "1 of the 2 ids are spellings that nobody here has" in answer.err
    again = FakeClient([True], in_data=False, drawn=False, would_withdraw=0, withdrawn_updates=0, left_out=True)
    answer = forget(run, home, monkeypatch, again)
    assert answer.code == 0, "who is left out already may ask for another receipt"
    assert answer.err == (
        "0 updates saw this student: they are left out already, and no update that saw them counts now.\n"
    )


def test_several_students_are_one_withdrawal(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([True])
    answer = forget(run, home, monkeypatch, client, "ben", "cleo", "ben", "--json")
    assert (answer.code, client.requests, client.forgotten) == (0, 1, ["anna", "ben", "cleo"]), answer.err
    assert "2 updates saw any of these 3 ids and are being withdrawn." in answer.err
    for number in (1, 2, 3):
        assert f"id {number} of 3: 2 updates saw this student" in answer.err
    assert len(answer.value["also"]) == 2
    told = forget(run, home, monkeypatch, FakeClient([True]), "ben", "cleo").out.splitlines()
    assert told[::2] == ["id 1 of 3, 'anna':", "id 2 of 3, 'ben':", "id 3 of 3, 'cleo':"], "whose receipt it is"
    monkeypatch.setattr("sys.stdin", io.StringIO("ben\n\ncleo\n"))
    client = FakeClient([True])
    assert forget(run, home, monkeypatch, client, "-").code == 0
    assert client.forgotten == ["anna", "ben", "cleo"]


def test_a_withdrawal_is_put_off_to_a_time(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client, moment = FakeClient([True]), datetime.now().replace(microsecond=0) + timedelta(days=3)
    answer = forget(run, home, monkeypatch, client, "--at", moment.isoformat(), "--json")
    assert (answer.code, client.requests) == (0, 0), answer.err
    assert client.put_off == (int(moment.timestamp()), False, (["anna"],))
    assert datetime.fromisoformat(answer.value["at"]) == moment.astimezone()
    answer = forget(run, home, monkeypatch, client, "ben", "--at", moment.isoformat(), "--no-retrain")
    later = client.put_off
    assert (later[1], list(later[2])) == (True, [["anna"], ["ben"]])
    text = " ".join(answer.out.split())
    when = f"{moment.astimezone():%a %Y-%m-%d %H:%M %Z}"
    assert f"2 updates that saw these students will be withdrawn on {when}, with those of 1 other student." in text
    assert "If these updates would be too old to be withdrawn by then (beyond the refold horizon)" in text
    assert f"`collegium --home {home.root} unlearn cancel ID` takes it back; the same command without --at" in text
    assert forget(run, home, monkeypatch, client, "--also", "A7", "--at", moment.isoformat()).code == 0
    assert client.put_off[2] == (["anna", "A7"],), "two ids of one student"
    assert run("unlearn", "cancel", "anna", "ben", "--yes", "--home", home.root).out == (
        "2 withdrawals are taken back.\n"
        "1 student is trained on again.\n"
        "1 student was left out before that already: no change.\n"
        f"Still to come: 2 students (`collegium --home {home.root} unlearn status`).\n"
    )
    assert client.cancelled == ("anna", "ben")


@pytest.mark.parametrize("at", [(), ("--at", "2026-01-01T00:00")])
def test_what_rose_while_the_operator_was_asked_is_asked_again(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch, at: tuple[str, ...]
) -> None:
    """A fake terminal: the question is answered with yes, each time after another round."""
    client, asked = FakeClient([True]), list[str]()
    if at:
        at = ("--at", (datetime.now() + timedelta(days=1)).isoformat())
    client.meanwhile = 1

    def agree(question: str, **_: object) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", agree)
    monkeypatch.setattr("collegium.node.control.client.Client", lambda opened: client)
    answer = run("unlearn", "subject", "anna", "--no-measure", "--home", home.root, *at)
    assert (answer.code, client.limits) == (0, [2, None]), answer.err
    assert ["2 updates that saw" in asked[0], "3 updates that saw" in asked[1]] == [True, True]
    assert "Nothing was done: while you were asked, the price rose from 2 updates to 3." in answer.err
    assert forget(run, home, monkeypatch, client, *at).code == 0
    assert client.limits == [2, None, None], "with --yes nothing is asked"


def test_a_time_is_local_unless_it_has_an_offset(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        day = f"{datetime.now() + timedelta(days=3):%Y-%m-%d}"
        client = FakeClient([True])
        for text, instant in (("T02:00", "T02:00+05:30"), ("T02:00-03:00", "T02:00-03:00"), ("T02:00Z", "T02:00Z")):
            assert forget(run, home, monkeypatch, client, "--at", day + text).code == 0
            assert client.put_off is not None
            assert client.put_off[0] == datetime.fromisoformat(day + instant).timestamp()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_the_time_of_the_configuration_is_taken_if_there_is_one(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient([True])
    refused = forget(run, home, monkeypatch, client, "--scheduled")
    assert (refused.code, client.put_off) == (2, None)
    assert "[unlearning] schedule" in refused.err
    config = home.config.read_text()
    home.config.write_text(config.replace('schedule = ""', 'schedule = "Sun 02:00"'))
    answer = forget(run, home, monkeypatch, client, "--scheduled")
    assert answer.code == 0
    assert "the same command without --scheduled withdraws now" in " ".join(answer.out.split())
    assert client.put_off is not None
    due = datetime.fromtimestamp(client.put_off[0])
    assert (due.weekday(), due.hour, 0 < (due - datetime.now()).days < 8 or due > datetime.now()) == (6, 2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "tomorrow"), "is no time"),
        (("--at", "0001-01-01T00:00"), "is no time"),
        (("--at", "2020-01-01T02:00"), "that is over"),
        (("--at", "2999-01-01T02:00"), "more than 366 days ahead"),
        (("--at", "2026-01-01", "--scheduled"), "do not go together"),
    ],
)
def test_what_is_no_time_to_come_is_refused(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    client = FakeClient([True])
    refused = forget(run, home, monkeypatch, client, *words)
    assert (refused.code, said in refused.err, client.forgotten, client.put_off) == (2, True, [], None)


def test_no_receipt_is_written_before_the_withdrawal(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = (datetime.now() + timedelta(days=1)).isoformat()
    refused = forget(run, home, monkeypatch, FakeClient([True]), "--at", soon, "--out", home.root / "receipt")
    assert (refused.code, "only after the withdrawal" in refused.err) == (2, True)


def test_to_withdraw_and_not_to_train_again_pauses_the_node(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient([True])
    assert forget(run, home, monkeypatch, client, "--no-retrain").code == 0
    assert (client.paused, client.forgotten) == (True, ["anna"])


def test_whoever_is_asked_is_told_what_there_is(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake terminal: the question is answered with no."""
    client = FakeClient([True])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    monkeypatch.setattr("collegium.node.control.client.Client", lambda opened: client)
    answer = run("unlearn", "subject", "anna", "--no-measure", "--home", home.root)
    assert (answer.code, client.forgotten) == (5, [])
    for text in ("--at TIME: leave them out now", "To come: 2 students, Sun", "--no-retrain"):
        assert text in answer.err, text


def test_one_mistyped_id_of_several_changes_nothing(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([True])
    client.strangers = {"bne"}
    refused = forget(run, home, monkeypatch, client, "bne", "cleo")
    assert (refused.code, client.requests) == (5, 0), refused.err
    assert "Nobody has number 2 of these 3 ids" in refused.err
    assert "bne" not in refused.err
    assert "Nothing was done" in refused.err


def test_the_price_is_measured_when_asked_for(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([True])
    answer = forget(run, home, monkeypatch, client, "--measure", "--json")
    assert answer.code == 0, answer.err
    cost = answer.value["price"]
    assert cost["not_measured"] == "none of them is in a state that this node holds"
    assert "What it costs the shared model is not measured: none of them" in answer.err
    answer = forget(run, home, monkeypatch, client, "--json")
    assert answer.value["price"] is None, "a script that does not ask does not wait for it"


def test_the_price_is_named_where_nobody_can_be_asked(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([True], of_unknown_students=1)
    monkeypatch.setattr("collegium.node.control.client.Client", lambda opened: client)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    answer = run("unlearn", "subject", "anna", "--home", home.root)
    assert (answer.code, client.forgotten) == (2, [])
    assert (
        "Withdraw the 2 updates that saw this student (the students of 1 of them are not recorded), of 3" in answer.err
    )
    assert "Give --yes to confirm. Nothing was done." in answer.err
    monkeypatch.setattr(client, "status", lambda: {"federation": {"name": "schools"}})
    answer = run("unlearn", "request", "--home", home.root)
    assert answer.code == 2
    assert "Withdraw everything that this node contributed to 'schools'? It cannot be taken back." in answer.err
    assert "Each of the 3 other members folds 4 rounds of head/task0 again (" in answer.err
    one = run("unlearn", "request", "--component", "head/task0", "--rounds", "3..4", "--home", home.root)
    assert "Each of the 3 other members folds 2 rounds of head/task0 again (" in one.err
    other = {"components": ["head/other"], "first": 0, "last": 0, "updates": []}
    assert removal.of_request(home, other)["recovery_bytes"] == 0, "rounds are opened where something is withdrawn"
    assert removal.of_request(home, other | {"components": ["head/task0"]})["recovery_bytes"] > 0
    assert "Give --yes to confirm. Nothing was done." in answer.err


def test_a_receipt_says_that_nobody_there_had_the_id(run: "Run", cluster: "Cluster", tmp_path: Path) -> None:
    home, file = Home(tmp_path / "withdrawn"), tmp_path / "nobody.receipt"
    fill(home, cluster, cluster.nodes[0])
    key = deletion_receipts.write(home, "nobody", file, id_known=False)["key"]
    words = ("unlearn", "verify", file, "--subject", "nobody", "--key", key)
    assert run(*words, "--json").value["id_known"] is False
    assert "when member 0 wrote this, it found this id neither in its data nor in any training run" in " ".join(
        run(*words).out.split()
    )
    file.unlink()
    key = deletion_receipts.write(home, "anna", file)["key"]
    assert run("unlearn", "verify", file, "--subject", "anna", "--key", key, "--json").value["id_known"] is True


def test_with_updates_of_a_former_key_in_force_there_is_no_receipt(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, out = Identity.from_seed(bytes(32)).public_key, tmp_path / "receipt"
    client = FakeClient([True], under_former_keys={old.hex(): 3})
    answer = forget(run, home, monkeypatch, client, "--out", out)
    assert (answer.code, client.asked, out.exists()) == (5, [["aa", "bb"]], False)
    assert f"3 more are in force under the former key {old.hex()[:16]}" in answer.err
    assert f"--key-file {keys.kept(home, old)} --out FILE" in answer.err


def test_a_former_key_signs_a_statement_that_a_member_may_carry(
    run: "Run", home: Home, tmp_path: Path, cluster: "Cluster"
) -> None:
    me, old = cluster.nodes[1].identity, Identity.from_seed(bytes(32))
    path, out = keys.kept(home, old.public_key), tmp_path / "statement"
    path.write_bytes(seal(old, "correct horse", ops=1, mem=8192))
    path.chmod(0o600)
    words = ("unlearn", "statement", "--home", home.root, "--key-file")
    assert (run(*words, path, "--out", out).code, out.exists()) == (2, False), "it is sealed"
    (secret := tmp_path / "passphrase").write_text("correct horse")
    secret.chmod(0o600)
    result = run(*words, path, "--out", out, "--passphrase-file", secret, "--json").value
    assert result["key"] == old.public_key.hex()
    signed = open_signed(WithdrawalStatement, bytes.fromhex(out.read_text()), cluster.charter.federation)
    assert (signed.value.author, signed.value.scope) == (old.public_key, "all")
    path.write_bytes(seal(me, None))
    refused = run(*words, path, "--out", tmp_path / "member's")
    assert (refused.code, "member's key" in refused.err) == (2, True)


def test_what_one_height_does_not_take_is_asked_for_again(
    run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient([False, True, False, True])
    parts: list[dict[str, object]] = [{"remaining": 1}, {"remaining": 0, "withdrawn_updates": 1, "updates": ["cc"]}]
    plain: dict[str, object] = client.forget_students("anna")
    monkeypatch.setattr(client, "forget_students", lambda *_, **__: {**plain, **parts.pop(0)})
    answer = forget(run, home, monkeypatch, client, "--wait", 20, "--json")
    assert (answer.code, client.asked) == (0, [["aa", "bb"]] * 2 + [["cc"]] * 2)
    assert "3 updates saw this student" in answer.err
    assert (answer.value["updates"], answer.value["withdrawn_updates"]) == (["aa", "bb", "cc"], 3)
