"""The ledger for display: records in agreed order, a block by height, a record by a prefix of its digest."""

from typing import assert_never

from ...crypto.errors import RemoteProtocolError, UsageError
from ...protocol import schema
from ...protocol.claims import NO_EPSILON
from ...protocol.membership import Ballot, Motion
from ...protocol.records import Attest, Body, Evidence, Offer, Record, Update, Withdrawal, WithdrawalStatement, body_of
from ...protocol.signing import SIGNATURE_SIZE, Signed
from ..core.events import StoredBlock
from .context import Context, moment
from .membership import scope
from .rounds import update_digest, update_header
from .shapes_ledger import AttestSaid, BlockShown, MotionSaid, OfferIdle, RecordLine, RecordShown, Said, UpdateSaid

LIMIT = 1000
SHORTEST_PREFIX = 6


def ledger_log(
    context: Context,
    *,
    author: bytes | None = None,
    kind: str | None = None,
    component: str | None = None,
    since: int = 1,
    limit: int = 50,
) -> list[RecordLine]:
    """Return the last `limit` agreed records from height `since` on that match, in the order of the ledger."""
    lines: list[RecordLine] = []
    for height in range(context.ledger.height, max(1, since) - 1, -1):
        block = context.store.block(height)
        if block is None:
            continue
        for position in range(len(block.records) - 1, -1, -1):
            record = block.records[position]
            if author is not None and record.value.author != author:
                continue
            if kind is not None and record.value.kind != kind:
                continue
            line = _line(context, record, height, position)
            if component is not None and component_of(line["about"]) != component:
                continue
            lines.append(line)
            if len(lines) >= min(limit, LIMIT):
                return lines[::-1]
    return lines[::-1]


def ledger_show(context: Context, reference: str) -> BlockShown | RecordShown:
    """Return a block by height, or a block or record by a prefix of its id. Raises UsageError."""
    if reference.isdecimal() and len(reference) <= 9:
        block = context.store.block(int(reference)) if int(reference) else None
        if block is None:
            raise UsageError(f"There is no block {reference}", f"The last one is {context.ledger.height}.")
        return _block(context, block)
    prefix = reference.lower()
    if len(prefix) < SHORTEST_PREFIX or any(digit not in "0123456789abcdef" for digit in prefix):
        raise UsageError(
            f"{reference!r} is neither a height nor the beginning of a digest",
            f"Give a number, or at least {SHORTEST_PREFIX} hexadecimal digits.",
        )
    matches: list[BlockShown | RecordShown] = []
    for height in range(context.ledger.height, 0, -1):
        block = context.store.block(height)
        if block is None:
            continue
        if block.block.id.hex().startswith(prefix):
            matches.append(_block(context, block))
        matches += [
            _record(context, record, height, position)
            for position, record in enumerate(block.records)
            if record.digest.hex().startswith(prefix)
        ]
        if len(matches) > 1:
            raise UsageError(f"{reference} is the beginning of more than one digest", "Give more digits.")
    if matches:
        return matches[0]
    loose = context.store.record(bytes.fromhex(prefix)) if len(prefix) == 64 else None
    if loose is None:
        raise UsageError(f"No agreed record or block begins with {reference}", "`collegium ledger log` lists them.")
    return _record(context, loose, None, None)


def _block(context: Context, stored: StoredBlock) -> BlockShown:
    block = stored.block
    return {
        "type": "block",
        "height": block.height,
        "id": block.id.hex(),
        "prev": block.prev.hex(),
        "tree_size": block.tree_size,
        "tree_root": block.tree_root.hex(),
        "fold": block.fold.hex(),
        "next_members": block.members.hex(),
        "stored_at": moment(context.store.decided(block.height)),
        "cut": [{**context.member(h.author), "seq": h.seq, "digest": h.digest.hex()} for h in block.cut],
        "close": [{"component": close.component, "round": close.round} for close in block.close],
        "certificate": {
            "view": stored.certificate.view,
            "signed_by": context.members([entry.author for entry in stored.certificate.signatures]),
        },
        "records": [_line(context, record, block.height, position) for position, record in enumerate(stored.records)],
    }


def _line(context: Context, record: Signed[Record], height: int | None, position: int | None) -> RecordLine:
    return {
        "height": height,
        "position": position,
        "author": context.member(record.value.author),
        "seq": record.value.seq,
        "kind": record.value.kind,
        "digest": record.digest.hex(),
        "about": _facts(context, record),
    }


def _record(context: Context, record: Signed[Record], height: int | None, position: int | None) -> RecordShown:
    return {
        "type": "record",
        **_line(context, record, height, position),
        "prev": record.value.prev.hex(),
        "signature": record.signature.hex(),
        "bytes": len(record.wire),
        "received_at": moment(context.store.received(record.digest)),
    }


def component_of(body: Said) -> str | None:
    """Return the component that a record is about; None of one that is about none."""
    if "component" in body:
        return body["component"]
    return None


def _facts(context: Context, record: Signed[Record]) -> Said:
    """Return a record's content; {"malformed": …} for a body that the fold refused."""
    try:
        return _say(context, body_of(record.value))
    except RemoteProtocolError as error:
        return {"malformed": error.reason}


def _say(context: Context, body: Body | None) -> Said:
    match body:
        case Offer():
            idle: list[OfferIdle] = [{"component": entry.component, "why": entry.why} for entry in body.idle]
            return {"components": list(body.components), "idle": idle, "addresses": list(body.addresses)}
        case Update():
            return _say_update(context, body)
        case Attest():
            attest: AttestSaid = {
                "component": body.component,
                "round": body.round,
                "generation": body.generation,
                "digest": body.digest.hex(),
            }
            return attest
        case Evidence():
            return {"evidence": body.kind}
        case Withdrawal():
            payload = body.statement[SIGNATURE_SIZE:]
            statement = schema.load(WithdrawalStatement, payload, WithdrawalStatement.LIMIT)
            return {
                "owner": context.member(statement.author),
                "scope": scope(statement),
                "mode": statement.mode,
                "through": statement.through,
            }
        case Motion():
            motion: MotionSaid = {
                "action": body.action,
                "subject": context.member(body.subject),
                "reason": body.reason,
                "expires_after_height": body.expiry,
            }
            return motion
        case Ballot():
            return {"motion": body.motion.hex(), "vote": "yes" if body.yes else "no"}
        case None:
            return {"inert": "a kind that this version does not know"}
        case _:
            assert_never(body)


def _say_update(context: Context, body: Update) -> UpdateSaid:
    header = update_header(body)
    return {
        "component": header.component,
        "round": header.round,
        "generation": header.generation,
        "base": header.base.hex(),
        "blob": header.blob.hex(),
        "bytes": header.size,
        "update": update_digest(body).hex(),
        "steps": header.steps,
        "sample_rate": header.sample_rate / 1_000_000,
        "noise_multiplier": header.recipe.noise_multiplier / 1_000_000,
        "claims": [
            {
                "modality": claim.modality,
                "epsilon": None if claim.epsilon == NO_EPSILON else claim.epsilon / 1000,
                "delta": None if claim.epsilon == NO_EPSILON else claim.delta / 1e9,
                "steps": sum(event.count for event in claim.events),
            }
            for claim in header.claims
        ],
        "acks": context.members([ack.host for ack in body.acks]),
    }
