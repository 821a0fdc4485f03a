"""`collegium privacy audit`: try to refute the ε that this package claims, on its own training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import OperatorError, UsageError
from .options import JsonOption
from .output import emit, say, table

if TYPE_CHECKING:
    from ..node.learner.client import Worker

FAULTS = (
    "no-clip",
    "record-clip",
    "independent-draws",
    "no-sampling",
    "shared-prompt",
    "seeded-noise",
    "batch-divisor",
)
MEANS = {"guesses": "guesses", "exact": "recount of the draws", "assertion": "the training refuses it"}


def audit(
    fault: Annotated[
        str | None, typer.Option("--fault", metavar="NAME", help="Plant a mistake and look for it.", hidden=True)
    ] = None,
    all_faults: Annotated[
        bool, typer.Option("--all-faults", help="Also plant known mistakes one by one: each has to be found.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Audit DP-SGD with canary students: their guessed presence bounds ε below, which must stay below the claim."""
    if fault is not None and fault not in FAULTS:
        raise UsageError(f"unknown fault {fault!r}", f"Known: {', '.join(FAULTS)}.")
    with _learner() as learner:
        if fault is not None:
            caught = _ask(learner, fault)
            emit(caught, as_json, lambda out: _people(out, caught))
            raise typer.Exit(1 if caught["caught"] else 0)
        honest = _ask(learner, None)
        seeded = [_ask(learner, name) for name in FAULTS] if all_faults else []
    passed = not honest["caught"] and all(run["caught"] for run in seeded)
    answer = honest | {"passed": passed} | ({"faults": seeded} if all_faults else {})

    def people(out: Any) -> None:
        _people(out, honest)
        if seeded:
            out.print()
            table(out, ("planted mistake", "claimed ε", "ε at least", "caught by", "seconds"), _rows(seeded), empty="")
            missed = [run["fault"] for run in seeded if not run["caught"]]
            out.print(f"not caught: {', '.join(missed)}" if missed else "all of them were caught")

    emit(answer, as_json, people)
    if not passed:
        raise typer.Exit(1)


def _rows(seeded: Sequence[Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for report in seeded:
        (finding,) = report["findings"]
        means = ", ".join(MEANS[name] for name in report["caught"]) or "nothing"
        name = f"{report['fault']}: {report['about']}"
        rows.append((name, f"{finding['claimed']:.2f}", f"{finding['audited']:.2f}", means, f"{report['seconds']:.1f}"))
    return rows


def _people(out: Any, report: Any) -> None:
    columns = ("probe", "claimed ε", "ε at least", "provable", "guesses", "correct", "canaries", "seconds", "verdict")
    rows = [
        (
            f["probe"],
            f"{f['claimed']:.2f}",
            f"{f['audited']:.2f}",
            f"{f['provable']:.2f}",
            f["guesses"],
            f["correct"],
            f["canaries"],
            f"{f['seconds']:.1f}",
            "refuted" if f["refuted"] else "holds",
        )
        for f in report["findings"]
    ]
    table(out, columns, rows, empty="")
    level = f"{100 * report['confidence']:g} % confidence over all probes, δ = {report['findings'][0]['delta']:g}"
    if report["fault"] is None:
        verdict = (
            "A CLAIM IS REFUTED: do not publish updates of this build" if report["caught"] else "every claim holds"
        )
    elif report["caught"]:
        means = ", ".join(MEANS[name] for name in report["caught"])
        verdict = f"planted mistake found ({report['fault']}: {report['about']}), by: {means}"
    else:
        verdict = f"the planted mistake was NOT found ({report['fault']}: {report['about']})"
    out.print(f"{verdict} ({level})")


def _ask(learner: "Worker", fault: str | None) -> dict[str, Any]:
    from ..node.learner.messages import Audit

    say(f"auditing {'the training as it is' if fault is None else f'with a planted mistake: {fault}'} …")
    return asdict(learner.ask(Audit(fault)))


@contextmanager
def _learner() -> Iterator["Worker"]:
    """Run a worker: training needs torch, which no command imports."""
    from ..node.learner.client import AUDITING, process

    try:
        with process(AUDITING) as learner:
            yield learner
    except OperatorError as error:
        raise OperatorError(f"the audit failed: {error.message}", error.advice) from error
