"""Signed statements: one federation, one domain, one author, every byte (G9)."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import LocalProtocolError, RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.blocks import (
    PRECOMMIT,
    PREVOTE,
    Block,
    Certificate,
    Vote,
    VoteSignature,
    quorum,
    tolerated,
    verify_certificate,
)
from collegium.protocol.records import GENESIS, Record, WithdrawalStatement
from collegium.protocol.signing import open_signed, sign

IDS = sorted((Identity.from_seed(sha256(bytes([n]))) for n in range(7)), key=lambda i: i.public_key)
ME, OTHER = IDS[:2]
HERE, THERE = sha256(b"here"), sha256(b"there")
RECORD = Record(HERE, ME.public_key, 1, GENESIS, "offer", b"body")
SIGNED = sign(ME, RECORD)


def reason(call: object, *args: object) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.reason


def test_round_trip() -> None:
    opened = open_signed(Record, SIGNED.wire, HERE)
    assert opened == SIGNED
    assert opened.signature + opened.payload == SIGNED.wire


def test_another_federation_is_refused_by_name() -> None:
    assert reason(open_signed, Record, SIGNED.wire, THERE) == "wrong-federation"


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(SIGNED.wire) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    wire = bytearray(SIGNED.wire)
    wire[at] ^= change
    assert reason(open_signed, Record, bytes(wire), HERE) in {
        "malformed",
        "not-canonical",
        "invalid",
        "wrong-federation",
        "bad-signature",
    }


def test_every_shortened_statement_is_refused() -> None:
    for length in range(len(SIGNED.wire)):
        with pytest.raises(RemoteProtocolError):
            open_signed(Record, SIGNED.wire[:length], HERE)


def test_who_signs_for_another_is_refused() -> None:
    assert reason(open_signed, Record, sign(OTHER, RECORD).wire, HERE) == "bad-signature"


def test_a_signature_is_good_in_its_domain_only() -> None:
    statement = WithdrawalStatement(HERE, ME.public_key, "all", "refold", 1)
    payload = schema.dump(statement)
    wire = ME.sign("record", payload) + payload
    assert reason(open_signed, WithdrawalStatement, wire, HERE) == "bad-signature"


def test_the_digest_excludes_the_signature() -> None:
    """design.md section 4."""
    assert sign(OTHER, RECORD).digest == SIGNED.digest
    assert sign(ME, replace(RECORD, seq=2)).digest != SIGNED.digest


def test_nothing_that_breaks_its_schema_is_signed() -> None:
    with pytest.raises(LocalProtocolError):
        sign(ME, replace(RECORD, body=bytes(1 << 17)))
    assert reason(open_signed, Record, bytes(64) + bytes(1 << 18), HERE) == "oversized"


# ---- certificates

BLOCK = Block(HERE, 3, GENESIS, (), (), 1, GENESIS, GENESIS, GENESIS)


def certificate(signers: list[Identity], view: int = 2, block: Block = BLOCK, step: int = PRECOMMIT) -> Certificate:
    votes = [(i, sign(i, Vote(HERE, i.public_key, block.height, view, step, block.id))) for i in signers]
    return Certificate(view, tuple(VoteSignature(i.public_key, vote.signature) for i, vote in votes))


@pytest.mark.parametrize(("members", "model", "needed"), [
    (1, "byzantine", 1), (2, "byzantine", 2), (3, "byzantine", 3), (4, "byzantine", 3), (7, "byzantine", 5),
    (1, "crash", 1), (2, "crash", 2), (3, "crash", 2), (4, "crash", 3), (5, "crash", 3), (7, "crash", 4),
])  # fmt: skip
def test_quorums(members: int, model: str, needed: int) -> None:
    """G2, design.md section 7."""
    assert quorum(members, model) == needed
    assert tolerated(members, model) == members - needed


def test_certificates() -> None:
    """G2: a quorum of these members, each once, for this block, view, step."""
    members = frozenset(i.public_key for i in IDS[:4])
    good = certificate(IDS[:3])
    verify_certificate(BLOCK, good, members, "byzantine")
    stranger = certificate([*IDS[:2], IDS[5]])
    wrong = {
        "no-quorum": certificate(IDS[:2]),
        "certificate-order": Certificate(2, tuple(reversed(good.signatures))),
        "certificate-not-a-member": Certificate(2, tuple(sorted(stranger.signatures, key=lambda s: s.author))),
        "bad-signature": replace(good, view=3),
    }
    for name, lie in wrong.items():
        assert reason(verify_certificate, BLOCK, lie, members, "byzantine") == name
    twice = Certificate(2, (good.signatures[0], good.signatures[0], good.signatures[1]))
    assert reason(verify_certificate, BLOCK, twice, members, "byzantine") == "certificate-order"
    prevotes = certificate(IDS[:3], step=PREVOTE)
    assert reason(verify_certificate, BLOCK, prevotes, members, "byzantine") == "bad-signature"
    assert reason(verify_certificate, replace(BLOCK, height=4), good, members, "byzantine") == "bad-signature"
