"""One student is forgotten, as the command tells it: what it waits for, what it warns of, and the receipt's key."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import deletion_receipts
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

    def status(self) -> dict[str, object]:
        return {}

    def look_for_students(self, *subjects: str) -> dict[str, object]:
        student = {"in_data": True, "drawn": True, "left_out": False, "would_withdraw": 2, "of_unknown_students": 0}
        here: dict[str, object] = {"in_data": True} if self.known.issuperset(subjects) else {}
        if self.strangers.intersection(subjects):
            here = {"in_data": False, "drawn": False, "would_withdraw": 0}
        return {**student, "own_updates": 3, "own_rounds": 3, "updates": self.updates, **self.sent, **here}

    def forget_students(self, *subjects: str) -> dict[str, object]:
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
        "0 updates saw this student: they are left out already, and the updates that saw them were withdrawn before.\n"
    )


def test_several_students_are_one_withdrawal(run: "Run", home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([True])
    answer = forget(run, home, monkeypatch, client, "ben", "cleo", "ben", "--json")
    assert (answer.code, client.requests, client.forgotten) == (0, 1, ["anna", "ben", "cleo"]), answer.err
    assert "2 updates saw any of these 3 ids and are being withdrawn." in answer.err
    for number in (1, 2, 3):
        assert f"id {number} of 3: 2 updates saw this student" in answer.err
    assert len(answer.value["also"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("ben\n\ncleo\n"))
    client = FakeClient([True])
    assert forget(run, home, monkeypatch, client, "-").code == 0
    assert client.forgotten == ["anna", "ben", "cleo"]


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
    monkeypatch.setattr(client, "forget_students", lambda *_: {**plain, **parts.pop(0)})
    answer = forget(run, home, monkeypatch, client, "--wait", 20, "--json")
    assert (answer.code, client.asked) == (0, [["aa", "bb"]] * 2 + [["cc"]] * 2)
    assert "3 updates saw this student" in answer.err
    assert (answer.value["updates"], answer.value["withdrawn_updates"]) == (["aa", "bb", "cc"], 3)
