"""Scenarios as TOML files: read and written.

Reading is strict (reading.py). docs/simulator.md explains every key. A run is a function of (scenario, seed).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...crypto.errors import UsageError
from ...node import toml
from ...protocol.charter import FAULT_MODELS
from ...protocol.learning import RULES
from ...protocol.schema import MAX_MEMBERS
from ..simulator.invariants import ALARMS
from ..simulator.network import Disk
from . import feasibility
from . import reading as read
from .actions import ACTIONS, NETWORK
from .scenario import GROUPS, NOBODY, Event, Expect, Pace, Scenario, Who

FOLDER = Path(__file__).parent
GUIDE = "docs/simulator.md"
MAX_CRASHES = 0.1  # of the writes: where nodes die at more of them, nothing has to close
MAX_NODES = MAX_MEMBERS  # of a charter and a federation

CHARTER: Mapping[str, toml.Check[Any]] = {
    "fault_model": toml.one_of(*FAULT_MODELS),
    "rule": toml.one_of(*RULES),
    "components": toml.whole(1, 64),
    "statistics": toml.whole(0, 64),
    "deadline": toml.whole(100, 3_600_000),
    "pace": toml.whole(0, 3_600_000),
    "start": toml.whole(0, 3600),
    "min_updates": toml.whole(1, 256),
    "noise": toml.whole(0, 2**40),
    "horizon": toml.whole(1, 2**20),
    "records_per_height": toml.whole(1, 2**16),
    "width": toml.whole(8, 16),
}


def shipped() -> tuple[str, ...]:
    """Return the names of the scenarios that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(reference: str, nodes: int | None = None) -> Scenario:
    """Read a shipped scenario by its name, or a file by its path, which ends in .toml; `nodes` instead of its own.

    Raises UsageError that names the file, the key and what is allowed there.
    """
    path = Path(reference)
    if not reference.endswith(".toml"):
        if reference not in shipped():
            advice = "`collegium sim list` shows those that are shipped; the name of a file ends in .toml."
            raise UsageError(f"There is no scenario {reference!r}", advice)
        path = FOLDER / f"{reference}.toml"
    advice = "`collegium sim list` shows the scenarios that are shipped."
    return _scenario(toml.read(path, advice, GUIDE), nodes)


def parse(source_text: str, source: str, nodes: int | None = None) -> Scenario:
    """Read a scenario's text; `source` names it in errors, `nodes` is taken instead of its own. Raises UsageError."""
    return _scenario(toml.parse(source_text, source, GUIDE), nodes)


def _scenario(top: toml.Table, nodes: int | None) -> Scenario:
    if nodes is not None:
        top.raw["nodes"] = nodes
    count = top.take("nodes", toml.whole(1, MAX_NODES))
    rounds = top.take("rounds", toml.whole(1, 10_000))
    name, about = top.take("name", read.name), top.take("about", read.text)
    absent = top.take("absent", _who(count), NOBODY)
    charter, network = top.table("charter", {}).given(CHARTER), top.table("network", {}).given(NETWORK)
    disk, pace, expect = (top.table(key, {}) for key in ("disk", "pace", "expect"))
    events = top.tables("event", "")
    top.done()
    scenario = Scenario(
        name=name,
        about=about,
        nodes=count,
        rounds=rounds,
        expect=_expect(expect, count, rounds),
        absent=absent,
        charter=charter,
        network=network,
        disk=Disk(
            disk.take("crash", toml.between(0.0, MAX_CRASHES), 0.0),
            disk.take("torn", read.share, 0.0),
            disk.take("down", read.span(0, 3_600_000), Disk().down),
        ),
        pace=Pace(
            pace.take("training", read.span(0, 3_600_000), (5, 200)),
            pace.take("propose", toml.whole(1, 600_000), 400),
            pace.take("idle", toml.whole(1, 600_000), 300),
            pace.take("sync", toml.whole(1, 600_000), 500),
        ),
        events=tuple(_event(table, count, rounds) for table in events),
    )
    disk.done()
    pace.done()
    feasibility.check(scenario, top.source)
    return scenario


def _who(count: int) -> Callable[[object], Who]:
    """Whom an event is done to: numbers below `count`, roles that the seed casts, or a group."""

    def check(value: object) -> Who:
        every = value if isinstance(value, list) else [value]
        for who in every:
            number = type(who) is int and 0 <= who < count
            role = isinstance(who, str) and who.replace("-", "").isalpha() and who.islower()
            if not (number or (role and (who not in GROUPS or len(every) == 1))):
                raise ValueError(
                    f"a number from 0 to {count - 1}, a role in small letters, {', '.join(GROUPS)}, or a list"
                )
        if not every or len(set(every)) != len(every):
            raise ValueError("a node, or a list of different ones")
        return tuple(every)

    return check


