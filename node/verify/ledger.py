"""Walk the ledger from the charter: signatures, chains, certificates, recomputed headers (design.md section 7).

The blocks alone cannot show that none is missing: with its end cut off, a ledger is shorter and valid. So the report
names the height and block id that it trusts, and `pins` holds a ledger to headers that are known from elsewhere.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...consensus.components import Round
from ...consensus.cut import order
from ...consensus.fold import fold_block
from ...consensus.ledger import Ledger, Withdrawn, genesis
from ...consensus.rounds import active_hosts
from ...crypto.errors import CollegiumError, LocalProtocolError, RemoteProtocolError, VerificationError
from ...crypto.hashing import digest
from ...protocol.blocks import verify_certificate
from ...protocol.charter import Charter
from ...protocol.records import GENESIS, Attest, Record, Update, body_of
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_signed
from ...protocol.update import UpdateHeader, least_lot
from ..core.events import StoredBlock

Progress = Callable[[str, int, int], None]  # (what, done, of how many; 0 if unknown)
ADVICE = "This ledger was changed or damaged after it was agreed on. Compare it with another member's."


@dataclass(frozen=True, slots=True)
class Counted:
    """An update header in the ledger: its author's first record that carries it, and the height of that."""

    header: UpdateHeader
    seq: int
    height: int


@dataclass(frozen=True, slots=True)
class Certification:
    """A state digest that `hosts` attested, at least `needed` of them active, from this height on.

    `chain` names the frozen lists that the state is the fold of: it holds as long as they do, whatever the generation.
    """

    component: str
    round: int
    generation: int
    digest: bytes
    height: int
    hosts: tuple[bytes, ...]
    needed: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Inert:
    """A record that every member refuses alike; `component` is its component, empty if it names none."""

    author: bytes
    seq: int
    height: int
    kind: str
    reason: str
    component: str


@dataclass(slots=True)
class Report:
    """The result of verification. `frozen` holds every round as it was closed, before any withdrawal took something
    out.

    `withdrawn` are all withdrawals that there ever were, in the order of the ledger.
    `least_lot`: the least of all charters in force so far (protocol.update.least_lot): hosts checked an update's norm
    under the one of its time.
    `active` holds whom it waited for: the hosts that were frozen at the close before it.
    """

    founding: Charter
    ledger: Ledger
    least_lot: int
    records: int = 0
    signatures: int = 0
    updates: dict[bytes, Counted] = field(default_factory=dict)
    frozen: dict[tuple[str, int], Round] = field(default_factory=dict)
    certifications: list[Certification] = field(default_factory=list)
    withdrawn: list[Withdrawn] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    inert: list[Inert] = field(default_factory=list)
    active: dict[tuple[str, int], tuple[bytes, ...]] = field(default_factory=dict)

    @property
    def charter(self) -> Charter:
        """The charter in force after the last block."""
        return self.ledger.charter

    def as_map(self) -> dict[str, object]:
        """Return the report as JSON."""
        ledger = self.ledger
        return {
            "federation": ledger.federation.hex(),
            "height": ledger.height,
            "block": ledger.block.hex(),
            "tree_size": ledger.tree.size,
            "tree_root": ledger.tree.root().hex(),
            "charter": {"digest": self.charter.digest.hex(), "amendments": self.charter.number},
            "members": [member.hex() for member in ledger.members],
            "expelled": [member.hex() for member in ledger.expelled],
            "membership_changes": len({m for s in ledger.roll.seats.values() for m in (s.motion, s.end)} - {b""}),
            "records": self.records,
            "signatures": self.signatures,
            "refused_records": dict(sorted(self.refusals.items())),
        }


def verify_record(record: Signed[Record], federation: bytes) -> Signed[Record]:
    """Open a record from its bytes alone and check its signature; it must equal the record decoded before.

    Raises RemoteProtocolError as open_signed does, and "not-its-bytes".
    """
    opened = open_signed(Record, record.wire, federation)
    if opened != record:
        raise RemoteProtocolError("not-its-bytes", "the record differs from what its author signed")
    return opened


def verify_ledger(
    charter: Charter,
    blocks: Iterable[StoredBlock],
    *,
    pins: Mapping[int, bytes] | None = None,
    progress: Progress | None = None,
    brief: bool = False,
    opened: bool = False,
) -> Report:
    """Verify agreed blocks from height 1 on, as they arrive; `pins` are block ids by height that must be among them.

    `brief` leaves `updates`, `frozen` and `certifications` empty, which only the checks of states and withdrawals read.
    `opened`: the source of the blocks has opened their records from their bytes, and checked their signatures.

    Raises VerificationError naming the height, and the record where it is one, with the reason's stable name.
    """
    report = Report(charter, genesis(charter), least_lot(charter.learning))
    pins = dict(pins or {})
    for stored in blocks:
        height = report.ledger.height + 1
        _block(report, stored, height, brief, opened)
        pinned = pins.pop(height, report.ledger.block)
        if pinned != report.ledger.block:
            raise VerificationError(
                f"height {height}: pinned-block: it is {report.ledger.block.hex()}, the pin says {pinned.hex()}", ADVICE
            )
        if progress is not None:
            progress("blocks", height, 0)
    if pins:
        raise VerificationError(
            f"height {min(pins)}: pinned-block: the ledger ends at height {report.ledger.height}, before the pin",
            "It was cut off, or this node is behind: let it catch up, then verify again.",
        )
    return report


