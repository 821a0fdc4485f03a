"""What outsiders check: both verifiers accept what the product writes, and refuse everything else (G2, G4, G9)."""

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from collegium.consensus.fold import next_state
from collegium.crypto.errors import CorruptError, UsageError, VerificationError
from collegium.crypto.identity import Identity
from collegium.crypto.merkle import EMPTY, leaf_hash
from collegium.node.core.events import StoredBlock
from collegium.node.verify import files, heads, outsiders
from collegium.node.verify.outsiders import Source
from collegium.protocol import schema
from collegium.protocol.blocks import PRECOMMIT, Block, Certificate, Close, Head, Vote, VoteSignature
from collegium.protocol.charter import Charter, CharterSignature, SignedCharter, dump_file
from collegium.protocol.records import Attest, Offer, Record, Update, body_of
from collegium.protocol.signing import Signed, sign
from collegium.protocol.update import UpdateHeader
from collegium.sims.paper import mutations, verifying
from collegium.sims.paper.paper_federation import PaperFederation
from collegium.sims.paper.sample_ledger import sample_ledger
from collegium.sims.paper.verifying import VERIFIER, Verifier

KINDS = (files.LEDGER, files.INCLUSION, files.CONSISTENCY)


@pytest.fixture(scope="module")
def source() -> Source:
    return sample_ledger()


@pytest.fixture(scope="module")
def originals(source: Source) -> dict[str, bytes]:
    return mutations.originals(source)


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return verifying.load_independent()


@pytest.fixture(scope="module")
def verifiers(module: ModuleType) -> dict[str, Verifier]:
    return {"product": verifying.product, "independent": verifying.independent(module)}


@pytest.fixture(params=["product", "independent"])
def verifier(request: pytest.FixtureRequest, verifiers: dict[str, Verifier]) -> Verifier:
    return verifiers[request.param]


def verified(data: bytes, **given: object) -> dict[str, object]:
    return files.verify_file(io.BytesIO(data), "it", **given).as_map()  # type: ignore[arg-type]  # by name


# ---- what the product writes


@pytest.mark.parametrize("kind", KINDS)
def test_both_verifiers_accept_what_the_product_writes(
    kind: str, originals: dict[str, bytes], verifier: Verifier
) -> None:
    assert verifier(originals[kind]) is None


def test_an_exported_ledger_says_what_was_agreed(source: Source, originals: dict[str, bytes]) -> None:
    report = verified(originals[files.LEDGER])
    *_, (last, ledger) = source.history(source.top)
    assert (report["height"], report["block"]) == (source.top, last.block.id.hex())
    assert report["members"] == [member.hex() for member in ledger.members]
    assert report["records"] == report["tree_size"] == last.block.tree_size
    assert report["federation"] == source.charter.federation.hex()
    walked = verified(originals[files.INCLUSION])
    assert report["membership_changes"] == walked["membership_changes"] == 5


def test_the_independent_verifier_finds_the_same(
    module: ModuleType, source: Source, originals: dict[str, bytes]
) -> None:
    """It counts the updates of every member and component, which here are all well signed."""
    for kind in KINDS:
        ours = verified(originals[kind])
        lines = dict(line.split(": ", 1) for line in module.verify(io.BytesIO(originals[kind])))
        assert lines["federation"] == ours["federation"]
        assert (lines["trusted height"], lines["block id"]) == (str(ours["height"]), ours["block"])
        assert lines["tree"] == f"{ours['tree_size']} records, root {ours['tree_root']}"
        assert lines["members after it"] == str(len(ours["members"]))  # type: ignore[arg-type]  # a list
        if kind == files.LEDGER:
            blocks = [block for height in range(1, source.top + 1) if (block := source.block(height))]
            updates = sum(record.value.kind == "update" for block in blocks for record in block.records)
            counted = sum(int(value) for name, value in lines.items() if name.startswith("updates of"))
            assert counted == updates > 0
            assert lines["badly signed updates, which all members ignore"] == "0"


