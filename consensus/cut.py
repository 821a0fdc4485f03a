"""Which records a block may hold: their order, their quotas, and proofs against their authors."""

from collections.abc import Iterable, Sequence

from ..crypto.errors import RemoteProtocolError
from ..protocol.blocks import Vote
from ..protocol.charter import Charter
from ..protocol.records import GENESIS, PROVABLE, Evidence, Record, body_of, check_chain, check_size, is_fork
from ..protocol.signing import Signed, open_signed
from .ledger import Ledger


def order(records: Iterable[Signed[Record]]) -> list[Signed[Record]]:
    """Return one block's records in the order of the ledger: author key, then seq."""
    return sorted(records, key=lambda record: (record.value.author, record.value.seq))


def check_record(record: Signed[Record], federation: bytes) -> None:
    """Check that a fork of this record could be proved: it is small enough, or it is true evidence.

    Raises RemoteProtocolError("oversized-record" | "false-evidence" | as for a malformed body).
    """
    check_size(record)
    if len(record.wire) > PROVABLE:
        body = body_of(record.value)
        if not isinstance(body, Evidence):
            raise RemoteProtocolError("oversized-record", f"{len(record.wire)} bytes", record.value.author)
        check_evidence(body, federation)


def check_cut(charter: Charter, ledger: Ledger, records: Sequence[Signed[Record]]) -> None:
    """Check that a block's records extend the last agreed heads, within the quotas.

    Raises RemoteProtocolError("frozen-feed" | "not-a-member" | "gap" | "fork" | "quota-records" | "quota-bytes" |
    "oversized-record").
    """
    heads: dict[bytes, tuple[int, bytes]] = {}
    count: dict[bytes, int] = {}
    size: dict[bytes, int] = {}
    for record in records:
        author = record.value.author
        if author in ledger.expelled:
            raise RemoteProtocolError("frozen-feed", "the author was expelled", author)
        if author not in ledger.members:
            if author in ledger.roll.seats:
                raise RemoteProtocolError("frozen-feed", "the author is no longer a member", author)
            raise RemoteProtocolError("not-a-member", "the author is not a member", author)
        check_record(record, ledger.federation)
        check_chain(heads.get(author, ledger.heads.get(author, (0, GENESIS))), record)
        heads[author] = (record.value.seq, record.digest)
        count[author] = count.get(author, 0) + 1
        size[author] = size.get(author, 0) + len(record.wire)
        if count[author] > charter.rules.records_per_height:
            raise RemoteProtocolError("quota-records", f"{count[author]} records at one height", author)
        if size[author] > charter.rules.bytes_per_height:
            raise RemoteProtocolError("quota-bytes", f"{size[author]} bytes at one height", author)


def check_evidence(body: Evidence, federation: bytes) -> bytes:
    """Return the author whose lie this evidence proves. Raises RemoteProtocolError("false-evidence")."""
    if body.kind == "fork":
        a, b = open_signed(Record, body.a, federation), open_signed(Record, body.b, federation)
        if is_fork(a, b):
            return a.value.author
    elif body.kind == "double-vote":
        x, y = open_signed(Vote, body.a, federation), open_signed(Vote, body.b, federation)
        where = [(v.value.author, v.value.height, v.value.view, v.value.step) for v in (x, y)]
        if where[0] == where[1] and x.value.block != y.value.block:
            return x.value.author
    raise RemoteProtocolError("false-evidence", body.kind)
