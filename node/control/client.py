"""Talk to a running daemon over its control socket."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from ...crypto import errors
from ...crypto.errors import CollegiumError, OperatorError, UnreachableError
from ..home.lock import running
from ..home.paths import Home
from . import process
from .within import Job, TooLongError

if TYPE_CHECKING:
    import httpx  # imported when a daemon is there: it takes a quarter of a second

    from ...protocol.membership import Action
    from ...protocol.records import Mode
    from ..views.shapes import ComponentShown, NodeStatus, Peers, RoundDetail, RoundSummary
    from ..views.shapes_ledger import BlockShown, RecordLine, RecordShown
    from ..views.shapes_membership import MemberShown, Motions, Withdrawals
    from ..views.shapes_privacy import PrivacyShown
    from .replies import (
        Cancelled,
        InvitationGiven,
        Invitations,
        InvitationWithdrawn,
        PauseSet,
        PeerAdded,
        PeerRemoved,
        Settled,
        StudentsForgotten,
        StudentsLook,
        StudentsPutOff,
        Submitted,
        TrainingResumed,
        WithdrawalAsked,
        WithdrawalCarried,
        WithdrawalProposed,
    )

START = "Start it: collegium node start."
VERSION = "/v1"  # of the paths; /health is the same in all
TIMEOUT = 30.0  # seconds; the longest answers walk the whole ledger
DIAL_TIMEOUT = 60.0
GRACE = 0.2
SOON = 1.0  # seconds within which it answers, or is asked whether it answers at all
BUSY, SILENT = 5.0, 15.0  # seconds for an answer that costs it nothing: then one that works is busy, then one hangs
SCOPE: Mapping[str, object] = {"components": [], "first": 0, "last": 0, "updates": []}  # of a withdrawal: everything

_BY_EXIT_CODE: dict[int, type[OperatorError]] = {
    cls.exit_code: cls
    for cls in (
        errors.UsageError,
        errors.CorruptError,
        errors.UnreachableError,
        errors.RefusedError,
        errors.VerificationError,
    )
}


class HangsError(UnreachableError):
    """A daemon holds its directory and does not answer; `asked`: it was given a command before that was seen."""

    def __init__(self, pid: int, why: str, *, asked: bool = False) -> None:
        super().__init__(
            f"The daemon (pid {pid}) hangs: {why}",
            f"`kill -CONT {pid}` lets a stopped process go on. Else look at its disk; `collegium node stop --force`"
            " kills it: nothing is lost." + (" If it goes on, it may do what was asked." if asked else ""),
        )
        self.pid, self.why = pid, why


class BusyError(UnreachableError):
    """A daemon works, and has had no time to answer."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"The daemon (pid {pid}) is busy: it has not answered for {BUSY:g} s, and works",
            "Wait, and ask again: it does not hang. If it stays so, this machine has too much to do.",
        )


def error_of(exit_code: int, message: str, advice: str = "") -> OperatorError:
    """Return the error with this exit code (crypto/errors.py): what a daemon said, or how it ended."""
    return _BY_EXIT_CODE.get(exit_code, OperatorError)(message, advice)


