"""Keys and signatures: RFC 8032's answers, one domain per signature, and no bytes that make `verify` raise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_open
from nacl.signing import SigningKey

from collegium.crypto.errors import LocalProtocolError
from collegium.crypto.hashing import domain_tag
from collegium.crypto.identity import Identity, fingerprint, verify

ALICE = Identity.from_seed(bytes(range(32)))
BOB = Identity.from_seed(bytes(range(1, 33)))

# RFC 8032 section 7.1, tests 1 and 3: seed, public key, message, signature
RFC8032 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "test 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
}

# Points of order 1, 2, 4 and 8: for such keys one signature can fit every message.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
]


@pytest.mark.parametrize("name", RFC8032)
def test_the_key_is_rfc_8032s(name: str) -> None:
    seed, public_key, message, signature = (bytes.fromhex(field) for field in RFC8032[name])
    identity = Identity.from_seed(seed)
    assert identity.seed == seed
    assert identity.public_key == public_key
    assert identity._key.sign(message).signature == signature


def test_what_is_signed_is_prefix_domain_message() -> None:
    framed = b"collegium/1" + b"\x06" + b"record" + b"hello"
    assert ALICE.sign("record", b"hello") == SigningKey(ALICE.seed).sign(framed).signature
    assert crypto_sign_open(ALICE.sign("record", b"hello") + framed, ALICE.public_key) == framed


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["record", "vote", "é"]), st.binary(max_size=300))
def test_a_signature_verifies(seed: bytes, domain: str, message: bytes) -> None:
    identity = Identity.from_seed(seed)
    signature = identity.sign(domain, message)
    assert len(signature) == 64
    assert verify(identity.public_key, domain, message, signature)


@pytest.mark.parametrize(("domain", "message"), [("vote", b"x"), ("recor", b"dx"), ("recordx", b""), ("record", b"y")])
def test_a_signature_is_for_one_domain_and_one_message(domain: str, message: bytes) -> None:
    signature = ALICE.sign("record", b"x")
    assert verify(ALICE.public_key, "record", b"x", signature)
    assert not verify(ALICE.public_key, domain, message, signature)


def test_a_signature_is_for_one_key() -> None:
    assert not verify(BOB.public_key, "record", b"x", ALICE.sign("record", b"x"))


@pytest.mark.parametrize("part", ["public_key", "message", "signature"])
def test_every_flipped_bit_fails(part: str) -> None:
    good = {"public_key": ALICE.public_key, "message": b"a message", "signature": ALICE.sign("record", b"a message")}
    for bit in range(len(good[part]) * 8):
        bad = bytearray(good[part])
        bad[bit // 8] ^= 1 << bit % 8
        case = good | {part: bytes(bad)}
        assert not verify(case["public_key"], "record", case["message"], case["signature"]), bit


@pytest.mark.parametrize("part", ["public_key", "signature"])
def test_a_wrong_length_fails(part: str) -> None:
    good = {"public_key": ALICE.public_key, "signature": ALICE.sign("record", b"m")}
    for length in range(len(good[part])):
        case = good | {part: good[part][:length]}
        assert not verify(case["public_key"], "record", b"m", case["signature"])
    case = good | {part: good[part] + b"\0"}
    assert not verify(case["public_key"], "record", b"m", case["signature"])


def test_a_long_signature_cannot_bring_its_own_start_of_the_message() -> None:
    """Signature and message are joined for libsodium: without the length check this would verify."""
    foreign = ALICE._key.sign(b"anything" + domain_tag("record") + b"m").signature
    assert not verify(ALICE.public_key, "record", b"m", foreign + b"anything")


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=80))
def test_random_bytes_are_false_and_never_raise(public_key: bytes, message: bytes, signature: bytes) -> None:
    assert verify(public_key, "record", message, signature) is False


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_random_bytes_of_the_right_length_are_false(public_key: bytes, signature: bytes) -> None:
    assert verify(public_key, "record", b"m", signature) is False


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(key: str) -> None:
    identity_point, zero = bytes.fromhex(SMALL_ORDER[0]), bytes(32)
    assert not verify(bytes.fromhex(key), "record", b"m", identity_point + zero)


def test_the_second_form_of_a_signature_is_refused() -> None:
    """S + L fits the equation as S does (RFC 8032 section 5.1.7 demands S < L): records would have two digests."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = ALICE.sign("record", b"m")
    twin = int.from_bytes(signature[32:], "little") + order
    assert not verify(ALICE.public_key, "record", b"m", signature[:32] + twin.to_bytes(32, "little"))


def test_generated_keys_differ_and_survive_their_seed() -> None:
    identity = Identity.generate()
    assert identity != Identity.generate()
    assert Identity.from_seed(identity.seed) == identity


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_the_wrong_length_is_our_bug(length: int) -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        Identity.from_seed(bytes(length))


def test_no_text_form_shows_the_seed() -> None:
    for text in (repr(ALICE), str(ALICE), f"{ALICE}", f"{[ALICE]}"):
        assert text.strip("[]") == f"Identity({fingerprint(ALICE.public_key)})"


def test_an_identity_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ALICE._key = SigningKey(BOB.seed)  # type: ignore[misc]
    assert not hasattr(ALICE, "__dict__")


def test_the_fingerprint_is_four_groups_of_four() -> None:
    assert fingerprint(bytes.fromhex(RFC8032["test 1"][1])) == "d75a-9801-82b1-0ab7"
