"""G7: a student's deletion receipt, made of a simulated federation's ledger: what it shows, and what nobody can make it
show.
"""

import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.cli.main import main
from collegium.crypto import sealing, sparse
from collegium.crypto.errors import RefusedError, VerificationError
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.home import Home
from collegium.node.store import Store
from collegium.node.unlearning.students import Manifest, Manifests, tag
from collegium.node.verify import deletion_receipt, files
from collegium.node.verify.certificate import LIMIT
from collegium.node.verify.deletion_receipt import Absence, Absent, _opened_proofs, _padded
from collegium.node.verify.outsiders import Source
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.protocol.membership import Rekeying
from collegium.protocol.signing import open_signed, sign
from collegium.protocol.update import UpdateHeader
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

KEY = bytes(range(32))
DRAWN, LEFT_OUT = [f"student-{n}" for n in range(30)], "student-99"


def note(node: Node, manifests: Manifests, drawn: Iterable[str]) -> None:
    """From now on this node's learner names these students with each draw."""
    later = node.later

    def named(delay: int, event: ev.Event) -> None:
        later(delay, replace(event, manifest=manifests.put(drawn)) if isinstance(event, ev.Trained) else event)

    node.later = named  # type: ignore[method-assign]


@dataclass
class School:
    """One institution of the simulation, with what it noted of its draws."""

    cluster: Cluster
    node: Node
    manifests: Manifests
    founders: list[Identity]

    def source(self) -> Source:
        signed = SignedCharter(schema.dump(self.cluster.charter), ())
        for founder in self.founders:
            signed = add_signature(self.cluster.charter, signed, founder)
        blocks = self.node.store.snapshot().blocks
        return Source(self.cluster.charter, dump_file(signed), lambda height: blocks[height - 1], len(blocks), "it")

    def make(self, student: str, manifest: Callable[[bytes], Manifest | None] | None = None, **who: bytes) -> bytes:
        """The bytes of a receipt by the node, be it true or not."""
        headers = self.node.store.snapshot().headers
        me = who.get("me", self.node.identity.public_key)
        return b"".join(deletion_receipt.make(self.source(), me, student, KEY, headers, manifest or self.manifests.get))

    def check(self, content: bytes, student: str, key: bytes = KEY) -> deletion_receipt.DeletionReceipt:
        return deletion_receipt.check(io.BytesIO(content), "receipt", student, key)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> School:
    home = Home(tmp_path_factory.mktemp("school") / "node")
    home.make()
    cluster = Cluster(4, 9, Invariants, rounds=20)
    node, manifests = cluster.nodes[0], Manifests(home)
    note(node, manifests, DRAWN)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    return School(cluster, node, manifests, [member.identity for member in cluster.nodes])


def test_who_was_not_drawn_gets_a_receipt_and_who_was_does_not(school: School) -> None:
    checked = school.check(school.make(LEFT_OUT), LEFT_OUT)
    assert len(checked.updates) >= 3
    with pytest.raises(VerificationError, match="does not show"):
        school.check(school.make(LEFT_OUT), DRAWN[3])
    with pytest.raises(RefusedError, match="in force"):
        school.make(DRAWN[3])


def test_who_came_back_with_a_new_key_answers_for_what_counts_under_the_old_one(school: School) -> None:
    """Nothing in the ledger says that both are one institution's."""
    new, old = Identity.from_seed(bytes(range(1, 33))).public_key, school.node.identity.public_key
    headers = school.node.store.snapshot().headers

    def make(student: str) -> bytes:
        receipt = deletion_receipt.make(school.source(), new, student, KEY, headers, school.manifests.get, [old])
        return b"".join(receipt)

    with pytest.raises(RefusedError, match=f"former key {old.hex()[:16]} was trained on this student"):
        make(DRAWN[3])
    with pytest.raises(RefusedError, match="no seat"):
        make(LEFT_OUT)  # in the simulation nobody admitted it


