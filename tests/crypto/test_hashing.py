"""Framing: the digest of (domain, parts) determines domain and parts."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.crypto.errors import LocalProtocolError
from collegium.crypto.hashing import digest, domain_tag, sha256

domains = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
parts = st.lists(st.binary(max_size=12), max_size=4)


def test_sha256_is_the_plain_hash() -> None:
    # FIPS 180-2, appendix B.1
    assert sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digest_hashes_exactly_the_documented_bytes() -> None:
    framed = b"collegium/1" + b"\x06" + b"record" + bytes(7) + b"\x02" + b"ab" + bytes(8)
    assert digest("record", b"ab", b"") == hashlib.sha256(framed).digest()


def test_digest_is_pinned() -> None:
    """Every stored ledger depends on this value: if it changes, the protocol's version must too."""
    expected = "c854b673f0cc0905efc82fd03364770add1cba0935720f2a76e3f87fd4cb35d9"
    assert digest("record", b"a", b"bc").hex() == expected


@given(domains, parts, domains, parts)
def test_digests_are_equal_only_for_equal_input(d1: str, p1: list[bytes], d2: str, p2: list[bytes]) -> None:
    assert (digest(d1, *p1) == digest(d2, *p2)) == ((d1, p1) == (d2, p2))


@given(domains, st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8))
def test_bytes_cannot_move_between_parts(domain: str, a: bytes, b: bytes, c: bytes) -> None:
    assert (digest(domain, a + b, c) == digest(domain, a, b + c)) == (b == b"")


@given(domains, domains, st.binary(max_size=8))
def test_a_domain_tag_is_never_the_start_of_another(d1: str, d2: str, tail: bytes) -> None:
    if d1 != d2:
        assert not (domain_tag(d1) + tail).startswith(domain_tag(d2))


@pytest.mark.parametrize("domain", ["", "x" * 256, "é" * 128])
def test_a_domain_that_cannot_be_framed_is_our_bug(domain: str) -> None:
    with pytest.raises(LocalProtocolError, match="1 to 255 bytes"):
        digest(domain, b"")


def test_the_longest_domain_is_framed() -> None:
    assert domain_tag("x" * 255) == b"collegium/1\xff" + b"x" * 255
