"""Deletion receipts: `unlearn subject` writes one, `unlearn verify FILE --subject` checks it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..crypto.errors import UsageError
from .files import write_new
from .options import SETTINGS, existing_home, home_of
from .output import emit, facts, progress
from .read import from_store

if TYPE_CHECKING:
    from ..node.home import Home
    from ..node.verify.deletion_receipt import DeletionReceipt, Today

NOBODY = (
    "it found this id neither in its data nor in any training run that it has a record of: mistyped, never used"
    " there, or removed before"
)


def write(home: "Home", student: str, out: Path, *, id_known: bool = True, force: bool = False) -> dict[str, object]:
    """Write a student's deletion receipt and check it; return its statements and its key. Raises RefusedError."""
    content, answer = make(home, student, str(out), id_known=id_known)
    write_new(out, [content], force=force)
    return answer


def make(home: "Home", student: str, name: str, *, id_known: bool = True) -> tuple[bytes, dict[str, object]]:
    """Return a student's deletion receipt, checked, with its statements and its key. Raises RefusedError."""
    from ..crypto import sealing
    from ..node.home import keys
    from ..node.unlearning.students import Manifests
    from ..node.verify import deletion_receipt
    from ..node.verify.outsiders import headers_of, source_of

    me, key = from_store(home, lambda context: context.me), sealing.new_key()
    if me is None:
        raise UsageError("This directory has no key", "Name the directory of the institution's node.")
    with source_of(home) as source:
        own = (headers_of(home), Manifests(home).get, keys.former(home))
        parts = deletion_receipt.make(source, me, student, key, *own, id_known=id_known)
        content, checked = deletion_receipt.made_and_checked(parts, student, key, name)
    return content, {**checked.as_map(), "key": key.hex()}


def verify(
    path: Path,
    student: str | None,
    key: str | None,
    charter: Path | None,
    pins: list[str],
    home: Path | None,
    as_json: bool,
) -> None:
    """Check a receipt, also against this node's own ledger if there is one."""
    from ..crypto.sealing import KEY_BYTES
    from ..node.verify import deletion_receipt, read_charter
    from .ledger import parse_pin

    if student is None or key is None:
        raise UsageError(
            "A receipt is checked with the student's id and its key",
            "Give --subject ID and --key HEX: `unlearn subject` showed the key when it wrote the receipt.",
        )
    try:
        opening = bytes.fromhex(key.strip())
    except ValueError:
        opening = b""
    if len(opening) != KEY_BYTES:
        raise UsageError(f"The key is not {2 * KEY_BYTES} hexadecimal digits", "Copy it again, whole.")
    name = sys.stdin.readline().rstrip("\n") if student == "-" else student
    federation = None if charter is None else read_charter(charter)[0]
    with path.open("rb") as file:
        checked = deletion_receipt.check(
            file, str(path), name, opening, charter=federation, pins=dict(map(parse_pin, pins))
        )
    now = _own_ledger(checked, home, as_json)
    result: Any = {
        **checked.as_map(),
        "ledger_height": None if now is None else now.height,
        "updates_since": None if now is None else now.updates,
    }
    emit(result, as_json, lambda out: _people(out, result))
    if not result["verified"]:
        raise typer.Exit(7)


def _own_ledger(checked: "DeletionReceipt", home: Path | None, as_json: bool) -> "Today | None":
    """Compare a receipt with this node's own ledger; None if there is none here of this federation."""
    from ..node.verify import deletion_receipt, read_charter
    from ..node.verify.outsiders import source_of

    node_home = home_of(home)
    named = home is not None or SETTINGS.home is not None
    if not named and not (node_home.charter.is_file() and node_home.database.is_file()):
        return None  # checking a receipt needs no node
    node_home = existing_home(home)
    if read_charter(node_home.charter)[0].federation != checked.charter.federation:
        if named:
            raise UsageError(
                f"The node in {node_home.root} is of another federation", "Leave --home out, or name another."
            )
        return None
    with progress(as_json) as step, source_of(node_home, step) as source:
        return deletion_receipt.today(checked, source)


def _people(out: Any, receipt: Any) -> None:
    who, height = receipt["institution_name"], receipt["height"]
    if receipt["verified"]:
        result = f"verified as of height {height}: no update of {who} in force then was trained on this student"
    else:
        result = (
            f"nothing shown: no update of {who} was in force at height {height}, for any student; anybody can make this"
            " receipt from the ledger"
        )
    if receipt["ledger_height"] is None:
        since = "not known: no ledger here. Ask a member for today's height, and compare"
    elif receipt["ledger_height"] < height:
        since = f"this node's ledger is behind, at {receipt['ledger_height']}"
    else:
        since = f"this node's ledger is at {receipt['ledger_height']}; "
        count = receipt["updates_since"]
        since += (
            f"since then {count} more updates of {who} count, which it does not cover: ask for a new receipt"
            if count
            else "no other update counts today"
        )
    remark = [] if receipt["id_known"] else [("note", f"when {who} wrote this, {NOBODY}")]
    facts(
        out,
        [
            ("federation", f"{receipt['name']}, {receipt['federation']}"),
            ("institution", f"{who}, {receipt['institution']}"),
            ("result", result),
            *remark,
            ("since then", since),
            ("updates in force", receipt["updates_in_force"]),
            ("withdrawn", f"{receipt['withdrawn_updates']} single updates"),
            ("trusted height", f"{height}, block {receipt['block']}"),
        ],
    )
