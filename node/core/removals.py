"""Whether this node contributes, is paused or rests, and what it does if its home lost the list of removed students."""

from ...protocol.records import WithdrawalStatement
from . import events as ev
from .state import PAUSED_FLAG, REMOVALS_UNKNOWN, NodeState


def set_contributing(state: NodeState, on: bool) -> None:
    """Switch this node's contributions on or off, across restarts."""
    state.contributing = on
    state.emit(ev.Persist(ev.PutFlag("contributing", int(on))))


def set_paused(state: NodeState, on: bool) -> None:
    """Pause this node's training or let it go on, across restarts.

    A training run that goes on is not stopped: its cost is on the disk already, so its update may as well count.
    """
    if state.paused != on:
        state.paused = on
        state.emit(ev.Persist(ev.PutFlag(PAUSED_FLAG, int(on))))
        state.notice("paused" if on else "resumed")


def set_quiet(state: NodeState, on: bool) -> None:
    """Begin or end this node's quiet hours. As in a pause, a training run that goes on is not stopped."""
    if state.quiet != on:
        state.quiet = on
        state.notice("quiet-hours-begin" if on else "quiet-hours-end")


def recalled(state: NodeState, statement: WithdrawalStatement) -> None:
    """Take an own withdrawal that this disk lacked: the home was set back to before it, or its disk was lost.

    After a withdrawal of everything this node stops contributing, as before. One of single updates or rounds may have
    been for a student (`unlearn subject`), whom the home then no longer leaves out: nothing is trained until the
    operator confirms that this is mended.
    """
    if statement.mode != "refold":
        return
    if statement.scope == "all":
        set_contributing(state, False)
    elif statement.scope in ("updates", "rounds") and not state.removals_unknown:
        state.removals_unknown = True
        state.run = None
        state.emit(ev.Persist(ev.PutFlag(REMOVALS_UNKNOWN, 1)))
        state.notice("removals-unknown", "warning")


def resume(state: NodeState) -> None:
    """Train again: all removed students are left out again."""
    if state.removals_unknown:
        state.removals_unknown = False
        state.emit(ev.Persist(ev.PutFlag(REMOVALS_UNKNOWN, 0)))
        state.notice("training-resumed")
