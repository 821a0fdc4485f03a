"""Key files: round trips, and damage that never becomes another key or an unnamed exception."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import RuntimeError as SodiumRuntimeError

from collegium.crypto import keyfile
from collegium.crypto.errors import CorruptError, LocalProtocolError, OperatorError, RefusedError, UsageError
from collegium.crypto.identity import Identity
from collegium.crypto.keyfile import is_sealed, seal, unseal

UNTIMED = settings(deadline=None)  # the time of one example says more about the machine than about the code
ALICE = Identity.from_seed(bytes(range(32)))
BOB = Identity.from_seed(bytes(range(1, 33)))
PASSPHRASE = "correct horse"
CHEAP = {"ops": 1, "mem": 8192}  # Argon2id's least: these tests derive some thousand keys

PLAIN = seal(ALICE, None)
SEALED = seal(ALICE, PASSPHRASE, **CHEAP)

# A file as version 1 writes it, kept so that a later reader is held to it. Passphrase: "correct horse".
GOLDEN = b"""{
  "collegium-key": 1,
  "public_key": "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
  "sealed": {
    "kdf": "argon2id",
    "ops": 1,
    "mem": 8192,
    "salt": "5dd4909483a29f4a9d29447c44fff98a",
    "ciphertext": "7459975a15eb768428d94d0935c06379c03147927031ae34237ca0f6366fab8b66d6cfac\
b9cdab53c9bb8c39ff5e7299cac910646c7c5af411ef6018cba2bc4cb338d9098f8cb04a"
  }
}
"""


def edited(data: bytes, **changes: Any) -> bytes:
    """The file with fields replaced, or removed where the value is None; fields of "sealed" are found there."""
    fields = json.loads(data)
    for change, value in changes.items():
        name = "collegium-key" if change == "version" else change
        inner = fields["sealed"] if name in {"kdf", "ops", "mem", "salt", "ciphertext"} else fields
        if value is None:
            del inner[name]
        else:
            inner[name] = value
    return json.dumps(fields).encode()


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_an_unsealed_key_opens_with_and_without_a_passphrase(passphrase: str | None) -> None:
    assert unseal(PLAIN, passphrase, source="key") == ALICE
    assert not is_sealed(PLAIN)


def test_a_sealed_key_opens_with_its_passphrase_and_hides_the_seed() -> None:
    assert unseal(SEALED, PASSPHRASE, source="key") == ALICE
    assert is_sealed(SEALED)
    assert ALICE.seed.hex() in PLAIN.decode()
    assert ALICE.seed.hex() not in SEALED.decode()


def test_a_damaged_file_does_not_count_as_sealed() -> None:
    assert not is_sealed(SEALED[:-3])


def test_a_file_of_version_1_stays_readable() -> None:
    assert unseal(GOLDEN, PASSPHRASE, source="key") == ALICE


def test_the_default_cost_is_moderate_and_is_written_down() -> None:
    data = seal(ALICE, PASSPHRASE)
    sealed = json.loads(data)["sealed"]
    assert (sealed["ops"], sealed["mem"]) == (3, 256 << 20)
    assert unseal(data, PASSPHRASE, source="key") == ALICE


@UNTIMED
@given(st.binary(min_size=32, max_size=32), st.none() | st.text(min_size=1))
def test_every_key_and_passphrase_round_trips(seed: bytes, passphrase: str | None) -> None:
    identity = Identity.from_seed(seed)
    assert unseal(seal(identity, passphrase, **CHEAP), passphrase, source="key") == identity


def test_sealing_twice_shares_neither_salt_nor_nonce() -> None:
    first, second = (json.loads(seal(ALICE, PASSPHRASE, **CHEAP))["sealed"] for _ in range(2))
    assert first["salt"] != second["salt"]
    assert first["ciphertext"][:48] != second["ciphertext"][:48]


@pytest.mark.parametrize("passphrase", ["", "wrong", PASSPHRASE + " ", PASSPHRASE.upper()])
def test_a_wrong_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(RefusedError, match=r"^wrong passphrase for /keys/alice\. Try again"):
        unseal(SEALED, passphrase, source="/keys/alice")


def test_a_missing_passphrase_is_refused() -> None:
    with pytest.raises(RefusedError, match="/keys/alice is sealed and no passphrase was given") as caught:
        unseal(SEALED, None, source="/keys/alice")
    assert caught.value.advice


def test_a_composed_and_a_decomposed_passphrase_are_one() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert unseal(seal(ALICE, composed, **CHEAP), decomposed, source="key") == ALICE


def test_an_undecodable_passphrase_is_a_wrong_one() -> None:
    with pytest.raises(RefusedError, match="wrong passphrase"):
        unseal(SEALED, "\udcff", source="key")


def test_an_empty_passphrase_seals_nothing() -> None:
    with pytest.raises(UsageError, match="passphrase is empty"):
        seal(ALICE, "")


@pytest.mark.parametrize(("data", "passphrase"), [(PLAIN, None), (SEALED, PASSPHRASE)], ids=["plain", "sealed"])
def test_every_truncation_is_corrupt(data: bytes, passphrase: str | None) -> None:
    assert unseal(data[:-1], passphrase, source="key") == ALICE  # only the final newline is missing
    for length in range(len(data) - 1):
        with pytest.raises(CorruptError, match="key"):
            unseal(data[:length], passphrase, source="key")


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x20, 0x80])
@pytest.mark.parametrize(("data", "passphrase"), [(PLAIN, None), (SEALED, PASSPHRASE)], ids=["plain", "sealed"])
def test_a_flip_anywhere_is_a_named_error_or_the_same_key(data: bytes, passphrase: str | None, mask: int) -> None:
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= mask
        try:
            identity = unseal(bytes(damaged), passphrase, source="/keys/alice")
        except (CorruptError, RefusedError) as error:
            assert "/keys/alice" in str(error)  # noqa: PT017 - both outcomes are allowed
            assert error.advice  # noqa: PT017
        else:
            assert identity == ALICE
            assert damaged.lower() == data.lower(), position  # a hex digit's case is the one thing that may differ


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    assert not is_sealed(data)
    with pytest.raises(CorruptError, match="key"):
        unseal(data, None, source="key")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(max_value=1 << 20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@UNTIMED
@given(st.sampled_from(["version", "public_key", "sealed", "kdf", "ops", "mem", "salt", "ciphertext"]), json_values)
def test_a_field_of_any_type_is_a_named_error(name: str, value: Any) -> None:
    damaged = edited(SEALED, **{name: value})
    with pytest.raises((CorruptError, RefusedError)):
        unseal(damaged, "not the passphrase", source="key")


CORRUPT = {
    "nothing": b"",
    "not JSON": b"-----BEGIN PRIVATE KEY-----",
    "not an object": b"[1]",
    "another program's JSON": b'{"crv": "Ed25519"}',
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "deep nesting": b"[" * 4000,
    "huge number": b'{"collegium-key": ' + b"1" * 4000 + b"}",
    "over the size limit": PLAIN + b" " * keyfile.FILE_LIMIT,
    "later version": edited(PLAIN, version=2),
    "version as text": edited(PLAIN, version="1"),
    "version as boolean": edited(PLAIN, version=True),
    "no version": edited(PLAIN, version=None),
    "no seed": edited(PLAIN, seed=None),
    "no public key": edited(PLAIN, public_key=None),
    "both forms at once": edited(SEALED, seed=ALICE.seed.hex()),
    "unknown field": edited(PLAIN, comment="mine"),
    "unknown sealed field": edited(SEALED, sealed=json.loads(SEALED)["sealed"] | {"lanes": 4}),
    "short seed": edited(PLAIN, seed="00" * 31),
    "seed with gaps": edited(PLAIN, seed="00 " * 31),
    "seed not hex": edited(PLAIN, seed="zz" * 32),
    "seed of another key": edited(PLAIN, seed=BOB.seed.hex()),
    "public key of another key": edited(PLAIN, public_key=BOB.public_key.hex()),
    "sealed, public key of another key": edited(SEALED, public_key=BOB.public_key.hex()),
    "no salt": edited(SEALED, salt=None),
    "short salt": edited(SEALED, salt="00" * 15),
    "long ciphertext": edited(SEALED, ciphertext="00" * 73),
    "other kdf": edited(SEALED, kdf="scrypt"),
    "memory of 64 GiB": edited(SEALED, mem=64 << 30),
    "memory just over the limit": edited(SEALED, mem=keyfile.MEM_LIMIT + 1),
    "memory below libsodium's minimum": edited(SEALED, mem=8191),
    "memory not in whole KiB": edited(SEALED, mem=8193),
    "negative memory": edited(SEALED, mem=-1),
    "memory as float": edited(SEALED, mem=8192.0),
    "no memory": edited(SEALED, mem=None),
    "a million passes": edited(SEALED, ops=1_000_000),
    "passes just over the limit": edited(SEALED, ops=keyfile.OPS_LIMIT + 1),
    "no pass": edited(SEALED, ops=0),
    "passes as boolean": edited(SEALED, ops=True),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_damaged_or_hostile_file_is_corrupt(name: str) -> None:
    with pytest.raises(CorruptError, match="/keys/alice") as caught:
        unseal(CORRUPT[name], PASSPHRASE, source="/keys/alice")
    assert caught.value.advice


@pytest.mark.parametrize("name", [name for name in CORRUPT if "memory" in name or "pass" in name])
def test_hostile_costs_never_reach_the_derivation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def derive(*_: object) -> None:
        pytest.fail("derived a key at a hostile cost")

    monkeypatch.setattr(keyfile, "_box", derive)
    with pytest.raises(CorruptError):
        unseal(CORRUPT[name], PASSPHRASE, source="key")


def test_a_machine_without_the_memory_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def derive(*_: object) -> None:
        raise SodiumRuntimeError("Failed to allocate memory for the key derivation")

    monkeypatch.setattr(keyfile, "_box", derive)
    with pytest.raises(RefusedError, match="Unsealing /keys/alice needs 256 MiB of memory"):
        unseal(edited(SEALED, mem=256 << 20), PASSPHRASE, source="/keys/alice")


@pytest.mark.parametrize("cost", [{"ops": 9}, {"mem": (1 << 30) + 1}, {"ops": 0}])
def test_no_file_is_written_that_could_not_be_read(cost: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError, match="no key file may ask for"):
        seal(ALICE, PASSPHRASE, **(CHEAP | cost))


def test_no_error_shows_a_secret() -> None:
    for data, passphrase in [(CORRUPT["public key of another key"], None), (SEALED, "hunter2")]:
        with pytest.raises(OperatorError) as caught:
            unseal(data, passphrase, source="key")
        assert ALICE.seed.hex() not in str(caught.value)
        assert "hunter2" not in str(caught.value)