def _block(report: Report, stored: StoredBlock, height: int, brief: bool, opened: bool) -> None:
    before = report.ledger
    where = f"height {height}"
    try:
        if stored.block.height != height:
            raise RemoteProtocolError("height", f"{stored.block.height} where {height} belongs")
        verify_certificate(stored.block, stored.certificate, frozenset(before.members), before.fault_model)
        report.signatures += len(stored.certificate.signatures)
        records = []
        for record in stored.records:
            where = f"height {height}, record {record.value.seq} of {_member(before, record.value.author)}"
            records.append(record if opened else verify_record(record, before.federation))
        where = f"height {height}"
        if records != order(records):
            raise RemoteProtocolError("order", "the records are not in the order of the ledger")
        # fold_block checks chains, quotas and every signature inside updates, and recomputes the header.
        report.ledger = fold_block(before, stored.block, records)
    except (RemoteProtocolError, LocalProtocolError) as error:
        raise VerificationError(f"{where}: {_reason(error)}", ADVICE) from error
    report.records += len(records)
    report.signatures += len(records)
    report.least_lot = min(report.least_lot, least_lot(report.charter.learning))
    refused = {(refusal.author, refusal.seq): refusal.reason for refusal in report.ledger.refusals}
    for record in records:
        reason = refused.get((record.value.author, record.value.seq))
        if reason is None and record.value.kind == "update":
            _note_update(report, record, brief)
        elif reason is not None and not brief:
            value = record.value
            about = _component(record)
            report.inert.append(Inert(value.author, value.seq, height, value.kind, reason, about))
    for refusal in report.ledger.refusals:
        report.refusals[refusal.reason] = report.refusals.get(refusal.reason, 0) + 1
    if brief:
        return
    for name, component in report.ledger.components.items():
        for round_ in component.rounds[before.components[name].round if name in before.components else 0 :]:
            report.frozen[name, round_.number] = round_
            report.active[name, round_.number] = active_hosts(before.charter, before, report.ledger, name)
    if report.ledger.withdrawn is not before.withdrawn:
        report.withdrawn += [withdrawal for withdrawal in report.ledger.withdrawn if withdrawal not in before.withdrawn]
    _note_certificates(report, before)


def _note_update(report: Report, record: Signed[Record], brief: bool) -> None:
    body = body_of(record.value)
    assert isinstance(body, Update)  # the fold would have refused anything else
    report.signatures += 1 + len(body.acks)
    if brief:
        return
    name = digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:])
    if name not in report.updates:
        header = open_signed(UpdateHeader, body.header, record.value.federation, trusted=True).value
        report.updates[name] = Counted(header, record.value.seq, report.ledger.height)


def _component(record: Signed[Record]) -> str:
    """Return the component that a refused record is about; empty if it cannot be read."""
    try:
        body = body_of(record.value)
        if isinstance(body, Update):
            return open_signed(UpdateHeader, body.header, record.value.federation, trusted=True).value.component
    except RemoteProtocolError:
        return ""
    return body.component if isinstance(body, Attest) else ""


def _note_certificates(report: Report, before: Ledger) -> None:
    ledger = report.ledger
    for name, component in ledger.components.items():
        certified = component.certified
        if certified is None or (name in before.components and certified == before.components[name].certified):
            continue
        key = (certified.round, certified.generation, certified.digest)
        hosts = tuple(h for r, e, h, d in component.attests if (r, e, d) == key and h in component.hosts)
        report.certifications.append(
            Certification(
                name,
                *key,
                height=ledger.height,
                hosts=hosts,
                needed=ledger.host_quorum(component),
                chain=component.rounds[certified.round - 1].chain if certified.round else GENESIS,
            )
        )


def _member(ledger: Ledger, key: bytes) -> str:
    member = ledger.roll.seats.get(key)
    return f"{member.name} ({key.hex()[:16]})" if member is not None else key.hex()[:16]


def _reason(error: CollegiumError) -> str:
    return f"{error.reason}: {error.detail}" if isinstance(error, RemoteProtocolError) else f"malformed: {error}"
