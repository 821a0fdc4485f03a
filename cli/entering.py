"""`collegium join` with an invitation to found a federation: hand in, review, sign, keep the charter."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..crypto.errors import CollegiumError, RefusedError, UsageError
from ..crypto.fingerprint import fingerprint
from . import founding
from . import review as reviewing
from .charter import merged, write_charter
from .output import agreed, console, emit, facts, say

if TYPE_CHECKING:
    from ..crypto.identity import Identity
    from ..node.founding.messages import FoundingAnswer
    from ..node.home.paths import Home
    from ..protocol.charter import Charter, Member, SignedCharter
    from ..protocol.membership import Invitation
    from ..protocol.signing import Signed


def check_home(place: "Home", invited: "Signed[Invitation]") -> str:
    """Refuse a home that belongs elsewhere; return the name that it gave before, or "". Raises UsageError."""
    from ..node.founding.record import MemberRecord, load

    if place.founding.exists():
        raise UsageError(
            f"{place.root} founds a federation itself", "Go on there (`charter found`), or name another home: --home."
        )
    kept = load(MemberRecord, place.founding_invitation)
    if kept is None:
        if place.charter.exists():
            raise UsageError(f"{place.root} belongs to a federation already", "Name another home for this one: --home.")
        if invited.value.expires < time.time():
            raise RefusedError("this invitation has expired", "Ask the founder for another one.")
        return ""
    if kept.invitation != invited.wire:
        raise UsageError(
            f"{place.root} takes part in a founding by another invitation",
            f"To leave that one, remove {place.founding_invitation} and, if it is there, {place.charter}. Or name"
            " another home for this invitation: --home.",
        )
    return kept.name


@dataclass(slots=True)
class Entering:
    """One member's way through a founding; everything that it says is on disk before."""

    place: "Home"
    invited: "Signed[Invitation]"
    identity: "Identity"
    me: "Member"
    anyway: bool
    yes: bool
    as_json: bool
    _said: str = ""

    def run(self) -> None:
        """Go through it, or on with it, to the signed charter."""
        from ..node.founding.record import VERSION, MemberRecord, alone, save

        with alone(self.place):
            again = self.place.founding_invitation.exists()
            save(self.place.founding_invitation, MemberRecord(VERSION, self.invited.wire, self.me.name))
            held = self._held()
            if held is None or not _complete(held):
                self._to_the_end(again)
            with suppress(CollegiumError):  # it is told again, or sees it from the others' daemons
                self._say_word("kept")
        self._done()

    def _to_the_end(self, again: bool) -> None:
        from ..node.founding import guest, messages
        from ..protocol.charter import add_signature

        address = self.invitation.addresses[0].partition("/p2p/")[0]
        self._tell(f"asking {fingerprint(self.invitation.author)} at {address} …")
        lost = self._lost if again else None
        answer = guest.enter(self.invitation, self.identity, self.me.name, self.me.addresses, lost)
        while True:
            if answer.state == messages.WAITING:
                self._tell_waiting(answer)
                answer = self._wait(guest.NONE, lambda reply: reply.state != messages.WAITING)
            charter, signed = self._take(answer)
            if not self._signed(signed):
                reviewing.examine(self.place, charter, signed, anyway=self.anyway, printed=not self.as_json)
                self._say_word("reviewed")
                self._ask()
                answer = self._wait(charter.federation, lambda _: True)
                if answer.charter or answer.state == messages.WAITING:
                    self._tell("the founder has changed the draft meanwhile: nothing was signed")
                    continue
                signed = add_signature(charter, signed, self.identity)
                self._keep(signed)
            self._say_word("signed")
            answer = self._wait(charter.federation, lambda reply: reply.charter or reply.state == messages.COMPLETE)
            if answer.state == messages.COMPLETE:
                self._keep(guest.check_complete(answer.charter, self.invitation, charter)[1])
                return

    @property
    def invitation(self) -> "Invitation":
        """The invitation."""
        return self.invited.value

    def _held(self) -> "tuple[Charter, SignedCharter] | None":
        from ..node.verify import read_charter

        return read_charter(self.place.charter) if self.place.charter.exists() else None

    def _signed(self, signed: "SignedCharter") -> bool:
        return any(entry.member == self.me.key for entry in signed.signatures)

    def _take(self, answer: "FoundingAnswer") -> "tuple[Charter, SignedCharter]":
        """Keep the founder's draft, and the signature that this member gave it before. Raises OperatorError."""
        from ..node.founding import guest

        charter, signed = guest.check_draft(answer.charter, self.invitation, self.me)
        held = self._held()
        if held is not None and self._signed(held[1]):
            if held[0].federation != charter.federation:
                raise RefusedError(
                    f"the founder {self._founder(charter)} changed the draft after this member signed it: signed was"
                    f" {fingerprint(held[0].federation)}, now it is {fingerprint(charter.federation)}",
                    "Ask it why, by telephone. Nothing else is signed here. To begin anew with a new invitation, remove"
                    f" {self.place.founding_invitation} and {self.place.charter}.",
                )
            signed = merged(signed, held[1])
        self._keep(signed)
        return charter, signed

    def _founder(self, charter: "Charter") -> str:
        founder = charter.member(self.invitation.author)
        return repr(founder.name) if founder is not None else ""

    def _keep(self, signed: "SignedCharter") -> None:
        write_charter(self.place.charter, signed)

    def _ask(self) -> None:
        if agreed("Sign this charter?", self.yes):
            return
        self._say_word("refused")
        raise RefusedError(
            "you refuse this charter, and the founder sees that",
            "Talk to the founder. To review it, or a changed one, run the same command again.",
        )

    def _say_word(self, word: str) -> None:
        from ..node.founding import guest

        held = self._held()
        assert held is not None
        guest.say(self.invitation, self.identity, held[0].federation, word)

    def _wait(self, have: bytes, done: Any) -> "FoundingAnswer":
        from ..node.founding import guest

        def look(answer: "FoundingAnswer") -> bool:
            self._tell_waiting(answer)
            return bool(done(answer))

        return guest.wait(self.invitation, have, look, self._lost)

    def _lost(self) -> None:
        self._tell("the founder does not answer, and may be away for a while: trying again")

    def _tell_waiting(self, answer: "FoundingAnswer") -> None:
        do = {"waiting": "come", "draft": "sign"}.get(answer.state, "")
        for name in answer.refused:
            self._tell(f"{name} refuses the draft")
        awaited = [name for name in answer.awaited if name != self.me.name]
        if do and awaited:
            self._tell(f"waiting for {', '.join(awaited)} to {do}")
        elif answer.state == "waiting":
            self._tell("all have come: waiting for the founder's draft")

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            say(text)

    def _done(self) -> None:
        held = self._held()
        assert held is not None
        result = {
            "home": str(self.place.root),
            "file": str(self.place.charter),
            "name": self.me.name,
            **reviewing.overview(*held),
        }
        if not self.as_json:
            facts(
                console(),
                [
                    ("federation", result["name"]),
                    ("charter", f"{result['fingerprint']}, signed by everybody"),
                    ("kept in", self.place.charter),
                ],
            )
        emit(result, self.as_json, lambda out: out.print(founding.start_step(self.place, held[0])))


def _complete(held: "tuple[Charter, SignedCharter]") -> bool:
    from ..protocol.charter import unsigned_members

    return not unsigned_members(*held)
