"""Proofs that need no ledger: made from this node's files and checked at once; and files of others, checked."""

import io
from collections.abc import Sequence
from typing import Any

from ....crypto.errors import UsageError
from ....crypto.sealing import KEY_BYTES
from ...data.spelling import clean
from ...verify import certificate as certificates
from ...verify import deletion_receipt as receipts
from ...verify import files, outsiders, verify_home_withdrawal
from ...verify.home import verify_home_ledger
from ...views import find_member
from ...views.shapes import MemberName
from ..blocks import Block, Cell, Code, Facts, Table
from ..source import Source
from .steps import Fields, File, Outcome, Step

LEDGER, WITHDRAWALS = "/ledger", "/withdrawals"
COMPARE = "Compare the federation's id with one that you know: the charter is in the file."
NOT_SHOWN = "Not shown: what is on other members' disks, and whether the institution deleted its own data."


def prove(source: Source, fields: Fields) -> Step:
    """Make a proof that a record is in the ledger, and check it as its reader will."""
    record = fields.get("record")
    with outsiders.source_of(source.home) as ledger:
        data, checked = outsiders.prove(ledger, record)
    short = record[:16]
    return Outcome(
        "Proof",
        (
            f"Verified: record {short} is in the ledger, in the tree under block {checked.block.height}, which a quorum"
            " of the members signed.",
            "Anybody checks the file without a node: collegium ledger verify FILE",
        ),
        f"collegium ledger prove {short} FILE",
        f"{LEDGER}/{record}",
        (_facts(checked.as_map()),),
        (File(f"record-{short}.proof", data, "the proof as a file"),),
    )


def verify_ledger(source: Source, _fields: Fields) -> Step:
    """Verify the whole ledger of this node's disk from the charter alone."""
    report = verify_home_ledger(source.home)
    found: Any = report.as_map()
    return Outcome(
        "The ledger is verified",
        (
            f"Verified from the charter alone: {report.records} records, {report.signatures} signatures,"
            f" {report.ledger.height} blocks.",
            "The command also folds the states of the components again.",
        ),
        "collegium ledger verify",
        LEDGER,
        (_facts(found),),
    )


def verify_withdrawal(source: Source, fields: Fields) -> Step:
    """Verify a member's withdrawals from this node's own files."""
    member = _member(source, fields)
    report: Any = verify_home_withdrawal(source.home, bytes.fromhex(member["key"]), strict=False)
    rows: list[Sequence[Cell]] = [
        [c["component"], c["round"], c["removed_updates"], c["label"], Code(c["digest"], c["digest"][:16])]
        if c["digest"]
        else [c["component"], c["round"], c["removed_updates"], c["label"], "not hosted here"]
        for c in report["components"]
    ]
    columns = ("component", "round", "updates removed", "state", "digest without them")
    said = [_verdict(report, f"the withdrawals of {member['name']}"), NOT_SHOWN]
    return Outcome(
        "Withdrawal",
        said,
        f"collegium unlearn verify {member['key'][:16]}",
        WITHDRAWALS,
        (Table("States computed again without the withdrawn updates", columns, rows, "None."), *_problems(report)),
        good=report["verified"],
    )


def certificate(source: Source, fields: Fields) -> Step:
    """Make a certificate of a member's withdrawals, and check it as its reader will."""
    member = _member(source, fields)
    with outsiders.source_of(source.home) as ledger:
        data = b"".join(certificates.make(ledger, bytes.fromhex(member["key"])))
    report: Any = certificates.check(io.BytesIO(data), "the certificate").as_map()
    name = member["key"][:16]
    return Outcome(
        "Certificate",
        (
            _verdict(report, f"the certificate of the withdrawals of {member['name']}"),
            NOT_SHOWN,
            "Anybody checks the file without a node: collegium unlearn verify FILE",
        ),
        f"collegium unlearn certificate {name} --out FILE",
        WITHDRAWALS,
        (_facts(report), *_problems(report)),
        (File(f"withdrawals-{name}.certificate", data, "the certificate as a file"),),
        good=report["verified"],
    )


def check_file(_source: Source, fields: Fields) -> Step:
    """Check a file that somebody else made: a proof, a ledger, a certificate, a student's receipt."""
    data, what = fields.upload, "the file"
    kind = next((kind for magic, kind in files.MAGIC.items() if data.startswith(magic)), None)
    if kind is None:
        raise UsageError(
            "This is no proof, ledger, certificate or receipt", "Choose a file that a node's command or page wrote."
        )
    if kind == files.ABSENCE:
        return _receipt(data, fields)
    report: Any
    if kind == files.WITHDRAWAL:
        report = certificates.check(io.BytesIO(data), what).as_map()
        command, verdict = "collegium unlearn verify FILE", _verdict(report, "the certificate")
    else:
        report = {**files.verify_file(io.BytesIO(data), what).as_map(), "verified": True}
        command, verdict = "collegium ledger verify FILE", f"Verified: {kind}."
    blocks = (_facts(report), *_problems(report))
    return Outcome("The file", (verdict, COMPARE), command, LEDGER, blocks, good=report["verified"])


def _member(source: Source, fields: Fields) -> MemberName:
    """Return the member that a form names, from the disk: a proof needs no daemon."""
    who = fields.get("who")
    return source.from_store(lambda context: context.member(find_member(context, who)))


def _receipt(data: bytes, fields: Fields) -> Outcome:
    student = clean(fields.get("student"))
    try:
        key = bytes.fromhex(fields.get("key").strip())
    except ValueError:
        key = b""
    if not student or len(key) != KEY_BYTES:
        raise UsageError(
            "A receipt is checked with the student's id and its key",
            f"Give both; the key has {2 * KEY_BYTES} hexadecimal digits.",
        )
    checked = receipts.check(io.BytesIO(data), "the receipt", student, key)
    height = checked.block.height
    verdict = (
        f"Verified as of height {height}: no update of {checked.name} in force then was trained on this student."
        if checked.updates
        else f"Nothing shown: no update of {checked.name} was in force at height {height}, for any student."
    )
    remark = () if checked.id_known else ("When it was written, the institution had no such id.",)
    command = "collegium unlearn verify FILE --subject - --key KEY"
    report = checked.as_map()
    said = (verdict, *remark, COMPARE)
    return Outcome("The receipt", said, command, WITHDRAWALS, (_facts(report),), good=bool(checked.updates))


NAMES = {
    "name": "federation",
    "federation": "federation's id",
    "institution_name": "institution",
    "height": "trusted height",
    "block": "block",
    "tree_size": "records in the tree",
    "tree_root": "root of the tree",
    "membership_changes": "heights at which members changed before",
    "updates_in_force": "updates in force",
    "withdrawn_updates": "single updates withdrawn",
}


def _facts(found: Any) -> Facts:
    pairs: list[tuple[str, Cell]] = [
        (name, Code(value) if isinstance(value, str) and len(value) > 16 and " " not in value else value)
        for key, name in NAMES.items()
        if (value := found.get(key)) is not None
    ]
    return Facts(pairs)


def _verdict(report: Any, what: str) -> str:
    if report["verified"]:
        return f"Verified: {what}."
    if report["problems"]:
        return f"NOT verified: {what}. The problems are below."
    return (
        f"Not yet: {what}. The hosts have still to sign states without it, or old bytes to be erased; try again later."
    )


def _problems(report: Any) -> tuple[Block, ...]:
    found = [[text] for text in (*report.get("problems", ()), *report.get("pending", ()))]
    return (Table("Problems, and what is pending", ("what",), found, ""),) if found else ()
