"""The database: what was applied comes back, what must never be is refused, damage is named (G6, G8)."""

import errno
import math
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from collegium.crypto.errors import CollegiumError, CorruptError, LocalProtocolError, RefusedError, UsageError
from collegium.crypto.identity import Identity
from collegium.node import scarce
from collegium.node.core.events import (
    EVERY_SHARD,
    Noised,
    Put,
    PutBlock,
    PutFlag,
    PutHeader,
    PutMessage,
    PutPublished,
    PutRecord,
    PutReservation,
    Snapshot,
    StoredBlock,
)
from collegium.node.store import DiskFullError, Metric, Store
from collegium.node.store import connection as connection_module
from collegium.node.store.observations import MIN_CELL
from collegium.node.store.schema import VERSION
from collegium.protocol.blocks import Block, Certificate, Head, VoteSignature
from collegium.protocol.claims import Claim, DpEvents
from collegium.protocol.records import GENESIS, Record
from collegium.protocol.signing import Signed, sign
from collegium.protocol.update import Engaged, UpdateHeader

from ...descriptors import limit, next_descriptor

FEDERATION = bytes(range(32))
ALICE = Identity.from_seed(bytes([1]) * 32)
BOB = Identity.from_seed(bytes([2]) * 32)


def record(author: Identity, seq: int, prev: bytes = GENESIS, body: bytes = b"body") -> Signed[Record]:
    return sign(author, Record(FEDERATION, author.public_key, seq, prev, "test", body))


def feed(author: Identity, count: int) -> list[Signed[Record]]:
    records: list[Signed[Record]] = []
    for seq in range(1, count + 1):
        records.append(record(author, seq, records[-1].digest if records else GENESIS))
    return records


def put_block(height: int, records: list[Signed[Record]], prev: bytes = GENESIS) -> PutBlock:
    cut = tuple(Head(r.value.author, r.value.seq, r.digest) for r in records)
    block = Block(FEDERATION, height, prev, cut, (), height, bytes(32), bytes(32), bytes(32))
    certificate = Certificate(0, (VoteSignature(ALICE.public_key, bytes(64)),))
    return PutBlock(block, certificate, tuple(r.digest for r in records))


def header(author: Identity, component: str = "backbone", round_: int = 1, blob: int = 0) -> Signed[UpdateHeader]:
    recipe = Engaged(component, bytes(32), 1_000_000, 1_000_000, 1_000_000)
    claims = (Claim("clicks", (DpEvents(100_000, 1_000_000, 1),), 1, 1),)
    return sign(
        author,
        UpdateHeader(
            FEDERATION, author.public_key, component, round_, 0, bytes(32), bytes([blob]) * 32, 10, 1, 100_000, 1000,
            (recipe,), claims,
        ),
    )  # fmt: skip


def draw(number: int, epsilon: int = 100) -> PutReservation:
    parts = (Noised("backbone", 3, 2**40), Noised("head/pass", 4, 0))
    return PutReservation(number, parts, 100_000, 7, (("clicks", epsilon), ("text", 2**32 - 1)))


RECALLED = PutReservation(
    1, (), 1, 0, (("text", 0),), (("text", DpEvents(1, 0, 0)), ("text", DpEvents(2, 1, 2**32 - 1)))
)


