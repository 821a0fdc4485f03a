"""What follows at this node when the charter changes (G10): parts that open, that retire, runs under an older recipe.

The fold puts an amendment in force (consensus/fold.py step 8). The core then holds and trains what it held before, less
what is retired, and asks the shell which of the new components this institution has data for (`Amended`). The answer is
`Configured`.
"""

from dataclasses import replace

from ...consensus.components import origin
from ...consensus.ledger import Ledger
from ...protocol.charter import Charter
from ...protocol.components import state_digest
from . import events as ev
from .state import NodeState, Options


def begin(state: NodeState) -> None:
    """Note the first states of the held components."""
    for name in state.held:
        state.bases[name, 0, 0] = state_digest(name, origin(state.specs[name]))


def note(state: NodeState, before: Ledger) -> None:
    """After a block: take over the charter in force, if this block changed it."""
    old, new = before.charter, state.charter
    if new is old:
        return
    state.notice(
        "charter-amended",
        "warning",
        number=new.number,
        height=state.ledger.height,
        charter=new.digest,
        opened=sorted(new.specs.keys() - old.specs.keys()),
        retired=sorted(new.retired - old.retired),
    )
    run = state.run
    if run is not None and (_recipe(old) != _recipe(new) or any(r.component in new.retired for r in run.recipes)):
        # It was trained as the older charter says: no header may call it a run of this one. Its cost stays spent.
        state.notice("training-void", "warning", run=run.number, charter=new.number)
        state.run = None
    arrange(state, state.options)
    state.emit(ev.Amended(new))


def _recipe(charter: Charter) -> tuple[int, int]:
    return charter.learning.steps, charter.learning.sample_rate


def arrange(state: NodeState, options: Options) -> None:
    """Hold and train by these options, under the charter in force."""
    before = dict(state.refused_here)
    state.arrange(options)
    begin(state)
    state.evaluated = ()
    if state.refused_here != before:
        tell(state)


def tell(state: NodeState) -> None:
    """Say which components that an amendment opened this node takes no part in, by its own policy."""
    for name, reason in state.refused_here.items():
        state.notice("component-refused", "warning", component=name, reason=reason)


def on_configured(state: NodeState, event: ev.Configured) -> None:
    """Take the shell's answer: what is hosted and trained here from now on. The learner opens it."""
    plan = replace(state.options.plan, policies=event.policies)
    options = replace(state.options, hosted=event.hosted, followed=event.followed, idle=event.idle, plan=plan)
    arrange(state, options)
    state.emit(ev.OpenLearner())
