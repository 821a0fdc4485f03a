"""Admission: requests of non-members, and the course of an application.

A candidate shakes hands with its invitation's token key; other keys are refused. It may fetch the charter and hand in
one application. A former member may fetch the ledger up to the block that ended its membership: so it learns its own
outcome for certain, and nothing later.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
import trio

from ...consensus.ledger import Ledger
from ...crypto.errors import RemoteProtocolError
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.charter import SignedCharter, dump_file
from ...protocol.membership import Application, Invitation, Motion, check_person, token_digest
from ...protocol.signing import Signed, open_signed, sign
from ..core import events as ev
from ..core import motions
from ..core.messages import JoinAnswer, JoinRequest, SyncRequest
from ..core.state import NodeState
from ..core.sync import answer
from ..home import invitations
from ..home.invitations import IssuedInvitation
from ..home.paths import Home
from ..network.rpc import Handler
from ..patience import in_thread
from ..store.database import Store

log = structlog.get_logger(__name__)

JOIN_PROTOCOL = "/collegium/join/1"
SYNC_PROTOCOL = "/collegium/sync/1"
HEIGHTS = 500  # for which a motion stays open by default


class Host(Protocol):
    """The daemon, as admission sees it."""

    @property
    def home(self) -> Home:
        """The node's directory."""
        ...

    @property
    def core(self) -> NodeState:
        """The state machine."""
        ...

    @property
    def store(self) -> Store:
        """The database."""
        ...

    def submit(self, event: ev.Event) -> None:
        """Hand an event to the core."""
        ...


