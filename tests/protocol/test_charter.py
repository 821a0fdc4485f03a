"""The charter file: one changed byte anywhere is a named error, and who signed is who may (G9)."""

from dataclasses import replace

import pytest

from collegium.crypto.errors import CorruptError, LocalProtocolError, OperatorError, RefusedError, UsageError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.charter import (
    Charter,
    CharterSignature,
    SignedCharter,
    add_signature,
    check,
    dump_file,
    load_file,
    unsigned_members,
)
from collegium.protocol.components import TensorSpec, base_digest, base_vector, state_digest, weights
from collegium.sims.cluster import small_charter

IDS = [Identity.from_seed(sha256(bytes([n]))) for n in range(3)]
STRANGER = Identity.from_seed(sha256(b"stranger"))
CHARTER = small_charter(IDS, dimension=3)


def signed_by(charter: Charter, *identities: Identity) -> SignedCharter:
    signed = SignedCharter(schema.dump(charter), ())
    for identity in identities:
        signed = add_signature(charter, signed, identity)
    return signed


SIGNED = signed_by(CHARTER, *IDS)
FILE = dump_file(SIGNED)


def test_round_trip() -> None:
    charter, signed = load_file(FILE, "charter")
    assert (charter, signed) == (CHARTER, SIGNED)
    assert charter.federation == CHARTER.federation
    assert unsigned_members(charter, signed) == []


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_one_changed_byte_anywhere_is_a_named_error(change: int) -> None:
    for at in range(len(FILE)):
        damaged = bytearray(FILE)
        damaged[at] ^= change
        with pytest.raises((CorruptError, RefusedError, UsageError)) as caught:
            load_file(bytes(damaged), "charter.bin")
        assert isinstance(caught.value, OperatorError)
        assert caught.value.exit_code in (2, 3, 5)


def test_every_shortened_file_is_a_named_error() -> None:
    for length in range(0, len(FILE), 7):
        with pytest.raises(CorruptError, match="damaged"):
            load_file(FILE[:length], "charter.bin")


def test_who_has_not_signed_is_named() -> None:
    charter, signed = load_file(dump_file(signed_by(CHARTER, IDS[1])), "charter")
    missing = {member.key for member in unsigned_members(charter, signed)}
    assert missing == {IDS[0].public_key, IDS[2].public_key}


def test_signing_again_changes_nothing() -> None:
    assert add_signature(CHARTER, SIGNED, IDS[0]) == SIGNED


def test_strangers_do_not_sign() -> None:
    with pytest.raises(RefusedError, match="not a member"):
        add_signature(CHARTER, SIGNED, STRANGER)
    entry = CharterSignature(STRANGER.public_key, STRANGER.sign("charter", CHARTER.federation))
    with pytest.raises(RefusedError, match="not a member"):
        load_file(dump_file(replace(SIGNED, signatures=(*SIGNED.signatures, entry))), "charter")


def test_a_member_does_not_sign_for_another_or_twice() -> None:
    stolen = replace(SIGNED.signatures[0], member=SIGNED.signatures[1].member)
    with pytest.raises(CorruptError, match="changed after"):
        load_file(dump_file(replace(SIGNED, signatures=(stolen,))), "charter")
    with pytest.raises(CorruptError, match="twice"):
        load_file(dump_file(replace(SIGNED, signatures=SIGNED.signatures[:1] * 2)), "charter")


def test_a_signature_is_for_one_charter() -> None:
    other = replace(CHARTER, name="another")
    with pytest.raises(CorruptError, match="changed after"):
        load_file(dump_file(SignedCharter(schema.dump(other), SIGNED.signatures)), "charter")
    with pytest.raises(LocalProtocolError):
        add_signature(other, SIGNED, IDS[0])


SPEC = CHARTER.components[0]
INVALID: dict[str, tuple[Charter, str]] = {
    "members unsorted": (replace(CHARTER, members=tuple(reversed(CHARTER.members))), "sorted by key"),
    "a member twice": (replace(CHARTER, members=CHARTER.members[:1] * 2), "sorted by key"),
    "one name for two": (
        replace(CHARTER, members=tuple(replace(member, name="same") for member in CHARTER.members)),
        "same name",
    ),
    "a component twice": (replace(CHARTER, components=(SPEC, SPEC)), "sorted by name"),
    "unknown fault model": (replace(CHARTER, rules=replace(CHARTER.rules, fault_model="none")), "fault_model"),
    "half a layout of a modality": (
        replace(
            CHARTER,
            learning=replace(CHARTER.learning, modalities=(replace(CHARTER.learning.modalities[0], layout=bytes(16)),)),
        ),
        "a layout is 32 bytes",
    ),
    "half a layout of a task": (
        replace(
            CHARTER,
            learning=replace(
                CHARTER.learning, tasks=tuple(replace(task, layout=bytes(31)) for task in CHARTER.learning.tasks)
            ),
        ),
        "a layout is 32 bytes",
    ),
    "unknown rule": (replace(CHARTER, components=(replace(SPEC, rule="krum"),)), "a rule must be one of"),
    "twelve bits": (replace(CHARTER, components=(replace(SPEC, width=12),)), "8 or 16"),
    "another base": (replace(CHARTER, components=(replace(SPEC, base=bytes(32)),)), "base digest"),
    "another seed": (replace(CHARTER, seed=bytes(32)), "base digest"),
    "too large": (
        replace(CHARTER, components=(replace(SPEC, tensors=(TensorSpec("w", (2**24, 8), 1),)),)),
        "at most 67,108,864",
    ),
    "no floor": (
        replace(
            CHARTER,
            learning=replace(CHARTER.learning, floors=(replace(CHARTER.learning.floors[0], modality="another"),)),
        ),
        "privacy floor",
    ),
    "unknown policy": (
        replace(
            CHARTER, learning=replace(CHARTER.learning, floors=(replace(CHARTER.learning.floors[0], policy="maybe"),))
        ),
        "policy must be",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_rules_that_types_cannot_say(name: str) -> None:
    charter, words = INVALID[name]
    with pytest.raises(UsageError, match=words):
        check(charter)
    with pytest.raises(UsageError, match=words):
        load_file(dump_file(SignedCharter(schema.dump(charter), ())), "charter")


def test_the_base_vector_is_known() -> None:
    """G1: every machine, every version of numpy."""
    tensors = (TensorSpec("weight", (2, 2), 500_000), TensorSpec("bias", (2,), 0))
    base = base_vector(bytes(range(32)), "head/pass", tensors)
    assert base.tobytes().hex() == KNOWN_BASE
    assert base_digest(base).hex() == KNOWN_DIGEST
    assert abs(base).max() <= 0.5
    assert base[4:].tolist() == [0.0, 0.0]


def test_states_and_weights() -> None:
    import numpy as np

    state = np.array([256, -128, 0], dtype=np.int32)
    base = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    assert weights(base, state, SPEC).tolist() == [1.0 + 2.0**-6, 2.0 - 2.0**-7, 3.0]
    assert state_digest("a", state) != state_digest("b", state)
    assert state_digest("a", state) != state_digest("a", -state)


KNOWN_BASE = "00a2f3be0004a43e00f8ecbd00909bbe0000008000000000"
KNOWN_DIGEST = "f0b64d0ec7a973b3dc443f18bcb8858eacba9058d48be8db3db0a35dfe66cf6c"