A, B = feed(ALICE, 3), feed(BOB, 2)
EVERYTHING: list[Put] = [
    PutRecord(A[0]),
    PutRecord(B[0]),
    PutRecord(A[1]),
    PutMessage(1, b"a vote at 1"),
    PutMessage(2, b"a vote at 2"),
    put_block(1, [A[0], B[0]]),
    PutHeader(header(ALICE)),
    PutHeader(header(BOB, "head/pass", 2)),
    RECALLED,
    draw(2),
    replace(draw(3), shard=EVERY_SHARD),
    PutPublished(1),
    PutFlag("contributing", 0),
    PutFlag("contributing", 1),
    PutFlag("least", -(2**63)),
    PutBlock(put_block(2, [A[1]]).block, put_block(2, [A[1]]).certificate, (A[1].digest,)),
    PutMessage(3, b"a vote at 3"),
    PutRecord(B[1]),
    PutRecord(A[2]),
]
BLOCKS = [put for put in EVERYTHING if isinstance(put, PutBlock)]
EXPECTED = Snapshot(
    blocks=(
        StoredBlock(BLOCKS[0].block, BLOCKS[0].certificate, (A[0], B[0])),
        StoredBlock(BLOCKS[1].block, BLOCKS[1].certificate, (A[1],)),
    ),
    records=(B[1], A[2]),
    messages=((2, b"a vote at 2"), (3, b"a vote at 3")),
    headers=(header(ALICE), header(BOB, "head/pass", 2)),
    reservations=(RECALLED, draw(2), replace(draw(3), shard=EVERY_SHARD)),
    published=frozenset({1}),
    flags={"contributing": 1, "least": -(2**63)},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path, FEDERATION) as opened:
        yield opened


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed database with everything in it; copy it before changing it."""
    path = tmp_path_factory.mktemp("filled") / "node.db"
    with Store.open(path, FEDERATION) as opened:
        opened.apply(EVERYTHING)
    return path


# ---- what goes in comes out


def test_g8_everything_applied_is_in_the_snapshot_after_a_restart(path: Path) -> None:
    with Store.open(path, FEDERATION) as store:
        assert store.snapshot() == Snapshot()
        store.apply(EVERYTHING)
        assert store.snapshot() == EXPECTED
    with Store.open(path, FEDERATION) as store:
        assert store.snapshot() == EXPECTED


def test_applying_everything_again_changes_nothing_but_erased_messages(store: Store) -> None:
    store.apply(EVERYTHING)
    store.apply([put for put in EVERYTHING if not isinstance(put, PutMessage)])
    store.apply([PutMessage(3, b"a vote at 3")])
    assert store.snapshot() == EXPECTED


def test_one_put_at_a_time_ends_in_the_same_snapshot(store: Store) -> None:
    for put in EVERYTHING:
        store.apply([put])
    assert store.snapshot() == EXPECTED


def test_a_block_deletes_the_messages_of_lower_heights_only(store: Store) -> None:
    store.apply([PutRecord(A[0]), PutRecord(A[1]), *(PutMessage(h, bytes([h])) for h in (1, 2, 3))])
    store.apply([put_block(1, [A[0]])])
    assert [h for h, _ in store.snapshot().messages] == [1, 2, 3]
    store.apply([put_block(2, [A[1]])])
    assert [h for h, _ in store.snapshot().messages] == [2, 3]


def test_erased_messages_leave_no_bytes_in_the_file(path: Path) -> None:
    secret = b"the bytes of a message that must go " * 400
    with Store.open(path, FEDERATION) as store:
        store.apply([PutRecord(A[0]), PutRecord(A[1]), PutMessage(1, secret), put_block(1, [A[0]])])
    assert secret[:36] in path.read_bytes()
    with Store.open(path, FEDERATION) as store:
        store.apply([put_block(2, [A[1]])])
    assert secret[:36] not in path.read_bytes()


def test_an_empty_apply_does_nothing(store: Store) -> None:
    store.apply([])
    assert store.snapshot() == Snapshot()


# ---- reads


def test_feeds_come_by_seq_with_forks_and_bounds(store: Store) -> None:
    fork = record(ALICE, 2, A[0].digest, b"another")
    store.apply([PutRecord(r) for r in (A[2], A[0], fork, A[1], B[0])])
    assert store.feed(ALICE.public_key, 0, 10) == [A[0], fork, A[1], A[2]]
    assert store.feed(ALICE.public_key, 1, 2) == [fork, A[1]]
    assert store.feed(ALICE.public_key, 3, 10) == []
    assert store.feed(bytes(32), 0, 10) == []
    assert store.record_at(ALICE.public_key, 2) == [fork, A[1]]
    assert store.record_at(ALICE.public_key, 9) == []


def test_records_and_blocks_are_found_by_name(store: Store) -> None:
    store.apply(EVERYTHING)
    assert store.height() == 2
    assert store.block(1) == EXPECTED.blocks[0]
    assert store.block(0) is None
    assert store.block(3) is None
    assert list(store.blocks(0, 10)) == list(EXPECTED.blocks)
    assert list(store.blocks(1, 10)) == [EXPECTED.blocks[1]]
    assert list(store.blocks(0, 1)) == [EXPECTED.blocks[0]]
    assert store.record(A[0].digest) == A[0]
    assert store.record(bytes(32)) is None
    assert store.reservations() == list(EXPECTED.reservations)
    assert store.flags() == EXPECTED.flags
    received, decided = store.received(A[0].digest), store.decided(1)
    assert received is not None
    assert received == decided
    assert store.received(bytes(32)) is None
    assert store.decided(9) is None


def test_metrics_are_filtered_and_the_last_ones_win(store: Store) -> None:
    rows = [Metric(r, 0, task, "auc", r / 10, 50, 1.5) for r in (1, 2, 3) for task in ("fail", "pass")]
    store.put_metrics(rows)
    again = replace(rows[0], value=0.75, count=51, recorded=2.5)
    store.put_metrics([again])
    assert store.metrics() == [again, *rows[1:]]
    assert store.metrics(task="pass") == rows[1::2]
    assert store.metrics(round_=2) == rows[2:4]
    assert store.metrics(since=3) == rows[4:]
    assert store.metrics(metric="loss") == []
    assert store.metrics(limit=3) == rows[3:]


def test_figures_of_groups_and_of_the_home_layer_stand_beside_each_other(store: Store) -> None:
    every = [
        Metric(1, 0, "pass", "auc", 0.5, 200, 1.0),
        Metric(1, 0, "pass", "auc", 0.6, 200, 1.0, home_layer=True),
        Metric(1, 0, "pass", "auc", 0.7, MIN_CELL, 1.0, "sex=f"),
        Metric(1, 0, "pass", "auc", 0.8, MIN_CELL, 1.0, "sex=f", True),
    ]
    store.put_metrics(every)
    assert store.metrics() == every
    store.put_metrics([replace(every[3], value=0.9)])
    assert [m.value for m in store.metrics()] == [0.5, 0.6, 0.7, 0.9]


def test_a_figure_of_a_small_group_is_refused_and_that_it_is_small_is_kept(store: Store) -> None:
    small = Metric(1, 0, "pass", "auc", math.nan, None, 1.0, "sex=m")
    for change in ({"value": 0.7}, {"value": 0.7, "count": MIN_CELL - 1}, {"count": MIN_CELL - 1}):
        with pytest.raises(LocalProtocolError, match="under 50"):
            store.put_metrics([Metric(2, 0, "pass", "auc", 0.1, 9, 1.0), replace(small, **change)])
    assert store.metrics() == []
    store.put_metrics([small])
    (metric,) = store.metrics()
    assert (metric.cell, metric.count, math.isnan(metric.value)) == ("sex=m", None, True)


def test_a_metric_may_be_undefined(store: Store) -> None:
    store.put_metrics([Metric(1, 0, "pass", "auc", math.nan, 0, 1.0), Metric(1, 0, "pass", "loss", math.inf, 1, 1.0)])
    auc, loss = store.metrics()
    assert math.isnan(auc.value)
    assert loss.value == math.inf


def test_notes_on_rounds_come_back(store: Store) -> None:
    facts = {"in": ["ü"], "missing": {"bob": "deadline"}, "bytes_received": 2**40, "seconds": 1.5}
    store.put_round_notes([("head/pass", 2, 9, {"old": 1})])
    store.put_round_notes([("head/pass", 2, 10, facts), ("backbone", 3, 10, {})])
    assert [(n.round, n.component, n.height, n.data) for n in store.notes()] == [
        (2, "head/pass", 10, facts),
        (3, "backbone", 10, {}),
    ]
    assert [n.round for n in store.notes(component="backbone")] == [3]
    assert [n.round for n in store.notes(limit=1)] == [3]
    assert [n.round for n in store.notes(since=3)] == [3]


@pytest.mark.parametrize("data", [{"x": object()}, {"x": math.nan}, {"x": "y" * 70_000}, {"x": "\ud800"}])
def test_a_note_that_is_no_json_is_our_bug(store: Store, data: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError, match="note"):
        store.put_round_notes([("backbone", 1, 1, data)])


# ---- what must never be stored

OTHER = bytes(32)
NEVER: dict[str, tuple[list[Put], Put]] = {
    "a second header for one place (two acks)": ([PutHeader(header(ALICE))], PutHeader(header(ALICE, blob=1))),
    "another block at a height": (
        [PutRecord(A[0]), PutRecord(B[0]), put_block(1, [A[0]])],
        put_block(1, [B[0]]),
    ),
    "a block above a gap": ([PutRecord(A[0])], put_block(2, [A[0]])),
    "a block at height 0": ([PutRecord(A[0])], put_block(0, [A[0]])),
    "a block of records that are not stored": ([PutRecord(A[0])], put_block(1, [A[0], B[0]])),
    "a record under two blocks": ([PutRecord(A[0]), put_block(1, [A[0]])], put_block(2, [A[0]])),
    "a draw that changes its reservation": ([draw(1)], draw(1, epsilon=1)),
    "publishing a draw that was not reserved": ([draw(1)], PutPublished(2)),
    "a record of another federation": ([], PutRecord(sign(ALICE, replace(A[0].value, federation=OTHER)))),
    "a header of another federation": ([], PutHeader(sign(ALICE, replace(header(ALICE).value, federation=OTHER)))),
    "a flag over 64 bits": ([], PutFlag("x", 2**63)),
    "a message over the row limit": ([], PutMessage(1, bytes(connection_module.ROW_LIMIT + 1))),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_must_never_be_is_refused_and_the_whole_batch_with_it(name: str, store: Store) -> None:
    before, wrong = NEVER[name]
    store.apply(before)
    snapshot = store.snapshot()
    with pytest.raises(LocalProtocolError):
        store.apply([PutFlag("first", 1), PutRecord(A[2]), wrong, PutFlag("last", 1)])
    assert store.snapshot() == snapshot
    store.apply([PutFlag("after", 1)])  # and the store goes on
    assert store.flags()["after"] == 1


def test_a_closed_store_says_so(path: Path) -> None:
    store = Store.open(path, FEDERATION)
    store.close()
    store.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        store.height()
    with pytest.raises(LocalProtocolError, match="closed"):
        store.apply([PutFlag("x", 1)])


# ---- the file


def test_the_file_is_private_and_nothing_else_is_left(path: Path) -> None:
    old = os.umask(0)
    try:
        with Store.open(path, FEDERATION) as store:
            store.apply(EVERYTHING)
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    finally:
        os.umask(old)
    assert [file.name for file in path.parent.iterdir()] == ["node.db"]


def test_a_commit_waits_for_the_disk(store: Store) -> None:
    assert store._write is not None
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    assert {name: store._write.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas} == pragmas


def test_the_command_line_reads_while_the_daemon_runs_and_after(path: Path, store: Store) -> None:
    with Store.open_readonly(path) as reader:
        assert reader.federation == FEDERATION
        assert reader.height() == 0
        store.apply(EVERYTHING)
        assert reader.snapshot() == EXPECTED
        with pytest.raises(LocalProtocolError, match="reading only"):
            reader.apply([PutFlag("x", 1)])
    store.close()
    with Store.open_readonly(path) as reader:
        assert reader.snapshot() == EXPECTED


def test_reads_go_on_in_other_threads_during_writes(store: Store) -> None:
    store.apply([PutRecord(A[0])])
    problems: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(200):
                assert store.record(A[0].digest) == A[0]
                heights = [block.block.height for block in store.snapshot().blocks]
                assert heights == list(range(1, len(heights) + 1))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    records = feed(BOB, 30)
    for height, signed in enumerate(records, 1):
        store.apply([PutRecord(signed), put_block(height, [signed])])
    for thread in threads:
        thread.join()
    assert problems == []
    assert store.height() == 30


def test_no_database_to_read_is_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match=r"no database .*node\.db"):
        Store.open_readonly(path)
    assert not path.exists()


def test_another_federation_is_refused(filled: Path) -> None:
    with pytest.raises(RefusedError, match=r"node\.db belongs to federation 00010203") as caught:
        Store.open(filled, bytes(32))
    assert caught.value.advice


def test_a_held_database_is_a_usage_error(path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Store.open(path, FEDERATION) as second, pytest.raises(UsageError, match="Another process holds"):
            second.apply([PutFlag("x", 1)])


# ---- damage


def opened(path: Path) -> Snapshot:
    with Store.open(path, FEDERATION) as store:
        return store.snapshot()


def copy_of(filled: Path, tmp_path: Path) -> Path:
    target = tmp_path / "node.db"
    for beside in tmp_path.iterdir():
        beside.unlink()
    shutil.copy(filled, target)
    return target


def overwrite(offset: int, data: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:offset] + data + content[offset + len(data) :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], type[CollegiumError]]] = {
    "empty": (lambda _: b"", CorruptError),
    "99 bytes": (lambda c: c[:99], CorruptError),
    "header only": (lambda c: c[:100], CorruptError),
    "half": (lambda c: c[: len(c) // 2], CorruptError),
    "one page short": (lambda c: c[:-4096], CorruptError),
    "text": (lambda _: b"not a database\n" * 50, CorruptError),
    "zeros": (lambda c: bytes(len(c)), CorruptError),
    "zeros after the header": (lambda c: c[:100] + bytes(len(c) - 100), CorruptError),
    "one page of zeros": (overwrite(4096, bytes(4096)), CorruptError),
    "magic": (overwrite(0, b"s"), CorruptError),
    "page size": (overwrite(16, b"\x20"), CorruptError),
    "write version": (overwrite(18, b"\3"), CorruptError),
    "read version": (overwrite(19, b"\3"), CorruptError),
    "rollback journal": (overwrite(18, b"\1\1"), CorruptError),
    "reserved space": (overwrite(20, b"\7"), CorruptError),
    "schema format": (overwrite(44, b"\0\0\0\7"), CorruptError),
    "text encoding": (overwrite(56, b"\0\0\0\2"), CorruptError),
    "application id": (overwrite(68, b"X"), CorruptError),
    "no version": (overwrite(60, bytes(4)), CorruptError),
    "later version": (overwrite(60, (VERSION + 1).to_bytes(4, "big")), UsageError),
    "version before the first release": (overwrite(60, (1).to_bytes(4, "big")), UsageError),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(name: str, filled: Path, tmp_path: Path) -> None:
    damage, expected = DAMAGE[name]
    path = copy_of(filled, tmp_path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(expected, match=r"node\.db") as caught:
        opened(path)
    assert getattr(caught.value, "advice", "")
    assert path.read_bytes() == damaged  # evidence stays as it was


def test_a_truncation_anywhere_is_named_or_harmless(filled: Path, tmp_path: Path) -> None:
    path = copy_of(filled, tmp_path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 997), *range(len(content) - 4, len(content))]:
        path.write_bytes(content[:length])
        try:
            database = opened(path)
        except CorruptError as error:
            assert "node.db" in str(error)  # noqa: PT017 - both outcomes are allowed
        else:
            assert database == EXPECTED, length  # a last page is empty at its end
            assert length > len(content) - 4096


def flips_hold(path: Path, content: bytes, positions: Iterable[int], random: Random) -> int:
    """Flip one bit at each position; every time a named error or exactly what was stored. Returns how many errors."""
    errors = 0
    for position in positions:
        for leftover in path.parent.iterdir():
            leftover.unlink()
        mask = 1 << random.randrange(8)
        path.write_bytes(overwrite(position, bytes([content[position] ^ mask]))(content))
        try:
            database = opened(path)
        except (CorruptError, RefusedError, UsageError) as error:
            assert "node.db" in str(error), (position, mask)  # noqa: PT017 - both outcomes are allowed
            errors += 1
        else:
            assert database == EXPECTED, (position, mask)
    return errors


def test_a_flipped_bit_in_the_header_is_named_or_harmless(filled: Path, tmp_path: Path) -> None:
    path = copy_of(filled, tmp_path)
    assert flips_hold(path, path.read_bytes(), range(100), Random(1)) > 50


def test_a_flipped_bit_anywhere_is_named_or_harmless(filled: Path, tmp_path: Path) -> None:
    path = copy_of(filled, tmp_path)
    content = path.read_bytes()
    used = [position for position, byte in enumerate(content) if byte]  # flips in empty space are harmless
    random = Random(2)
    assert flips_hold(path, content, random.sample(used, 400), random) > 300


CHANGED: dict[str, tuple[str, str]] = {
    "a record's signature": (
        "records",
        "UPDATE records SET wire = CAST(zeroblob(64) || substr(wire, 65) AS BLOB) WHERE id = 4",
    ),
    "a record's seq": ("records", "UPDATE records SET seq = seq + 1 WHERE id = 4"),
    "a block's certificate": ("blocks", "UPDATE blocks SET certificate = substr(certificate, 2) WHERE height = 1"),
    "a block without its last record": ("blocks", "DELETE FROM block_records WHERE height = 1 AND position = 1"),
    "a missing height": ("blocks", "DELETE FROM blocks WHERE height = 1"),
    "a vote": ("messages", "UPDATE messages SET data = x'00'"),
    "a vote's height": ("messages", "UPDATE messages SET height = height + 1"),
    "a header's round": ("headers", "UPDATE headers SET round = round + 1"),
    "a header's signature": ("headers", "UPDATE headers SET wire = CAST(zeroblob(64) || substr(wire, 65) AS BLOB)"),
    "a reservation's epsilon": ("reservations", "UPDATE reservations SET reservation = substr(reservation, 1, 5)"),
    "a reservation's run": ("reservations", "UPDATE reservations SET run = 9 WHERE run = 2"),
    "a published run": ("published", "UPDATE published SET run = 2 WHERE run = 1"),
    "a flag": ("flags", "UPDATE flags SET value = 0 WHERE name = 'contributing'"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_g6_g8_a_changed_row_is_never_believed(name: str, filled: Path, tmp_path: Path) -> None:
    table, statement = CHANGED[name]
    path = copy_of(filled, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(CorruptError, match=f"Table {table} of the database .*node.db is damaged") as caught:
        opened(path)
    assert "privacy budget" in caught.value.advice


def test_a_dropped_constraint_is_damage(filled: Path, tmp_path: Path) -> None:
    path = copy_of(filled, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX records_by_feed")
    with pytest.raises(CorruptError, match="tables"):
        opened(path)


def test_an_index_that_lost_a_row_is_damage(filled: Path, tmp_path: Path) -> None:
    """A lost entry in an index would let this node acknowledge a second header (quick_check does not see it)."""
    path = copy_of(filled, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'records_by_feed')"
            " WHERE name = 'sqlite_autoindex_headers_1'"
        )
        connection.commit()
    with pytest.raises(CorruptError, match="damaged"):
        opened(path)


def test_a_database_whose_main_file_vanished_is_not_made_anew(path: Path) -> None:
    store = Store.open(path, FEDERATION)
    store.apply(EVERYTHING)
    path.rename(path.with_name("away"))  # its log stays
    with pytest.raises(CorruptError, match="log is still there"):
        Store.open(path, FEDERATION)
    store.close()


def test_a_creation_that_was_cut_leaves_no_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", lambda *_: fail(path))
    with pytest.raises(DiskFullError):
        Store.open(path, FEDERATION)
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    path.with_name("node.db.new").write_bytes(b"left by kill -9")
    assert opened(path) == Snapshot()


# ---- a full disk


def big(seq: int) -> PutRecord:
    return PutRecord(record(BOB, seq, bytes(32), os.urandom(60_000)))


def test_a_full_database_keeps_what_it_has_and_can_be_read(store: Store) -> None:
    store.apply(EVERYTHING)
    assert store._write is not None
    (pages,) = store._write.execute("PRAGMA page_count").fetchone()
    store._write.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(DiskFullError, match=r"node\.db.*disk is full") as caught:
        store.apply([PutFlag("half", 1), big(9), big(10), big(11)])
    assert caught.value.advice
    assert store.snapshot() == EXPECTED
    store._write.execute(f"PRAGMA max_page_count = {pages + 10_000}")
    store.apply([big(9)])
    assert len(store.feed(BOB.public_key, 8, 9)) == 1


def test_a_full_disk_keeps_what_is_stored_and_can_be_read(small_disk: Path) -> None:
    path = small_disk / "node.db"
    stored = []
    with Store.open(path, FEDERATION) as store:
        store.apply(EVERYTHING)
        with pytest.raises(DiskFullError):  # noqa: PT012 - how many fit is the file system's to say
            for seq in range(10, 100):
                store.apply([big(seq)])
                stored.append(seq)
        assert store.snapshot().blocks == EXPECTED.blocks
        assert [r.value.seq for r in store.feed(BOB.public_key, 9, 100)] == stored
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    with Store.open(path, FEDERATION) as store:
        assert [r.value.seq for r in store.feed(BOB.public_key, 9, 100)] == stored
        store.apply([big(200)])


def test_no_space_for_a_new_database_is_named(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        file.writelines(bytes(4096) for _ in range(1000))
    with pytest.raises(DiskFullError, match=r"node\.db"):
        Store.open(small_disk / "node.db", FEDERATION)
    filler.unlink()
    assert opened(small_disk / "node.db") == Snapshot()


# ---- kill -9

WRITER = """
import sys
from pathlib import Path
from collegium.crypto.identity import Identity
from collegium.node.core.events import PutFlag, PutMessage, PutRecord
from collegium.node.store import Store
from collegium.protocol.records import Record
from collegium.protocol.signing import sign

