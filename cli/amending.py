"""`collegium charter amend`, `history`, `diff`: a motion to change the charter, and what was changed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import RefusedError, RemoteProtocolError, UsageError
from ..protocol.bounds import MAX_DEADLINE, MAX_HEIGHT, MAX_ROUNDS, MIN_DEADLINE
from . import founding
from .drawing import DeltaOption, EpsilonOption, ModelOption
from .effects import own_students, show_own
from .motions import ReasonOption, WaitOption, YesOption, follow, known_motions
from .options import HomeOption, JsonOption, existing_home
from .output import confirm, emit, facts, table
from .read import from_store

if TYPE_CHECKING:
    from ..node.views import Context
    from ..node.views.shapes_charter import Difference
    from ..protocol.amendment import Amendment, Closing, Limits, Opening, Recipe
    from ..protocol.charter import Charter

Pairs = Annotated[list[str] | None, typer.Option(metavar="COMPONENT=VALUE")]


def amend(
    model: ModelOption = None,
    retire: Annotated[
        list[str] | None, typer.Option(metavar="COMPONENT", help="It has no rounds any more; repeatable.")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option(metavar="COMPONENT=RULE", help="How its rounds are aggregated; repeatable.")
    ] = None,
    min_updates: Annotated[
        list[str] | None, typer.Option(metavar="COMPONENT=N", help="How many updates a round needs; repeatable.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=MIN_DEADLINE, max=MAX_DEADLINE, help="Seconds that a round waits.")
    ] = None,
    pace: Annotated[
        str | None, typer.Option(metavar="TIME", help="Least time between two rounds: 90min, 24h, 7d; 0 for none.")
    ] = None,
    staleness: Annotated[
        int | None, typer.Option(min=0, max=8, help="Rounds that a late update may still count.")
    ] = None,
    records: Annotated[
        int | None, typer.Option(min=1, max=2**16, help="Records that a member may add to one height.")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Rounds that a withdrawal reaches back; it only grows.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=2**20, help="Steps of a training run, at most.")] = None,
    sample_rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1.0, help="Share of students a step draws.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=MAX_ROUNDS, help="Rounds that are planned.")] = None,
    min_students: Annotated[
        int | None, typer.Option(min=0, max=2**20, help="A member that declares fewer does not train.")
    ] = None,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    reason: ReasonOption = "",
    heights: Annotated[int, typer.Option(min=50, max=100_000, help="Heights that it stays open.")] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show it; propose nothing.")] = False,
    yes: YesOption = False,
    wait: WaitOption = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to change the charter in force: a quorum of the members decides. --model opens what FILE has more.

    The components of FILE that the charter lacks open, with their modalities and tasks. What is there stays as it is.
    """
    from ..node.control.client import Client
    from ..protocol import schema
    from ..protocol.amendment import Amendment, Changes, amended

    place = existing_home(home)
    context = from_store(place, lambda context: context)
    charter = context.charter
    limits = _limits(charter, deadline, pace, staleness, records, horizon)
    recipe = _recipe(charter, steps, sample_rate, rounds, min_students)
    changes = Changes(
        opening=opening_of(charter, len(context.ledger.members), model, (epsilon, delta, rounds)),
        retire=tuple(sorted(set(retire or []))),
        closing=_closing(charter, rule, min_updates),
        limits=() if limits is None else (limits,),
        recipe=() if recipe is None else (recipe,),
    )
    if changes == Changes():
        raise UsageError("Nothing is to change", "Say what: --model FILE, --retire COMPONENT, --deadline SECONDS, …")
    amendment = Amendment(charter.federation, charter.number + 1, changes)
    try:
        statement = schema.dump(amendment)
        after = amended(charter, statement)
    except RemoteProtocolError as error:
        raise RefusedError(
            f"This amendment cannot be: {error.detail}", "Change it, and look again with --dry-run."
        ) from error
    found = _shown(context, charter, after, amendment)
    found["own_students"] = own_students(place, charter, after)
    if dry_run:
        emit(found, as_json, lambda out: _show(out, found))
        return
    if not as_json:
        from .output import console

        _show(console(), found)
    confirm("Propose this amendment?", yes)
    client = Client(place)
    before = known_motions(client)
    client.propose("amend", statement=statement.hex(), reason=reason, heights=heights)
    follow(client, "amend", charter.federation.hex(), wait, as_json, before)


