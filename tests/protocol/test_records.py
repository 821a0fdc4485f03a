"""Feeds: chains, forks, acknowledgements, and kinds that this version does not know (G4, G8)."""

from dataclasses import replace

import pytest

from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.records import (
    GENESIS,
    KINDS,
    Ack,
    Attest,
    Evidence,
    Offer,
    Record,
    Update,
    Withdrawal,
    ack_message,
    body_of,
    check_chain,
    is_fork,
    kind_of,
    verify_ack,
)
from collegium.protocol.signing import sign

ME, OTHER = Identity.from_seed(sha256(b"me")), Identity.from_seed(sha256(b"other"))
HERE, THERE = sha256(b"here"), sha256(b"there")
RECORD = Record(HERE, ME.public_key, 1, GENESIS, "noise", b"")


def test_chains() -> None:
    first = sign(ME, RECORD)
    check_chain((0, GENESIS), first)
    second = sign(ME, replace(RECORD, seq=2, prev=first.digest))
    check_chain((1, first.digest), second)
    for before, record, reason in (
        ((0, GENESIS), second, "gap"),
        ((1, first.digest), first, "gap"),
        ((1, sha256(b"another")), second, "fork"),
        ((0, sha256(b"another")), first, "fork"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            check_chain(before, record)
        assert caught.value.reason == reason


def test_a_fork_is_two_records_in_one_place() -> None:
    one, two = sign(ME, RECORD), sign(ME, replace(RECORD, kind="other"))
    assert is_fork(one, two)
    assert not is_fork(one, one)
    assert not is_fork(one, sign(ME, replace(RECORD, seq=2)))
    assert not is_fork(one, sign(OTHER, replace(RECORD, author=OTHER.public_key, kind="other")))


def test_unknown_kinds_are_inert() -> None:
    assert body_of(replace(RECORD, kind="motion-of-the-future", body=b"\xc1anything")) is None


BODIES = [
    Offer(("a",), ("/ip4/127.0.0.1",)),
    Update(bytes(65), (Ack(bytes(32), bytes(64)),)),
    Attest("a", 1, 0, bytes(32)),
    Evidence("fork", bytes(65), bytes(65)),
    Withdrawal(bytes(65)),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(type(body).__name__))
def test_bodies_travel_under_their_names(body: Offer) -> None:
    record = replace(RECORD, kind=kind_of(body), body=schema.dump(body))
    assert body_of(record) == body
    assert KINDS[record.kind] is type(body)
    for kind in KINDS.keys() - {record.kind}:
        with pytest.raises(RemoteProtocolError):
            body_of(replace(record, kind=kind))


def test_acks_bind_federation_header_and_host() -> None:
    """G4: nobody's acknowledgement can be made up, moved or lent."""
    header = sha256(b"header")
    ack = Ack(ME.public_key, ME.sign("ack", ack_message(HERE, header)))
    assert verify_ack(HERE, header, ack)
    forged = {
        "another federation": verify_ack(THERE, header, ack),
        "another header": verify_ack(HERE, sha256(b"other"), ack),
        "another host": verify_ack(HERE, header, replace(ack, host=OTHER.public_key)),
        "no signature": verify_ack(HERE, header, replace(ack, signature=bytes(64))),
        "another domain": verify_ack(
            HERE, header, replace(ack, signature=ME.sign("record", ack_message(HERE, header)))
        ),
        "a host that is no key": verify_ack(HERE, header, replace(ack, host=bytes(32))),
    }
    assert not any(forged.values()), forged