path, federation = Path(sys.argv[1]), bytes(range(32))
identity = Identity.from_seed(bytes([2]) * 32)
with Store.open(path, federation) as store:
    seq = store.flags().get("seq", 0)
    while True:
        puts = []
        for seq in range(seq + 1, seq + 6):
            record = sign(identity, Record(federation, identity.public_key, seq, bytes(32), "test", bytes(3000)))
            puts += [PutRecord(record), PutMessage(seq, record.digest)]
        store.apply([*puts, PutFlag("seq", seq)])
        print(seq, flush=True)
"""


def test_g8_what_apply_returned_from_survives_kill_9_and_nothing_is_half_there(path: Path) -> None:
    random = Random(3)
    reported = 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(random.randrange(1, 12)):
            reported = int(writer.stdout.readline())
        threading.Event().wait(random.random() * 0.01)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        reported = int(rest[-1]) if rest else reported
        with Store.open_readonly(path) as reader:  # it reads the log that the killed process left
            before = reader.flags()["seq"]
        with Store.open(path, FEDERATION) as store:
            snapshot = store.snapshot()
        stored = snapshot.flags["seq"]
        assert stored == before
        assert stored >= reported
        assert [r.value.seq for r in snapshot.records] == list(range(1, stored + 1))
        assert [height for height, _ in snapshot.messages] == list(range(1, stored + 1))


@pytest.mark.parametrize("readonly", [True, False])
def test_without_descriptors_a_database_is_not_called_forbidden_but_is_tried_again(path: Path, readonly: bool) -> None:
    """However many there are: SQLite needs some for the file, its log and its index, and says of none why it failed."""

    def failure(few: int) -> Exception | None:
        with limit(next_descriptor() + few):
            try:
                (Store.open_readonly(path) if readonly else Store.open(path, FEDERATION)).close()
            except (OSError, CollegiumError) as error:
                return error
        return None

    Store.open(path, FEDERATION).close()
    errors = [failure(few) for few in range(10)]
    failed = [error for error in errors if error is not None]
    assert len(failed) > 1, "it fails at more than one place"
    assert [error for error in failed if not scarce.is_scarce(error)] == []
    assert errors[len(failed) :] == [None] * (10 - len(failed))
