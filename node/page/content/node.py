"""This node at a glance, and its log."""

import os
from collections.abc import Mapping

from ... import views
from ...words import consents, lasting
from ..blocks import Badge, Block, Cell, Facts, Finding, Findings, Form, Lines, Moment, Page, Section, Table, Words
from ..source import Reading
from . import cells

TAIL = 64 << 10  # bytes of the log
LINES = 200


def overview(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return the overview."""
    status = read(lambda client: client.status(), views.status)
    live, group = status["live"], status["federation"]
    facts: list[tuple[str, Cell]] = [
        ("this member", cells.member(status["member"]) if status["member"] else None),
        ("federation", group["name"]),
        ("members", f"{group['members']}; {group['quorum']} must agree, {group['tolerated_losses']} may be lost"),
        ("height", status["height"]),
        ("last block", Moment(status["last_block_at"])),
    ]
    if group["pace_seconds"]:
        facts.append(("pace", f"a round of a component every {lasting(group['pace_seconds'])} at most"))
    if live is not None:
        learner = live["learner"]
        far = views.under_way(learner)
        levels = {"failed": "critical", "waiting": "warning", "ready": "ok", "training": "ok"}
        facts += [
            ("daemon since", Moment(live["started_at"])),
            ("connected to", f"{len(live['connected'])} of {len(live['connected']) + len(live['not_connected'])}"),
            ("learner", Badge(", ".join(filter(None, (learner["state"], far))), levels.get(learner["state"], "info"))),
            *([("consent", consents(learner["consents"]))] if learner["consents"] else []),
            ("received and sent", f"{cells.size(live['bytes_received'])}, {cells.size(live['bytes_sent'])}"),
        ]
        if live["catching_up"]:
            facts.append(("catching up", f"to height {live['catching_up']['of']}"))
    quiet = status["quiet_hours"]
    resting = quiet is not None and quiet["now"]
    trained = cells.listed(status["training"]["trained"]) or "nothing"
    facts.append(("training", "paused" if status["paused"] else "quiet hours" if resting else trained))
    if quiet is not None:
        facts.append(("quiet hours", f"{', '.join(quiet['spans'])}, by the local time of the node"))
    facts += [(f"waits: {waits['component']}", waits["why"]) for waits in status["training"]["waiting"]]
    found = [Finding(str(note["level"]), note["found"], note["advice"]) for note in status["findings"]]
    rows: list[list[Cell]] = [
        [
            c["component"],
            cells.one_round(c["component"], c["round"]) if c["round"] else 0,
            cells.label(c["label"]),
            c["counted_last"],
            f"{c['trainers']} of {c['active_hosts']} hosts",
            Moment(c["closes_after"]),
        ]
        for c in status["components"]
    ]
    columns = ("component", "round", "state", "counted", "trained by", "next not before")
    change = ("resume", "Resume training") if status["paused"] else ("pause", "Pause training")
    act = (Form(f"/act/{change[0]}", change[1]),) if read.acts else ()
    return Page(
        "Overview",
        (
            Section("notes", "Notes", (Findings(found, "Nothing waits for you."),), ("collegium node status",)),
            Section(
                "node",
                "This node",
                (Facts(facts), *act),
                ("collegium node status", "collegium node pause", "collegium node resume"),
            ),
            Section(
                "components",
                "Components",
                (Table("Components of the model", columns, rows, "The charter has none."),),
                ("collegium node status", "collegium component list"),
            ),
        ),
    )


def logs(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return the end of the daemon's log."""
    path = read.home.log
    blocks: tuple[Block, ...]
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read(TAIL).decode("utf-8", "replace")
        lines = text.splitlines()[-LINES:]
        blocks = (Words(f"The last {len(lines)} lines of {path}."), Lines(f"The end of {path.name}", lines))
    except OSError as error:
        said = f"{path} cannot be read: {error.strerror}. A daemon that systemd runs logs to the journal."
        blocks = (Words(said),)
    commands = (f"tail -n {LINES} {path}", "journalctl -u collegium", "collegium doctor")
    return Page("Logs", (Section("log", "The daemon's log", blocks, commands),))