def test_every_height_can_be_exported_and_every_record_proved(source: Source, verifiers: dict[str, Verifier]) -> None:
    for height in range(1, source.top + 1):
        data = b"".join(outsiders.export(source, height))
        assert verified(data)["height"] == height
        block = source.block(height)
        assert block is not None
        for record in block.records[-1:]:
            proof, checked = outsiders.prove(source, record.digest.hex()[:16], min(source.top, height + 3))
            assert checked.record == record
            assert [verify(proof) for verify in verifiers.values()] == [None, None]
        for later in range(height + 1, source.top + 1, 5):
            proof, _ = outsiders.consistency(source, height, later)
            assert [verify(proof) for verify in verifiers.values()] == [None, None]


def block_at(source: Source, height: int) -> StoredBlock:
    block = source.block(height)
    assert block is not None
    return block


def test_the_independent_verifier_reads_headers_that_name_a_shard(source: Source, module: ModuleType) -> None:
    records = [record for height in range(1, source.top + 1) for record in block_at(source, height).records]
    wire = next(body.header for r in records if isinstance(body := body_of(r.value), Update))
    header = schema.load(UpdateHeader, wire[64:], UpdateHeader.LIMIT)
    for shard in (0, 1, 63):
        data = schema.dump(replace(header, shard=shard))
        assert module.decode(data, module.HEADER, "a header", module.SHARD).get("shard", 0) == shard
    fields = schema.to_map(replace(header, shard=1))
    for wrong in (0, 64, True, b"1"):
        with pytest.raises(module.RejectedError):
            module.decode(module.encode(fields | {"shard": wrong}), module.HEADER, "a header", module.SHARD)


def test_what_there_is_not_cannot_be_proved(source: Source) -> None:
    block = source.block(5)
    assert block is not None
    digest = block.records[0].digest.hex()
    refused: dict[str, Callable[[], object]] = {
        "up to height 4": lambda: outsiders.prove(source, digest, 4),
        "No record": lambda: outsiders.prove(source, "00" * 32),
        "not the beginning": lambda: outsiders.prove(source, digest[:5]),
        "no block 99": lambda: outsiders.consistency(source, 1, 99),
        "not before": lambda: outsiders.consistency(source, 3, 3),
        "no block 98": lambda: list(outsiders.export(source, 98)),
        "Nothing is agreed": lambda: list(outsiders.export(replace(source, top=0))),
    }
    for what, make in refused.items():
        with pytest.raises(UsageError, match=what):
            make()


def test_a_store_that_does_not_fold_is_not_exported(source: Source) -> None:
    def block(height: int) -> StoredBlock | None:
        stored = source.block(height)
        assert stored is not None
        return replace(stored, records=stored.records[:-1]) if height == 3 else stored

    with pytest.raises(CorruptError, match="height 3"):
        list(outsiders.export(replace(source, block=block)))
    with pytest.raises(CorruptError, match="no block at height 1"):
        list(outsiders.export(replace(source, block=lambda _height: None)))


# ---- trust begins where the outsider says


@pytest.mark.parametrize("kind", KINDS)
def test_pins_and_charters_hold(kind: str, source: Source, originals: dict[str, bytes], module: ModuleType) -> None:
    data = originals[kind]
    report = verified(data, charter=source.charter)
    height, block = int(str(report["height"])), bytes.fromhex(str(report["block"]))
    assert verified(data, pins={height: block}) == report
    module.verify(io.BytesIO(data), source.charter_file, {height: block})
    other = PaperFederation(3)
    for pins, charter, file in (
        ({height: bytes(32)}, None, None),
        ({height + 1: bytes(32)}, None, None),
        ({}, other.charter, other.charter_file),
    ):
        with pytest.raises(VerificationError, match=r"^it: "):
            verified(data, pins=pins, charter=charter)
        with pytest.raises(module.RejectedError):
            module.verify(io.BytesIO(data), file, pins)


def test_a_charter_that_not_all_founders_signed_is_none(verifier: Verifier) -> None:
    book = PaperFederation(3)
    outer = schema.load(SignedCharter, book.charter_file, 1 << 20)
    for signatures in (outer.signatures[:-1], outer.signatures[::-1], ()):
        changed = dump_file(replace(outer, signatures=signatures))
        assert verifier(files.opening(files.LEDGER, changed, 0)) is not None
    assert verifier(files.opening(files.LEDGER, book.charter_file, 0)) is None, "an empty ledger is one"


