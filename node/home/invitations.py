"""Invitations: the text for the candidate, and the issuing member's list of them.

A member keeps the public key of the token, never the token. The first application uses the invitation; a used,
withdrawn or expired invitation lets nobody in.
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
FOUNDING_PREFIX = "collegium-founding:"  # of an invitation to found a federation (node/founding)
MAX_OPEN = 64  # issued and not withdrawn, used or expired
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """One invitation that this member issued. Keys and digests in hex, times in Unix seconds.

    `token_key`: the public key of its token; `key`: the candidate's, if known; `hold`: its application waits for `peer
    approve`; `application`: the signed one that used it; `proposed`: a block has the motion to admit the applicant,
    which happens once.
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
        """Return the application, if there is one; its signature was checked on arrival."""
        wire = bytes.fromhex(self.application)
        return schema.load(Application, wire[SIGNATURE_SIZE:], Application.LIMIT) if wire else None

    def open(self, now: float) -> bool:
        """Whether the token is still valid."""
        return not self.withdrawn and now < self.expires


def load(home: Home) -> tuple[IssuedInvitation, ...]:
    """Return the issued invitations, in order. Raises CorruptError naming the file."""
    try:
        data = read_limited(home.invitations, _FILE_LIMIT)
    except FileNotFoundError:
        return ()
    try:
        fields = json.loads((data or b"").decode())["invitations"]
        invitations = tuple(IssuedInvitation(**entry) for entry in fields)
        for issued in invitations:
            wrong = not all(isinstance(v, type(d)) for v, d in zip(asdict(issued).values(), _SHAPE, strict=True))
            if wrong or len(bytes.fromhex(issued.token_key)) != 32:
                raise ValueError("an entry is none")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CorruptError(f"{home.invitations} is damaged ({error})", "Remove it, and invite again.") from error
    return invitations


_SHAPE = tuple(asdict(IssuedInvitation("", "", 0, 0)).values())


def save(home: Home, issued: Iterable[IssuedInvitation]) -> None:
    """Write the invitations; after a crash the file holds the old or the new ones."""
    write_atomic(home.invitations, (json.dumps({"invitations": [asdict(g) for g in issued]}, indent=2) + "\n").encode())


def add(home: Home, new: IssuedInvitation, now: float) -> None:
    """Add one; drop those that ended long ago. Raises UsageError if too many are open."""
    invitations = [issued for issued in load(home) if issued.application or issued.open(now)]
    if sum(issued.open(now) and not issued.application for issued in invitations) >= MAX_OPEN:
        raise UsageError(f"{MAX_OPEN} invitations are open", "Withdraw some: `collegium peer invitations`.")
    save(home, [*invitations[-4 * MAX_OPEN :], new])


def change(home: Home, token_key: str, **fields: object) -> tuple[IssuedInvitation, ...]:
    """Change one; return all."""
    invitations = tuple(
        replace(issued, **fields) if issued.token_key == token_key else issued  # type: ignore[arg-type]  # by name
        for issued in load(home)
    )
    save(home, invitations)
    return invitations


def to_text(invitation: Signed[Invitation], prefix: str = PREFIX) -> str:
    """Return the invitation as one line of text."""
    return prefix + base64.urlsafe_b64encode(invitation.wire).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise ValueError("characters of it are missing, or were changed") from error


def founds(text: str) -> bool:
    """Whether a text is, by its beginning, an invitation to found a federation."""
    return text.lstrip().startswith(FOUNDING_PREFIX)


def from_text(text: str) -> Signed[Invitation]:
    """Read an invitation and check its member's signature. Raises UsageError: cut off, changed, or none."""
    advice = "Copy the whole text or file from whoever invited you."
    word = "".join(text.split())
    try:
        prefix = FOUNDING_PREFIX if founds(word) else PREFIX
        if not word.startswith(prefix):
            raise ValueError(f"it does not begin with {PREFIX} or {FOUNDING_PREFIX}")
        raw = word.removeprefix(prefix)
        wire = _decoded(raw)
        value = schema.load(Invitation, wire[SIGNATURE_SIZE:], Invitation.LIMIT)
        return open_signed(Invitation, wire, value.federation)
    except (ValueError, RemoteProtocolError) as error:
        raise UsageError(f"this is no intact invitation ({error})", advice) from error
