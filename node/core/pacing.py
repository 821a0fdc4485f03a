"""The charter's start and its pace, the least time between two closes of one component, by this node's own clock.

No clock is agreed on. Each node times a component's rest from the moment at which it decided the last close. Until the
rest is over it trains no next round, proposes no close of it and judges none timely. A close needs a quorum of
prevotes, so the clocks of a quorum less the faulty members must allow it
(docs/adr/0020-a-pace-by-each-nodes-own-clock.md).
"""

from . import events as ev
from .state import NodeState
from .timers import PaceDue


def begin(state: NodeState, name: str, passed: int = 0) -> None:
    """Let a component rest: its last round closed `passed` milliseconds ago."""
    _wait(state, name, state.charter.rules.pace - max(0, passed))


def _wait(state: NodeState, name: str, left: int) -> None:
    state.resting.pop(name, None)
    if left > 0:
        state.resting[name] = state.now + left
        state.emit(ev.SetTimer(PaceDue(name), left))  # in place of an earlier one: a catch-up sets one for each close


def end(state: NodeState, name: str) -> None:
    """The timer ended: the component may close a round, unless it closed meanwhile and rests again."""
    _wait(state, name, state.resting.get(name, 0) - state.now)


def recall(state: NodeState, snapshot: ev.Snapshot) -> None:
    """When a node starts: let each component rest for the remaining time, before its first round until the start."""
    for name, component in state.ledger.components.items():
        if component.rounds:
            begin(state, name, snapshot.ages.get(component.rounds[-1].height, 0))
        else:
            _wait(state, name, 1000 * state.charter.rules.start - snapshot.clock)