def test_a_charter_that_breaks_its_own_rules_is_none(verifier: Verifier) -> None:
    """All founders signed it, so only what it says can tell."""
    book = PaperFederation(3)
    charter = book.charter
    for changed, valid in (
        (charter, True),
        (replace(charter, members=charter.members[::-1]), False),
        (replace(charter, members=(charter.members[0], *charter.members)), False),
        (replace(charter, rules=replace(charter.rules, fault_model="none")), False),
    ):
        signatures = tuple(
            CharterSignature(member.key, who.sign("charter", changed.federation))
            for member in changed.members
            for who in book.ids
            if who.public_key == member.key
        )
        file = dump_file(SignedCharter(schema.dump(changed), signatures))
        assert (verifier(files.opening(files.LEDGER, file, 0)) is None) == valid
    forged = [CharterSignature(who.public_key, book.ids[0].sign("charter", charter.federation)) for who in book.ids]
    file = dump_file(SignedCharter(schema.dump(charter), tuple(forged)))
    assert verifier(files.opening(files.LEDGER, file, 0)) is not None


# ---- proofs


def test_a_walk_holds_what_its_proof_is_about_and_no_more(source: Source, verifier: Verifier) -> None:
    *_, (_, ledger) = source.history(source.top)
    proof, checked = outsiders.consistency(source, 2, 5)
    claim = files.Consistency(2, 5, checked.path)
    walk = source.walk(ledger, (2, 5))
    assert files.proof(source.charter_file, claim, walk) == proof
    assert verifier(proof) is None
    for other, heads_ in (
        (claim, source.walk(ledger, (2, 3, 5))),
        (claim, source.walk(ledger, (2,))),
        (claim, walk[::-1]),
        (claim, (*walk, walk[-1])),
        (claim, ()),
        (files.Consistency(5, 2, claim.path), walk),
        (files.Consistency(2, 2, ()), source.walk(ledger, (2,))),
        (files.Consistency(5, 5, ()), source.walk(ledger, (5,))),
    ):
        assert verifier(files.proof(source.charter_file, other, heads_)) is not None


# ---- damage


