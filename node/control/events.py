"""Server-sent events: what is at the beginning, then "ready", then what changes, seen once a second.

Made by comparing states, not by hooks in the daemon: a client that connects late misses nothing that still holds.
Events are "block", "round", "peer", "motion", "withdrawal" and "learner"; their data are JSON (replies.py).
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import trio
from starlette.responses import Response, StreamingResponse

from ...crypto.errors import RefusedError
from ..core.state import NodeState
from ..views.membership import scope, sentence
from .facts import Daemon, context_of
from .replies import BlockEvent, LearnerEvent, MotionEvent, PeerEvent, RoundEvent, WithdrawalEvent

EVERY = 1.0  # seconds between two looks
ALIVE = 15.0  # seconds after which a comment is sent, so that both ends notice a connection that broke
MAX_STREAMS = 16

Seen = Mapping[tuple[str, str], Any]


class Streams:
    """The streams of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._open = 0

    def open(self) -> Response:
        """Return an answer that goes on until the client leaves or the daemon stops. Raises RefusedError."""
        if self._open >= MAX_STREAMS:
            raise RefusedError(f"{MAX_STREAMS} clients receive events already", "Close one of them.")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._texts(), media_type="text/event-stream", headers=headers)

    async def _texts(self) -> AsyncIterator[str]:
        self._open += 1
        try:
            before: Seen = {}
            quiet, ready = 0.0, False
            while True:
                now = seen(self._daemon)
                for name, value in changes(before, now):
                    yield event(name, value)
                    quiet = 0.0
                if not ready:
                    yield event("ready", {})
                    ready = True
                if quiet >= ALIVE:
                    yield ": alive\n\n"
                    quiet = 0.0
                before = now
                await trio.sleep(EVERY)
                quiet += EVERY
        finally:
            self._open -= 1


def event(name: str, value: object) -> str:
    """Return one event as it is sent. JSON has no line breaks outside of strings, and escapes them inside."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"


def changes(before: Seen, now: Seen) -> Iterator[tuple[str, Any]]:
    """Return the events between two looks. A motion that is open no more has ended."""
    for key, value in now.items():
        if before.get(key) != value:
            yield key[0], value
    for key in before.keys() - now.keys():
        if key[0] == "motion":
            yield "motion", {**before[key], "open": False}


def seen(daemon: Daemon) -> Seen:
    """Return what events are about. Called on the daemon's own thread, so it only reads what is at hand."""
    core: NodeState = daemon.core
    ledger, context = core.ledger, context_of(daemon)
    state: dict[tuple[str, str], Any] = {}
    block: BlockEvent = {"height": ledger.height}
    state["block", ""] = block
    for name, c in sorted(ledger.components.items()):
        certified = c.certified.round if c.certified is not None and c.certified.generation == c.generation else None
        about: RoundEvent = {
            "component": name,
            "round": c.round,
            "generation": c.generation,
            "certified_round": certified,
        }
        state["round", name] = about
    neighbours = daemon.network.neighbours()
    for key in sorted(ledger.members):
        if key != core.me:
            peer: PeerEvent = {"member": context.member(key), "connected": key in neighbours}
            state["peer", key.hex()] = peer
    for opened in ledger.roll.motions:
        motion: MotionEvent = {
            "motion": opened.digest.hex(),
            "what": sentence(context, opened),
            "yes": len(opened.yes),
            "no": len(opened.no),
            "open": True,
        }
        state["motion", opened.digest.hex()] = motion
    settled = all(
        (c.generation == 0 or (c.certified is not None and c.certified.generation == c.generation)) and not c.erasures
        for c in ledger.components.values()
    )
    for number, each_ in enumerate(ledger.withdrawn):
        withdrawal: WithdrawalEvent = {
            "member": context.member(each_.author),
            "what": scope(each_),
            "height": each_.height,
            "settled": settled,
        }
        state["withdrawal", str(number)] = withdrawal
    run = core.run
    learner: LearnerEvent = {"state": daemon.learner.state, "run": None if run is None else run.number}
    state["learner", ""] = learner
    return state
