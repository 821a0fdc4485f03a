"""`collegium unlearn audit`: traces of a member after each way to unlearn, in a simulated federation."""

from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_SEED
from .files import check_picture, write_new
from .options import ForceOption, JsonOption
from .output import emit, progress, table

COLUMNS = (
    "model",
    "seconds",
    "own, trained on",
    "own, held out",
    "others",
    "RMIA AUC",
    "TPR",
    "LiRA AUC",
    "TPR",
    "canaries' AUC",
    "loss",
    "references'",
    "exposure",
    "L2",
    "max |Δp|",
)


def audit(
    dataset: Annotated[str, typer.Option(help="digits, or oulad (found by COLLEGIUM_DATA).")] = "digits",
    member: Annotated[str | None, typer.Option(metavar="NAME", help="The member that withdraws.")] = None,
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="Until the withdrawal.")] = 12,
    joined: Annotated[
        int | None, typer.Option(min=1, max=1000, help="The member's first round [a third of the rounds later].")
    ] = None,
    recovery: Annotated[int, typer.Option(min=0, max=1000, help="Rounds after the refold.")] = 5,
    shadows: Annotated[int, typer.Option(min=0, max=1000, help="Shadow federations of the guesses; 0: none.")] = 8,
    epsilon: Annotated[str, typer.Option(help="inf (no noise), or each student's budget at δ = 1e-5.")] = "inf",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of data, first weights, draws and noise.")] = 1,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Also draw it there.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Learner processes.")] = 2,
    fault: Annotated[
        str | None,
        typer.Option("--fault", metavar="NAME", help="Leave a step out; the audit has to show it.", hidden=True),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure traces of a withdrawn member after refold, rewind and retraining. A simulation: no network, no home."""
    from ..sims.forget import audit as forget
    from ..sims.forget.plot import draw

    if plot is not None:
        check_picture(plot, ".png", force=force)
    request = forget.Request(dataset, member, rounds, joined, recovery, shadows, _epsilon(epsilon), seed, fault)
    with progress(as_json) as step:
        report = forget.audit(request, workers=workers, progress=step)
    if plot is not None:
        write_new(plot, [draw(report)], force=force)
        report["plot"] = str(plot)
    emit(report, as_json, lambda out: _people(out, report))


def _epsilon(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0.0:
        raise UsageError(f"--epsilon {text!r} is no ε", "Write inf, or a number above 0.")
    return inf if value == inf else value


def _people(out: Any, report: dict[str, Any]) -> None:
    epsilon = "no noise" if report["epsilon"] is None else f"ε = {report['epsilon']:g} at δ = {report['delta']:g}"
    unit = report["unit"]
    out.print(
        f"A SIMULATION on {report['dataset']}: {report['institutions']} institutions, {report['rounds']} rounds,"
        f" {report['member']} from round {report['joined']} on, then withdrawn; {epsilon}; seed {report['seed']}"
    )
    rows = [
        (
            row["model"],
            f"{row['seconds']:.3f}",
            *(f"{row[key]:.3f}" for key in ("own_trained", "own_held_out", "others")),
            *(text for key in ("rmia", "lira") for text in _guess(row[key])),
            interval(row["canaries"]),
            f"{row['canaries']['loss']:.2f}",
            f"{row['canaries']['reference_loss']:.2f}",
            f"{row['canaries']['exposure']:.2f}",
            f"{row['weights_apart']:.3f}",
            f"{row['probabilities_apart']:.3f}",
        )
        for row in report["models"]
    ]
    table(out, COLUMNS, rows, empty="")
    out.print(
        f"own, others: {report['metric']} on the member's {unit}s and on everybody else's held-out ones."
        f"{_about_guesses(report)} Canaries: {report['planted']} mislabelled {unit}s against"
        f" {report['references']} that were never planted, by how much likelier the wrong label is than in a model that"
        f" never saw the member; exposure in bits, {report['chance_exposure']:.2f} by chance; loss of both. An AUC"
        " below 0.5 is as informative as one above. L2 of the weights, and the largest difference of a probability on"
        " the test set, to the retrained model."
    )
    groups = [
        (row["model"], name, *(_share(found[key]) for key in ("missed", "falsely_flagged", "auc")))
        for row in report["models"]
        for name, found in row["groups"].items()
    ]
    if groups:
        table(out, ("model", "group", "missed", "falsely flagged", "AUC"), groups, empty="")
        out.print(
            "Groups of everybody else's held-out students: at risk and not flagged under .5; not at risk and flagged."
        )
    out.print("What remains:")
    for row in report["models"]:
        out.print(f"  {row['model']}: {row['remains']}.")


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _about_guesses(report: dict[str, Any]) -> str:
    if not report["shadows"]:
        return " Nobody's membership was guessed: there are no shadow federations."
    allowed, unit = report["models"][0]["rmia"]["false_positives_allowed"], report["unit"]
    return (
        f" RMIA, LiRA: {report['members']} {unit}s of the member that were trained on against {report['non_members']}"
        f" that were not, {report['shadows']} shadow federations; AUC with a 95 % interval, TPR at 1 % FPR, here"
        f" {allowed} of {report['non_members']} non-members."
    )


def _guess(guess: Any) -> tuple[str | None, str | None]:
    return (None, None) if guess is None else (interval(guess), f"{guess['tpr_at_1_percent']:.3f}")


def interval(guess: Any) -> str:
    """Return an AUC with its interval."""
    return f"{guess['auc']:.2f} [{guess['low']:.2f}, {guess['high']:.2f}]"