class Client:
    """The daemon of one home. Every method raises UnreachableError if none answers, or the error that it answers."""

    def __init__(self, home: Home, timeout: float | None = None) -> None:
        self.home = home
        self._timeout = TIMEOUT if timeout is None else timeout

    def answers(self) -> bool:
        """Whether a daemon answers now."""
        try:
            self.get("/status")
        except UnreachableError:
            return False
        except CollegiumError:
            return True
        return True

    def probe(self) -> None:
        """Ask for an answer that costs the daemon nothing. Raises BusyError or HangsError if none comes.

        A daemon that ended has let go of the directory's lock. One that was stopped by a signal is told at once where
        the system says so; one that had a processor meanwhile is busy; one that does nothing hangs.
        """
        pid, ask = self._asking("GET", "/health", {}, None, SILENT)
        before, asked = process.look(pid), Job(ask)
        for seconds in (BUSY, SILENT - BUSY):
            try:
                _result(self._answer(pid, asked, seconds))
            except TooLongError:
                if running(self.home) != pid:
                    raise UnreachableError(f"No daemon runs in {self.home.root}: it has just ended", START) from None
                now = process.look(pid)
                if now.works_since(before):
                    raise BusyError(pid) from None
                if now.stopped:
                    break
            except UnreachableError:
                raise
            except CollegiumError:
                return  # of an older release: it answers
            else:
                return
        raise HangsError(pid, f"it does not answer within {SILENT:g} s, and does nothing")

    def get(self, path: str, **query: object) -> object:
        """Return what the daemon shows at a path, without its type; None in `query` is left out."""
        return self._call("GET", path, query=query)

    def status(self) -> "NodeStatus":
        """Return the node at a glance."""
        return cast("NodeStatus", self.get("/status"))

    def peers(self) -> "Peers":
        """Return all present and former members."""
        return cast("Peers", self.get("/peers"))

    def components(self) -> "list[ComponentShown]":
        """Return every component."""
        return cast("list[ComponentShown]", self.get("/components"))

    def rounds(self, component: str | None = None, *, since: int = 1, limit: int = 50) -> "list[RoundSummary]":
        """Return the last closed rounds."""
        return cast("list[RoundSummary]", self.get("/rounds", component=component, since=since, limit=limit))

    def round(self, component: str, number: int, *, local: bool = False) -> "RoundDetail":
        """Return one closed round; if `local`, with this node's own evaluation."""
        reply = self.get(f"/rounds/{quote(component)}/{number}", local=int(local) or None)
        return cast("RoundDetail", reply)

    def ledger_log(
        self,
        *,
        author: str | None = None,
        kind: str | None = None,
        component: str | None = None,
        since: int = 1,
        limit: int = 50,
    ) -> "list[RecordLine]":
        """Return the last agreed records that match."""
        reply = self.get("/ledger/log", author=author, kind=kind, component=component, since=since, limit=limit)
        return cast("list[RecordLine]", reply)

    def record(self, reference: str) -> "BlockShown | RecordShown":
        """Return a block or record of the ledger."""
        return cast("BlockShown | RecordShown", self.get(f"/ledger/{quote(reference, safe='')}"))

    def privacy(self) -> "PrivacyShown":
        """Return the budget of this node's students, without the forecast."""
        return cast("PrivacyShown", self.get("/privacy"))

    def withdrawals(self) -> "Withdrawals":
        """Return every withdrawal and its progress."""
        return cast("Withdrawals", self.get("/unlearn"))

    def motions(self) -> "Motions":
        """Return the open motions and those that ended."""
        return cast("Motions", self.get("/motions"))

    def member(self, who: str) -> "MemberShown":
        """Return one member's seat and history."""
        return cast("MemberShown", self.get(f"/members/{quote(who, safe='')}"))

    def invitations(self) -> "Invitations":
        """Return the invitations that this node gave out."""
        return cast("Invitations", self.get("/invitations"))

    def add_peer(self, address: str) -> "PeerAdded":
        """Remember a member's address and dial it."""
        return cast("PeerAdded", self._call("POST", "/peers", {"address": address}, timeout=DIAL_TIMEOUT))

    def remove_peer(self, address: str) -> "PeerRemoved":
        """Forget an added address."""
        return cast("PeerRemoved", self._call("DELETE", "/peers", {"address": address}))

    def propose(
        self, action: "Action", who: str = "", *, statement: str = "", reason: str = "", heights: int = 500
    ) -> "Submitted":
        """Propose a motion on membership."""
        body = {"action": action, "who": who, "statement": statement, "reason": reason, "heights": heights}
        return cast("Submitted", self._call("POST", "/motions", body))

    def vote(self, motion: str, *, yes: bool, anyway: bool = False) -> "Submitted":
        """Vote on an open motion, or decide about an application that is held."""
        return cast("Submitted", self._call("POST", "/ballots", {"motion": motion, "yes": yes, "anyway": anyway}))

    def invite(
        self, name: str, *, days: int = 7, key: str = "", hold: bool = False, charter: bool = False
    ) -> "InvitationGiven":
        """Give out an invitation, with the charter in it or without."""
        body = {"name": name, "days": days, "key": key, "hold": hold, "charter": charter}
        return cast("InvitationGiven", self._call("POST", "/invitations", body))

    def uninvite(self, invitation: str) -> "InvitationWithdrawn":
        """Withdraw an invitation."""
        return cast("InvitationWithdrawn", self._call("DELETE", "/invitations", {"invitation": invitation}))

    def request_withdrawal(self, scope: Mapping[str, object] | None = None) -> "WithdrawalAsked":
        """Withdraw this node's contributions: all, or those in a scope (`SCOPE`)."""
        return cast("WithdrawalAsked", self._call("POST", "/unlearn", {**SCOPE, **(scope or {})}))

    def look_for_students(self, *subjects: str) -> "StudentsLook":
        """Return what is known here of students, and which updates would be withdrawn; nothing is changed."""
        return cast("StudentsLook", self._call("POST", "/unlearn/look", {"subjects": subjects}, timeout=DIAL_TIMEOUT))

    def put_students_off(
        self, at: int, *students: Sequence[str], pause: bool = False, at_most: int | None = None
    ) -> "StudentsPutOff":
        """Leave students out, each by all its ids, and withdraw the updates that saw any of them at a Unix time.

        `pause` training then. Raises RefusedError, and changes nothing, if that would be more than `at_most` updates.
        """
        body = {"students": students, "at": at, "pause": pause, "at_most": -1 if at_most is None else at_most}
        return cast("StudentsPutOff", self._call("POST", "/unlearn/schedule", body, timeout=DIAL_TIMEOUT))

    def cancel_students(self, *subjects: str) -> "Cancelled":
        """Take back the withdrawals that are to come for students, for all their ids."""
        return cast("Cancelled", self._call("POST", "/unlearn/cancel", {"subjects": subjects}, timeout=DIAL_TIMEOUT))

    def forget_students(self, *subjects: str, pause: bool = False, at_most: int | None = None) -> "StudentsForgotten":
        """Leave students out, and withdraw the updates that saw any of them, all at once; `pause` training with it.

        Raises RefusedError, and changes nothing, if that would be more than `at_most` updates.
        """
        body = {"subjects": subjects, "pause": pause, "at_most": -1 if at_most is None else at_most}
        return cast("StudentsForgotten", self._call("POST", "/unlearn/students", body, timeout=DIAL_TIMEOUT))

    def resume_training(self) -> "TrainingResumed":
        """Say that everybody who was removed before is left out again; returns whether nothing was trained till now."""
        return cast("TrainingResumed", self._call("POST", "/unlearn/resume", {}))

    def set_paused(self, *, on: bool) -> "PauseSet":
        """Pause this node's training or let it go on; returns whether it was paused, and whether it trains now."""
        return cast("PauseSet", self._call("POST", "/pause", {"paused": on}))

    def settled(self, updates: Sequence[str]) -> bool:
        """Whether none of these updates counts or may come to count, and the hosts certified states without them."""
        parts = [updates[at : at + 500] for at in range(0, len(updates), 500)] or [[]]  # a body has a limit
        replies = [cast("Settled", self._call("POST", "/unlearn/settled", {"updates": list(part)})) for part in parts]
        return all(not each["left"] and each["certified"] for each in replies)

    def propose_withdrawal(
        self,
        who: str,
        mode: "Mode",
        scope: Mapping[str, object],
        *,
        reason: str = "",
        heights: int = 500,
        anyway: bool = False,
    ) -> "WithdrawalProposed":
        """Propose to withdraw a member's contributions, by "refold" or "rewind"."""
        body = {"who": who, "mode": mode, "reason": reason, "heights": heights, "anyway": anyway}
        return cast("WithdrawalProposed", self._call("POST", "/unlearn/motions", {**SCOPE, **scope, **body}))

    def carry_withdrawal(self, statement: bytes) -> "WithdrawalCarried":
        """Carry the withdrawal of somebody who is no longer a member."""
        return cast("WithdrawalCarried", self._call("POST", "/unlearn/carried", {"statement": statement.hex()}))

    def stop(self) -> None:
        """Ask the daemon to stop; it answers before it does."""
        self._call("POST", "/stop", {})

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until the daemon has left its directory; False if it is still there."""
        deadline = time.monotonic() + seconds
        while running(self.home) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> object:
        limit = timeout or self._timeout
        pid, ask = self._asking(method, VERSION + path, query or {}, body, limit)
        asked = Job(ask)
        try:
            if limit > SOON:
                try:
                    return _result(self._answer(pid, asked, SOON))
                except TooLongError:
                    self._see_it_answers(command=method != "GET")
            return _result(self._answer(pid, asked, limit + GRACE))  # httpx bounds each part of the answer only
        except TooLongError:
            advice = f"It may be busy; look into {self.home.log}, or stop it: collegium node stop."
            raise UnreachableError(f"The daemon (pid {pid}) does not answer within {limit:g} s", advice) from None

    def _see_it_answers(self, *, command: bool) -> None:
        """Wait on for an answer only while the daemon answers at all, or works. Raises HangsError."""
        try:
            self.probe()
        except BusyError:
            return
        except HangsError as error:
            if command:
                raise HangsError(error.pid, error.why, asked=True) from None
            raise

    def _asking(
        self, method: str, path: str, query: Mapping[str, object], body: Mapping[str, object] | None, limit: float
    ) -> "tuple[int, Callable[[], httpx.Response]]":
        """Return the daemon's process id, and what sends it a request. Raises UnreachableError if none can answer."""
        pid = running(self.home)
        socket = self.home.socket
        if pid is None:
            left = " (a socket is left over from one that was killed)" if socket.exists() else ""
            raise UnreachableError(f"No daemon runs in {self.home.root}{left}", START)
        if process.look(pid).stopped:
            raise HangsError(pid, "its process was stopped by a signal")
        self.home.socket_folder()  # ours alone, or we would hand our commands to somebody else
        import httpx  # noqa: PLC0415 - see above

        parameters = {name: str(value) for name, value in query.items() if value is not None}

        def ask() -> httpx.Response:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=limit) as http:
                return http.request(method, f"http://node{path}", params=parameters, json=body)

        return pid, ask

    def _answer(self, pid: int, asked: "Job[httpx.Response]", seconds: float) -> "httpx.Response":
        """Wait for an answer. Raises TooLongError if it takes longer, UnreachableError if the socket gives none."""
        import httpx  # noqa: PLC0415 - see above

        try:
            return asked.result(seconds)
        except httpx.TimeoutException as error:
            raise TooLongError from error
        except httpx.TransportError as error:
            advice = f"It is starting or stopping; try again, or look into {self.home.log}."
            raise UnreachableError(f"The daemon (pid {pid}) has no control socket open: {error}", advice) from error


def _result(answer: "httpx.Response") -> object:
    try:
        value: object = answer.json()
    except ValueError:
        raise UnreachableError("The daemon's answer is not JSON", "Is it of another release? Restart it.") from None
    if answer.is_success:
        return value
    if not isinstance(value, dict) or type(value.get("exit_code")) is not int:
        raise OperatorError(f"The daemon answered {answer.status_code}", "See its log.")
    raise error_of(value["exit_code"], str(value.get("error")), str(value.get("advice", "")))
