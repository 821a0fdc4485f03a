"""`collegium ledger blame` and `ledger influence`: contributors to a state, and the state without one of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_SEED
from .files import check_picture, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import emit, progress, say, table

if TYPE_CHECKING:
    from ..consensus.components import State
    from ..node.home.paths import Home
    from ..node.learner.answers import Figure
    from ..node.provenance import Coalitions, Figures, Removal, Shapley, Worth
    from ..node.verify import Component, Model

LOCAL = (
    "computed from this institution's own held-out students under no privacy budget: it is for this house alone, and"
    " publishing it, or acting on it visibly, reveals facts about them"
)
MAX_SAMPLES = 100_000
Component_ = Annotated[str, typer.Argument(metavar="COMPONENT", help="As `component list` names it.")]


def blame(
    component: Component_,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png|html", help="Also draw the shares there.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the contributors to a component's state now: rounds, shares, ε, staleness, what was refused and why."""
    from ..node.provenance import home_blame
    from ..node.provenance.plot import COLUMNS, html, png, row

    node_home = _home_that_ran(existing_home(home))
    if plot is not None:
        check_picture(plot, ".png", ".html", force=force)
    with progress(as_json) as step:
        report = home_blame(node_home, component, progress=step)
    if plot is not None:
        write_new(plot, [png(report) if plot.suffix == ".png" else html(report).encode()], force=force)
        report["plot"] = str(plot)

    def people(out: Any) -> None:
        out.print(
            f"{component}: round {report['round']}, generation {report['generation']}, rule {report['rule']}, at height"
            f" {report['height']}; {report['rounds_folded']} rounds move the state"
        )
        table(out, COLUMNS, [row(member) for member in report["members"]], empty="Nobody is a member.")
        out.print(f"weight: {report['weight_is']}")
        names = {member["key"]: member["name"] for member in report["members"]}
        for tensor in report["tensors"]:
            out.print(
                f"{tensor['tensor']}: institutions differ by τ² {tensor['tau2']:.3g} a number and round, beside noise"
                f" of {tensor['least_noise']:.3g} to {tensor['most_noise']:.3g}; weights "
                + ", ".join(f"{names[m['key']]} {m['weight_share']:.1%}" for m in tensor["members"])
            )
        lacking = report["updates_without_bytes"]
        if lacking:
            out.print(
                f"The bytes of {lacking} counted updates are not on this disk (it joined late, or does not hold the"
                " component): the squared norm is of the others"
                + (
                    "."
                    if report["rounds_weighed"] == report["rounds_folded"]
                    else f", the weight of {report['rounds_weighed']} of {report['rounds_folded']} rounds."
                )
            )

    emit(report, as_json, people)


