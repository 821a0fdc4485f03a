"""The annotations are the schema: exact types, bounds, no field too many or too few (G9)."""

from dataclasses import dataclass
from typing import Annotated

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import LocalProtocolError, RemoteProtocolError
from collegium.protocol import schema
from collegium.protocol.schema import Between, Bytes32, Name, Size

LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Inner:
    b: Annotated[int, Between(-2, 9)]


@dataclass(frozen=True, slots=True)
class Outer:
    name: Name
    key: Bytes32
    items: Annotated[tuple[Inner, ...], Size(0, 2)]


GOOD = Outer("x", bytes(32), (Inner(1), Inner(9)))
MAP = {"items": [{"b": 1}, {"b": 9}], "key": bytes(32), "name": "x"}


def test_round_trip() -> None:
    data = schema.dump(GOOD)
    assert schema.load(Outer, data, LIMIT) == GOOD
    assert data == msgpack.packb(MAP)
    assert schema.from_map(Outer, dict(reversed(MAP.items()))) == GOOD


WRONG: dict[str, object] = {
    "not a map": [],
    "a field is missing": {"items": [], "key": bytes(32)},
    "a field too many": {"items": [], "key": bytes(32), "name": "x", "z": 1},
    "fields out of order": {"name": "x", "key": bytes(32), "items": []},
    "an integer as a field's name": {"items": [], "key": bytes(32), b"name": "x"},
    "a bool where an integer belongs": {**MAP, "items": [{"b": True}]},
    "a float where an integer belongs": {**MAP, "items": [{"b": 1.0}]},
    "nil where an integer belongs": {**MAP, "items": [{"b": None}]},
    "bytes where text belongs": {**MAP, "name": b"x"},
    "text where bytes belong": {**MAP, "key": "x" * 32},
    "a map where a list belongs": {**MAP, "items": {}},
    "one below the least": {**MAP, "items": [{"b": -3}]},
    "one above the greatest": {**MAP, "items": [{"b": 10}]},
    "bytes too short": {**MAP, "key": bytes(31)},
    "bytes too long": {**MAP, "key": bytes(33)},
    "text empty": {**MAP, "name": ""},
    "text too long in bytes, not in characters": {**MAP, "name": "ü" * 65},
    "list too long": {**MAP, "items": [{"b": 1}] * 3},
    "an inner field too many": {**MAP, "items": [{"a": 1, "b": 1}]},
    "a timestamp": {**MAP, "name": msgpack.Timestamp(1)},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_invalid(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        schema.load(Outer, msgpack.packb(WRONG[name]), LIMIT)
    assert caught.value.reason == "invalid"


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "an integer wider than it needs": schema.dump(Inner(9)).replace(b"\x09", b"\xcc\x09"),
        "a field twice": b"\x82\xa1b\x01\xa1b\x01",
        "a long header": b"\xde\x00\x01\xa1b\x01",
    }.items(),
)
def test_other_encodings_are_not_canonical(name: str, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        schema.load(Inner, data, LIMIT)
    assert caught.value.reason == "not-canonical", name


def test_oversized() -> None:
    with pytest.raises(RemoteProtocolError, match="oversized"):
        schema.load(Outer, schema.dump(GOOD), 10)


@settings(deadline=None)
@given(st.data())
def test_one_changed_byte_never_gives_the_same_value_or_another_error(data: st.DataObject) -> None:
    wire = bytearray(schema.dump(GOOD))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    try:
        value = schema.load(Outer, bytes(wire), LIMIT)
    except RemoteProtocolError:
        return
    assert value != GOOD
    assert schema.dump(value) == bytes(wire)


@pytest.mark.parametrize(
    "value",
    [Inner(10), Inner(True), Inner(1 << 70), Outer("", bytes(32), ()), Outer("\ud800", bytes(32), ())],
    ids=repr,
)
def test_our_own_wrong_values_are_our_bug(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        schema.dump(value)
