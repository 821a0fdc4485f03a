"""`collegium privacy`: budgets, spending, the cost of a plan, and jurisdiction presets."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_DELTA, MAX_EPSILON, MAX_ROUNDS, MAX_STEPS, MAX_TOTAL_STEPS, MIN_DELTA, MIN_EPSILON
from . import audit, spent
from .options import HomeOption, JsonOption, existing_home, home_of
from .output import emit, facts, table
from .read import charter_in_force, from_store

if TYPE_CHECKING:
    from ..node.home.config import Config
    from ..node.home.paths import Home
    from ..node.privacy.policy import InForce
    from ..node.views import Context
    from ..node.views.shapes_privacy import CrossCheck, PlanShown, PrivacyShown
    from ..protocol.charter import Charter

app = typer.Typer(help="The privacy budget of this node's students.", no_args_is_help=True)
app.command("audit")(audit.audit)


@app.command("show")
def show(
    forecast: Annotated[
        bool,
        typer.Option("--forecast/--no-forecast", help="Compute the number of rounds that still fit (some seconds)."),
    ] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show for each modality the policy in force and its origin, ε spent, and the last round of its budget."""
    from ..node import views

    node_home = existing_home(home)

    def read(context: "Context") -> "PrivacyShown":
        config, policies = _in_force(node_home, context.charter)
        shown = views.privacy(context, policies, config.privacy.jurisdiction)
        # Here and not in the daemon: the accountant takes seconds and memory.
        planned = config.learning.rounds
        return {**shown, "forecast": views.forecast(context, policies, planned) if forecast else None}

    privacy = from_store(node_home, read)

    emit(privacy, as_json, lambda out: spent.people(out, privacy))


@app.command("log")
def log(
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", help="Only this member's: its name, or a prefix of its key."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, help="At most this many lines, the last ones.")
    ] = 200,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the spending: every member's claims, and own training runs that were never published."""
    from ..node import views

    node_home = existing_home(home)
    lines = from_store(
        node_home,
        lambda context: views.privacy_log(
            context, member=None if member is None else views.find_member(context, member), limit=limit
        ),
    )

    def people(out: Any) -> None:
        rows = [
            (
                line["height"],
                line["member"]["name"],
                ", ".join(f"{name} {round_}" for name, round_ in line["rounds"].items()),
                line["modality"],
                line["steps"],
                spent.shown(line["epsilon"]),
                None if line["delta"] is None else f"{line['delta']:g}",
                "yes" if line["published"] else "no (spent all the same)",
            )
            for line in lines
        ]
        columns = ("height", "member", "rounds", "modality", "steps", "ε so far", "δ", "published")
        table(out, columns, rows, empty="Nobody has published an update yet.")

    emit(lines, as_json, people)


