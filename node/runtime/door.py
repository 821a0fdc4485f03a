"""The door: what somebody who is no member may ask of this node, and what becomes of an application.

A candidate shakes hands with the key of its invitation's token, so nobody else gets even that far. It may fetch the
charter and hand in one application. Who was a member may fetch the ledger up to the block that ended that: so it
learns for certain what became of it, and nothing that came later.
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
from ..core.messages import DoorAnswer, Knock, SyncRequest
from ..core.state import NodeState
from ..core.sync import answer
from ..home import invitations
from ..home.invitations import Given
from ..home.paths import Home
from ..network.rpc import Handler
from ..store.database import Store
from .patience import in_thread

log = structlog.get_logger(__name__)

DOOR_PROTOCOL = "/collegium/door/1"
SYNC_PROTOCOL = "/collegium/sync/1"
HEIGHTS = 500  # that a motion stays open unless its author says otherwise


class Host(Protocol):
    """What the door needs of the daemon."""

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


class Door:
    """Invitations and applications of one node. Its methods run on the daemon's own thread."""

    def __init__(self, host: Host, identity: Identity, charter: SignedCharter, clock: Callable[[], float] = time.time):
        self._host, self._identity, self._charter, self._clock = host, identity, charter, clock
        self._given = {given.door: given for given in invitations.load(host.home)}
        self._turn = trio.Lock()  # two applications at once may not both use one invitation

    @property
    def given(self) -> tuple[Given, ...]:
        """Return what was given out, in order."""
        return tuple(self._given.values())

    def handlers(self, key: bytes) -> Mapping[str, Handler]:
        """Return what a stranger with this key may ask for."""
        given = self._given.get(key.hex())
        if given is not None and given.open(self._clock()):
            return {DOOR_PROTOCOL: self._knock}
        seat = self._host.core.ledger.roll.seats.get(key)
        if seat is not None and seat.gone:
            return {SYNC_PROTOCOL: self._tell_former}
        return {}

    # ---- the member's side

    async def invite(
        self, name: str, addresses: tuple[str, ...], days: float, key: str, hold: bool, charter: bool
    ) -> Signed[Invitation]:
        """Give out an invitation, with the charter in it or without; what opens the door is on disk before it is."""
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
        given = Given(token.public_key.hex(), name, now, expires, key, hold)
        async with self._turn:
            await in_thread(invitations.add, self._host.home, given, now)
            self._given = {known.door: known for known in invitations.load(self._host.home)}
        return sign(self._identity, value)

    async def withdraw(self, door: str) -> None:
        """Let nobody in by this invitation any more."""
        async with self._turn:
            await self._change(door, withdrawn=True)

    async def _change(self, door: str, **fields: object) -> None:
        changed = await in_thread(lambda: invitations.change(self._host.home, door, **fields))
        self._given = {given.door: given for given in changed}

    def motion_for(self, given: Given) -> ev.Move:
        """Return the motion to admit who applied by this invitation."""
        wire = bytes.fromhex(given.application)
        person = open_signed(Application, wire, self._host.core.federation).value
        return ev.Move("admit", person.author, wire, "", HEIGHTS)

    async def tend(self) -> None:
        """Move the admission of whoever applied, as soon as this node may: to invite was to consent."""
        for given in self.given:
            if given.application and not given.moved and self._agreed(bytes.fromhex(given.application)):
                async with self._turn:
                    await self._change(given.door, moved=True)  # the ledger forgets how older motions ended
        for given in self.given:
            if given.application and not given.hold and self.state(given) == "waiting":
                move = self.motion_for(given)
                try:
                    motions.check(self._host.core, move)
                except RemoteProtocolError as error:
                    log.debug("admission waits", name=given.name, reason=error.reason)
                else:
                    self._host.submit(move)

    def state(self, given: Given) -> str:
        """Return how an application stands, as in DoorAnswer, or "withdrawn"; empty without one."""
        if not given.application:
            return ""
        ledger: Ledger = self._host.core.ledger
        wire = bytes.fromhex(given.application)
        key = open_signed(Application, wire, ledger.federation).value.author
        if key in ledger.members:
            return "admitted"
        if any(motion.statement == wire for motion in ledger.roll.motions) or self._moved(wire):
            return "moved"
        if given.moved or key in ledger.roll.seats or self._agreed(wire):
            return "refused"
        if given.withdrawn:
            return "withdrawn"
        return "held" if given.hold else "waiting"

    def _agreed(self, wire: bytes) -> bool:
        roll = self._host.core.ledger.roll
        return any(motion.statement == wire for motion in (*roll.motions, *(o.motion for o in roll.outcomes)))

    def _moved(self, wire: bytes) -> bool:
        core = self._host.core
        return any(isinstance(body, Motion) and body.statement == wire for body in motions.waiting(core))

    # ---- the candidate's side

    async def _knock(self, door: bytes, data: bytes) -> bytes:
        knock = schema.load(Knock, data, Knock.LIMIT)
        given = self._given.get(door.hex())
        if given is None or not given.open(self._clock()):
            raise RemoteProtocolError("invitation-expired")
        if knock.what == "charter":
            return schema.dump(DoorAnswer("charter", dump_file(self._charter)))
        if knock.what != "apply":
            raise RemoteProtocolError("unknown-knock")
        async with self._turn:
            given = await self._apply(self._given[given.door], door, knock.application)
        await self.tend()
        return schema.dump(DoorAnswer(self.state(given), b""))

    async def _apply(self, given: Given, door: bytes, wire: bytes) -> Given:
        application = open_signed(Application, wire, self._host.core.federation).value
        check_person(application.name, application.addresses)
        if application.token != token_digest(door):
            raise RemoteProtocolError("other-invitation")
        if given.key and bytes.fromhex(given.key) != application.author:
            raise RemoteProtocolError("other-key")
        if given.application:
            if given.application != wire.hex():
                raise RemoteProtocolError("invitation-used")
            return given
        ledger = self._host.core.ledger
        if any(ledger.roll.seats[key].name == application.name for key in ledger.members):
            raise RemoteProtocolError("name-taken")
        if application.author in ledger.roll.seats:
            raise RemoteProtocolError("frozen-key")
        await self._change(given.door, application=wire.hex())
        log.warning("somebody asks to be admitted", name=application.name, key=application.author)
        return self._given[given.door]

    async def _tell_former(self, peer: bytes, data: bytes) -> bytes:
        request = schema.load(SyncRequest, data, SyncRequest.LIMIT)
        core = self._host.core
        seat = core.ledger.roll.seats[peer]

        def tell() -> bytes:
            return answer(request, core.federation, self._host.store, (), (), upto=seat.until)

        return await in_thread(tell)
