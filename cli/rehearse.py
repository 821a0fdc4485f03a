"""`collegium rehearse`: play a model file or a charter against simulated members; nothing is spent or sent."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..node.words import counted
from ..protocol.bounds import MAX_EPSILON, MAX_ROUNDS, MAX_SEED, MIN_EPSILON
from . import founding
from .drawing import EPSILON, Terms
from .options import HomeOption, JsonOption, home_of
from .output import emit, facts, progress, prose, say, size, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.learner.messages import LeftOut
    from ..protocol.learning import Learning, Pretrained
    from ..sims.rehearse.play import Plan

MEMBERS, MAX_MEMBERS, MAX_STUDENTS = 4, 64, 20_000
COMPARED = (1.0, 3.0, 8.0)  # the ε of the comparison
MIN_STUDENTS = 20  # that a member declares at least, unless a charter says otherwise (`charter create --min-students`)
LARGE = 100.0  # of an R² that diverged: no digits behind the point
NAMES = {"accuracy": "accuracy", "auc": "AUC", "r2": "R²"}
VERDICTS = {
    "better": "better than a constant",
    "within chance": "better than a constant by no more than chance",
    "no better": "NO better than a constant",
}
TEXT_START = 64  # bytes that show whether a file is text

SYNTHETIC = (
    "The records are synthetic, with a signal that can be learned. The figures say what this recipe's noise allows at"
    " the most. They are no forecast for real students."
)
REAL = (
    "This trains on the students of {folder}, and no ε is booked for it. Nothing leaves this machine. But whatever you"
    " then decide for the charter (ε, rounds, model, to join or not) tells the others something of these students,"
    " outside of what the accountant counts. Keep the figures in this house."
)
COPIES = (
    "The other members are simulated by the same students, each with draws and noise of its own. They bring no new"
    " students; those of real members differ from yours."
)


def rehearse(
    file: Annotated[
        Path, typer.Argument(metavar="MODEL_FILE|CHARTER", help="What `charter model` or `charter create` wrote.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Train on this data folder, not on synthetic records: read the warning."),
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, max=MAX_MEMBERS, help=f"Simulated members [the charter's, or {MEMBERS}].")
    ] = None,
    students: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_STUDENTS, help="Students that a member trains on [FILE's; with --data, its own]."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=MAX_ROUNDS, help="Rounds [FILE's, or 20; of a charter, at most its own].")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(min=MIN_EPSILON, max=MAX_EPSILON, help=f"ε of the recipe [the charter's, or {EPSILON:g}]."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of records, first weights, draws and noise.")] = 1,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rehearse a federation before it is founded: what its noise leaves of what is learned, and what more ε would buy.

    The daemon's own learner and rules play all rounds with simulated members, on synthetic records of the declared
    shape. No ε is spent, nothing is sent, and no home is needed. A home's [models], and the list of its removed
    students, are used if there is one.
    """
    from ..sims.rehearse import play

    plan = _plan(file, members, rounds, epsilon, seed)
    plan = _with_records(plan, data, students, home)
    if data is not None:
        say(f"warning: {REAL.format(folder=data)}")
    for warning in (warnings := _warnings(plan)):
        say(f"warning: {warning}")
    with progress(as_json) as step:
        report = play.rehearse(plan, step)
    about = SYNTHETIC if data is None else f"{REAL.format(folder=data)} {COPIES}"
    report = {**report, "about": about, "warnings": warnings}
    emit(report, as_json, lambda out: _show(out, report))


def _plan(file: Path, members: int | None, rounds: int | None, epsilon: float | None, seed: int) -> "Plan":
    """Return what a model file or a charter asks for. Raises UsageError."""
    if not file.is_file():
        advice = "Name a model file (`collegium charter model FOLDER > model.toml`), or a charter."
        raise UsageError(f"There is no file {file}", advice)
    with file.open("rb") as opened:
        start = opened.read(TEXT_START)
    if file.suffix == ".toml" or all(byte >= 0x20 or byte in b"\t\r\n" for byte in start):
        return _of_model(file, members, rounds, epsilon, seed)
    return _of_charter(file, members, rounds, epsilon, seed)