@dataclass(frozen=True)
class Told:
    """What `collegium unlearn verify` said of a file."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    monkeypatch.delenv("COLLEGIUM_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))

    def run(content: bytes, *words: str, student: str = LEFT_OUT, key: bytes = KEY) -> Told:
        file = tmp_path / f"receipt-{os.urandom(4).hex()}"
        file.write_bytes(content)
        capsys.readouterr()
        code = main(["unlearn", "verify", str(file), "--subject", student, "--key", key.hex(), *words])
        return Told(code, *capsys.readouterr())

    return run


def test_a_receipt_names_the_member_and_its_height(school: School, verify: Callable[..., Told]) -> None:
    content = school.make(LEFT_OUT)
    answer = verify(content)
    (me,) = (member for member in school.cluster.charter.members if member.key == school.node.identity.public_key)
    height = school.node.store.snapshot().blocks[-1].block.height
    assert answer.code == 0, answer.err
    assert me.name in answer.out
    assert f"verified as of height {height}" in answer.out
    assert "not known: no ledger here" in answer.out
    result = verify(content, "--json").value
    assert (result["verified"], result["result"], result["institution_name"]) == (True, "verified", me.name)


def test_a_receipt_that_somebody_turned_into_a_strangers_is_refused(
    school: School, verify: Callable[..., Told]
) -> None:
    """Whoever has any receipt has the charter and the ledger's state: all that the forgeries here are made of."""
    claim = claim_of(content := school.make(LEFT_OUT))
    nothing = sealing.seal(bytes(32), _padded(()))
    stranger = Identity.from_seed(bytes(range(2, 34))).public_key
    answer = verify(
        with_claim(content, replace(claim, member=stranger, sealed=nothing)), student=DRAWN[3], key=bytes(32)
    )
    assert (answer.code, "no seat in this federation" in answer.err) == (6, True), answer.out
    answer = verify(with_claim(content, replace(claim, sealed=nothing)), student=DRAWN[3], key=bytes(32))
    assert (answer.code, "not shown" in answer.err) == (6, True), answer.out
    other = school.cluster.nodes[1].identity.public_key
    answer = verify(with_claim(content, replace(claim, member=other, sealed=nothing)), student=DRAWN[3], key=bytes(32))
    assert (answer.code, "not shown" in answer.err) == (6, True), answer.out


def test_an_old_receipt_is_held_against_the_verifiers_own_ledger(
    school: School, verify: Callable[..., Told], tmp_path: Path
) -> None:
    """It was true when it was made; since then updates that saw the student count."""
    stored = school.node.store.snapshot().blocks
    counted = next(s.block.height for s in stored if s.block.close)
    old = replace(school.source(), top=counted)
    headers = school.node.store.snapshot().headers
    me = school.node.identity.public_key
    content = b"".join(deletion_receipt.make(old, me, LEFT_OUT, KEY, headers, school.manifests.get))
    home = Home(tmp_path / "verifier")
    fill(home, school)
    answer = verify(content, "--home", str(home.root))
    assert answer.code == 0, answer.err
    assert f"verified as of height {counted}" in answer.out
    assert f"this node's ledger is at {stored[-1].block.height}; since then" in answer.out
    assert "more updates of" in answer.out
    result = verify(school.make(LEFT_OUT), "--home", str(home.root), "--json").value
    assert (result["ledger_height"], result["updates_since"]) == (stored[-1].block.height, 0)
    pin = f"{counted}:{stored[counted].block.id.hex()}"
    assert verify(content, "--pin", pin).code == 6, "a pin says which block it has to be"


def fill(home: Home, school: School) -> None:
    """Make the directory of a node that knows the whole ledger."""
    home.make()
    home.charter.write_bytes(school.source().charter_file)
    with Store.open(home.database, school.cluster.federation) as store:
        for stored in school.node.store.snapshot().blocks:
            store.apply([ev.PutRecord(record) for record in stored.records])
            store.apply([ev.PutBlock(stored.block, stored.certificate, tuple(r.digest for r in stored.records))])


class Lie(Manifest):
    """The true tree, hence its true root; under another salt the student's place in it is empty."""

    def has(self, subject: str) -> bool:
        return False


def test_a_salt_of_another_day_is_refused(school: School) -> None:
    def forged(root: bytes) -> Manifest | None:
        true = school.manifests.get(root)
        assert true is not None
        return Lie(os.urandom(32), true.blind, true.tags)

    content = school.make(DRAWN[3], forged)
    with pytest.raises(VerificationError, match="salt and tree"):
        school.check(content, DRAWN[3])


