"""From rows to values. Stored bytes are trusted to be ours, not to be undamaged: checksums first, then decoding."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from ...crypto.errors import CorruptError, LocalProtocolError, RemoteProtocolError
from ...protocol import codec, schema
from ...protocol.blocks import BLOCK_LIMIT, Block, Certificate
from ...protocol.claims import DpEvents
from ...protocol.records import Record
from ...protocol.signing import Signed, open_signed
from ...protocol.update import UpdateHeader
from ..core.events import Noised, PutReservation, StoredBlock
from .observations import Metric, RoundNote
from .schema import checksum, recovery

Row = Sequence[Any]

CERTIFICATE_LIMIT = 256 << 10
RESERVATION_LIMIT = 64 << 10


def dump_reservation(put: PutReservation) -> bytes:
    """Return a reservation's bytes. Raises LocalProtocolError if it cannot be encoded."""
    parts = [[part.component, part.round, part.noise_multiplier] for part in put.parts]
    claims = [[modality, epsilon] for modality, epsilon in put.claims]
    recalled = [[name, d.sample_rate, d.noise_multiplier, d.count] for name, d in put.recalled]
    later = [put.shard] if put.shard else []  # of charters without shards it is left out
    return codec.encode([parts, put.sample_rate, put.steps, claims, recalled, *later])


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads rows of one database; every method raises CorruptError, naming the table, for a damaged one."""

    path: Path
    federation: bytes

    def record(self, row: Row) -> Signed[Record]:
        """(digest, author, seq, wire, checksum) to a record."""
        digest, author, seq, wire, check = row
        with self._intact("records"):
            self._check("records", check == checksum("records", wire))
            record = open_signed(Record, wire, self.federation, trusted=True)
            self._check("records", (record.digest, record.value.author, record.value.seq) == (digest, author, seq))
            return record

    def header(self, row: Row) -> Signed[UpdateHeader]:
        """(author, component, round, wire, checksum) to an update header."""
        author, component, round_, wire, check = row
        with self._intact("headers"):
            self._check("headers", check == checksum("headers", wire))
            header = open_signed(UpdateHeader, wire, self.federation, trusted=True)
            value = header.value
            self._check("headers", (value.author, value.component, value.round) == (author, component, round_))
            return header

    def block(self, row: Row, records: Sequence[Row]) -> StoredBlock:
        """(height, block, certificate, checksum) and its records' rows to a block."""
        height, payload, certificate, check = row
        with self._intact("blocks"):
            digests = [record[0] for record in records]
            self._check("blocks", check == checksum("blocks", payload, certificate, *digests))
            block = schema.load(Block, payload, BLOCK_LIMIT)
            self._check("blocks", (block.height, block.federation) == (height, self.federation))
            proof = schema.load(Certificate, certificate, CERTIFICATE_LIMIT)
        return StoredBlock(block, proof, tuple([self.record(record) for record in records]))

    def message(self, row: Row) -> tuple[int, bytes]:
        """(height, checksum, data) to (height, data)."""
        height, check, data = row
        with self._intact("messages"):
            self._check("messages", check == checksum("messages", height, data))
        return height, data

    def reservation(self, row: Row) -> PutReservation:
        """(run, reservation, checksum) to a reservation."""
        run, reservation, check = row
        with self._intact("reservations"):
            self._check("reservations", check == checksum("reservations", run, reservation))
            fields: Any = codec.decode(reservation, RESERVATION_LIMIT)
            parts, sample_rate, steps, claims, recalled, *later = fields
            return PutReservation(
                run,
                tuple(Noised(*part) for part in parts),
                sample_rate,
                steps,
                tuple((modality, epsilon) for modality, epsilon in claims),
                tuple((modality, DpEvents(*draws)) for modality, *draws in recalled),
                *later,
            )

    def published(self, row: Row) -> int:
        """(run, checksum) to a training run's number."""
        run, check = row
        with self._intact("published"):
            self._check("published", check == checksum("published", run))
        return int(run)

    def flag(self, row: Row) -> tuple[str, int]:
        """(name, value, checksum) to (name, value)."""
        name, value, check = row
        with self._intact("flags"):
            self._check("flags", check == checksum("flags", name.encode(), value))
        return name, value

    def metric(self, row: Row) -> Metric:
        """(round, generation, task, metric, value, count, recorded, cell, home_layer) to a metric; NaN is kept as
        NULL.
        """
        round_, generation, task, metric, value, count, recorded, cell, home_layer = row
        value = nan if value is None else value
        return Metric(round_, generation, task, metric, value, count, recorded, cell, bool(home_layer))

    def note(self, row: Row) -> RoundNote:
        """(round, component, height, data, recorded) to a note."""
        round_, component, height, text, recorded = row
        with self._intact("notes"):
            data = json.loads(text)
            self._check("notes", isinstance(data, dict))
        return RoundNote(round_, component, height, data, recorded)

    def damaged(self, table: str, why: str) -> CorruptError:
        """Return the error that says so."""
        return CorruptError(f"Table {table} of the database {self.path} is damaged ({why})", recovery(self.path))

    def _check(self, table: str, ok: bool) -> None:
        if not ok:
            raise self.damaged(table, "a row does not match its checksum")

    @contextmanager
    def _intact(self, table: str) -> Iterator[None]:
        try:
            yield
        except (RemoteProtocolError, LocalProtocolError, ValueError, TypeError, RecursionError) as error:
            raise self.damaged(table, str(error)) from error
