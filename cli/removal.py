"""The price of a withdrawal, before it is asked for: the model's quality, ε of training again, the others' work."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ..crypto.errors import CollegiumError, OperatorError
from ..node.words import counted
from . import spent
from .output import Progress, progress, say, size

if TYPE_CHECKING:
    from ..consensus.components import Entry
    from ..node.home import Home
    from ..node.learner.answers import Figure
    from ..node.views import Context
    from ..node.views.shapes_membership import CostToOthers
    from ..node.views.shapes_privacy import RetrainingCost

MANY_COMPONENTS = 4  # more are counted, not named
METRICS = {"auc": "AUC", "r2": "R²"}
ADVICE = "Name a data folder ([data] path): states are judged on its held-out students."


class TaskPrice(TypedDict):
    """A task's figure on this node's own held-out students, now and after the refold."""

    task: str
    metric: str
    held_out: int
    now: float | None
    without: float | None


class Price(TypedDict):
    """The price of a removal: figures, or the reason why there are none, ε of the recovery rounds by modality, and what
    the other members do for it."""

    quality: list[TaskPrice]
    not_measured: str | None
    retraining: "list[RetrainingCost]"
    others: "CostToOthers"


def price(home: "Home", updates: Collection[bytes], *, quiet: bool) -> Price:
    """Measure at this node what the withdrawal of these updates costs; `quiet` shows no progress."""
    quality: list[TaskPrice] = []
    reason: str | None = None
    with progress(quiet) as step:
        try:
            quality = _quality(home, updates, step)
        except CollegiumError as error:
            reason = error.message if isinstance(error, OperatorError) else str(error)
    retraining, others = _retraining(home, updates)
    return {"quality": quality, "not_measured": reason, "retraining": retraining, "others": others}


def show(cost: Price) -> None:
    """Say it to the operator."""
    for line in lines(cost):
        say(line)


def lines(cost: Price) -> list[str]:
    """Return it in sentences."""
    from ..node.core.contribution import RECOVERY_ROUNDS

    sentences = []
    for task in cost["quality"]:
        metric = METRICS.get(task["metric"], task["metric"])
        values = [f"{value:.3f}" if value is not None else "undefined" for value in (task["now"], task["without"])]
        held_out = counted(task["held_out"], "held-out student")
        sentences.append(f"{task['task']}: {metric} {values[0]} now, {values[1]} without them ({held_out} here).")
    if cost["not_measured"] is not None:
        sentences.append(f"What it costs the shared model is not measured: {cost['not_measured']}.")
    for line in cost["retraining"]:
        budget = "no bound" if line["epsilon_budget"] is None else f"{line['epsilon_budget']:g}"
        fits = (
            ""
            if line["rounds"] >= RECOVERY_ROUNDS
            else f" The budget has only {line['rounds']} of these {RECOVERY_ROUNDS}."
        )
        sentences.append(
            f"The recovery rounds cost this node's {line['modality']}: ε {spent.shown(line['epsilon_now'])} now,"
            f" {spent.shown(line['epsilon_then'])} after them, of {budget}.{fits}"
        )
    return sentences + others(cost["others"])


def show_others(cost: "CostToOthers") -> None:
    """Say what the other members do for it, if it changes a state."""
    for line in others(cost):
        say(line)


def others(cost: "CostToOthers") -> list[str]:
    """Return in a sentence what the other members do for it; none if it changes no state."""
    if not cost["members"] or not cost["refold"]:
        return []
    parts = [f"{counted(part['rounds'], 'round')} of {part['component']}" for part in cost["refold"]]
    if len(parts) > MANY_COMPONENTS:
        rounds = sum(part["rounds"] for part in cost["refold"])
        parts = [f"{counted(rounds, 'round')} of {len(parts)} components"]
    who = "The other member" if cost["members"] == 1 else f"Each of the {cost['members']} other members"
    bytes_read = size(sum(part["bytes"] for part in cost["refold"]))
    return [
        f"{who} folds {', '.join(parts)} again ({bytes_read} of updates on its disk), and fetches about"
        f" {size(cost['recovery_bytes'])} of updates in the recovery rounds."
    ]


def of_request(home: "Home", scope: "Mapping[str, Any]") -> "CostToOthers":
    """Return what the other members do if this node withdraws a scope (cli/unlearn.py `parse_scope`)."""
    from ..consensus.membership import earlier
    from ..node import views
    from .read import from_store

    def read(context: "Context") -> "CostToOthers":
        me = context.me or b""
        own = {me, *earlier(context.ledger.roll, me)}
        prefixes = tuple(prefix.lower() for prefix in scope["updates"])

        def covered(component: str, number: int, entry: "Entry") -> bool:
            if entry.author not in own:
                return False
            if prefixes:
                return entry.update.hex().startswith(prefixes)
            named = not scope["components"] or component in scope["components"]
            return named and (not scope["first"] or scope["first"] <= number <= scope["last"])

        return views.cost_to_others(context, covered, scope["components"])

    return from_store(home, read)


def _quality(home: "Home", updates: Collection[bytes], step: Progress | None) -> list[TaskPrice]:
    """Refold all components without the updates, and compare the figures. Raises OperatorError where it cannot."""
    from ..node.learner.messages import EvaluateVariants
    from ..node.provenance import coalitions_of
    from ..node.verify import Disk, home_model
    from .learners import own_learner

    model, blobs = home_model(home, from_bytes=False, progress=step), Disk(home.blobs)
    refolded: dict[str, bytes] = {}
    for name, part in model.components.items():
        component = model.report.ledger.components[name]
        rounds = component.rounds[: part.round]
        if any(entry.update in updates for round_ in rounds for entry in round_.entries):
            frozen = coalitions_of(model.report, part.spec, component, rounds, blobs, progress=step)
            refolded[name] = frozen.state_without(updates).astype("<i4").tobytes()
    if not refolded:
        raise OperatorError("none of them is in a state that this node holds")
    states = {name: part.state.astype("<i4").tobytes() for name, part in model.components.items()}
    with own_learner(home, model, ADVICE) as learner:
        now, without = learner.ask(EvaluateVariants(states, ({}, refolded))).variants
    return [_compared(task, figure, without[task]) for task, figure in now.items()]


def _compared(task: str, now: "Figure", without: "Figure") -> TaskPrice:
    return {
        "task": task,
        "metric": now.metric,
        "held_out": now.n,
        "now": now.value,
        "without": without.value,
    }


def _retraining(home: "Home", updates: Collection[bytes]) -> "tuple[list[RetrainingCost], CostToOthers]":
    from ..node import views
    from ..node.core.contribution import RECOVERY_ROUNDS
    from ..node.home import config as settings
    from ..node.home.policies import policies
    from .read import from_store

    def read(context: "Context") -> "tuple[list[RetrainingCost], CostToOthers]":
        in_force = policies(settings.load(home.config), context.charter)
        others = views.cost_to_others(context, lambda _name, _number, entry: entry.update in updates)
        return views.retraining_cost(context, in_force, RECOVERY_ROUNDS), others

    return from_store(home, read)