def test_a_member_that_moved_answers_for_what_it_sent_under_its_old_key(tmp_path: Path) -> None:
    home = Home(tmp_path / "node")
    home.make()
    cluster = Cluster(4, 9, Invariants, rounds=20)
    founders, (node, *others) = [member.identity for member in cluster.nodes], cluster.nodes
    old, new = node.identity.public_key, Identity.from_seed(KEY)
    manifests = Manifests(home)
    note(node, manifests, DRAWN)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    node.deliver(
        ev.ProposeMotion("rekey", old, sign(new, Rekeying(cluster.federation, new.public_key, old)).wire, "", 1000)
    )
    assert cluster.run(lambda: all(n.core and new.public_key in n.core.ledger.members for n in (node, *others)))
    node.crash()
    node.identity = new
    node.start()

    def counts() -> bool:
        rounds = [r for c in node.core.ledger.components.values() for r in c.rounds] if node.core else []
        return any(entry.author == new.public_key for r in rounds for entry in r.entries)

    assert cluster.run(counts)
    school = School(cluster, node, manifests, founders)
    content = school.make(LEFT_OUT)
    shown = {header.author for header in school.check(content, LEFT_OUT).updates.values()}
    assert shown == {old, new.public_key}, "what it sent under the old key is in force as well"
    claim = claim_of(content)
    absent = _opened_proofs(claim, KEY)
    signed = {update: open_signed(UpdateHeader, update.header, cluster.federation).value for update in absent}
    for name, changed, kept in (
        ("the old key", replace(claim, member=old), [update for update in absent if signed[update].author == old]),
        ("the old key, with all", replace(claim, member=old), absent),
        ("without the old key's", claim, [update for update in absent if signed[update].author != old]),
        ("without the new key's", claim, [update for update in absent if signed[update].author == old]),
    ):
        sealed = replace(changed, sealed=sealing.seal(KEY, _padded(tuple(kept))))
        with pytest.raises(VerificationError, match=r"changed its key|not shown"):
            pytest.fail(f"{name}: {school.check(with_claim(content, sealed), LEFT_OUT)}")


def test_without_its_key_a_receipt_shows_nothing_of_the_student(school: School) -> None:
    contents = [school.make(LEFT_OUT), school.make(LEFT_OUT), school.make("student-98")]
    claims = [claim_of(content) for content in contents]
    roots = school.manifests.roots()
    noted = [manifest for manifest in map(school.manifests.get, roots) if manifest is not None]
    for content, claim in zip(contents, claims, strict=True):
        for listed in noted:
            position = tag(listed.salt, LEFT_OUT)
            tree, path = sparse.root(listed.leaves()), sparse.absence(listed.leaves(), position)
            hidden = [listed.salt, listed.blind, position, tree, *(beside for beside in path if beside)]
            assert not any(proof in content for proof in hidden), "nothing that an id can be tried with"
        with pytest.raises(VerificationError, match="key"):
            school.check(content, LEFT_OUT, bytes(32))
        assert len(claim.sealed) == len(claims[0].sealed), "its length tells of no student"
    pieces = [{claim.sealed[at : at + 16] for at in range(0, len(claim.sealed), 16)} for claim in claims]
    assert not pieces[0] & pieces[1], "nothing in two receipts of one student is equal"
    ledger = [(claim.member, claim.state) for claim in claims]
    assert ledger[0] == ledger[1] == ledger[2], "but for what the ledger shows of everybody"


def with_claim(content: bytes, claim: Absence) -> bytes:
    """The same file with another claim in it."""
    return content.replace(files.frame(schema.dump(claim_of(content))), files.frame(schema.dump(claim)))


def claim_of(content: bytes) -> Absence:
    frames = files.Frames(io.BytesIO(content), "receipt")
    frames.kind()
    frames.load(files.Opening, "opening", files.OPENING_LIMIT)
    return frames.load(Absence, "claim", LIMIT)


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_the_length_of_what_is_sealed_is_a_power_of_two(count: int) -> None:
    one = Absent(bytes(200), bytes(32), bytes(32), (bytes(32), b"", bytes(32)))
    size = len(deletion_receipt._padded((one,) * count))
    assert size.bit_count() == 1
    assert size == len(deletion_receipt._padded((replace(one, path=(*one.path, b"")),) * count)), (
        "not that of the paths"
    )


def test_a_receipt_that_fills_more_than_half_of_the_limit_is_made(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the next power of two it would have no room."""
    claim = claim_of(school.make(LEFT_OUT))
    padded = len(claim.sealed) - 40
    spare = padded - len(schema.dump(deletion_receipt.Shown(_opened_proofs(claim, KEY)))) - 1
    assert spare > 30
    whole = len(schema.dump(claim))
    monkeypatch.setattr(deletion_receipt, "LIMIT", whole - spare + 12)
    content = school.make(LEFT_OUT)
    assert school.check(content, LEFT_OUT).updates
    assert padded - spare < len(claim_of(content).sealed) - 40 < padded
    monkeypatch.setattr(deletion_receipt, "LIMIT", whole - spare - 1)
    with pytest.raises(RefusedError, match="more than a receipt holds"):
        school.make(LEFT_OUT)


@given(st.binary(max_size=100), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_is_sealed_opens_with_its_key_alone(content: bytes, key: bytes, other: bytes) -> None:
    sealed = sealing.seal(key, content)
    assert sealing.unseal(key, sealed) == content
    assert sealing.unseal(key, sealed[:-1]) is None
    assert key == other or sealing.unseal(other, sealed) is None
