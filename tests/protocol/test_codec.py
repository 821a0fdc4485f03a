"""One value, one encoding: everything else that MessagePack allows is refused by name (G9)."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import LocalProtocolError, RemoteProtocolError
from collegium.protocol import codec

UNTIMED = settings(deadline=None)
LIMIT = 1 << 20

scalars = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.binary(max_size=300),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), inner, max_size=4),
    ),
    max_leaves=20,
)


@UNTIMED
@given(values)
def test_round_trip(value: object) -> None:
    data = codec.encode(value)
    assert codec.decode(data, LIMIT) == value
    assert codec.encode(codec.decode(data, LIMIT)) == data


@UNTIMED
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(0, 9), max_size=8))
def test_keys_are_ordered_by_their_bytes(value: dict[str, int]) -> None:
    backwards = dict(reversed(value.items()))
    assert codec.encode(value) == codec.encode(backwards)
    assert list(msgpack.unpackb(codec.encode(value))) == sorted(value, key=str.encode)


REFUSED = {
    "nothing": (b"", "malformed"),
    "nil": (b"\xc0", "not-canonical"),
    "false": (b"\xc2", "not-canonical"),
    "true": (b"\xc3", "not-canonical"),
    "a reserved byte": (b"\xc1", "malformed"),
    "float32": (msgpack.packb(1.5, use_single_float=True), "not-canonical"),
    "float64": (msgpack.packb(1.5), "not-canonical"),
    "a float inside a map": (msgpack.packb({"a": [0.0]}), "not-canonical"),
    "a bool inside a list": (b"\x91\xc3", "not-canonical"),
    "extension type": (msgpack.packb(msgpack.ExtType(5, b"x")), "malformed"),
    "timestamp, 4 bytes": (msgpack.packb(msgpack.Timestamp(1, 0)), "not-canonical"),
    "timestamp, 12 bytes": (msgpack.packb(msgpack.Timestamp(2**40, 7)), "not-canonical"),
    "timestamp of a wrong size": (b"\xc7\x03\xff\x00\x00\x00", "malformed"),
    "one key twice": (b"\x82\xa1a\x01\xa1a\x02", "not-canonical"),
    "keys out of order": (b"\x82\xa1b\x01\xa1a\x02", "not-canonical"),
    "integer keys": (b"\x81\x01\x01", "malformed"),
    "bytes as a key": (b"\x81\xc4\x01a\x01", "not-canonical"),
    "7 in two bytes": (b"\xcc\x07", "not-canonical"),
    "7 in nine bytes": (b"\xcf" + bytes(7) + b"\x07", "not-canonical"),
    "7 as a signed integer": (b"\xd0\x07", "not-canonical"),
    "-1 in two bytes": (b"\xd0\xff", "not-canonical"),
    "short text with a long header": (b"\xd9\x01a", "not-canonical"),
    "short bytes with a long header": (b"\xc5\x00\x01a", "not-canonical"),
    "short list with a long header": (b"\xdc\x00\x01\x01", "not-canonical"),
    "short map with a long header": (b"\xde\x00\x01\xa1a\x01", "not-canonical"),
    "text that is not UTF-8": (b"\xa2\xff\xfe", "malformed"),
    "half of a surrogate pair": (b"\xa3\xed\xa0\x80", "malformed"),
    "overlong UTF-8": (b"\xa2\xc0\x80", "malformed"),
    "something after the end": (b"\x01\x01", "malformed"),
    "cut off": (b"\x92\x01", "malformed"),
    "17 lists deep": (b"\x91" * 17 + b"\x01", "not-canonical"),
    "a hundred thousand lists deep": (b"\x91" * 100_000 + b"\x01", "malformed"),
    "a list of four billion": (b"\xdd\xff\xff\xff\xff", "malformed"),
    "a map of four billion": (b"\xdf\xff\xff\xff\xff", "malformed"),
    "bytes of four billion": (b"\xc6\xff\xff\xff\xff", "malformed"),
    "text of four billion": (b"\xdb\xff\xff\xff\xff", "malformed"),
    "lists of as many as the data is long": ((b"\xdd" + (1 << 16).to_bytes(4, "big")) * 900, "malformed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(data, LIMIT)
    assert caught.value.reason == reason


def test_sixteen_levels_are_enough_for_everybody() -> None:
    data = b"\x91" * 16 + b"\x01"
    assert codec.encode(codec.decode(data, LIMIT)) == data


def test_the_limit_comes_first() -> None:
    with pytest.raises(RemoteProtocolError, match="oversized"):
        codec.decode(b"\xc1" * 11, 10)


@UNTIMED
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """G9."""
    try:
        value = codec.decode(data, LIMIT)
    except RemoteProtocolError:
        return
    assert codec.encode(value) == data


@pytest.mark.parametrize(
    "value",
    [1.0, True, None, {1: 2}, {b"a": 1}, 2**64, -(2**63) - 1, {1, 2}, "\ud800", {"\ud800": 1}, object],
    ids=repr,
)
def test_what_has_no_encoding(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode(value)
