"""Invitations: the text that a candidate is handed, and what the member that gave it out keeps of it.

A member keeps the public key of the token, never the token. An invitation is used once: by the first application that
comes by it, and what was used, withdrawn or has expired opens nothing.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from ...crypto.errors import CorruptError, RemoteProtocolError, UsageError
from ...protocol import schema
from ...protocol.membership import Application, Invitation
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_signed
from ..store.files import read_limited, write_atomic
from .paths import Home

PREFIX = "collegium:"
MAX_OPEN = 64  # given out and not withdrawn, used or expired
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """One invitation that this member gave out. Keys and digests in hex, times in Unix seconds.

    `token_key`: the public key of its token; `key`: the candidate's, if it was known; `hold`: its application waits for
    `peer approve`; `application`: the signed one that came by it; `proposed`: a block had the motion to admit who
    applied, which happens once.
    """

    token_key: str
    name: str
    created: int
    expires: int
    key: str = ""
    hold: bool = False
    withdrawn: bool = False
    application: str = ""
    proposed: bool = False

    def applicant(self) -> Application | None:
        """Return who applied, once somebody did; the signature was checked when it came."""
        wire = bytes.fromhex(self.application)
        return schema.load(Application, wire[SIGNATURE_SIZE:], Application.LIMIT) if wire else None

    def open(self, now: float) -> bool:
        """Whether somebody with the token is still let in."""
        return not self.withdrawn and now < self.expires


def load(home: Home) -> tuple[IssuedInvitation, ...]:
    """Return what was given out, in order. Raises CorruptError naming the file."""
    try:
        data = read_limited(home.invitations, _FILE_LIMIT)
    except FileNotFoundError:
        return ()
    try:
        fields = json.loads((data or b"").decode())["invitations"]
        found = tuple(IssuedInvitation(**entry) for entry in fields)
        for issued in found:
            wrong = not all(isinstance(v, type(d)) for v, d in zip(asdict(issued).values(), _SHAPE, strict=True))
            if wrong or len(bytes.fromhex(issued.token_key)) != 32:
                raise ValueError("an entry is none")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CorruptError(f"{home.invitations} is damaged ({error})", "Remove it, and invite again.") from error
    return found


_SHAPE = tuple(asdict(IssuedInvitation("", "", 0, 0)).values())


def save(home: Home, issued: Iterable[IssuedInvitation]) -> None:
    """Keep it; the file holds the old or the new after a crash."""
    write_atomic(home.invitations, (json.dumps({"invitations": [asdict(g) for g in issued]}, indent=2) + "\n").encode())


def add(home: Home, new: IssuedInvitation, now: float) -> None:
    """Keep one more; those long gone are forgotten. Raises UsageError if too many are open."""
    known = [issued for issued in load(home) if issued.application or issued.open(now)]
    if sum(issued.open(now) and not issued.application for issued in known) >= MAX_OPEN:
        raise UsageError(f"{MAX_OPEN} invitations are open", "Withdraw some: `collegium peer invitations`.")
    save(home, [*known[-4 * MAX_OPEN :], new])


def change(home: Home, token_key: str, **fields: object) -> tuple[IssuedInvitation, ...]:
    """Change one; return all as they are now."""
    found = tuple(
        replace(issued, **fields) if issued.token_key == token_key else issued  # type: ignore[arg-type]  # by name
        for issued in load(home)
    )
    save(home, found)
    return found


def to_text(invitation: Signed[Invitation]) -> str:
    """Return the invitation as one line of text."""
    return PREFIX + base64.urlsafe_b64encode(invitation.wire).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise ValueError("characters of it are missing, or were changed") from error


def from_text(text: str) -> Signed[Invitation]:
    """Read an invitation and check its member's signature. Raises UsageError: cut off, changed, or none."""
    advice = "Copy the whole text or file from whoever invited you."
    word = "".join(text.split())
    try:
        if not word.startswith(PREFIX):
            raise ValueError(f"it does not begin with {PREFIX}")
        raw = word.removeprefix(PREFIX)
        wire = _decoded(raw)
        value = schema.load(Invitation, wire[SIGNATURE_SIZE:], Invitation.LIMIT)
        return open_signed(Invitation, wire, value.federation)
    except (ValueError, RemoteProtocolError) as error:
        raise UsageError(f"this is no intact invitation ({error})", advice) from error
