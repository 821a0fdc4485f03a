"""Frozen dataclasses to and from canonical maps: the type annotations are the schema.

Supported field types: `int` (with `Annotated[int, Between(low, high)]`), `str` and `bytes` (with
`Annotated[..., Size(low, high)]`), nested dataclasses, and `tuple[T, ...]` of those. Decoding checks exact types
(`type(x) is int`: a bool is not an integer), bounds, that no field is missing or unknown, and that the bytes are
canonical.

A field marked LATER, with a default, is left out of the map where it has that default: what was written before the
field existed keeps its bytes. A map that has it with its default is not canonical.

Messages that never leave the machine (node/learner/messages.py) may have more types, by `to_map` and `from_plain`:
`bool`, `float` (with `Between`; an integer is accepted as one), `T | None`, `dict[str, T]`, and `Literal` of texts.
None of them is canonical: `dump` and `load` refuse a dataclass that has one.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgpack

from ..crypto.errors import LocalProtocolError, RemoteProtocolError
from .codec import unpack

T = TypeVar("T")
Build = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a number, inclusive."""

    low: int
    high: int


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """Bounds of a length in bytes (text: UTF-8 bytes) or items, inclusive."""

    low: int
    high: int


U32 = Annotated[int, Between(0, 2**32 - 1)]
U63 = Annotated[int, Between(0, 2**63 - 1)]
Bytes32 = Annotated[bytes, Size(32, 32)]
Bytes64 = Annotated[bytes, Size(64, 64)]
Name = Annotated[str, Size(1, 128)]
LATER = MappingProxyType({"later": True})  # the metadata of a field that came later
MAX_MEMBERS = 1024  # of a federation
MAX_HOSTS = 256  # of a component: an update's record names those that acknowledged it


@cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(sorted((field.name for field in dataclasses.fields(cls)), key=str.encode))


@cache
def _later(cls: Any) -> dict[str, Any]:
    """The fields that are left out where they have their default, with it as a map has it: a tuple is a list there."""
    return {field.name: to_map(field.default) for field in dataclasses.fields(cls) if field.metadata.get("later")}


@cache
def _fields_of(cls: type) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """The fields of a dataclass in the order of its encoding, and its later ones; None for any other type."""
    return (_names(cls), _later(cls)) if dataclasses.is_dataclass(cls) else None


def to_map(value: object) -> Any:
    """Turn a dataclass of supported field types into maps, lists and scalars."""
    kind: Any = type(value)
    if kind is bytes or kind is int or kind is str:
        return value
    if kind is tuple:
        return [to_map(item) for item in value]  # type: ignore[attr-defined]  # a tuple
    if kind is dict:
        return {key: to_map(item) for key, item in value.items()}  # type: ignore[attr-defined]  # a dict
    found = _fields_of(kind)
    if found is None:
        return value
    names, later = found
    mapped = {name: to_map(getattr(value, name)) for name in names}
    for name, default in later.items():
        if mapped[name] == default:
            del mapped[name]
    return mapped


def dump(value: object) -> bytes:
    """Encode a dataclass canonically. Raises LocalProtocolError if it breaks its own schema."""
    try:
        mapped = to_map(value)
        _cached_builder(cast("Any", type(value)), False, False)(mapped)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"{type(value).__name__} breaks its schema: {error.detail}") from error
    return bytes(msgpack.packb(mapped, use_bin_type=True))  # to_map orders the keys, the builder checked the rest


def load(cls: type[T], data: bytes, limit: int) -> T:
    """Decode canonical bytes into `cls`.

    Raises RemoteProtocolError("oversized" | "malformed" | "not-canonical" | "invalid"); input over `limit` bytes is not
    decoded.
    """
    raw = unpack(data, limit)
    value = _builder(cls)(raw)
    # The builder checked types and key order; packing what was unpacked shows the rest (integer widths, key repeats).
    if msgpack.packb(raw, use_bin_type=True) != data:
        raise RemoteProtocolError("not-canonical", f"{cls.__name__}: re-encoding gives other bytes")
    return cast("T", value)


def from_map(cls: type[T], raw: object) -> T:
    """Build `cls` from maps, lists and scalars (say, from TOML), keys in any order."""
    return _builder(cls)(_sorted_maps(raw))  # type: ignore[no-any-return]


def from_plain(cls: type[T], raw: object) -> T:
    """Build `cls`, with non-canonical fields allowed, from maps, lists and scalars, keys in any order."""
    return _cached_builder(cast("Any", cls), True, True)(_sorted_maps(raw))  # type: ignore[no-any-return]


def _sorted_maps(raw: object) -> object:
    if isinstance(raw, dict):
        return {key: _sorted_maps(raw[key]) for key in sorted(raw, key=lambda key: str(key).encode())}
    if isinstance(raw, list | tuple):
        return [_sorted_maps(item) for item in raw]
    return raw