def influence(
    component: Component_,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", metavar="P", help="Leave out this member; may be repeated.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Leave out every counted member, one at a time.")] = False,
    samples: Annotated[
        int, typer.Option("--shapley", metavar="N", min=0, max=MAX_SAMPLES, help="Also Shapley values, N samples.")
    ] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="Cut a sample short where every figure is this near to everybody's.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the samples.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refold a component without a member, and evaluate both states on this institution's own held-out data."""
    from ..node.provenance import coalitions_of, leave_one_out, most_coalitions, shapley
    from ..node.verify import Disk, home_model

    if not peer and not everybody and not samples:
        raise UsageError("Nobody is named", "Give --peer NAME (may be repeated), --all or --shapley N.")
    if samples == 1:
        raise UsageError("--shapley 1 has no standard error", "Ask for at least 2 samples; 100 is a beginning.")
    node_home = _home_that_ran(existing_home(home))
    with progress(as_json) as step:
        model = home_model(node_home, from_bytes=False, progress=step)
        part = _component_of(model, component)
        asked = _members(model, peer or [])
        c = model.report.ledger.components[component]
        coalitions = coalitions_of(
            model.report, part.spec, c, c.rounds[: part.round], Disk(node_home.blobs), progress=step
        )
        members = list(coalitions.players) if everybody else asked
        if samples and not as_json:
            most = most_coalitions(len(coalitions.players), samples)
            say(f"Shapley values of {len(coalitions.players)} members: up to {most} refolds, and as many evaluations")
        with _own_worth(node_home, model, part) as (tasks, worth):
            removals = leave_one_out(coalitions, members, worth)
            values = (
                shapley(coalitions, worth, samples=samples, seed=seed, tolerance=tolerance, progress=step)
                if samples
                else None
            )
    result = _result(model, part, tasks, coalitions, removals, values)
    if values is not None:
        result["shapley"] |= {"seed": seed, "tolerance": tolerance}
    emit(result, as_json, lambda out: _people(out, result))


def _home_that_ran(home: "Home") -> "Home":
    if not home.database.exists():
        raise UsageError(f"The node in {home.root} has never run", "Start it: collegium node start.")
    return home


def _component_of(model: "Model", component: str) -> "Component":
    """Return a component of this node with a closed round. Raises UsageError."""
    names = sorted(model.report.ledger.components)
    if component not in names:
        raise UsageError(f"There is no component {component!r}", f"Components are {', '.join(names)}.")
    if component not in model.components:
        advice = "Ask at a member whose data have a use for it: `peer list`."
        raise UsageError(f"{component} does not exist at this node: nothing here can be evaluated with it", advice)
    if not model.components[component].round:
        raise UsageError(f"No round of {component} is closed yet", "Wait for the first one: `round list`.")
    return model.components[component]


def _members(model: "Model", asked: list[str]) -> list[bytes]:
    """Return the present keys of the named members, each once. Raises UsageError."""
    from ..consensus.membership import present
    from ..node.views import member_named

    ledger = model.report.ledger
    keys = [present(ledger.roll, member_named(ledger, model.report.charter.name, who)) for who in asked]
    return list(dict.fromkeys(keys))


@contextmanager
def _own_worth(home: "Home", model: "Model", part: "Component") -> "Iterator[tuple[dict[str, Figure], Worth]]":
    """Run a learner; yield the tasks that it can evaluate, with metric and held-out subjects, and the evaluation.

    Other components keep their present states. Raises UsageError if no held-out subject has a usable label.
    """
    import numpy as np

    from ..node.learner.messages import EvaluateVariants
    from ..protocol.statistics import is_groups
    from .learners import own_learner

    states = {name: c.state.astype("<i4").tobytes() for name, c in model.components.items()}
    name = part.spec.name
    if is_groups(part.spec):
        raise UsageError(f"{name} predicts nothing: it is what members released of groups", "See `equity show`.")
    with own_learner(home, model, "Set [data] path: states are judged on its held-out subjects.") as learner:

        def ask(alternatives: "Sequence[State]") -> "tuple[dict[str, Figure], ...]":
            variants = tuple({name: state.astype("<i4").tobytes()} for state in alternatives)
            return learner.ask(EvaluateVariants(states, variants)).variants

        (now,) = ask([part.state])
        reached = model.report.charter.learning.judged_by(name)
        tasks = {task: now[task] for task in reached if task in now and now[task].value is not None}
        if not tasks:
            advice = "Hold some out ([split] in dataset.toml), of every class; `data check` tells how many there are."
            raise UsageError(f"No held-out subject here says how well {name} does", advice)
        yield (
            tasks,
            lambda alternatives: [np.array([reports[task].value for task in tasks]) for reports in ask(alternatives)],
        )


def _result(
    model: "Model",
    part: "Component",
    tasks: "dict[str, Figure]",
    coalitions: "Coalitions",
    removals: "Sequence[Removal]",
    values: "Shapley | None",
) -> dict[str, Any]:
    seats = model.report.ledger.roll.seats

    def member(key: bytes) -> dict[str, Any]:
        return {"name": seats[key].name, "key": key.hex()}

    def by_task(figures: "Figures") -> dict[str, float]:
        return {task: float(value) for task, value in zip(tasks, figures, strict=True)}

    return {
        "component": part.spec.name,
        "round": part.round,
        "generation": part.generation,
        "digest": part.digest.hex(),
        "tasks": {name: asdict(figure) for name, figure in tasks.items()},
        "left_out": [
            {
                **member(removal.member),
                "updates": removal.updates,
                "distance": removal.distance,
                "with": by_task(removal.with_it),
                "without": by_task(removal.without),
                "change": by_task(removal.without - removal.with_it),
            }
            for removal in removals
        ],
        "refolds": coalitions.refolds,
        "local": LOCAL,
    } | (
        {}
        if values is None
        else {
            "shapley": {
                "samples": values.samples,
                "truncated_steps": values.truncated,
                "members": [
                    {**member(key), "value": by_task(value), "standard_error": by_task(error)}
                    for key, value, error in zip(values.members, values.values, values.errors, strict=True)
                ],
            }
        }
    )


def _people(out: Any, result: dict[str, Any]) -> None:
    for name, task in result["tasks"].items():
        out.print(f"{name}: {task['metric']} {task['value']:.4f} on {task['n']} held-out subjects of this institution")
    rows = [
        (
            m["name"],
            m["updates"],
            f"{m['distance']:.3g}",
            task,
            f"{m['without'][task]:.4f}",
            f"{m['change'][task]:+.4f}",
        )
        for m in result["left_out"]
        for task in result["tasks"]
    ]
    columns = ("left out", "updates", "weights move by", "task", "without it", "change")
    if rows:
        table(out, columns, rows, empty="")
    if "shapley" in result:
        shapley = result["shapley"]
        values = [
            (m["name"], task, f"{m['value'][task]:+.4f}", f"{m['standard_error'][task]:.4f}")
            for m in shapley["members"]
            for task in result["tasks"]
        ]
        table(out, ("member", "task", "Shapley value", "standard error"), values, empty="")
        cut = f", {shapley['truncated_steps']} steps cut" if shapley["truncated_steps"] else ""
        out.print(f"{shapley['samples']} samples, seed {shapley['seed']}{cut}; {result['refolds']} refolds")
    say(f"note: {LOCAL}")