@app.command("plan")
def plan(
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, max=MAX_ROUNDS, help="Number of further rounds [those still planned]."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=MAX_STEPS, help="Steps of a round [the charter's].")
    ] = None,
    sample_rate: Annotated[
        float | None, typer.Option("--sample-rate", min=1e-6, max=1, help="q [the charter's].")
    ] = None,
    noise: Annotated[
        str,
        typer.Option("--noise", metavar="σ[,σ…]", help="Noise of each component of one training run; no home is read."),
    ] = "",
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            min=MIN_EPSILON,
            max=MAX_EPSILON,
            help="Find the noise for which the plan alone costs at most this.",
        ),
    ] = None,
    delta: Annotated[
        float | None, typer.Option("--delta", min=MIN_DELTA, max=MAX_DELTA, help="δ [the one in force, or 1e-5].")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Ask Opacus' PRV accountant as well (some seconds).")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the cost of a plan, by default this home's, for each modality, on top of its spending."""
    from ..node import views
    from ..node.home.policies import billionths
    from ..node.privacy.policy import DEFAULT_DELTA

    if noise and epsilon:
        raise UsageError("--noise and --epsilon do not go together", "Give the noise, or the ε to find it for.")
    rate, small = round((sample_rate or 0.0) * 1_000_000), billionths(delta) if delta else 0
    if noise or (epsilon and not home_of(home).charter.exists()):
        if not (steps and rate):
            raise UsageError(
                "the plan has no steps or no sample rate", "Give --steps and --sample-rate: no charter is read here."
            )
        rounds, small = rounds or 1, small or DEFAULT_DELTA
        _check_steps(rounds, steps)
        noises = (
            {str(n): sigma for n, sigma in enumerate(_noises(noise), 1)}
            if noise
            else {"": _calibrated(epsilon or 0.0, small, rate, rounds * steps)}
        )
        costs = views.privacy_plan(None, (), rounds=rounds, steps=steps, sample_rate=rate, noises=noises, delta=small)
    else:
        costs = _plan_here(existing_home(home), rounds or 0, steps or 0, rate, epsilon, small)
    if check:
        for line in costs["modalities"]:
            line["cross_check"] = _cross_check(line["events"], line["delta"])

    def people(out: Any) -> None:
        facts(
            out,
            [
                (
                    "plan",
                    f"{costs['rounds']} more rounds of {costs['steps']} steps at sample rate {costs['sample_rate']:g}",
                ),
                *(
                    ((f"noise {name}").strip(), f"{value:g}")
                    for name, value in costs["noise_multipliers"].items()
                    if costs["modalities"]
                ),
            ],
        )
        rows = []
        for line in costs["modalities"]:
            both = line["cross_check"]
            rows.append(
                (
                    line.get("modality", "all"),
                    f"{line['noise_multiplier']:g}",
                    f"{line['delta']:g}",
                    spent.shown(line["epsilon_spent"]),
                    spent.shown(line["epsilon_of_plan"]),
                    spent.shown(line["epsilon"]),
                    None
                    if line["epsilon_budget"] is None
                    else f"{line['epsilon_budget']:g}, {line['epsilon_before_recovery']:g} before recovery",
                    None if line["fits"] is None else "yes" if line["fits"] else "no: it stops before the end",
                    ", ".join(f"{point['rounds']}: {spent.shown(point['epsilon'])}" for point in line["by_round"]),
                    *(() if both is None else (spent.shown(both["pld"]), spent.shown(both["prv"]))),
                )
            )
        columns = (
            "modality",
            "σ_eff",
            "δ",
            "ε spent",
            "ε of the plan",
            "ε then",
            "budget",
            "fits",
            "ε after more rounds",
            *(("PLD", "PRV") if check else ()),
        )
        table(out, columns, rows, empty="Nothing of this plan reaches any modality.")

    emit(costs, as_json, people)


@app.command("presets")
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this one, to edit a copy of it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the jurisdiction presets, or print one as the TOML file that it is."""
    from dataclasses import asdict

    from ..node.home import jurisdiction

    by_name = {shipped: jurisdiction.parse(jurisdiction.text(shipped), shipped) for shipped in jurisdiction.shipped()}
    if name is not None:
        text = jurisdiction.text(name)
        emit(asdict(by_name[name]), as_json, lambda _out: print(text, end=""))  # noqa: T201  # the file as it is
        return
    lines = [{"name": shipped, "title": preset.title, "caveat": preset.caveat} for shipped, preset in by_name.items()]

    def people(out: Any) -> None:
        table(out, ("name", "for"), [(line["name"], line["title"]) for line in lines], empty="None is shipped.")
        out.print("Technical defaults, no legal advice: `collegium privacy presets NAME` has the reasons.")

    emit(lines, as_json, people)


def _in_force(home: "Home", charter: "Charter") -> "tuple[Config, tuple[InForce, ...]]":
    from ..node.home import config as settings
    from ..node.home.policies import policies

    config = settings.load(home.config)
    return config, policies(config, charter)


def _plan_here(home: "Home", rounds: int, steps: int, rate: int, epsilon: float | None, delta: int) -> "PlanShown":
    from ..node import views
    from ..node.core.events import EVERY_SHARD, Noised, PutReservation
    from ..node.home.policies import hosted_components
    from ..node.privacy.accountant import MILLION
    from ..node.privacy.accountant import split_noise as split
    from ..node.store.database import Store

    charter = charter_in_force(home)
    config, policies = _in_force(home, charter)
    learning = charter.learning
    steps, rate = steps or learning.steps, rate or learning.sample_rate
    hosted = hosted_components(config, charter)
    specs = [spec for spec in charter.components if spec.name in hosted and not spec.is_statistic]
    sums = [spec for spec in charter.components if spec.name in hosted and spec.is_statistic]
    spent: list[PutReservation] = []
    if home.database.exists():
        with Store.open_readonly(home.database) as store:
            spent = store.reservations()
    names = {spec.name for spec in specs}
    done = max((part.round for put in spent for part in put.parts if part.component in names), default=0)
    released = {part.component for put in spent for part in put.parts}
    waiting = tuple(Noised(spec.name, 1, spec.noise_multiplier) for spec in sums if spec.name not in released)
    if waiting:  # statistics are released first
        claims = tuple((policy.modality, 0) for policy in policies if policy.policy != "never")
        spent.append(PutReservation(0, waiting, MILLION, 1, claims, shard=EVERY_SHARD))
    rounds = rounds or max(1, (config.learning.rounds or learning.planned_rounds) - done)
    _check_steps(rounds, steps)
    # The noise of the last run, where that is above the charter's: the budget had to last longer.
    last = {part.component: part.noise_multiplier for put in spent for part in put.parts}
    noises = {spec.name: max(spec.noise_multiplier, last.get(spec.name, 0)) for spec in specs}
    if epsilon and specs:
        delta = delta or min(policy.delta for policy in policies)
        whole = _calibrated(epsilon, delta, rate, learning.runs_of_a_student(rounds) * steps)
        shares = [spec.clip_norm / MILLION * spec.dimension**0.5 for spec in specs]  # a_c before anything is learned
        noises = dict(zip(noises, split(whole, shares), strict=True))
    return views.privacy_plan(
        charter, policies, rounds=rounds, steps=steps, sample_rate=rate, noises=noises, delta=delta, spent=spent
    )


def _check_steps(rounds: int, steps: int) -> None:
    if rounds * steps > MAX_TOTAL_STEPS:
        raise UsageError(
            f"{rounds} rounds of {steps} steps are {rounds * steps} steps; at most {MAX_TOTAL_STEPS} can be computed",
            "Plan fewer rounds or steps.",
        )


def _noises(text: str) -> list[int]:
    try:
        noises = [round(float(word) * 1_000_000) for word in text.split(",")]
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--noise {text!r} is no list of numbers", "Write it as 1,1.5,2.") from error
    if not all(0 < sigma <= 2**40 for sigma in noises):
        raise UsageError(
            f"--noise {text!r} is out of range", "Noise multipliers are over 0; without noise there is no ε."
        )
    return noises


def _calibrated(epsilon: float, delta: int, rate: int, steps: int) -> int:
    from ..node.privacy.accountant import calibrate

    try:
        return calibrate(epsilon, delta / 1e9, rate / 1_000_000, steps)
    except ValueError as error:
        raise UsageError(str(error), "Allow a larger ε, fewer rounds or steps, or a lower sample rate.") from error


def _cross_check(events: list[list[float]], delta: float) -> "CrossCheck":
    """Ask a worker: Opacus needs torch, which no command imports."""
    from ..node.learner import messages
    from ..node.learner.client import AUDITING, process
    from ..node.learner.messages import SampledSteps

    ran = tuple(SampledSteps(rate, noise, int(count)) for rate, noise, count in events)
    with process(AUDITING) as learner:
        check = learner.ask(messages.CrossCheck(ran, delta))
    return {"pld": check.pld, "prv": check.prv, "error": check.error}
