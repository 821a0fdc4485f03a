"""One student is forgotten by real daemons: withdrawn, trained without, shown to be absent (design.md section 9)."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto import sealing
from collegium.crypto.errors import CorruptError, RefusedError, VerificationError
from collegium.node.control.client import Client
from collegium.node.unlearning.students import Manifests, tag
from collegium.node.verify import deletion_receipt, files
from collegium.node.verify.certificate import LIMIT
from collegium.node.verify.deletion_receipt import (
    Absence,
    Absent,
    _opened_proofs,
    _padded,
    check,
    made_and_checked,
    make,
)
from collegium.node.verify.outsiders import headers_of, source_of
from collegium.protocol import schema
from collegium.protocol.charter import add_signature, dump_file, load_file
from collegium.sims.processes.observe import fold_ledger

Make = Callable[..., Any]
T, WHO, KEY = "head/task0", "student-7", bytes(range(32))


def test_g7_a_student_is_forgotten_and_gets_a_receipt(federation: Make) -> None:
    four = federation(rounds=0, deadline_ms=1500)
    four.start()
    four.wait_rounds(2)
    school = four.institutions[0]
    me, home = school.identity.public_key, school.home
    _sign(four)
    manifests = Manifests(home)
    assert manifests.of(WHO), "the learner told who was drawn, and it was written down"
    with pytest.raises(RefusedError, match="in force"):
        _make(home, me, WHO)
    entries = [e for r in fold_ledger(school, four.charter).components[T].rounds for e in r.entries]
    before, others = {e.update for e in entries}, {e.update for e in entries if e.author != me}
    noted = [manifest for root in manifests.of(WHO) if (manifest := manifests.get(root)) is not None]
    places = [(manifest.salt, tag(manifest.salt, WHO)) for manifest in noted]
    sent = Client(home).forget_students(WHO)
    assert sent["withdrawn_updates"] >= 2
    assert (sent["in_data"], sent["of_unknown_students"]) == (True, 0)
    assert not Client(home).settled(sent["updates"])

    def replaced() -> bool:
        ledger = fold_ledger(school, four.charter)
        mine = {e.update for r in ledger.components[T].rounds for e in r.entries if e.author == me}
        return len(mine - before) >= 2 and not mine & before and not ledger.components[T].erasures

    four.wait(replaced)
    left = {e.update for r in fold_ledger(school, four.charter).components[T].rounds for e in r.entries}
    assert others <= left, "what the others contributed stays"
    four.wait(lambda: Client(home).settled(sent["updates"]))
    four.wait(lambda: not manifests.of(WHO))
    assert manifests.of("student-8"), "the draws since then are written down, without the one"
    content, made = _make(home, me, WHO)
    assert (len(made.updates) >= 2, made.withdrawn >= 2) == (True, True)
    assert check(io.BytesIO(content), "receipt", WHO, KEY).member == me
    with pytest.raises(VerificationError, match="does not show"):
        check(io.BytesIO(content), "receipt", "student-8", KEY)
    with pytest.raises(RefusedError, match="in force"):
        _make(home, me, "student-8")
    _nothing_left(four, school, places)
    _forged(content)
    assert Client(home).forget_students("nobody")["in_data"] is False
    for _ in range(3):  # each time the worker begins anew
        assert Client(home).forget_students(WHO)["withdrawn_updates"] == 0, "again changes nothing"
    _put_off(four, school)
    last = max(r for view in four.look() for (_, r) in view.notes)
    four.wait(lambda: school_counts(four, me, last + 1))


def _put_off(four: Any, school: Any) -> None:
    """Another student's withdrawal, in some seconds: left out at once, withdrawn by the daemon itself."""
    client = Client(school.home)

    def counted() -> set[bytes]:
        components = fold_ledger(school, four.charter).components.values()
        return {e.update for c in components for r in c.rounds for e in r.entries}

    at = int(time.time()) + 5
    updates = set(map(bytes.fromhex, client.look_for_students("student-9")["updates"]))
    sent = client.put_students_off(at, ["student-9"])
    assert sent["will_withdraw"] >= len(updates) > 0
    (batch,) = client.withdrawals()["scheduled"]
    assert (batch["students"], batch["updates"]) == (1, sent["will_withdraw"])
    four.wait(lambda: not client.withdrawals()["scheduled"])
    assert time.time() > at
    assert not updates & counted()
    assert client.look_for_students("student-9")["left_out"]


def school_counts(four: Any, me: bytes, since: int) -> bool:
    """Whether a round from this one on counts an update of this member: it goes on training."""
    rounds = fold_ledger(four.institutions[1], four.charter).components[T].rounds
    return any(e.author == me for r in rounds if r.number >= since for e in r.entries)


def _sign(four: Any) -> None:
    """Outsiders' files hold a charter that every founder signed."""
    for institution in four.institutions:
        charter, signed = load_file(institution.home.charter.read_bytes(), "charter")
        for member in four.institutions:
            signed = add_signature(charter, signed, member.identity)
        institution.home.charter.write_bytes(dump_file(signed))


def _make(home: Any, me: bytes, student: str) -> tuple[bytes, deletion_receipt.DeletionReceipt]:
    with source_of(home) as source:
        parts = make(source, me, student, KEY, headers_of(home), Manifests(home).get)
        return made_and_checked(parts, student, KEY, "receipt")


def _nothing_left(four: Any, school: Any, places: list[tuple[bytes, bytes]]) -> None:
    """The id is on no disk, and what it was hashed to is on no other institution's."""
    for institution in four.institutions:
        for path in (p for p in institution.home.root.rglob("*") if p.is_file()):
            data = _read(path)
            assert WHO.encode() not in data, path
            if institution is not school:
                assert not any(salt in data or folder in data for salt, folder in places), path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _forged(content: bytes) -> None:
    frames = files.Frames(io.BytesIO(content), "receipt")
    frames.kind()
    start = frames.load(files.Opening, "opening", files.OPENING_LIMIT)
    claim = frames.load(Absence, "claim", LIMIT)
    rest = [files.frame(frames.next("head", files.HEAD_LIMIT)) for _ in range(start.heads)]
    begin = files.opening(files.ABSENCE, start.charter, start.heads)

    def joined(changed: Absence) -> io.BytesIO:
        return io.BytesIO(b"".join((begin, files.frame(schema.dump(changed)), *rest)))

    def sealed(absent: tuple[Absent, ...]) -> Absence:
        return replace(claim, sealed=sealing.seal(KEY, _padded(absent)))

    assert check(joined(claim), "receipt", WHO, KEY)
    first, *more = _opened_proofs(claim, KEY)
    assert more
    for name, absent in {
        "an update less": tuple(more),
        "one twice": (first, first, *more),
        "another's salt": (replace(first, salt=more[0].salt), *more),
        "another's tree": (replace(first, tree=more[0].tree, path=more[0].path, salt=more[0].salt), *more),
        "a path cut": (replace(first, path=first.path[:-1]), *more),
        "another header": (replace(first, header=more[0].header), *more),
    }.items():
        with pytest.raises((VerificationError, CorruptError)):
            pytest.fail(f"{name}: {check(joined(sealed(absent)), 'receipt', WHO, KEY).as_map()}")
