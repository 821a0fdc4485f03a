"""What a member and the founder's desk say to each other.

A member enters by an `Application` and an `Invitation` of protocol/membership.py; in both, `federation` is the id of
this founding, 32 random bytes: the federation has no id before its charter is drawn up.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ...protocol.charter import FILE_LIMIT
from ...protocol.schema import MAX_MEMBERS, Bytes32, Name, Size

PROTOCOL = "/collegium/founding/1"
ENTER, LOOK, SAY = "enter", "look", "say"  # what is asked
WAITING, DRAFT, COMPLETE = "waiting", "draft", "complete"  # what is answered
REVIEWED, REFUSED, SIGNED, KEPT = "reviewed", "refused", "signed", "kept"  # what a member says of a draft
_Word = Annotated[str, Size(1, 16)]


@dataclass(frozen=True, slots=True)
class Word:
    """A member's signed word on one draft, named by its federation id; `signature` is that of the charter if signed."""

    DOMAIN: ClassVar[str] = "founding-word"
    LIMIT: ClassVar[int] = 512

    federation: Bytes32
    author: Bytes32
    draft: Bytes32
    word: _Word
    signature: Annotated[bytes, Size(0, 64)]


@dataclass(frozen=True, slots=True)
class FoundingRequest:
    """`statement` is the signed Application (enter) or Word (say), else empty; `have` is the draft held, or zeros."""

    LIMIT: ClassVar[int] = 8192

    what: _Word
    statement: Annotated[bytes, Size(0, 4608)]
    have: Bytes32


@dataclass(frozen=True, slots=True)
class FoundingAnswer:
    """How the founding stands. `charter` is the charter file with the signatures there are, or empty if it is held.

    `awaited`: who has still to come, or with a draft to sign; `refused`: who refuses the draft.
    """

    LIMIT: ClassVar[int] = FILE_LIMIT + 2 * MAX_MEMBERS * 132 + 1024

    state: _Word
    charter: Annotated[bytes, Size(0, FILE_LIMIT)]
    awaited: Annotated[tuple[Name, ...], Size(0, MAX_MEMBERS)]
    refused: Annotated[tuple[Name, ...], Size(0, MAX_MEMBERS)]
