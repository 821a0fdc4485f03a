"""What a browser sends by a form of ours: its fields, and the token that only a page of this session had."""

import hmac
import re
from urllib.parse import parse_qsl

from starlette.requests import Request

from ....crypto.errors import RefusedError, UsageError
from .steps import Fields

LIMIT = 64 << 10  # bytes of a form without a file
UPLOAD_LIMIT = 16 << 20  # bytes of a form with one
MOST = 40  # fields
CAUTION = 15.0  # seconds for which a session confirms nothing
PLAIN, WITH_FILE = "application/x-www-form-urlencoded", "multipart/form-data"
TOKEN = "token"  # noqa: S105 - the name of a field
_UNREADABLE = ("The form cannot be read", "Load its page again.")
_BOUNDARY = re.compile(r'boundary="?([A-Za-z0-9\'()+_,./:=?-]{1,70})"?')
_NAME = re.compile(r'(?i)^content-disposition:\s*form-data;\s*name="([A-Za-z]+)"(;\s*filename="[^"\r\n]*")?\s*$')


async def fields_of(request: Request) -> Fields:
    """Return the fields of a form. Raises UsageError; RefusedError if it is no form of this session."""
    kind, _, more = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind not in {PLAIN, WITH_FILE}:
        raise UsageError("This is no form", "Use the forms of the page.")
    limit = LIMIT if kind == PLAIN else UPLOAD_LIMIT
    parts, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > limit:
            raise UsageError(f"The form has over {limit >> 10} KiB", "Send less at once, or use the command.")
        parts.append(chunk)
    data = b"".join(parts)
    texts, upload = _plain(data) if kind == PLAIN else _with_file(data, more)
    given, ours = texts.pop(TOKEN, ""), token_of(request)
    if not ours or not hmac.compare_digest(given.encode(), ours.encode()):
        raise RefusedError("The form is not of this page", "Load its page again, and send it from there.")
    return Fields(texts, upload)


def check_settled(request: Request) -> None:
    """Check that the session is not brand-new: until the operator's browser comes, it may be a thief's (guard.py).

    Raises RefusedError.
    """
    age = float(getattr(request.state, "open_for", 0.0))
    if age < CAUTION:
        raise RefusedError(
            f"The link of this page was opened {age:.0f} s ago",
            f"Go back and press the button again after {CAUTION - age:.0f} s: until then somebody else who had seen the"
            " link would not be shut out. Nothing was done.",
        )


def token_of(request: Request) -> str:
    """Return the token that forms of this session carry (guard.py); "" where there is none."""
    return str(getattr(request.state, "form_token", ""))


def _plain(data: bytes) -> tuple[dict[str, str], bytes]:
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST)
    except ValueError:
        raise UsageError(*_UNREADABLE) from None
    return _once(pairs), b""


def _with_file(data: bytes, parameters: str) -> tuple[dict[str, str], bytes]:
    """Read a form with a file (RFC 7578), as browsers send it. Nothing of the file's name is used."""
    found = _BOUNDARY.search(parameters)
    if found is None:
        raise UsageError(*_UNREADABLE)
    mark = b"\r\n--" + found[1].encode()
    first, *parts = (b"\r\n" + data).split(mark)
    if first or not parts or parts[-1].strip() != b"--" or len(parts) > MOST:
        raise UsageError(*_UNREADABLE)
    pairs: list[tuple[str, str]] = []
    upload = b""
    for part in parts[:-1]:
        head, blank, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        try:
            name = next(match for line in head.decode().split("\r\n") if (match := _NAME.match(line)))
            if not blank:
                raise ValueError("no end of the part's head")
            if name[2]:
                upload = content
            pairs.append((name[1], "" if name[2] else content.decode()))
        except (ValueError, StopIteration):
            raise UsageError(*_UNREADABLE) from None
    return _once(pairs), upload


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise UsageError("The form has a field twice", "Load its page again.")
    return fields