def _of_model(file: Path, members: int | None, rounds: int | None, epsilon: float | None, seed: int) -> "Plan":
    """Return the plan of what `charter create --model FILE` would draw up, with so many members."""
    from hashlib import sha256

    from ..node.blueprint.declare import read_model
    from ..sims.rehearse.play import Plan

    terms = Terms("rehearsal", None, file, epsilon, None, rounds, False, None, "byzantine", 60.0, "0", 0, 0, True)
    count, base_seed = members or MEMBERS, sha256(f"rehearsal {seed}".encode()).digest()
    specs, learning, typical = terms.parts(count, base_seed)
    folders = {folder.resolve().name: str(folder.absolute()) for folder in read_model(file).models}
    return Plan(
        specs=specs,
        learning=replace(learning, min_students=MIN_STUDENTS),
        base_seed=base_seed,
        members=count,
        typical=typical,
        students=round(typical),
        rounds=learning.planned_rounds,
        epsilon=terms.epsilon or EPSILON,
        others=COMPARED,
        seed=seed,
        models={m.model: folders[m.model] for m in _pretrained(learning) if m.model in folders},
    )


def _of_charter(file: Path, members: int | None, rounds: int | None, epsilon: float | None, seed: int) -> "Plan":
    """Return the plan of a charter, under another ε if one is given. Raises UsageError for too many rounds."""
    from ..node.verify import read_charter
    from ..sims.rehearse.budgets import implied_students, recalibrated
    from ..sims.rehearse.play import Plan

    charter, _ = read_charter(file)
    learning, specs = charter.learning, charter.components
    if rounds is not None and rounds > learning.planned_rounds:
        raise UsageError(
            f"The charter plans {learning.planned_rounds} rounds, and its noise is made for no more",
            f"Rehearse at most {learning.planned_rounds}. More rounds need another charter: rehearse its model file.",
        )
    typical = implied_students(specs, learning)
    own = max((floor.epsilon / 1000 for floor in learning.floors if floor.policy == "dp"), default=None)
    if epsilon is not None and own is not None:
        specs, own = recalibrated(specs, learning, typical, epsilon), epsilon
    return Plan(
        specs=specs,
        learning=learning,
        base_seed=charter.seed,
        members=members or len(charter.members),
        typical=typical,
        students=typical,
        rounds=rounds or learning.planned_rounds,
        epsilon=own,
        others=COMPARED,
        seed=seed,
    )


def _pretrained(learning: "Learning") -> "list[Pretrained]":
    return [model for modality in learning.modalities for model in modality.pretrained]


def _with_records(plan: "Plan", data: Path | None, students: int | None, home: Path | None) -> "Plan":
    """Return the plan with what it trains on. Raises UsageError for nonsense."""
    from ..protocol.learning import AVERAGES

    models, excluded = _of_home(home, real=data is not None)
    plan = replace(plan, models={**models, **plan.models}, data=data, excluded=excluded)
    if data is None:
        # A layout is a digest of what real folders declare, with which synthetic ones have only the shape in common.
        learning = plan.learning
        bare = replace(
            learning,
            modalities=tuple(replace(modality, layout=b"") for modality in learning.modalities),
            tasks=tuple(replace(task, layout=b"") for task in learning.tasks),
        )
        plan = replace(plan, learning=bare, students=students or plan.students)
    else:
        plan = replace(plan, students=students)
    robust = sorted({spec.rule for spec in plan.specs if spec.rule not in AVERAGES and not spec.is_statistic})
    if plan.members == 1 and robust:
        raise UsageError(
            f"{', '.join(robust)} with 1 member: a robust rule compares updates of several members",
            'Rehearse with more --members, or with rule = "mean" in the model file.',
        )
    least = plan.learning.min_students
    if plan.students is not None and plan.students < least:
        raise UsageError(
            f"{counted(plan.students, 'student')} at each member: one that declares fewer than {least} does not train",
            f"Rehearse with --students {least} or more.",
        )
    return plan


def _of_home(home: Path | None, *, real: bool) -> "tuple[dict[str, str], LeftOut | None]":
    """Return the folders of pretrained models that a home names, and for `real` students those that it leaves out."""
    from ..node.home import config as settings
    from ..node.learner.messages import LeftOut
    from ..node.unlearning.students import load_excluded

    place = home_of(home)
    if not place.config.is_file():
        return {}, None
    models = {name: str(path) for name, path in settings.load(place.config).models.folders}
    if not real:
        return models, None
    excluded = load_excluded(place)
    return models, LeftOut(excluded.salt, tuple(sorted(excluded.tags)))


