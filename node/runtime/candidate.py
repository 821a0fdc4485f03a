"""A candidate at a member's token_key: it fetches the charter and hands in its application."""

from collections.abc import Callable, Sequence

import trio

from ...crypto.errors import CollegiumError, CorruptError, RefusedError, RemoteProtocolError, UnreachableError
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.charter import Charter, load_file, unsigned_members
from ...protocol.membership import Application, Invitation, token_digest
from ...protocol.signing import sign
from ..core.messages import JoinAnswer, JoinRequest
from ..network import Callbacks, Network, NetworkConfig, open_network
from ..network.identity import parse_address
from .admission import JOIN_PROTOCOL

_REFUSED = {
    "invitation-expired": "The invitation has expired or was withdrawn: ask for another one.",
    "invitation-used": "The invitation was used by another application: ask for another one.",
    "key-mismatch": "The invitation is for another key: ask for one for this key (`collegium init` prints it).",
    "name-taken": "A member has this name already: choose another one (--name).",
    "key-retired": "A key that was a member's once never comes back: join with --new-key, in this same directory.",
    "name": "The name has characters that cannot be seen: choose another one (--name).",
    "address": "Addresses are plain ASCII: mend [node] advertise.",
}


def apply(
    invitation: Invitation,
    identity: Identity,
    name: str,
    addresses: Sequence[str],
    agree: Callable[[Charter], None] = lambda _: None,
) -> tuple[bytes, str]:
    """Hand in an application by this invitation; return the charter file's bytes and the application's state.

    `agree` sees the charter before the application leaves, and may raise. The answering node proves that it has the key
    of the member that signed the invitation. Raises UnreachableError, RefusedError with advice, CorruptError if the
    charter is not the invitation's.
    """
    return trio.run(_apply, invitation, identity, name, tuple(addresses), agree)


async def _apply(
    invitation: Invitation,
    identity: Identity,
    name: str,
    addresses: tuple[str, ...],
    agree: Callable[[Charter], None],
) -> tuple[bytes, str]:
    config = NetworkConfig(seed=invitation.token, listen=("/ip4/127.0.0.1/tcp/0",), topic="join")
    async with open_network(config, Callbacks(lambda key: key == invitation.author)) as network:
        await connect(network, invitation)
        data = invitation.charter or (await _ask(network, invitation, JoinRequest("charter", b""))).charter
        agree(check_charter(data, invitation))
        token_key = Identity.from_seed(invitation.token).public_key
        application = Application(
            invitation.federation, identity.public_key, name, addresses[:8], token_digest(token_key)
        )
        answer = await _ask(network, invitation, JoinRequest("apply", sign(identity, application).wire))
        return data, answer.state


def check_charter(data: bytes, invitation: Invitation) -> Charter:
    """Check that a charter is the invitation's and that all its founders signed it. Raises OperatorError."""
    charter, signed = load_file(data, "the charter that the invitation names")
    if charter.federation != invitation.federation:
        raise CorruptError("the charter is not the invitation's", "Ask whoever invited you for another invitation.")
    missing = unsigned_members(charter, signed)
    if missing:
        names = ", ".join(member.name for member in missing)
        raise RefusedError(f"the charter is not signed by {names}", "Ask whoever invited you.")
    return charter


async def connect(network: Network, invitation: Invitation) -> None:
    """Connect with the member that signed an invitation. Raises RefusedError, UnreachableError."""
    last: CollegiumError | None = None
    for address in invitation.addresses:
        try:
            if parse_address(address)[2] == invitation.author:
                await network.connect(address)
                return
        except RefusedError as error:
            raise RefusedError(
                f"{address} lets nobody in by this invitation",
                "It has expired, was withdrawn, or that node restarted with another home: ask for another one.",
            ) from error
        except CollegiumError as error:
            last = error
    raise UnreachableError(
        f"no address of the invitation can be reached: {last or 'it names none'}",
        "Check that the inviting member's node runs and that a firewall lets you through; then try again.",
    )


async def _ask(network: Network, invitation: Invitation, request: JoinRequest) -> JoinAnswer:
    try:
        data = await network.request(
            invitation.author, JOIN_PROTOCOL, schema.dump(request), limit=JoinAnswer.LIMIT, timeout=30
        )
        return schema.load(JoinAnswer, data, JoinAnswer.LIMIT)
    except RemoteProtocolError as error:
        raise RefusedError(f"the member refuses: {error.reason}", _REFUSED.get(error.reason, "Ask it why.")) from error