def _invalid(what: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid", what)


def _builder(cls: Any) -> Build:
    return _cached_builder(cls, True, False)


@cache
def _cached_builder(cls: Any, make: bool, plain: bool) -> Build:
    """Return a function that checks a decoded value against a type and, with `make`, returns a value of that type.

    `plain` allows types without a canonical encoding.
    """
    origin = get_origin(cls)
    if origin is Annotated:
        base, *marks = get_args(cls)
        if (limits := _limits(base, marks)) is not None:
            return _bounded_scalar(base, *limits)
        return _bounded(_cached_builder(base, make, plain), marks)
    if origin is tuple:
        item, _ellipsis = get_args(cls)
        return _sequence(_cached_builder(item, make, plain))
    if cls in (int, str, bytes):
        return _scalar(cls)
    if dataclasses.is_dataclass(cls):
        return _record(cls, make, plain)
    if plain:
        return _not_canonical(cls, origin, make)
    raise LocalProtocolError(f"no schema for {cls!r}")


def _not_canonical(cls: Any, origin: Any, make: bool) -> Build:
    if cls is bool:
        return _scalar(bool)
    if cls is float:
        return _number
    if origin is Literal:
        return _choice(get_args(cls))
    if origin is dict:
        _text, item = get_args(cls)
        return _table(_cached_builder(item, make, True))
    if origin in (Union, UnionType) and NoneType in get_args(cls):
        (kind,) = [kind for kind in get_args(cls) if kind is not NoneType]
        return _optional(_cached_builder(kind, make, True))
    raise LocalProtocolError(f"no schema for {cls!r}")


def _number(raw: Any) -> float:
    if type(raw) not in (int, float):
        raise _misfit(raw, float)
    try:
        return float(raw)
    except OverflowError as error:
        raise _invalid("an integer too large for a float") from error


def _choice(choices: tuple[Any, ...]) -> Build:
    def build(raw: Any) -> Any:
        if type(raw) is not str or raw not in choices:
            raise _invalid(f"{raw!r} is none of {', '.join(choices)}" if type(raw) is str else "no text")
        return raw

    return build


def _table(item: Build) -> Build:
    def build(raw: Any) -> Any:
        if type(raw) is not dict or not all(type(key) is str for key in raw):
            raise _invalid("no map with texts as keys")
        return {key: item(part) for key, part in raw.items()}

    return build


def _optional(inner: Build) -> Build:
    return lambda raw: None if raw is None else inner(raw)


def _scalar(cls: type) -> Build:
    def build(raw: Any) -> Any:
        if type(raw) is not cls:
            raise _misfit(raw, cls)
        return raw

    return build


def _bounded_scalar(cls: type, low: int, high: int) -> Build:
    def build(raw: Any) -> Any:
        value: Any = raw
        if type(raw) is not cls:
            raise _misfit(raw, cls)
        size = value if cls is int else len(value) if cls is bytes or value.isascii() else _length(value)
        if not low <= size <= high:
            raise _out_of_bounds(size, low, high)
        return raw

    return build


def _misfit(raw: object, cls: type) -> RemoteProtocolError:
    return _invalid(f"{type(raw).__name__} where {cls.__name__} belongs")


def _out_of_bounds(size: int, low: int, high: int) -> RemoteProtocolError:
    return _invalid(f"{size} is not between {low} and {high}")


def _sequence(item: Build) -> Build:
    def build(raw: Any) -> Any:
        if type(raw) is not list:
            raise _invalid(f"{type(raw).__name__} where a list belongs")
        return tuple([item(part) for part in raw])

    return build


def _length(value: Any) -> int:
    try:
        return len(value.encode() if type(value) is str else value)
    except UnicodeEncodeError as error:  # a lone surrogate: an operator's file name or argument that is not UTF-8
        raise _invalid("text is not UTF-8") from error


def _bounded(inner: Build, marks: list[Any]) -> Build:
    def build(raw: Any) -> Any:
        value = inner(raw)
        for mark in marks:
            size = value if isinstance(mark, Between) else _length(value)
            if not mark.low <= size <= mark.high:
                raise _out_of_bounds(size, mark.low, mark.high)
        return value

    return build


def _limits(base: Any, marks: list[Any]) -> tuple[int, int] | None:
    """The bounds of a scalar that has one mark of its own kind: of nearly every field."""
    if len(marks) == 1 and type(marks[0]) is {int: Between, str: Size, bytes: Size}.get(base):
        mark: Any = marks[0]
        return mark.low, mark.high
    return None


def _record(cls: Any, make: bool, plain: bool) -> Build:
    """Most fields are integers and bytes: they are checked in loops of their own, where decoding spends its time."""
    hints = get_type_hints(cls, include_extras=True)
    names, later = list(_names(cls)), _later(cls)
    builders = {name: _cached_builder(hints[name], make, plain) for name in names}
    integers, octets, others = [], [], []
    for name in names:
        base, *marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (None,)
        limits = _limits(base, marks) if name not in later else None
        if limits is not None and base is int:
            integers.append((name, *limits))
        elif limits is not None and base is bytes:
            octets.append((name, *limits))
        else:
            others.append((name, builders[name]))

    def build(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _invalid(f"{cls.__name__}: {type(raw).__name__} where a map belongs")
        if list(raw) != names and not (later and list(raw) == [n for n in names if n in raw or n not in later]):
            wrong = (set(names) - set(later)) ^ (set(raw) - set(later))
            raise _invalid(f"{cls.__name__}: missing, unknown or misordered fields {sorted(map(str, wrong))}")
        name = ""
        values = raw.copy() if others else raw
        try:
            for name, low, high in integers:
                value = raw[name]
                if type(value) is not int or not low <= value <= high:
                    builders[name](value)  # raises with the field's name
            for name, low, high in octets:
                value = raw[name]
                if type(value) is not bytes or not low <= len(value) <= high:
                    builders[name](value)
            for name, part in others:
                if name in raw:
                    values[name] = part(raw[name])
                    if name in later and raw[name] == later[name]:
                        raise _invalid("the default of a field that is left out then")
        except RemoteProtocolError as error:
            raise _invalid(f"{cls.__name__}.{name}: {error.detail}") from error
        return cls(**values) if make else None

    return build
