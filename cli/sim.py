"""`collegium sim`: play scenarios on a simulated network with a virtual clock. No daemon, no data, no home."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_INSTITUTIONS, MAX_SEED
from .files import check_folder
from .options import JsonOption
from .output import emit, progress, table

if TYPE_CHECKING:
    from ..sims.scenarios.play import Outcome
    from ..sims.scenarios.scenario import Scenario
    from ..sims.scenarios.seeds import Failure

app = typer.Typer(help="Play scenarios: faults, liars and partitions, on a virtual clock.", no_args_is_help=True)
MAX_LISTED = 200  # above this number of runs only the broken ones are listed
MAX_MINIMISED = 3  # failures shown in full; of others only scenario, seed and promise


def _sims(name: str) -> Any:
    # By name: `--help` must not wait for numpy.
    return importlib.import_module(f"collegium.sims.scenarios.{name}")


@app.command("run")
def run(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="A file (*.toml), the name of a shipped scenario, or all.")
    ],
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MAX_SEED, metavar="N", help="One seed [1].")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="A..B", help="Every seed from A to B.")] = None,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", min=1, max=MAX_INSTITUTIONS, metavar="N", help="Number of nodes [the scenario's]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the shortest failing scenarios there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play a scenario; exit 1 if a promise breaks, with the seed and the shortest scenario that still breaks it.

    Ctrl-C ends it with the results so far.
    """
    running, reading = _sims("seeds"), _sims("loading")
    if seed is not None and seeds is not None:
        raise UsageError("--seed and --seeds cannot both be given", "Give one of them.")
    if out is not None:
        check_folder(out)
    numbers = running.read_seeds(seeds) if seeds is not None else [1 if seed is None else seed]
    scenarios: dict[str, Scenario] = {}
    for name in running.chosen(scenario):
        loaded = reading.load(name, nodes)
        scenarios[loaded.name] = loaded
    jobs = [(played, number) for number in numbers for played in scenarios.values()]
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    interrupted = False
    totals = {"runs": 0, "steps": 0, "heights": 0, "virtual_ms": 0}
    with progress(as_json) as step:
        try:
            for outcome in running.run(jobs, step):
                totals["runs"] += 1
                for key in ("steps", "heights", "virtual_ms"):
                    totals[key] += getattr(outcome, key)
                if len(jobs) <= MAX_LISTED or not outcome.held:
                    outcomes.append(outcome)
            for broken_one in _broken(outcomes)[:MAX_MINIMISED]:
                failures.append(running.explain(scenarios[broken_one.scenario], broken_one, out, step))  # noqa: PERF401 - Ctrl-C
        except KeyboardInterrupt:
            interrupted = True
    broken = _broken(outcomes)
    shortened = [
        {
            **_outcome(failure.outcome),
            "shortest": failure.text,
            "file": failure.file or None,
            "shows": failure.shortest.what,
            "command": failure.command,
        }
        for failure in failures
    ]
    as_they_are = [
        {
            **_outcome(failed),
            "shortest": None,
            "file": None,
            "shows": failed.what,
            "command": running.replay(failed.scenario if scenario == running.ALL else scenario, nodes, failed.seed),
        }
        for failed in (broken[len(failures) :] if interrupted else ())
    ]
    answer = {
        "held": not broken and not interrupted,
        "interrupted": interrupted,
        "asked": len(jobs),
        **totals,
        "outcomes": [_outcome(outcome) for outcome in sorted(outcomes, key=_place)],
        "failures": shortened + as_they_are,
    }
    emit(answer, as_json, lambda console: _people(console, answer, len(broken)))
    if interrupted:
        raise typer.Exit(130)
    raise typer.Exit(1 if broken else 0)


def _place(outcome: "Outcome") -> tuple[str, int]:
    return outcome.scenario, outcome.seed


def _broken(outcomes: "Sequence[Outcome]") -> "list[Outcome]":
    return sorted((outcome for outcome in outcomes if not outcome.held), key=_place)


def _outcome(outcome: "Outcome") -> dict[str, object]:
    return {
        "scenario": outcome.scenario,
        "seed": outcome.seed,
        "held": outcome.held,
        "promise": outcome.promise or None,
        "what": outcome.what or None,
        "heights": outcome.heights,
        "virtual_ms": outcome.virtual_ms,
        "steps": outcome.steps,
        "trace": outcome.trace,
    }


def _people(console: Any, answer: dict[str, Any], broken: int) -> None:
    rows = [
        (
            outcome["scenario"],
            outcome["seed"],
            outcome["promise"] or "held",
            outcome["heights"],
            f"{outcome['virtual_ms'] / 1000:.1f} s",
            outcome["trace"][:12],
        )
        for outcome in answer["outcomes"]
    ]
    if rows:
        table(console, ("scenario", "seed", "outcome", "heights", "virtual", "trace"), rows, empty="")
    for failure in answer["failures"]:
        where = f"{failure['scenario']} with seed {failure['seed']}"
        console.print(f"\n{failure['promise']} breaks in {where}: {failure['what']}")
        if failure["shortest"] is None:
            console.print("Replay it:")
        elif failure["file"]:
            console.print(f"The shortest scenario that still does is in {failure['file']}; replay it:")
        else:
            console.print(f"The shortest scenario that still does (save it as {failure['command'].split()[3]}):\n")
            console.print(failure["shortest"])
            console.print("Replay it:")
        console.print(f"  {failure['command']}")
    if answer["interrupted"]:
        console.print(f"\ninterrupted after {answer['runs']} of {answer['asked']} runs")
    console.print(
        f"\n{broken} of {answer['runs']} runs broke a promise"
        if broken
        else f"\nall promises held in {'these ' if answer['interrupted'] else ''}{answer['runs']} runs: "
        f"{answer['heights']} heights, {answer['steps']} steps"
    )


@app.command("list")
def list_scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios that come with the package."""
    lines = [
        {"name": scenario.name, "nodes": scenario.nodes, "rounds": scenario.rounds, "about": scenario.about}
        for scenario in _sims("seeds").catalogue()
    ]
    emit(
        lines,
        as_json,
        lambda console: table(
            console,
            ("name", "nodes", "rounds", "about"),
            [(line["name"], line["nodes"], line["rounds"], line["about"]) for line in lines],
            empty="none",
        ),
    )


app.command("ls", hidden=True)(list_scenarios)
