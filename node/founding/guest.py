"""An invited member at the founder's desk: it enters, waits for the draft, says its word, waits for all signatures."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from ...crypto.errors import CorruptError, RefusedError, RemoteProtocolError, UnreachableError
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.charter import Charter, Member, SignedCharter, load_file, unsigned_members
from ...protocol.membership import Application, Invitation, token_digest
from ...protocol.signing import sign
from ..network import Callbacks, Network, NetworkConfig, open_network
from ..runtime.candidate import connect
from .apart import Apart
from .messages import ENTER, LOOK, PROTOCOL, SAY, SIGNED, FoundingAnswer, FoundingRequest, Word

POLL = 2.0  # seconds between two looks, and up to half as much again
TRIES = 5  # refusals at the founder's door in a row, after which it is no crowd
NONE = bytes(32)  # no draft
_ADVICE = {
    "invitation-expired": "The invitation has expired or was withdrawn: ask the founder for another one.",
    "invitation-used": "Another key entered by this invitation. If that was not you, tell the founder by telephone; if"
    " you made a new home, ask for a new invitation.",
    "other-invitation": "This is a defect: report it.",
    "name-taken": "Another member has this name already: choose another one (--name).",
    "name": "The name has characters that cannot be seen, or a =: choose another one (--name).",
    "key-used": "This key has entered by another invitation: each member has a home of its own (--home).",
    "address": "One of your addresses cannot be dialled: correct [node] listen and advertise in config.toml.",
    "addresses-unusable": "Your addresses do not fit those of the others: the same as another member's, none, or of one"
    " machine only (127.0.0.1). Correct [node] listen and advertise in config.toml.",
    "draft-is-out": "The charter was drawn up with the name and addresses that you gave before. Give these, or ask the"
    " founder to stop and to invite you anew.",
    "other-draft": "The founder has another draft by now: run the same command again to review that one.",
    "key-mismatch": "Another key entered by this invitation: use the home that you joined with.",
}


def enter(
    invitation: Invitation,
    identity: Identity,
    name: str,
    addresses: tuple[str, ...],
    lost: Callable[[], None] | None = None,
) -> FoundingAnswer:
    """Hand in name, key and addresses: nothing else leaves. Again it changes nothing, or until the draft, these.

    Raises RefusedError with advice, and UnreachableError unless there is `lost`: then it goes on trying, as `wait`.
    """
    token = token_digest(Identity.from_seed(invitation.token).public_key)
    application = Application(invitation.federation, identity.public_key, name, addresses[:8], token)
    request = FoundingRequest(ENTER, sign(identity, application).wire, NONE)
    if lost is None:
        return _ask(invitation, request)
    return Apart(partial(_wait, invitation, request, lambda _: True, lost)).result()


def say(invitation: Invitation, identity: Identity, draft: bytes, word: str) -> FoundingAnswer:
    """Say a word on a draft; to sign it is to sign the charter. Raises as `enter`."""
    signature = identity.sign("charter", draft) if word == SIGNED else b""
    spoken = Word(invitation.federation, identity.public_key, draft, word, signature)
    return _ask(invitation, FoundingRequest(SAY, sign(identity, spoken).wire, draft))


def wait(
    invitation: Invitation, have: bytes, done: Callable[[FoundingAnswer], bool], lost: Callable[[], None]
) -> FoundingAnswer:
    """Look until the answer is as wanted; a founder that cannot be reached may come back: `lost` is told.

    Raises RefusedError.
    """
    return Apart(partial(_wait, invitation, FoundingRequest(LOOK, b"", have), done, lost)).result()


async def _wait(
    invitation: Invitation,
    request: FoundingRequest,
    done: Callable[[FoundingAnswer], bool],
    lost: Callable[[], None],
) -> FoundingAnswer:
    refused = 0
    async with _opened(invitation) as network:
        while True:
            try:
                answer = await _once(network, invitation, request)
                refused = 0
                if done(answer):
                    return answer
            except UnreachableError:
                lost()
            except _DoorError as error:
                refused += 1
                if refused >= TRIES:
                    raise RefusedError(error.message, error.advice) from error
            await trio.sleep(POLL * random.uniform(1.0, 1.5))  # noqa: S311 - no secret


def _ask(invitation: Invitation, request: FoundingRequest) -> FoundingAnswer:
    async def ask() -> FoundingAnswer:
        async with _opened(invitation) as network:
            return await _once(network, invitation, request)

    return Apart(ask).result()


class _DoorError(RefusedError):
    """The founder's door is closed for this invitation, or there is a crowd before it."""


@asynccontextmanager
async def _opened(invitation: Invitation) -> AsyncIterator[Network]:
    config = NetworkConfig(seed=invitation.token, listen=("/ip4/127.0.0.1/tcp/0",), topic="founding")
    async with open_network(config, Callbacks(lambda key: key == invitation.author)) as network:
        yield network


async def _once(network: Network, invitation: Invitation, request: FoundingRequest) -> FoundingAnswer:
    """Connect, ask, and go: many wait at the same door, and it has room for few."""
    try:
        await connect(network, invitation)
    except RefusedError as error:
        raise _DoorError(error.message, error.advice) from error
    try:
        data = await network.request(
            invitation.author, PROTOCOL, schema.dump(request), limit=FoundingAnswer.LIMIT, timeout=30
        )
        return schema.load(FoundingAnswer, data, FoundingAnswer.LIMIT)
    except RemoteProtocolError as error:
        advice = _ADVICE.get(error.reason, "Ask the founder.")
        raise RefusedError(f"the founder refuses: {error.reason}", advice) from error
    finally:
        await network.disconnect(invitation.author)


def check_draft(data: bytes, invitation: Invitation, me: Member) -> tuple[Charter, SignedCharter]:
    """Check a charter that the founder sent: as a file from outside, and that it has this member as it came.

    Raises OperatorError.
    """
    founder = invitation.author
    charter, signed = load_file(data, f"the charter that the founder {founder.hex()[:16]} sent")
    advice = "Sign nothing, and ask the founder by telephone."
    mine = charter.member(me.key)
    if mine is None:
        raise RefusedError("the charter that the founder sent does not have this member's key", advice)
    if mine != me:
        has, gave = (f"{one.name} at {', '.join(one.addresses) or 'no address'}" for one in (mine, me))
        raise RefusedError(f"the charter that the founder sent has this member as {has}; it gave {gave}", advice)
    if charter.member(founder) is None:
        raise RefusedError("the founder is no member of the charter that it sent", advice)
    if all(entry.member != founder for entry in signed.signatures):
        raise RefusedError("the founder has not signed the charter that it sent", advice)
    return charter, signed


def check_complete(data: bytes, invitation: Invitation, draft: Charter) -> tuple[Charter, SignedCharter]:
    """Check that a charter is this one and that everybody signed it. Raises OperatorError."""
    charter, signed = load_file(data, f"the charter that the founder {invitation.author.hex()[:16]} sent")
    if charter.federation != draft.federation:
        raise CorruptError("the founder sent another charter than the one signed here", "Ask it by telephone.")
    missing = unsigned_members(charter, signed)
    if missing:
        names = ", ".join(member.name for member in missing)
        raise RefusedError(f"the founder calls the charter complete, and {names} did not sign it", "Ask the founder.")
    return charter, signed
