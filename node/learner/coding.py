"""Encoding of the learner's requests and answers; it refuses any that do not fit messages.py and answers.py.

A frame's body is a MessagePack map `{id, type, fields}`: `type` is the name of a class there in snake_case, `fields`
are its fields, none left out and none added. The answer repeats the request's `id`. While it works, the worker may send
`Progress`; in place of an answer it sends `Failed`. The pipe never leaves the machine, so floats are allowed here,
unlike in records. Frames over FRAME_LIMIT are not decoded.
"""

import re
from typing import Any, TypeVar, cast, get_args

import msgpack

from ...crypto.errors import RemoteProtocolError
from ...protocol import schema
from ...protocol.codec import unpack
from .answers import Answer, BadReplyError, BadRequestError, Reply
from .frames import FRAME_LIMIT
from .messages import Asks, Request

A = TypeVar("A")


def encode(number: int, message: "Asks[Any] | Reply") -> bytes:
    """Return the body of a request's or reply's frame."""
    body = {"id": number, "type": _name(type(message)), "fields": schema.to_map(message)}
    return bytes(msgpack.packb(body, use_bin_type=True))


def decode_request(body: bytes) -> tuple[int, Request]:
    """Return a request and its id. Raises BadRequestError."""
    number = 0
    try:
        number, name, fields = _envelope(body)
        if name not in REQUESTS:
            raise RemoteProtocolError("invalid", f"unknown request {name[:40]!r}")
        return number, schema.from_plain(REQUESTS[name], fields)
    except RemoteProtocolError as error:
        advice = f"This worker knows {', '.join(REQUESTS)}; node/learner/messages.py has their fields."
        refusal = BadRequestError(f"the request cannot be read: {error.detail}", advice)
        refusal.number = number
        raise refusal from error


def decode_reply(body: bytes) -> tuple[int, Reply]:
    """Return a reply and the id of its request. Raises BadReplyError."""
    number = 0
    try:
        number, name, fields = _envelope(body)
        if name not in REPLIES:
            raise RemoteProtocolError("invalid", f"unknown reply {name[:40]!r}")
        return number, schema.from_plain(REPLIES[name], fields)
    except RemoteProtocolError as error:
        advice = "A learner of your own answers as node/learner/messages.py says."
        refusal = BadReplyError(f"the learner's answer cannot be used: {error.detail}", advice)
        refusal.number = number
        raise refusal from error


def expect(request: Asks[A], answer: Answer) -> A:
    """Return an answer as the type that its request names. Raises BadReplyError if it is another."""
    (kind,) = get_args(type(request).__orig_bases__[0])  # type: ignore[attr-defined]  # Asks[…]
    if type(answer) is not kind:
        pair = f"{_name(type(answer))} to {_name(type(request))}"
        raise BadReplyError(f"the learner's answer cannot be used: {pair}", "It answers another request.")
    return cast("A", answer)


def _envelope(body: bytes) -> tuple[int, str, object]:
    raw = unpack(body, FRAME_LIMIT)
    if type(raw) is not dict or raw.keys() != {"id", "type", "fields"}:
        raise RemoteProtocolError("invalid", "no map of id, type and fields")
    number, name, fields = raw["id"], raw["type"], raw["fields"]
    if type(number) is not int or not 0 <= number < 2**63 or type(name) is not str:
        raise RemoteProtocolError("invalid", "id is no number, or type no text")
    return number, name, fields


def _name(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


REQUESTS: dict[str, type[Request]] = {_name(kind): kind for kind in get_args(Request)}
REPLIES: dict[str, type[Reply]] = {_name(kind): kind for kind in get_args(Reply)}
