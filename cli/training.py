"""The wait and the report of `node start`: whether this node's learner can train, and on what data."""

import time
from typing import TYPE_CHECKING, TypedDict

from ..crypto.errors import CollegiumError, UnreachableError
from ..node.words import counted
from .output import say
from .read import charter_in_force

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.home.paths import Home
    from ..node.views.shapes import LearnerGlance, LiveShown, NodeStatus, TrainingShown

CANNOT_TRAIN = 8  # the exit code of a daemon that runs and cannot train
PATIENCE = 2.0  # seconds after which progress is shown
AGAIN = 10.0  # seconds between two lines of it
WAITS = "nothing yet: this node waits to be admitted. The members decide; ask the one that invited you"
SETTLED = ("ready", "training", "off", "failed", "waiting")


class Coverage(TypedDict):
    """Modalities or tasks of the charter that a data folder has and lacks, and its own that the charter has not."""

    has: list[str]
    lacks: list[str]
    unused: list[str]


class Started(TypedDict):
    """What `node start` says of a daemon that answers."""

    running: bool
    pid: int
    home: str
    log: str
    trains: bool
    learner: "LearnerGlance"
    data: dict[str, Coverage] | None
    training: "TrainingShown"
    unmatched: list[str]
    older: list[str]
    paused: list[str]
    quiet: list[str]
    is_member: bool
    gone: str | None


def wait_for_learner(home: "Home", seconds: float) -> "tuple[NodeStatus, LiveShown]":
    """Wait until the running daemon's learner is ready or has failed; return the status view and its live facts.

    After `seconds` the present view is returned. Raises UnreachableError if the daemon has ended.
    """
    from ..node.control.client import Client
    from ..node.home.lock import running
    from ..node.views import under_way

    client, begun, shown = Client(home), time.monotonic(), 0.0
    status: NodeStatus | None = None
    while True:
        now = time.monotonic() - begun
        try:
            status = client.status()
        except UnreachableError:  # it restarts, with data that came; or it has ended
            if running(home) is None or (status is None and now > seconds):
                raise
        live = None if status is None else status["live"]
        if status is not None and live is not None:
            learner = live["learner"]
            if (learner["state"] in SETTLED and not _asks_others(status, live)) or now > seconds:
                return status, live
            if learner["state"] not in SETTLED and now > PATIENCE and now > shown + AGAIN:
                shown = now
                far = under_way(learner)
                say(f"the learner opens the data{f': {far}' if far else ''} …")
        time.sleep(0.2)


def _asks_others(status: "NodeStatus", live: "LiveShown") -> bool:
    """Whether enough members are connected to report their records of this node, and some have not reported yet."""
    enough = len(live["connected"]) >= status["federation"]["quorum"] - 1
    return status["is_member"] and enough and not live["signing"]


def coverage(home: "Home") -> dict[str, Coverage] | None:
    """Return the charter's modalities and tasks that the data folder has and lacks, and those not in the charter.

    None without a data folder, or while its dataset.toml cannot be read, which the learner reports.
    """
    from ..node.data.manifest import read_manifest
    from ..node.home import config as settings

    folder = settings.load(home.config).data.path
    if folder is None:
        return None
    try:
        data = read_manifest(folder)
    except CollegiumError:
        return None
    learning = charter_in_force(home).learning
    sides = {
        "modalities": (
            {modality.name for modality in learning.modalities},
            {modality.name for modality in data.modalities},
        ),
        "tasks": ({task.name for task in learning.tasks}, {task.name for task in data.tasks}),
    }
    return {
        what: {"has": sorted(asked & here), "lacks": sorted(asked - here), "unused": sorted(here - asked)}
        for what, (asked, here) in sides.items()
    }


def trained(status: "TrainingShown") -> str:
    """Return in words what a node trains, and reasons for the other hosted components; `status`: its `training`."""
    reasons: dict[str, int] = {}
    for entry in status["idle"]:
        reasons[entry["meaning"]] = reasons.get(entry["meaning"], 0) + 1
    count = len(status["trained"])
    parts = [counted(count, "component")] if count else []
    waits: dict[str, int] = {}
    for waiting in status["waiting"]:
        waits[waiting["why"]] = waits.get(waiting["why"], 0) + 1
    parts += [f"{'it waits' if count == 1 else f'{n} of them wait'}: {why}" for why, n in waits.items()]
    parts += [f"{'not ' + str(n) if count else 'nothing'}: {why}" for why, n in reasons.items()]
    return "; ".join(parts) or "nothing is hosted here"


def tell(out: "Console", started: Started) -> None:
    """Print the report of `node start`: the data to train on, missing data, and problems."""
    learner, data = started["learner"], started["data"]
    if learner["state"] == "off":
        out.print("no data folder is configured: this node votes and folds, and trains nothing")
    elif learner["state"] == "starting":
        out.print("the learner still opens the data: `collegium node status` says when it can train")
    elif not problem(started):
        out.print(f"the learner is ready on {learner['device'] or 'its device'}")
        out.print(f"training: {trained(started['training']) if started['is_member'] else WAITS}")
    for what, sides in (data or {}).items():
        out.print(f"{what}: {listed(sides['has']) or 'none of the charter'}")
        if sides["lacks"]:
            out.print(f"  not in this data folder: {listed(sides['lacks'])}")
        if sides["unused"]:
            out.print(f"  in it, but not in the charter: {listed(sides['unused'])}")
    for name, records in learner["cut_texts"].items():
        out.print(
            f"warning: of {counted(records, 'record')} only the beginning of {name!r} is read; the rest is cut"
            " (docs/data.md)"
        )
    if learner["left_out"]:
        left = counted(learner["left_out"], "student is", "students are")
        out.print(f"warning: {left} left out: `collegium data check` says why")
    for note in started["quiet"]:
        out.print(f"note: {note}")
    for warning in (*learner["warnings"], *started["unmatched"], *started["older"], *started["paused"]):
        out.print(f"warning: {warning}")


def listed(names: list[str]) -> str:
    """Return names for people."""
    return ", ".join(names)


def problem(started: Started) -> str:
    """Return the reason why a running daemon cannot train, or ""."""
    learner = started["learner"]
    if learner["state"] == "waiting":
        return f"the data folder is not there: {learner['detail']}. It is looked for again, no restart is needed"
    return f"the learner failed: {learner['detail']}" if learner["state"] == "failed" else ""
