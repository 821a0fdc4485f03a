"""The error tree.

CollegiumError
├── LocalProtocolError     our bug or misuse: what we were about to do breaks the protocol
├── RemoteProtocolError    a peer's: carries the peer and a stable, named reason
└── OperatorError          the operator can mend it: the message says what happened, to what, and what to do next
    ├── UsageError         the command or configuration is wrong                      (exit 2)
    ├── CorruptError       a stored file is damaged                                   (exit 3)
    ├── UnreachableError   the daemon or a peer cannot be reached                     (exit 4)
    ├── RefusedError       a rule forbids it: spent budget, not a member, bad charter (exit 5)
    └── VerificationError  a check of the ledger or of a state failed                 (exit 6)
"""


class CollegiumError(Exception):
    """Base of every error that Collegium raises on purpose."""

    exit_code = 1


class LocalProtocolError(CollegiumError):
    """We were about to break the protocol: a bug, or misuse of an interface."""


class RemoteProtocolError(CollegiumError):
    """A peer broke the protocol; `reason` is a stable kebab-case name, `peer` its 32-byte public key if known."""

    def __init__(self, reason: str, detail: str = "", peer: bytes | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.peer = peer
        who = f" from {peer.hex()[:16]}" if peer is not None else ""
        super().__init__(f"{reason}{who}: {detail}" if detail else f"{reason}{who}")


class OperatorError(CollegiumError):
    """Something the operator can mend. `advice` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, advice: str = "") -> None:
        self.message = message
        self.advice = advice
        super().__init__(f"{message}. {advice}" if advice else message)


class UsageError(OperatorError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class CorruptError(OperatorError):
    """A stored file is damaged or truncated."""

    exit_code = 3


class UnreachableError(OperatorError):
    """The daemon or a peer cannot be reached."""

    exit_code = 4


class RefusedError(OperatorError):
    """A rule forbids it."""

    exit_code = 5


class VerificationError(OperatorError):
    """A check of the ledger, a state or a withdrawal failed."""

    exit_code = 6
