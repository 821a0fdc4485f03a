"""`collegium node pause` and `resume`: an operator stops this node's training for a while."""

from typing import TYPE_CHECKING, Any

from .options import HomeOption, JsonOption, existing_home
from .output import emit

if TYPE_CHECKING:
    from ..node.home.paths import Home

UNDER_WAY = "A training run was under way: its cost is spent already, so it ends, and its update is sent."


def pause(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Train nothing, and spend nothing, until `node resume`, across restarts; it votes and folds meanwhile."""
    change = _set(existing_home(home), on=True)

    def people(out: Any) -> None:
        out.print("was paused already" if change["was"] else "paused: this node trains nothing until `node resume`")
        if change["training"]:
            out.print(UNDER_WAY)
        if not change["running"]:
            out.print("No daemon runs: the next start of it is paused.")

    emit({**change, "paused": True}, as_json, people)


def resume(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Train again after `node pause`."""
    change = _set(existing_home(home), on=False)

    def people(out: Any) -> None:
        out.print("resumed: this node trains again" if change["was"] else "nothing to resume: this node was not paused")
        if not change["running"]:
            out.print("No daemon runs: start it by `collegium node start`.")

    emit({**change, "paused": False}, as_json, people)


def _set(home: "Home", *, on: bool) -> dict[str, bool]:
    """Tell the daemon, or write it into the files where none runs; return what was before."""
    from ..node.control.client import Client
    from ..node.core.events import PutFlag
    from ..node.core.state import PAUSED_FLAG
    from ..node.home.lock import hold, running
    from ..node.store.database import Store
    from ..node.verify import read_charter

    if running(home) is not None:
        answer = Client(home).set_paused(on=on)
        return {"was": answer["was"], "training": on and answer["training"], "running": True}
    charter, _ = read_charter(home.charter)
    with hold(home), Store.open(home.database, charter.federation) as store:
        was = bool(store.flags().get(PAUSED_FLAG, 0))
        if was != on:
            store.apply([PutFlag(PAUSED_FLAG, int(on))])
    return {"was": was, "training": False, "running": False}
