"""Whom a daemon's gate lets in: today's members, whatever the ledger remembers of others (G9)."""

from dataclasses import replace
from typing import Any

import pytest
import trio

from collegium.consensus.membership import Seat
from collegium.crypto.errors import RefusedError, RemoteProtocolError, UnreachableError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.network import Callbacks, NetworkConfig, open_network
from collegium.node.runtime.admission import SYNC_PROTOCOL
from collegium.node.runtime.dialogue import TELL_PROTOCOL

FORMER = Identity.from_seed(sha256(b"was a member"))


@pytest.mark.parametrize("gone", ["expelled", "left", "rekeyed", "evidence"])
def test_g9_the_gate_refuses_the_keys_of_former_members_at_both_ends(runtime: Any, gone: str) -> None:
    """What a ledger remembers of a seat lets nobody in. One thing is left to them: to be told how it ended."""
    me, ledger = runtime.identity.public_key, runtime.core.ledger
    heard: list[bytes] = []

    async def hear(peer: bytes, _data: bytes) -> bytes:
        heard.append(peer)
        return b""

    async def test() -> None:
        handlers = {TELL_PROTOCOL: hear, SYNC_PROTOCOL: hear}

        def opened(seed: bytes, **gates: Any) -> Any:
            return open_network(
                NetworkConfig(seed=seed, listen=("/ip4/127.0.0.1/tcp/0",), topic="t"),
                Callbacks(
                    on_gossip=lambda peer, _data: heard.append(peer),
                    rpc_handlers=handlers,
                    **gates,
                ),
            )

        async with (
            opened(FORMER.seed, allowed=lambda _: True) as former,
            opened(
                runtime.identity.seed, allowed=runtime.book.allows, non_member_handlers=runtime.admission.handlers
            ) as member,
        ):
            runtime.network = member
            with trio.fail_after(120):
                await former.connect(member.addresses()[0])  # to be told how it ended, and for nothing else
                with pytest.raises(UnreachableError):  # no neighbour opens such a stream
                    await former.request(me, TELL_PROTOCOL, b"x")
                with pytest.raises((UnreachableError, RemoteProtocolError)):
                    await former.fetch(me, bytes(32), 1, lambda _: None)
                with pytest.raises(RefusedError, match="not a member"):
                    await member.connect(former.addresses()[0])
            assert member.neighbours() == frozenset()
            assert heard == []
            runtime.refresh_peers()
            assert runtime.book._book == {}, "and nobody dials them"

    seat = Seat(FORMER.public_key, "former", ("/ip4/127.0.0.1/tcp/1",), 0, 3, gone)
    runtime.core.ledger = replace(ledger, roll=replace(ledger.roll, seats={**ledger.roll.seats, seat.key: seat}))
    runtime.core.signing = True
    trio.run(test)
    assert set(runtime.admission.handlers(FORMER.public_key)) == {SYNC_PROTOCOL}