def _warnings(plan: "Plan") -> list[str]:
    """Return what is to know before it runs."""
    from ..protocol.learning import AVERAGES

    students = plan.students or plan.typical
    warnings = [
        f"{text} (with {students:g} students at each member). `charter create` refuses such a recipe"
        for text in founding.noise(plan.specs, plan.learning, students, plan.members)
    ]
    own = {floor.epsilon / 1000 for floor in plan.learning.floors if floor.policy == "dp"}
    if len(own) > 1:
        warnings.append(
            f"modalities have an ε of their own ({', '.join(f'{each:g}' for each in sorted(own))}): under ε"
            f" {plan.epsilon:g} they keep it, under each other ε of the comparison all have that one"
        )
    if 1 < plan.members < founding.MIN_ROBUST and any(
        spec.rule not in AVERAGES and not spec.is_statistic for spec in plan.specs
    ):
        warnings.append(f"with {plan.members} members no rule tolerates a liar: from {founding.MIN_ROBUST} on, one is")
    return warnings


def _show(out: "Console", report: dict[str, Any]) -> None:
    budget = f"ε {report['epsilon']:g}" if report["noised"] else "no noise"
    out.print("A REHEARSAL: no ε is spent, and nothing is sent.", style="bold")
    facts(
        out,
        [
            ("records", report["data"] or "synthetic"),
            ("members", f"{report['members']}, of {counted(report['students'], 'student')} to train on"),
            ("rounds", f"{report['rounds']} of {report['planned_rounds']} planned, of {report['steps']} steps"),
            ("rule", report["rules"]),
            ("privacy", budget),
            ("lot size", f"{report['lot_size']:g}: the sample rate {report['sample_rate']:g} times the students"),
            ("a round sends", f"{size(report['bytes_a_round'])} at most, to each member that fetches it"),
            ("a round takes", f"{report['seconds_a_round']:.2g} s of training at each member, on this machine"),
            ("this took", f"{report['seconds'] / 60:.1f} minutes; seed {report['seed']}"),
        ],
    )
    prose(out, report["about"])
    out.print()
    out.print("The noise against the clipped gradients", style="bold")
    rows = [_component_row(one) for one in report["components"]]
    table(out, ("component", "numbers", "σ", "gradient", "noise", "first round", "all rounds"), rows, empty="None.")
    prose(
        out,
        "gradient, noise: by how much all rounds change the weights without noise, and the noise alone (norms, for the"
        f" mean of {counted(report['members'], 'member')}; a robust rule keeps more of the noise). first round, all"
        " rounds: noise divided by gradient; the smaller, the better. What they do to the tasks is below.",
    )
    out.print()
    out.print("What is learned, and what ε buys", style="bold")
    _show_tasks(out, report)


def _component_row(figures: dict[str, Any]) -> tuple[object, ...]:
    first, every = figures["first_round"], figures["all_rounds"]
    return (
        figures["component"],
        f"{figures['parameters']:,}",
        f"{figures['noise_multiplier']:.3g}",
        f"{every['gradient']:.3g}",
        f"{every['noise']:.3g}",
        _ratio_text(first and first["ratio"]),
        _ratio_text(every["ratio"]),
    )


def _ratio_text(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.2g}"


def _show_tasks(out: "Console", report: dict[str, Any]) -> None:
    from ..sims.rehearse.play import chance

    columns = ["task", "figure", "constant"]
    rows = []
    for task in report["tasks"]:
        for figure in task["figures"]:
            values = [_figure(point["value"]) for point in figure["values"]]
            rows.append((task["task"], NAMES[figure["metric"]], f"{figure['constant']:.3f}", *values))
    for point in report["tasks"][0]["figures"][0]["values"]:
        mark = "*" if report["noised"] and point["epsilon"] == report["epsilon"] else ""
        columns.append("no noise" if point["epsilon"] is None else f"ε {point['epsilon']:g}{mark}")
    table(out, columns, rows, empty="No task.")
    held = max(task["held_out"] for task in report["tasks"])
    star = " *: this recipe's ε." if report["noised"] else ""
    prose(
        out,
        f"On {counted(held, 'held-out student')}, from one run each. By chance such an accuracy varies by about"
        f" ± {chance(held):.3f}; another --seed shows more. constant: always the commonest class, or the mean.{star}",
    )
    for task in report["tasks"]:
        first, name = task["figures"][0], task["task"]
        value = next(point["value"] for point in first["values"] if point["epsilon"] == _own_epsilon(report))
        figures = f"{NAMES[first['metric']]} {_figure(value)} against {first['constant']:.3f}"
        prose(out, f"{name}: {VERDICTS[task['verdict']]} ({figures}).")
        if task["verdict"] != "no better" and task["reasons"]:
            prose(out, f"{name}: but the {'; '.join(task['reasons'])}.")


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < LARGE else f"{value:,.0f}"


def _own_epsilon(report: dict[str, Any]) -> float | None:
    epsilon: float | None = report["epsilon"] if report["noised"] else None
    return epsilon
