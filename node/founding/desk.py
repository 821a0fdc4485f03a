"""The founder's desk: it lets in who has an invitation's token, keeps what they say, and gives out the draft.

The network runs in a thread of its own, so that the founder's command can ask its operator meanwhile. Whatever is
answered is on disk before. A draft goes out once its founder has signed it, and may change until another has signed.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import trio

from ...crypto.errors import RefusedError, RemoteProtocolError
from ...crypto.identity import Identity, verify
from ...protocol import schema
from ...protocol.charter import (
    Charter,
    CharterSignature,
    Member,
    SignedCharter,
    add_signature,
    dump_file,
    unsigned_members,
)
from ...protocol.membership import Application, Invitation, check_person, token_digest
from ...protocol.names import person_problem
from ...protocol.schema import MAX_MEMBERS
from ...protocol.signing import Signed, open_signed, sign
from ..home.addresses import check_advertised, members_problems, with_peer
from ..home.paths import Home
from ..network import Callbacks, NetworkConfig, open_network
from ..network.rpc import Handler
from ..store.files import write_atomic
from ..verify import read_charter
from . import record
from .apart import Apart
from .messages import (
    COMPLETE,
    DRAFT,
    ENTER,
    KEPT,
    LOOK,
    PROTOCOL,
    REFUSED,
    REVIEWED,
    SAY,
    SIGNED,
    WAITING,
    FoundingAnswer,
    FoundingRequest,
    Word,
)
from .record import VERSION, FounderRecord, Invited

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Place:
    """How one invited member stands: "invited", "expired", "joined", "reviewed", "refused", "signed" or "kept"."""

    invited_as: str
    name: str
    key: bytes
    state: str
    expires: int


class Desk:
    """One founding at its founder. Its methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        identity: Identity,
        name: str,
        addresses: Sequence[str],
        anyway: bool = False,
        clock: Clock = time.time,
    ) -> None:
        self.home, self._identity, self._clock = home, identity, clock
        self.me = Member(identity.public_key, name, tuple(addresses))
        self._anyway = anyway  # let in whom the others cannot dial
        self._lock = threading.RLock()
        loaded = record.load(FounderRecord, home.founding)
        if loaded is None and home.charter.exists():
            raise RefusedError(f"There is a charter already: {home.charter}", "Move it away, or use another home.")
        self._record = loaded or FounderRecord(VERSION, os.urandom(32), os.urandom(32), int(clock()), ())
        self._draft: tuple[Charter, SignedCharter] | None = None
        if home.charter.exists():
            self._draft = read_charter(home.charter)

    # ---- the founder's side

    @property
    def seed(self) -> bytes:
        """The seed of the charter."""
        return self._record.seed

    @property
    def created(self) -> int:
        """When the founding began, in Unix seconds."""
        return self._record.created

    @property
    def draft(self) -> tuple[Charter, SignedCharter] | None:
        """The draft, with the signatures that there are."""
        with self._lock:
            return self._draft

    def invite(self, names: Sequence[str], days: float) -> None:
        """Invite these as well, and again whose invitation expired unused. Raises RefusedError, UsageError."""
        with self._lock:
            invited = {one.name for one in self._record.invited}
            new = [name for name in names if name not in invited]
            if new:
                self._check_open(f"{', '.join(new)} cannot be invited any more")
                self._take_back()
            now = int(self._clock())
            kept = tuple(
                self._issue(one.name, now, days) if not one.application and one.expires <= now else one
                for one in self._record.invited
            )
            left_out = tuple(name for name in self._record.left_out if name not in new)
            self._save(kept + tuple(self._issue(name, now, days) for name in new), left_out)

    def leave_out(self, names: Sequence[str]) -> None:
        """Go on without these. Raises RefusedError if another member signed a draft that has them, or nobody is so."""
        with self._lock:
            invited = {one.name for one in self._record.invited}
            wrong = [name for name in names if name not in invited and name not in self._record.left_out]
            if wrong:
                raise RefusedError(
                    f"{', '.join(wrong)} was not invited", f"Invited are {', '.join(sorted(invited)) or 'none'}."
                )
            going = tuple(name for name in names if name in invited)
            if going:
                self._check_open(f"{', '.join(going)} cannot be left out any more")
                self._take_back()
                kept = tuple(one for one in self._record.invited if one.name not in going)
                self._save(kept, (*self._record.left_out, *going)[-MAX_MEMBERS:])

    def _check_open(self, what: str) -> None:
        others = self.signers()
        if others:
            raise RefusedError(
                f"{what}: {', '.join(others)} signed the draft",
                f"A changed draft is another charter. To begin anew, with new invitations, remove {self.home.founding}"
                f" and {self.home.charter}, and tell those who signed.",
            )

    def _take_back(self) -> None:
        """Remove a draft of other members: it is drawn up again when all are in."""
        self.home.charter.unlink(missing_ok=True)
        self._draft = None

    def _issue(self, name: str, now: int, days: float) -> Invited:
        token = Identity.generate()
        expires = now + max(60, round(days * 86_400))
        addresses = tuple(with_peer(address, self.me.key) for address in self.me.addresses)
        invitation = Invitation(self._record.founding, self.me.key, name, addresses, token.seed, expires, b"")
        return Invited(name, token.public_key, expires, sign(self._identity, invitation).wire)

    def invitations(self) -> list[tuple[str, Signed[Invitation]]]:
        """Return the invitations that wait for their member, by name."""
        with self._lock:
            founding = self._record.founding
            return [
                (one.name, open_signed(Invitation, one.invitation, founding, trusted=True))
                for one in self._record.invited
                if not one.application
            ]

    def people(self) -> list[Member]:
        """Return the founder, and the invited members that came."""
        with self._lock:
            return [self.me, *self._others()]

    def _others(self) -> list[Member]:
        came = (one.entered() for one in self._record.invited)
        return [Member(one.author, one.name, one.addresses) for one in came if one is not None]

    def places(self) -> list[Place]:
        """Return how each invited member stands, in the order of invitation."""
        with self._lock:
            return [self._place(one) for one in self._record.invited]

    def _place(self, invited: Invited) -> Place:
        came = invited.entered()
        if came is None:
            state = "expired" if invited.expires <= self._clock() else "invited"
            return Place(invited.name, "", b"", state, invited.expires)
        word = invited.said(self._draft[0].federation) if self._draft is not None else ""
        if self._has_signed(came.author) and word != KEPT:
            word = SIGNED
        return Place(invited.name, came.name, came.author, word or "joined", invited.expires)

    def _has_signed(self, key: bytes) -> bool:
        return self._draft is not None and any(entry.member == key for entry in self._draft[1].signatures)

    def signers(self) -> list[str]:
        """Return the names of the other members that signed the draft."""
        with self._lock:
            return [one.name for one in self._others() if self._has_signed(one.key)]

    def put(self, charter: Charter, wire: bytes) -> SignedCharter:
        """Take this draft, if it is not the one that there is; return it with its signatures.

        Raises RefusedError if another member signed one that differs.
        """
        with self._lock:
            if self._draft is None or self._draft[0].federation != charter.federation:
                self._check_open("These options, members and model file give another charter than before")
                self._write(charter, SignedCharter(wire, ()))
            assert self._draft is not None
            return self._draft[1]

    def sign(self) -> None:
        """Sign the draft as its founder: now it goes out to the others."""
        with self._lock:
            assert self._draft is not None
            charter, signed = self._draft
            self._write(charter, add_signature(charter, signed, self._identity))

    @property
    def out(self) -> bool:
        """Whether the draft goes out."""
        return self._has_signed(self.me.key)

    @property
    def complete(self) -> bool:
        """Whether everybody signed."""
        with self._lock:
            return self._draft is not None and not unsigned_members(*self._draft)

    def _write(self, charter: Charter, signed: SignedCharter) -> None:
        write_atomic(self.home.charter, dump_file(signed))
        self._draft = (charter, signed)

    def _save(self, invited: tuple[Invited, ...], left_out: tuple[str, ...] | None = None) -> None:
        left_out = self._record.left_out if left_out is None else left_out
        changed = replace(self._record, invited=invited, left_out=left_out)
        record.save(self.home.founding, changed)
        self._record = changed

    # ---- the members' side

    def handlers(self, key: bytes) -> dict[str, Handler]:
        """Return the request handlers for a non-member with this key: none without an invitation that is good."""
        return {PROTOCOL: self._answer} if self._invited(key) is not None else {}

    def _invited(self, key: bytes) -> Invited | None:
        with self._lock:
            invited = next((one for one in self._record.invited if one.token_key == key), None)
            good = invited is not None and (invited.application or self._clock() < invited.expires)
            return invited if good else None

    async def _answer(self, token_key: bytes, data: bytes) -> bytes:
        request = schema.load(FoundingRequest, data, FoundingRequest.LIMIT)
        with self._lock:
            invited = self._invited(token_key)
            if invited is None:
                raise RemoteProtocolError("invitation-expired")
            if request.what == ENTER:
                self._enter(invited, request.statement)
            elif request.what == SAY:
                self._say(invited, request.statement)
            elif request.what != LOOK:
                raise RemoteProtocolError("unknown-request")
            elif not invited.application:
                raise RemoteProtocolError("not-entered")
            return schema.dump(self._standing(request.have))

    def _standing(self, have: bytes) -> FoundingAnswer:
        places = self.places()
        if self._draft is None or not self.out:
            return FoundingAnswer(WAITING, b"", tuple(p.invited_as for p in places if not p.key), ())
        charter, signed = self._draft
        awaited = tuple(member.name for member in unsigned_members(charter, signed))
        refused = tuple(place.name for place in places if place.state == REFUSED)
        file = b"" if awaited and have == charter.federation else dump_file(signed)
        return FoundingAnswer(DRAFT if awaited else COMPLETE, file, awaited, refused)

    def _enter(self, invited: Invited, wire: bytes) -> None:
        application = open_signed(Application, wire, self._record.founding).value
        if application.token != token_digest(invited.token_key):
            raise RemoteProtocolError("other-invitation")
        before = invited.entered()
        if before is not None and before.author != application.author:
            raise RemoteProtocolError("invitation-used")
        if invited.application == wire:
            return
        if self.out:
            raise RemoteProtocolError("draft-is-out")
        check_person(application.name, application.addresses)
        if person_problem(application.name):
            raise RemoteProtocolError("name")
        if any(check_advertised(address) for address in application.addresses):
            raise RemoteProtocolError("address")
        others = [one for one in self.people() if before is None or one.key != before.author]
        if any(one.key == application.author for one in others):
            raise RemoteProtocolError("key-used")
        if any(one.name == application.name for one in others):
            raise RemoteProtocolError("name-taken")
        people = [*others, Member(application.author, application.name, application.addresses)]
        if not self._anyway and members_problems([(one.name, one.addresses) for one in people]):
            raise RemoteProtocolError("addresses-unusable")
        self._change(replace(invited, application=wire, word=b""))

    def _say(self, invited: Invited, wire: bytes) -> None:
        word = open_signed(Word, wire, self._record.founding).value
        if wire == invited.word:
            return
        came = invited.entered()
        if came is None or came.author != word.author:
            raise RemoteProtocolError("key-mismatch")
        if self._draft is None or not self.out or word.draft != self._draft[0].federation:
            raise RemoteProtocolError("other-draft")
        charter, signed = self._draft
        if word.word == SIGNED:
            if not verify(word.author, "charter", charter.federation, word.signature):
                raise RemoteProtocolError("bad-signature")
            entry = CharterSignature(word.author, word.signature)
            if not self._has_signed(word.author):
                entries = tuple(sorted((*signed.signatures, entry), key=lambda signature: signature.member))
                self._write(charter, SignedCharter(signed.charter, entries))
        elif word.word == KEPT:
            if unsigned_members(charter, signed):
                raise RemoteProtocolError("not-complete")
        elif word.word not in (REVIEWED, REFUSED):
            raise RemoteProtocolError("unknown-word")
        elif self._has_signed(word.author):
            return  # it went back to an older copy of its home: a signature stays
        self._change(replace(invited, word=wire))

    def _change(self, changed: Invited) -> None:
        invited = self._record.invited
        self._save(tuple(changed if one.token_key == changed.token_key else one for one in invited))


@contextmanager
def opened(desk: Desk, seed: bytes, listen: Sequence[str]) -> Iterator[Callable[[], None]]:
    """Answer members until the block is left. What is given raises the network's error, if it ended by one."""
    config = NetworkConfig(seed=seed, listen=tuple(listen), topic="founding")
    ready = threading.Event()

    async def serve() -> None:
        async with open_network(config, Callbacks(lambda _: False, non_member_handlers=desk.handlers)):
            ready.set()
            await trio.sleep_forever()

    apart = Apart(serve)
    try:
        while not ready.wait(0.05) and not apart.over.is_set():
            pass
        apart.check()
        yield apart.check
    finally:
        apart.stop()