def _event(table: toml.Table, count: int, rounds: int) -> Event:
    do = table.take("do", toml.one_of(*ACTIONS))
    action = ACTIONS[do]
    node: Who = table.take("node", _who(count)) if action.whom else ()
    at = table.take("at", read.span(0, 10**9), (-1, -1))
    after = table.take("after", read.after_round, 0)
    if (at[0] < 0) == (after == 0):
        raise table.fail("at or after: one of them has to be there", 'Write at = 1000, or after = "round 2".')
    if after >= rounds:
        raise table.fail(f"after cannot be round {after}", f"It has to happen before round {rounds}, the last one.")
    delay = table.take("delay", read.span(0, 10**9), (0, 0))
    if delay != (0, 0) and not after:
        raise table.fail("delay belongs to `after`", "With `at`, write the time there.")
    lasts, until = (-1, -1), 0
    if action.lasts:
        lasts = table.take("for", read.span(1, 10**9), (-1, -1))
        until = table.take("until", read.after_round, 0)
        if lasts[0] > 0 and until:
            raise table.fail("for and until cannot both be there", "Choose one.")
        if until > rounds or (after and 0 < until <= after):
            raise table.fail(f"until cannot be round {until}", f"It has to come after `after`, and up to {rounds}.")
    more = {}
    for key, check in action.keys.items():
        if key in table.raw or key in action.needs:
            more[key] = table.take(key, check)
    table.accepted |= dict.fromkeys(action.keys)
    table.done()
    return Event(do, node, at if at[0] >= 0 else None, after, delay, lasts if lasts[0] > 0 else None, until, more)


def _expect(table: toml.Table, count: int, rounds: int) -> Expect:
    expect = Expect(
        rounds=table.take("rounds", toml.whole(0, rounds), rounds),
        within=table.take("within", toml.whole(1, 10**9), Expect(0).within),
        expelled=table.take("expelled", _who(count), NOBODY),
        refused=table.take("refused", read.words, ()),
        notices=table.take("notices", read.words, ()),
        alarms=table.take("alarms", read.words, ()),
        counted=table.take("counted", _who(count), NOBODY),
        everybody=table.take("everybody", toml.flag, False),
        stale=table.take("stale", toml.flag, False),
        stopped=table.take("stopped", toml.flag, False),
        idle=table.take("idle", toml.flag, False),
        used=table.take("used", toml.flag, False),
    )
    for alarm in expect.alarms:
        if alarm not in ALARMS:
            raise table.fail(f"alarms cannot contain {alarm!r}", f"Known are {', '.join(sorted(ALARMS))}.")
    table.done()
    return expect


# ---- writing


def dump(scenario: Scenario) -> str:
    """Return the text of a scenario's file; `parse` reads the same scenario from it."""
    lines = [
        f"name = {_value(scenario.name)}",
        f"about = {_value(scenario.about)}",
        f"nodes = {scenario.nodes}",
        f"rounds = {scenario.rounds}",
    ]
    if scenario.absent:
        lines.append(f"absent = {_who_text(scenario.absent)}")
    lines += _table("charter", scenario.charter)
    lines += _table("network", scenario.network)
    lines += _table("disk", _changed_fields(scenario.disk, Disk()))
    lines += _table("pace", _changed_fields(scenario.pace, Pace()))
    for event in scenario.events:
        lines += ["", "[[event]]", f"do = {_value(event.do)}"]
        if event.node:
            lines.append(f"node = {_who_text(event.node)}")
        if event.at is not None:
            lines.append(f"at = {_value(event.at)}")
        else:
            lines.append(f'after = "round {event.after}"')
            if event.delay != (0, 0):
                lines.append(f"delay = {_value(event.delay)}")
        if event.lasts is not None:
            lines.append(f"for = {_value(event.lasts)}")
        if event.until:
            lines.append(f'until = "round {event.until}"')
        lines += [f"{key} = {_value(value)}" for key, value in event.more.items()]
    lines += _table("expect", _changed_fields(scenario.expect, Expect(scenario.rounds)))
    return "\n".join(lines) + "\n"


def _changed_fields(value: Disk | Pace | Expect, default: Disk | Pace | Expect) -> dict[str, object]:
    return {f.name: current for f in fields(value) if (current := getattr(value, f.name)) != getattr(default, f.name)}


def _table(name: str, entries: Mapping[str, object]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in entries.items())] if entries else []


def _who_text(who: Who) -> str:
    return _value(who[0] if len(who) == 1 else who)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # its escapes are TOML's too
    if isinstance(value, tuple):
        if len(value) == 2 and type(value[0]) is int and value[0] == value[1]:
            return str(value[0])
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return str(value)