class Admission:
    """Invitations and applications of one node. Its methods run on the daemon's own thread."""

    def __init__(self, host: Host, identity: Identity, charter: SignedCharter, clock: Callable[[], float] = time.time):
        self._host, self._identity, self._charter, self._clock = host, identity, charter, clock
        self._issued = {issued.token_key: issued for issued in invitations.load(host.home)}
        self._turn = trio.Lock()  # two applications at once may not both use one invitation

    @property
    def issued(self) -> tuple[IssuedInvitation, ...]:
        """Return the issued invitations, in order."""
        return tuple(self._issued.values())

    def handlers(self, key: bytes) -> Mapping[str, Handler]:
        """Return the request handlers for a non-member with this key."""
        issued = self._issued.get(key.hex())
        if issued is not None and issued.open(self._clock()):
            return {JOIN_PROTOCOL: self._answer}
        seat = self._host.core.ledger.roll.seats.get(key)
        if seat is not None and seat.gone:
            return {SYNC_PROTOCOL: self._tell_former}
        return {}

    # ---- the member's side

    async def invite(
        self, name: str, addresses: tuple[str, ...], days: float, key: str, hold: bool, charter: bool
    ) -> Signed[Invitation]:
        """Issue an invitation, with or without the charter in it; it is on disk before it is returned."""
        now = int(self._clock())
        token = Identity.generate()
        expires = now + max(60, round(days * 86_400))
        value = Invitation(
            self._host.core.federation,
            self._identity.public_key,
            name,
            addresses[:16],
            token.seed,
            expires,
            dump_file(self._charter) if charter else b"",
        )
        issued = IssuedInvitation(token.public_key.hex(), name, now, expires, key, hold)
        async with self._turn:
            await in_thread(invitations.add, self._host.home, issued, now)
            self._issued = {kept.token_key: kept for kept in invitations.load(self._host.home)}
        return sign(self._identity, value)

    async def withdraw(self, token_key: str) -> None:
        """Withdraw this invitation."""
        async with self._turn:
            await self._change(token_key, withdrawn=True)

    async def _change(self, token_key: str, **fields: object) -> None:
        changed = await in_thread(lambda: invitations.change(self._host.home, token_key, **fields))
        self._issued = {issued.token_key: issued for issued in changed}

    def motion_for(self, issued: IssuedInvitation) -> ev.ProposeMotion:
        """Return the motion to admit this invitation's applicant."""
        wire = bytes.fromhex(issued.application)
        person = open_signed(Application, wire, self._host.core.federation).value
        return ev.ProposeMotion("admit", person.author, wire, "", HEIGHTS)

    async def maintain(self) -> None:
        """Propose to admit applicants as soon as this node may: the invitation was the operator's consent."""
        for issued in self.issued:
            if issued.application and not issued.proposed and self._is_agreed(bytes.fromhex(issued.application)):
                async with self._turn:
                    await self._change(issued.token_key, proposed=True)  # the ledger forgets how older motions ended
        for issued in self.issued:
            if issued.application and not issued.hold and self.state(issued) == "waiting":
                proposal = self.motion_for(issued)
                try:
                    motions.check(self._host.core, proposal)
                except RemoteProtocolError as error:
                    log.debug("admission waits", name=issued.name, reason=error.reason)
                else:
                    self._host.submit(proposal)

    def state(self, issued: IssuedInvitation) -> str:
        """Return the state of an application, as in JoinAnswer, or "withdrawn"; empty without one."""
        if not issued.application:
            return ""
        ledger: Ledger = self._host.core.ledger
        wire = bytes.fromhex(issued.application)
        key = open_signed(Application, wire, ledger.federation).value.author
        if key in ledger.members:
            return "admitted"
        if any(motion.statement == wire for motion in ledger.roll.motions) or self._is_proposed(wire):
            return "proposed"
        if issued.proposed or key in ledger.roll.seats or self._is_agreed(wire):
            return "refused"
        if issued.withdrawn:
            return "withdrawn"
        return "held" if issued.hold else "waiting"

    def _is_agreed(self, wire: bytes) -> bool:
        roll = self._host.core.ledger.roll
        return any(motion.statement == wire for motion in (*roll.motions, *(o.motion for o in roll.outcomes)))

    def _is_proposed(self, wire: bytes) -> bool:
        core = self._host.core
        return any(isinstance(body, Motion) and body.statement == wire for body in motions.waiting(core))

    # ---- the candidate's side

    async def _answer(self, token_key: bytes, data: bytes) -> bytes:
        request = schema.load(JoinRequest, data, JoinRequest.LIMIT)
        issued = self._issued.get(token_key.hex())
        if issued is None or not issued.open(self._clock()):
            raise RemoteProtocolError("invitation-expired")
        if request.what == "charter":
            return schema.dump(JoinAnswer("charter", dump_file(self._charter)))
        if request.what != "apply":
            raise RemoteProtocolError("unknown-request")
        async with self._turn:
            issued = await self._apply(self._issued[issued.token_key], token_key, request.application)
        await self.maintain()
        return schema.dump(JoinAnswer(self.state(issued), b""))

    async def _apply(self, issued: IssuedInvitation, token_key: bytes, wire: bytes) -> IssuedInvitation:
        application = open_signed(Application, wire, self._host.core.federation).value
        check_person(application.name, application.addresses)
        if application.token != token_digest(token_key):
            raise RemoteProtocolError("other-invitation")
        if issued.key and bytes.fromhex(issued.key) != application.author:
            raise RemoteProtocolError("key-mismatch")
        if issued.application:
            if issued.application != wire.hex():
                raise RemoteProtocolError("invitation-used")
            return issued
        ledger = self._host.core.ledger
        if any(ledger.roll.seats[key].name == application.name for key in ledger.members):
            raise RemoteProtocolError("name-taken")
        if application.author in ledger.roll.seats:
            raise RemoteProtocolError("key-retired")
        await self._change(issued.token_key, application=wire.hex())
        log.warning("somebody asks to be admitted", name=application.name, key=application.author)
        return self._issued[issued.token_key]

    async def _tell_former(self, peer: bytes, data: bytes) -> bytes:
        request = schema.load(SyncRequest, data, SyncRequest.LIMIT)
        core = self._host.core
        seat = core.ledger.roll.seats[peer]

        def tell() -> bytes:
            return answer(request, core.federation, self._host.store, (), (), upto=seat.until)

        return await in_thread(tell)