def test_damage_is_told_by_name(originals: dict[str, bytes], verifiers: dict[str, Verifier]) -> None:
    data = originals[files.LEDGER]
    for broken, message in {
        b"": "is empty",
        b"PK\x03\x04 something else": "no ledger file and no proof",
        b"collegium/2 ledger\n": "another format",
        data[:-1]: "cut off",
        data[: len(data) // 2]: "cut off",
        data + b"x": "goes on after its end",
        data[:19] + b"\xff\xff\xff\xff" + data[23:]: "4294967295 bytes",
        data[:19] + b"\x00\x00\x00\x02\xc1\xc1": "malformed",
    }.items():
        with pytest.raises(CorruptError, match=message) as caught:
            verified(broken)
        assert all(verify(broken) is not None for verify in verifiers.values())
        assert caught.value.message.startswith("it ")
        assert caught.value.advice


class Endless(io.RawIOBase):
    """A file without an end, that remembers how much of it was read."""

    def __init__(self, begin: bytes, rest: bytes) -> None:
        self.begin, self.rest, self.taken = io.BytesIO(begin), rest, 0

    def readline(self, size: int | None = -1) -> bytes:
        return self.begin.readline(size if size is not None else -1)

    def read(self, size: int = -1) -> bytes:
        self.taken += size
        chunk = self.begin.read(size)
        return chunk + (self.rest * (size // len(self.rest) + 1))[: size - len(chunk)]


def test_g9_what_is_claimed_is_held_to_limits_before_it_is_read(
    originals: dict[str, bytes], module: ModuleType
) -> None:
    """A head that claims more records than the quotas allow, and a file of nothing but valid-looking lengths."""
    parts = mutations.parts_of(originals[files.LEDGER])
    head = parts.decoded(parts.heads[0])
    head["block"]["tree_size"] = 1 << 40
    parts.put(parts.heads[0], head)
    begin = parts.magic + files.frame(parts.frames[0]) + files.frame(parts.frames[1])
    stream = Endless(begin, b"\x00\x00\x00\x01x")
    with pytest.raises(VerificationError, match="quota-records"):
        files.verify_file(stream, "it")  # type: ignore[arg-type]  # reads as one
    assert stream.taken < 10_000
    endless = Endless(begin, b"\x00\x00\x00\x01x")
    with pytest.raises(module.RejectedError):
        module.verify(endless)
    assert endless.taken < 10_000
    for lengths in (b"\xff", b"\x04"):
        large = Endless(parts.magic, lengths)
        with pytest.raises(CorruptError, match="are allowed"):
            files.verify_file(large, "it")  # type: ignore[arg-type]  # reads as one
        large = Endless(parts.magic, lengths)
        with pytest.raises(module.RejectedError, match="larger than"):
            module.verify(large)
        assert large.taken == 4


def test_g9_a_height_has_no_more_bytes_than_its_members_may_add(
    originals: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = files.charter_of

    def strict(data: bytes, source: str) -> object:
        """Give the same charter, with less than any charter may say."""
        charter = read(data, source)
        rules = replace(charter.rules, bytes_per_height=100)
        return SimpleNamespace(**{**vars(charter), "rules": rules, "federation": charter.federation})

    monkeypatch.setattr(files, "charter_of", strict)
    with pytest.raises(VerificationError, match="larger than the charter allows"):
        verified(originals[files.LEDGER])


# ---- mutations


def check_tally(tally: mutations.Tally) -> None:
    assert not tally.missed, f"mutation(originals, 0, number): {tally.missed[:5]}"


def test_mutations_are_caught_by_both(
    originals: dict[str, bytes], verifiers: dict[str, Verifier], module: ModuleType
) -> None:
    with verifying.remembered(module):
        tally = mutations.tamper(originals, verifiers, count=600)
    check_tally(tally)
    assert sum(tally.tried.values()) == 600
    names = {name.partition(": ")[2] for name in tally.tried}
    assert names == {f.__name__.strip("_") for f in (*mutations.BYTES, *mutations.PARTS)}


@pytest.mark.soak
def test_ten_thousand_mutations_are_caught_by_both(
    originals: dict[str, bytes], verifiers: dict[str, Verifier], module: ModuleType
) -> None:
    with verifying.remembered(module):
        check_tally(mutations.tamper(originals, verifiers, count=10_000))


def test_a_truncation_at_every_byte_is_caught(originals: dict[str, bytes], verifier: Verifier) -> None:
    data = originals[files.CONSISTENCY]
    ends = [*range(200), *range(200, len(data), 97), *range(len(data) - 60, len(data))]
    assert all(verifier(data[:end]) is not None for end in ends)


def test_a_verifier_that_accepts_or_falls_over_is_seen(originals: dict[str, bytes]) -> None:
    def careless(data: bytes) -> str | None:
        if len(data) % 2:
            raise IndexError("out of range")
        return None

    tally = mutations.tamper(originals, {"careless": careless}, count=20)
    assert len(tally.missed) == 20
    assert {why.partition(":")[0] for *_, why in tally.missed} == {"accepted", "fell over"}


def test_a_certificate_less_a_signature_beyond_the_quorum_is_another_valid_one(verifier: Verifier) -> None:
    """The one class that is left out: this is no forgery (mutations.py)."""
    book, first, records = begun()
    second = book.decide(records)
    for signers, valid in ((4, True), (3, True), (2, False)):
        signed = replace(second, certificate=book.certificate(second.block, signers))
        assert (verifier(ledger_file(book, [first, signed])) is None) == valid


# ---- what a quorum that colludes cannot pass off


def ledger_file(book: PaperFederation, blocks: list[StoredBlock]) -> bytes:
    body = b"".join(files.ledger_frames(stored, ()) for stored in blocks)
    return files.opening(files.LEDGER, book.charter_file, len(blocks)) + body


def resealed(
    book: PaperFederation, before: StoredBlock, records: list[Signed[Record]], close: tuple[Close, ...]
) -> StoredBlock:
    """A block with just these records: tree and cut follow them, and a quorum signs it. The fold is taken on trust."""
    tree = EMPTY.extend(leaf_hash(record.digest) for record in before.records)
    tree = tree.extend(leaf_hash(record.digest) for record in records)
    heads = {record.value.author: record for record in records}
    cut = tuple(Head(key, heads[key].value.seq, heads[key].digest) for key in sorted(heads))
    block = replace(
        before.block,
        height=2,
        prev=before.block.id,
        cut=cut,
        close=close,
        tree_size=tree.size,
        tree_root=tree.root(),
        fold=bytes(32),
    )
    return StoredBlock(block, book.certificate(block), tuple(records))


def test_the_forged_block_is_refused_for_its_fold_alone(module: ModuleType) -> None:
    """The ground of the tests below: without a lie in it, only the product, which folds, finds one."""
    book, first, records = begun()
    data = ledger_file(book, [first, resealed(book, first, records, ())])
    assert "header-differs" in str(verifying.product(data))
    assert verifying.independent(module)(data) is None


def begun() -> tuple[PaperFederation, StoredBlock, list[Signed[Record]]]:
    book = PaperFederation()
    first = book.decide(book.record(who, Offer(tuple(book.names), ())) for who in book.ids)
    return book, first, [book.record(who, Attest("x", 1, 0, bytes(32))) for who in book.ids]


def _record(book: PaperFederation, old: Signed[Record], who: Identity, **changes: object) -> Signed[Record]:
    return sign(who, replace(old.value, **changes))  # type: ignore[arg-type]  # by name


Records = list[Signed[Record]]
STRANGER = Identity.from_seed(bytes(32))
LIES: dict[str, tuple[Callable[[PaperFederation, Records], Records], str]] = {
    "none at all": (lambda book, records: [], "empty"),
    "out of order": (lambda book, records: records[::-1], "order"),
    "a gap": (lambda book, r: [_record(book, r[0], book.ids[0], seq=3), *r[1:]], "gap|follow"),
    "a fork": (lambda book, r: [_record(book, r[0], book.ids[0], prev=bytes(32)), *r[1:]], "fork|follow"),
    "there twice": (lambda book, r: [r[0], *r], "gap|follow"),
    "by a stranger": (
        lambda book, r: sorted(
            [_record(book, r[0], STRANGER, author=STRANGER.public_key, seq=1, prev=bytes(32)), *r],
            key=lambda record: record.value.author,
        ),
        "not-a-member|no member",
    ),
    "signed by another": (lambda book, r: [_forged(r[0], book.ids[1]), *r[1:]], "bad-signature|does not match"),
    "of another federation": (
        lambda book, r: [_record(book, r[0], book.ids[0], federation=bytes(32)), *r[1:]],
        "federation",
    ),
}


def _forged(record: Signed[Record], who: Identity) -> Signed[Record]:
    return replace(record, wire=who.sign("record", record.payload) + record.payload)


@pytest.mark.parametrize("name", LIES)
def test_g4_no_quorum_passes_off_false_records(name: str, verifier: Verifier) -> None:
    lie, reason = LIES[name]
    book, first, records = begun()
    data = ledger_file(book, [first, resealed(book, first, lie(book, records), ())])
    report = verifier(data)
    assert report is not None
    assert any(word in report for word in reason.split("|")), report


FORGED: dict[str, tuple[Callable[[Block], Block], str]] = {
    "no record and no close": (lambda b: replace(b, cut=(), close=()), "header-differs|cut"),
    "another root": (lambda b: replace(b, tree_root=bytes(32)), "header-differs|root"),
    "another cut": (lambda b: replace(b, cut=b.cut[:-1]), "header-differs|cut"),
    "another height": (lambda b: replace(b, height=3), "height"),
    "another past": (lambda b: replace(b, prev=bytes(32)), "prev|does not follow"),
    "another federation": (lambda b: replace(b, federation=bytes(32)), "federation|prev|header-differs"),
    "closes out of order": (
        lambda b: replace(b, close=(Close("b", 1), Close("a", 1))),
        "close-order|out of order",
    ),
    "nobody decides next": (lambda b: replace(b, members=bytes(32)), "members-list|names other members"),
}


@pytest.mark.parametrize("name", FORGED)
def test_g2_no_quorum_passes_off_a_false_header(name: str, verifier: Verifier) -> None:
    change, reason = FORGED[name]
    book, first, records = begun()
    honest = book.decide(records)
    report = verifier(ledger_file(book, [first, book.forge(honest, change)]))
    assert report is not None
    assert any(word in report for word in reason.split("|")), report


def test_g2_less_than_a_quorum_decides_nothing(verifier: Verifier) -> None:
    book, first, records = begun()
    second = book.decide(records)
    few = replace(second, certificate=book.certificate(second.block, 2))
    assert verifier(ledger_file(book, [first, second])) is None
    report = verifier(ledger_file(book, [first, few]))
    assert report is not None
    assert "quorum" in report
    vote = Vote(second.block.federation, STRANGER.public_key, 2, 0, PRECOMMIT, second.block.id)
    helped = (*few.certificate.signatures, VoteSignature(STRANGER.public_key, sign(STRANGER, vote).signature))
    helpers = Certificate(0, tuple(sorted(helped, key=lambda entry: entry.author)))
    report = verifier(ledger_file(book, [first, replace(second, certificate=helpers)]))
    assert report is not None
    assert "not-a-member" in report or "no member" in report
    prevotes = Certificate(1, second.certificate.signatures)
    assert verifier(ledger_file(book, [first, replace(second, certificate=prevotes)])) is not None


def test_a_member_may_write_nonsense_and_the_ledger_stands(module: ModuleType) -> None:
    """Badly signed updates are inert for all members alike: both verifiers say how many there are."""
    book = PaperFederation()
    first = book.decide(book.record(who, Offer(tuple(book.names), ())) for who in book.ids)
    update = book.update(book.ids[0], book.names[0], 1)
    body = bytearray(update.value.body)
    body[-1] ^= 1
    broken = sign(book.ids[0], replace(update.value, body=bytes(body)))
    junk = sign(book.ids[1], replace(update.value, author=book.ids[1].public_key, prev=first.records[1].digest))
    nonsense = sign(
        book.ids[2],
        Record(book.charter.federation, book.ids[2].public_key, 2, first.records[2].digest, "update", b"\xc1"),
    )
    _, block = next_state(book.ledger, [broken, junk, nonsense], ())
    second = StoredBlock(block, book.certificate(block), (broken, junk, nonsense))
    data = ledger_file(book, [first, second])
    assert sum(verified(data)["refused_records"].values()) == 3  # type: ignore[attr-defined]  # a map
    assert "badly signed updates, which all members ignore: 3" in module.verify(io.BytesIO(data))


# ---- the second verifier stands alone


def test_the_second_verifier_needs_nothing_but_pynacl_and_msgpack(tmp_path: Path, originals: dict[str, bytes]) -> None:
    """Isolated (-I): no PYTHONPATH, no folder of ours; then every module it loaded is looked at."""
    file = tmp_path / "ledger"
    file.write_bytes(originals[files.LEDGER])
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['verify', {str(file)!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(VERIFIER)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "known = {*sys.stdlib_module_names, 'nacl', '_sodium', '_cffi_backend', 'cffi', 'msgpack', '__main__'}\n"
        "machinery = ('_cython', 'cython_runtime', '_distutils', '__editable', 'sitecustomize')\n"
        "print(sorted(name for name in roots - known if not name.startswith(machinery)))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "accepted: ledger of 'simulated'"
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(VERIFIER), *map(str, words)], capture_output=True, text=True, check=False
        )

    return run


def test_the_second_verifiers_command_line(
    tmp_path: Path,
    source: Source,
    originals: dict[str, bytes],
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    good, bad, charter = (tmp_path / name for name in ("good", "bad", "charter.bin"))
    good.write_bytes(originals[files.INCLUSION])
    bad.write_bytes(originals[files.INCLUSION][:-1])
    charter.write_bytes(source.charter_file)
    report = verified(originals[files.INCLUSION])
    pin = f"{report['height']}:{report['block']}"
    assert command(good, "--charter", charter, "--pin", pin).returncode == 0
    rejected = command(bad)
    assert (rejected.returncode, rejected.stdout.startswith(f"REJECTED: {bad}: ")) == (1, True)
    assert command(good, "--pin", f"{report['height']}:{'00' * 32}").returncode == 1
    assert command(tmp_path / "absent").returncode == 2
    assert command(good, "--pin", "nonsense").returncode == 2


def test_the_limits_of_both_are_the_same(module: ModuleType) -> None:
    assert module.WIRE == files.RECORD_LIMIT
    for shape, cls in (
        (module.CHARTER, Charter),
        (module.HEAD, heads.CosignedHead),
        (module.RECORD, Record),
        (module.INCLUSION, files.Inclusion),
        (module.CONSISTENCY, files.Consistency),
        (module.OPENING, files.Opening),
    ):
        assert set(shape) == set(schema._names(cls))
