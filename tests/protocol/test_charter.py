"""The charter file: one changed byte anywhere is a named error, and who signed is who may (G9)."""

from dataclasses import fields, replace

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
from collegium.protocol.learning import PrivacyFloor
from collegium.sims.simulator.small import small_charter

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


def with_text(value: object, at: list[int], text: str) -> object:
    """The map with its text number `at[0]` replaced."""
    if isinstance(value, str):
        at[0] -= 1
        return text if at[0] == -1 else value
    if isinstance(value, dict):
        return {key: with_text(item, at, text) for key, item in value.items()}
    return [with_text(item, at, text) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "character",
    [
        "\x1b[2J",
        *"\n\r\x9b\u202e\u2028\u200b\ufeff\u2800\u3164\ufe0f",
        *"\U00013430\U00016fe4\U0001bca0\U0001d159\U0001d173\U0001d17a\U000e0041",
    ],
)
def test_no_text_of_a_charter_has_characters_that_cannot_be_seen(character: str) -> None:
    """Whichever field it is: names, addresses, kinds, tensors. They reach the screen on which ids are compared."""
    drawn = replace(CHARTER, members=tuple(replace(m, addresses=("/ip4/192.0.2.1/tcp/1",)) for m in CHARTER.members))
    check(drawn)
    mapped = schema.to_map(drawn)
    count = 0
    while True:
        left = [count]
        changed = with_text(mapped, left, f"a{character}b")
        if left[0] >= 0:
            break
        with pytest.raises(UsageError, match="cannot be seen") as caught:
            check(schema.from_map(Charter, changed))
        assert character not in str(caught.value)
        count += 1
    assert count > 15


@pytest.mark.parametrize(
    "name",
    [
        *("head/task:0", "head/", "head", "/task0", "head/a/b", "Head/task0", "head/ta sk", "head/../x", "head/é"),
        *("head/task.0", "backbone/", "backbone/task0", "trunk", "trunk/task0", "statistic", "head/" + 65 * "x"),
    ],
)
def test_the_name_of_a_component_has_a_grammar(name: str) -> None:
    """Only parse_name splits names; tests/sims/simulator/test_cluster.py runs with names outside the grammar."""
    spec = CHARTER.components[0]
    with pytest.raises(UsageError, match="no name of a component"):
        check(replace(CHARTER, components=(replace(spec, name=name),)))


@pytest.mark.parametrize("name", ["a=b", "north ", " north", "Zu\u0308rich", "x" * 129])
def test_names_of_members_can_be_typed_and_told_apart(name: str) -> None:
    people = (replace(CHARTER.members[0], name=name), *CHARTER.members[1:])
    with pytest.raises(UsageError):
        check(replace(CHARTER, members=people))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"floors": (PrivacyFloor("made-up", "dp", 1_000_000_000, 10_000),)}, "ε = 1e"),
        ({"floors": (PrivacyFloor("made-up", "dp", 1, 10_000),)}, "ε = 0.001"),
        ({"floors": (PrivacyFloor("made-up", "dp", 8000, 0),)}, "δ = 0"),
        ({"floors": (PrivacyFloor("made-up", "dp", 8000, 900_000_000),)}, "δ = 0.9"),
        ({"planned_rounds": 2**20}, "rounds are not between"),
        ({"steps": 2**20}, "steps of a round"),
        ({"planned_rounds": 10_000, "steps": 10_000}, "are more than the"),
    ],
)
def test_the_numbers_of_a_charter_have_the_bounds_of_config_toml(changes: dict[str, object], problem: str) -> None:
    learning = replace(CHARTER.learning, **changes)  # type: ignore[arg-type]  # by name
    with pytest.raises(UsageError, match=problem):
        check(replace(CHARTER, learning=learning))


def test_a_charter_without_a_later_field_keeps_its_bytes() -> None:
    """Whatever is added later: in a map the default of a tuple is a list."""
    written = schema.to_map(CHARTER.learning)
    later = {field.name for field in fields(CHARTER.learning) if field.metadata.get("later")}
    assert later
    assert later.isdisjoint(written)
    assert "sensitivity" not in written["modalities"][0]