def effect(
    motion: Annotated[str, typer.Argument(metavar="MOTION", help="A prefix of its id; without one the open one.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an open amendment changes, and what it does to the ε of this institution's own students."""
    from ..protocol.amendment import amended, load

    place = existing_home(home)
    context = from_store(place, lambda context: context)
    named = [
        m for m in context.ledger.roll.motions if m.action == "amend" and m.digest.hex().startswith(motion.lower())
    ]
    if not named and not motion:
        raise UsageError("No amendment is open", "`collegium charter history` lists those that passed.")
    if len(named) != 1:
        raise UsageError(
            f"{len(named)} open amendments are meant by {motion!r}", "`collegium peer motions` lists them: give an id."
        )
    after = amended(context.charter, named[0].statement)
    amendment = load(named[0].statement, context.ledger.federation)
    found = {"motion": named[0].digest.hex(), **_shown(context, context.charter, after, amendment)}
    found["own_students"] = own_students(place, context.charter, after)
    emit(found, as_json, lambda out: _show(out, found))


def history(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the amendments in force: when each passed, and what it changed."""
    from ..node import views

    found = from_store(existing_home(home), views.charter_history)

    def people(out: Any) -> None:
        facts(
            out,
            [
                ("federation id", found["federation"]),
                ("charter in force", found["in_force"]),
                ("height", found["height"]),
            ],
        )
        rows = [
            (
                a["number"],
                a["in_force_from_height"],
                a["charter"][:16],
                change["what"],
                change["before"],
                change["after"],
            )
            for a in found["amendments"]
            for change in a["changes"]
        ]
        columns = ("amendment", "from height", "charter", "what", "before", "after")
        table(out, columns, rows, empty="No amendment passed: the founding charter is in force.")

    emit(found, as_json, people)


def diff(
    first: Annotated[
        int, typer.Argument(metavar="HEIGHT", min=1, max=MAX_HEIGHT, help="A height: 1 is the founding charter's.")
    ] = 1,
    second: Annotated[
        int | None, typer.Argument(metavar="HEIGHT", min=1, max=MAX_HEIGHT, help="Another one [the next block's].")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between the charters in force at two heights."""
    from ..node import views

    def read(context: "Context") -> dict[str, Any]:
        one, other = views.charter_at(context, first), views.charter_at(context, second)
        return {
            "first": {"height": first, "charter": one.digest.hex()},
            "second": {"height": second or context.ledger.height + 1, "charter": other.digest.hex()},
            "differences": views.differences(one, other),
        }

    found = from_store(existing_home(home), read)
    emit(found, as_json, lambda out: _differences(out, found["differences"]))


def _differences(out: Any, changes: "list[Difference]") -> None:
    rows = [(change["what"], change["before"], change["after"]) for change in changes]
    table(out, ("what", "before", "after"), rows, empty="They are the same.")


def _shown(context: "Context", charter: "Charter", after: "Charter", amendment: "Amendment") -> dict[str, Any]:
    from ..node import views

    return {
        "number": amendment.number,
        "charter": after.digest.hex(),
        "changes": views.differences(charter, after),
        "members": len(context.ledger.members),
        "needed": context.ledger.quorum,
    }


def _show(out: Any, found: Mapping[str, Any]) -> None:
    facts(out, [("amendment", found["number"]), ("needs", f"{found['needed']} of {found['members']} members")])
    _differences(out, found["changes"])
    show_own(out, found["own_students"])


def _limits(
    charter: "Charter",
    deadline: float | None,
    pace: str | None,
    staleness: int | None,
    records: int | None,
    horizon: int | None,
) -> "Limits | None":
    from ..protocol.amendment import Limits

    now = Limits(**{name: getattr(charter.rules, name) for name in Limits.__slots__})
    given = {
        "round_deadline": None if deadline is None else round(deadline * 1000),
        "pace": None if pace is None else founding.pace_of(pace),
        "max_staleness": staleness,
        "records_per_height": records,
        "refold_horizon": horizon,
    }
    new = replace(now, **{name: value for name, value in given.items() if value is not None})
    return None if new == now else new


def _recipe(
    charter: "Charter", steps: int | None, rate: float | None, rounds: int | None, least: int | None
) -> "Recipe | None":
    from ..protocol.amendment import Recipe

    now = Recipe(**{name: getattr(charter.learning, name) for name in Recipe.__slots__})
    given = {
        "steps": steps,
        "sample_rate": None if rate is None else round(rate * 1_000_000),
        "planned_rounds": rounds,
        "min_students": least,
    }
    new = replace(now, **{name: value for name, value in given.items() if value is not None})
    return None if new == now else new


def _closing(charter: "Charter", rules: list[str] | None, least: list[str] | None) -> "tuple[Closing, ...]":
    from ..protocol.amendment import Closing

    by_rule, by_least = _pairs(charter, rules or []), _pairs(charter, least or [])
    closing = []
    for name in sorted(by_rule.keys() | by_least.keys()):
        text = by_least.get(name, str(charter.specs[name].min_updates))
        if not text.isdecimal() or not 1 <= int(text) <= 2**16:
            raise UsageError(
                f"--min-updates {name}={text}: that is no number of updates", "Write --min-updates head/pass=3."
            )
        closing.append(Closing(name, by_rule.get(name, charter.rule(name)), int(text)))
    return tuple(closing)


def _pairs(charter: "Charter", texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"{text!r} is no COMPONENT=VALUE", "Write, say, head/pass=median.")
        if name not in charter.specs:
            names = ", ".join(sorted(charter.specs))
            raise UsageError(f"The charter in force has no component {name!r}", f"Components are {names}.")
        pairs[name] = value
    return pairs


def opening_of(
    charter: "Charter", members: int, model: Path | None, budget: tuple[float | None, float | None, int | None]
) -> "tuple[Opening, ...]":
    """Return what a model file has that the charter lacks. Raises UsageError if it changes what is there."""
    from ..protocol.amendment import Opening
    from .drawing import DELTA, EPSILON
    from .recipes import components

    if model is None:
        return ()
    floors = {floor.modality: floor for floor in charter.learning.floors}
    dp = any(floor.policy == "dp" for floor in floors.values())
    usual = max((charter.rule(spec.name) for spec in charter.components if not spec.is_statistic), default="mean")
    epsilon, delta, rounds = budget
    planned = rounds or charter.learning.planned_rounds
    specs, learning, _ = components(
        None,
        model,
        (epsilon or EPSILON, delta or DELTA, planned),
        dp=dp or epsilon is not None,
        institutions=members,
        rule=None,
        usual=usual,
        seed=charter.seed,
    )
    have = {m.name: m for m in charter.learning.modalities}
    tasks = {task.name: task for task in charter.learning.tasks}
    for what, old, new in (
        ("modality", have, {m.name: m for m in learning.modalities}),
        ("task", tasks, {task.name: task for task in learning.tasks}),
    ):
        for name in sorted(old.keys() & new.keys()):
            if old[name] != new[name]:
                raise UsageError(
                    f"{model} has {what} {name} otherwise than the charter in force",
                    "What exists keeps its shape: write it as it was, or under another name.",
                )
    for spec in specs:
        there = charter.component(spec.name)
        if there is not None and (there.architecture, there.tensors) != (spec.architecture, spec.tensors):
            raise UsageError(
                f"{model} has component {spec.name} in another shape than the charter in force",
                "What exists keeps its shape: leave [model], and the tables of what is there, as they were.",
            )
    fresh = tuple(spec for spec in specs if spec.name not in charter.specs)
    if not fresh:
        raise UsageError(
            f"{model} has no component that the charter in force lacks", "Add the [[modality]] or [[task]]."
        )
    return (
        Opening(
            tuple(sorted((m for m in learning.modalities if m.name not in have), key=lambda m: m.name)),
            tuple(sorted((t for t in learning.tasks if t.name not in tasks), key=lambda t: t.name)),
            tuple(sorted((f for f in learning.floors if f.modality not in floors), key=lambda f: f.modality)),
            tuple(sorted(fresh, key=lambda spec: spec.name)),
        ),
    )
