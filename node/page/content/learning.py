"""Rounds, and the quality that this node measures of them on its own held-out students."""

from collections.abc import Mapping
from urllib.parse import quote

from ....protocol.learning import Task
from ... import views
from ...explaining import ROLES
from ...store.observations import Metric
from ...views.shapes import Missing, RoundSummary
from ..blocks import Cell, Facts, Field, Form, Input, Link, Many, Moment, Page, Search, Section, Table, Words
from ..source import Reading
from . import cells

LIMIT = 100  # rounds
SHOWN = 8  # rounds of a task's figures


def rounds(read: Reading, query: Mapping[str, str]) -> Page:
    """Return the last closed rounds, of all components or of one."""
    chosen = query.get("component") or None
    names = [c["component"] for c in read(lambda client: client.status(), views.status)["components"]]
    found = read(
        lambda client: client.rounds(chosen, limit=LIMIT), lambda context: views.rounds(context, chosen, limit=LIMIT)
    )
    rows = [_line(one) for one in reversed(found)]
    columns = (
        "round",
        "component",
        "closed",
        "seconds",
        "counted",
        "late",
        "missing, and why",
        "withdrawn",
        "state",
        "bytes",
    )
    table = Table("Closed rounds, last first", columns, rows, "No round is closed yet.")
    search = Search("/rounds", (Field("component", "Component", chosen or "", ("", *names)),))
    told = f"The last {LIMIT} at the most." if len(found) == LIMIT else ""
    blocks = (search, *((Words(told),) if told else ()), table)
    command = f"collegium round list{' ' + chosen if chosen else ''}"
    return Page("Rounds", (Section("rounds", "Who was in", blocks, (command, "collegium round show COMPONENT ROUND")),))


def _line(one: RoundSummary) -> list[Cell]:
    return [
        cells.one_round(one["component"], one["round"]),
        one["component"],
        Moment(one["closed_at"]),
        one["seconds"],
        cells.members(one["counted"]),
        cells.members(one["stale"]),
        _missing(one["missing"]),
        cells.members(one["withdrawn"]),
        cells.label(one["label"]),
        cells.size(one["bytes_of_updates"]),
    ]


def _missing(missing: list[Missing] | None) -> Cell:
    if missing is None:
        return "not seen here: the round's page finds out"
    return Many(tuple(f"{one['name']}: {one['why']}" for one in missing)) if missing else "nobody"


def one_round(read: Reading, query: Mapping[str, str]) -> Page:
    """Return one closed round."""
    component, number = query["component"], int(query["round"])
    found = read(
        lambda client: client.round(component, number), lambda context: views.round_detail(context, component, number)
    )
    facts: list[tuple[str, Cell]] = [
        ("closed", Moment(found["closed_at"])),
        ("at height", cells.record(str(found["height"]), str(found["height"]))),
        ("generation", found["generation"]),
        ("state", cells.label(found["label"])),
        ("digest", cells.digest(found["digest"])),
        ("needed to certify", found["quorum"]),
        ("liars tolerated", found["tolerated_liars"]),
        ("deadline passed", found["deadline_passed"]),
        ("missing", _missing(found["missing"])),
        ("withdrawn since", cells.members(found["withdrawn"])),
        ("decided by", cells.members(found["deciding_members"])),
    ]
    rows: list[list[Cell]] = [
        [
            cells.member(one),
            None if one["weight"] is None else f"{one['weight']:.3f}",
            one["staleness"],
            cells.size(one["bytes"]),
            cells.digest(one["update"]),
        ]
        for one in found["counted"]
    ]
    columns = ("member", "weight", "rounds late", "bytes", "update")
    attested: list[list[Cell]] = [[cells.member(one), cells.digest(one["digest"])] for one in found["attested"]]
    command = f"collegium round show {component} {number}"
    return Page(
        f"Round {number} of {component}",
        (
            Section("facts", "Facts", (Facts(facts),), (command,)),
            Section("counted", "Counted updates", (Table("Updates", columns, rows, "None."),), (command,)),
            Section(
                "attested",
                "Attested states",
                (Table("Digests that hosts signed", ("host", "digest"), attested, "None is attested yet."),),
                (command, f"collegium ledger blame {component}"),
            ),
        ),
    )


def quality(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return the figures of each task over the last rounds."""
    figures = read.source.figures()
    tasks = {task.name: task for task in read.files(lambda context: context.charter).learning.tasks}
    by_task: dict[str, list[Metric]] = {}
    for figure in figures:
        by_task.setdefault(figure.task, []).append(figure)
    sections = [_task(task, tasks.get(task), of_it) for task, of_it in sorted(by_task.items())]
    lead = (
        "Measured on this institution's own held-out students, under no privacy budget: for this institution alone."
        " Publishing a figure, or acting on it visibly, tells something about those students."
    )
    if not sections:
        empty = Words("Nothing was measured yet: there is no closed round, or no held-out student with a label here.")
        sections = [Section("none", "No figures yet", (empty,), ("collegium round show COMPONENT ROUND --local",))]
    if read.source.explains is not None:
        sections.append(_explain(sorted(name for name, task in tasks.items())))
    return Page("Quality by task", sections, lead)


def _explain(tasks: list[str]) -> Section:
    """Return the form that asks why a record, or a class, gets its results."""
    inputs = (
        Input("file", "Table, or folder, on this machine", hint="/home/school/new-pupils.csv"),
        Input("role", "Who reads it", ROLES[0], ROLES),
        Input("task", "Task", tasks[0] if tasks else "", tasks),
        Input("record", "Key of the record, for one person", hint="left out for a class"),
    )
    command = "collegium explain FILE --role ROLE"
    return Section(
        "explain",
        "Why a result is what it is",
        (Form("/act/explain", "Explain", inputs=inputs),),
        (command,),
        live=False,
    )


def _task(task: str, declared: Task | None, figures: list[Metric]) -> Section:
    last = sorted({(figure.round, figure.generation) for figure in figures})[-SHOWN:]
    lines: dict[tuple[str, str, bool], dict[tuple[int, int], Metric]] = {}
    for figure in figures:
        if (figure.round, figure.generation) in last:
            lines.setdefault((figure.metric, figure.cell, figure.home_layer), {})[figure.round, figure.generation] = (
                figure
            )
    rows: list[list[Cell]] = []
    for (metric, group, at_home), of_it in sorted(lines.items()):
        newest = of_it[max(of_it)]
        students = "under 50: not shown" if newest.count is None else str(newest.count)
        rows.append(
            [
                metric,
                group or "all",
                "with the home layer" if at_home else "shared model",
                students,
                *(_figure(of_it.get(place)) for place in last),
            ]
        )
    head = task if declared is None else declared.carrier
    columns = ("figure", "group", "model", "students", *(_round(place) for place in last))
    table = Table(f"Figures of {task}, by round", columns, rows, "None.")
    command = f"collegium round show {head} {last[-1][0]} --local"
    title = task if declared is None else f"{task} ({declared.kind})"
    link = Link(f"round {last[-1][0]} of {head}", f"/rounds/{quote(head)}/{last[-1][0]}")
    return Section(f"task-{task.replace('/', '-')}", title, (table, Facts([("last measured in", link)])), (command,))


def _round(place: tuple[int, int]) -> str:
    number, generation = place
    return f"round {number}" + (f", generation {generation}" if generation else "")


def _figure(figure: Metric | None) -> Cell:
    return None if figure is None or figure.value != figure.value else f"{figure.value:.3f}"
