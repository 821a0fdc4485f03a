"""Canonical MessagePack: one value has one encoding, and decoding refuses every other (design.md section 4).

Allowed: maps with text keys in UTF-8 byte order, lists, text, bytes and 64-bit integers in their shortest form. Not
allowed: floats, booleans, nil, extension types, duplicate keys. A float64, a bool and a Timestamp survive a naive round
trip, so types are checked, and the decoded value must encode to the same bytes.
"""

from typing import TypeAlias

import msgpack

from ..crypto.errors import LocalProtocolError, RemoteProtocolError

Value: TypeAlias = "int | str | bytes | list[Value] | dict[str, Value]"

MAX_DEPTH = 16


def _ordered(value: object, depth: int) -> Value:
    kind = type(value)
    if kind is int or kind is str or kind is bytes:
        return value  # type: ignore[return-value]  # narrowed by the exact type test above
    if depth == 0:
        raise LocalProtocolError("value is nested too deeply to encode")
    if kind is list or kind is tuple:
        return [_ordered(item, depth - 1) for item in value]  # type: ignore[attr-defined]
    if kind is dict:
        items = value.items()  # type: ignore[attr-defined]
        if any(type(key) is not str for key in value):  # type: ignore[attr-defined]
            raise LocalProtocolError("map keys must be text")
        return {key: _ordered(item, depth - 1) for key, item in sorted(items, key=lambda pair: pair[0].encode())}
    raise LocalProtocolError(f"{kind.__name__} has no canonical encoding")


def _flat(value: object, depth: int) -> bool:
    """Whether a value is of lists, tuples and scalars only: then it is encoded as it stands."""
    kind = type(value)
    if (kind is not list and kind is not tuple) or depth == 0:
        return False
    for item in value:  # type: ignore[attr-defined]  # a list or tuple
        inner = type(item)
        if inner is not bytes and inner is not int and inner is not str and not _flat(item, depth - 1):
            return False
    return True


def encode(value: object) -> bytes:
    """Return the canonical encoding of maps, sequences, text, bytes and integers.

    Raises LocalProtocolError for any other type (floats and booleans included) and for integers over 64 bits.
    """
    try:
        plain = value if _flat(value, MAX_DEPTH) else _ordered(value, MAX_DEPTH)
        return bytes(msgpack.packb(plain, use_bin_type=True))
    except (OverflowError, ValueError, UnicodeEncodeError) as error:
        raise LocalProtocolError(f"value has no canonical encoding: {error}") from error


def unpack(data: bytes, limit: int) -> object:
    """Unpack one MessagePack value of at most `limit` bytes without checking that it is canonical.

    For callers that check types and canonical form themselves (schema.py). Sizes claimed inside the data are bounded by
    its length before anything is allocated. Raises RemoteProtocolError("oversized" | "malformed").
    """
    if len(data) > limit:
        raise RemoteProtocolError("oversized", f"{len(data)} bytes where at most {limit} are allowed")
    try:
        return msgpack.unpackb(data, raw=False, use_list=True, strict_map_key=True, ext_hook=_refuse_extension)
    except (ValueError, TypeError, RecursionError, UnicodeDecodeError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError("malformed", f"not MessagePack: {error}") from error


def _refuse_extension(code: int, _data: bytes) -> object:
    raise ValueError(f"extension type {code} is not allowed")


def decode(data: bytes, limit: int) -> Value:
    """Decode canonical bytes. Raises RemoteProtocolError("oversized" | "malformed" | "not-canonical")."""
    value = unpack(data, limit)
    try:
        again = encode(value)
    except LocalProtocolError as error:
        raise RemoteProtocolError("not-canonical", str(error)) from error
    if again != data:
        raise RemoteProtocolError("not-canonical", "re-encoding gives other bytes")
    return value  # type: ignore[return-value]  # encode() accepted every part of it
