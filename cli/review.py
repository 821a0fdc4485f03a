"""`collegium charter review`: a charter in plain words, for whoever answers for the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any

from ..crypto.errors import OperatorError
from ..crypto.fingerprint import fingerprint
from ..node.words import counted, lasting, of_kind
from . import founding
from .output import console, facts, prose, say, size, solid, table
from .quiet import missed_words, of_home

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.home.paths import Home
    from ..protocol.charter import Charter, SignedCharter
    from ..protocol.components import ComponentSpec

DAY = 86_400.0  # seconds
MANY_COLUMNS = 20  # more are counted
PATIENCE = 2.0  # seconds without a word
POLICIES = {
    "dp": "noised: differential privacy",
    "open": "NOT noised: updates may show what single records are like",
    "never": "never learned from",
}


@contextmanager
def taking_long(text: str) -> Iterator[None]:
    """Say what takes so long, if it takes over two seconds."""
    timer = Timer(PATIENCE, say, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def overview(charter: "Charter", signed: "SignedCharter") -> dict[str, Any]:
    """Return who is in, who has signed, and what there is to know."""
    from ..protocol.blocks import quorum, tolerated

    done = {entry.member for entry in signed.signatures}
    count, model = len(charter.members), charter.rules.fault_model
    return {
        "name": charter.name,
        "federation": charter.federation.hex(),
        "fingerprint": fingerprint(charter.federation),
        "members": [
            {
                "name": m.name,
                "key": m.key.hex(),
                "fingerprint": fingerprint(m.key),
                "addresses": list(m.addresses),
                "signed": m.key in done,
            }
            for m in sorted(charter.members, key=lambda m: m.name)
        ],
        "fault_model": model,
        "quorum": quorum(count, model),
        "pace_seconds": charter.rules.pace / 1000,
        "starts_at": founding.start_text(charter) or None,
        "tolerated_losses": tolerated(count, model),
        "missing": sorted(m.name for m in charter.members if m.key not in done),
        "complete": len(done) == count,
        "warnings": founding.warnings(charter),
    }


def review(charter: "Charter", signed: "SignedCharter", place: "Home | None" = None) -> dict[str, Any]:
    """Return everything that a member agrees to by signing; with `place`, a home, also which columns it feeds."""
    from ..node.core.contribution import RECOVERY_ROUNDS

    learning, rules = charter.learning, charter.rules
    modalities = {modality.name: modality for modality in learning.modalities}
    leaves = [_leaves(charter, spec) for spec in charter.components]
    with taking_long("computing what the planned rounds cost one student …"):
        student = founding.student(charter)
    days = [one["bytes_a_day"] for one in leaves if one["bytes_a_day"] is not None]
    a_round = sum(one["bytes"] for one in leaves if not one["once"])
    once = sum(one["bytes"] for one in leaves if one["once"])
    return overview(charter, signed) | {
        "warnings": [*founding.warnings(charter), *_packages(charter), *_noise(charter, place)],
        "amendments": charter.number,
        "leaves": leaves,
        "bytes_a_round": a_round,
        "bytes_a_day": sum(days) if days else None,
        "bytes_planned_rounds": once + learning.planned_rounds * a_round,
        "bytes_recovery_rounds": RECOVERY_ROUNDS * a_round,
        "here": None if place is None else here(place, charter),
        "privacy": [
            {
                "modality": bound.modality,
                "kind": own.kind if (own := modalities.get(bound.modality)) is not None else "groups",
                "sensitivity": (own.sensitivity or None) if own is not None else None,
                "policy": bound.policy,
                "epsilon": bound.epsilon / 1000 if bound.policy == "dp" else None,
                "delta": bound.delta / 1e9 if bound.policy == "dp" else None,
            }
            for bound in learning.bounds
        ],
        "equity": [
            {
                "task": decision.task,
                "threshold": decision.threshold / 1e6,
                "flagged": decision.flagged,
                "attributes": [attribute.name for attribute in equity.attributes],
                "after_round": equity.after,
            }
            for equity in learning.equity
            for decision in equity.decisions
        ],
        "student": student,
        "writes": [
            {"task": task.name, "reads": task.modalities[0], "max_tokens": task.classes, "template": task.template}
            for task in learning.writers.values()
        ],
        "planned_rounds": learning.planned_rounds,
        "recovery_share": learning.recovery_share / 1e6,
        "sample_rate": learning.sample_rate / 1e6,
        "shards": learning.shards,
        "min_students": learning.min_students,
        "deadline_seconds": rules.round_deadline / 1000,
        "refold_horizon": rules.refold_horizon,
    }


def _packages(charter: "Charter") -> list[str]:
    """Return what has to be installed here, for components whose architecture a package brings."""
    from ..node.architectures import advice, missing, reference

    lacks = missing(charter.components)
    needs = {own: lacks[s.name] for s in charter.components if s.name in lacks and (own := reference(s.architecture))}
    return [f"{problem}. {advice(own)}" for own, problem in needs.items()]


def _noise(charter: "Charter", place: "Home | None") -> list[str]:
    """Return what its author was warned of: components whose noise is large, with as many students as declared here."""
    from ..node.home import config as settings
    from ..node.home.policies import declared_students

    if place is None or not place.config.exists():
        return []
    students = declared_students(settings.load(place.config), charter)
    if not students:
        return []
    drowned = founding.noise(charter.components, charter.learning, students, len(charter.members))
    return [f"{text} (with {students} students at each member)" for text in drowned] + founding.faint(charter, students)


def _leaves(charter: "Charter", spec: "ComponentSpec") -> dict[str, Any]:
    """Return what one update of a component is: bytes at most, compressed as it is sent."""
    from ..consensus.robust import liars
    from ..protocol.update import max_frame_size

    most, pace = max_frame_size(spec), charter.rules.pace / 1000
    rounds = 1 if spec.is_statistic else charter.learning.planned_rounds
    a_day = None if spec.is_statistic or not pace else round(most * min(DAY / pace, rounds))
    return {
        "component": spec.name,
        "parameters": spec.dimension,
        "bytes": most,
        "bytes_a_day": a_day,
        "once": spec.is_statistic,
        "learns_from": sorted(charter.learning.upstream(spec.name)),
        "noised": spec.noise_multiplier > 0,
        "rule": spec.rule,
        "liars": liars(spec.rule, len(charter.members)),
    }


def examine(
    place: "Home", charter: "Charter", signed: "SignedCharter", *, anyway: bool, printed: bool
) -> dict[str, Any]:
    """Check that this home can be a member under a charter, and return its review, `printed` before it is signed.

    Raises RefusedError unless `anyway`, also where the data folder does not fit. Raises UsageError for a config.toml
    that cannot be read.
    """
    founding.check_addresses(charter.members, anyway=anyway)
    founding.check_policy(place, charter, anyway=anyway)
    founding.warn_of_lot(place, charter)
    result = review(charter, signed, place) | {"quiet_hours": of_home(place, charter)}
    if printed:
        show(console(), result)
    founding.check_fit(result["here"], anyway=anyway)
    return result


def show(out: "Console", result: dict[str, Any]) -> None:
    """Print a review for people."""
    count = len(result["members"])
    if result["amendments"]:
        times = counted(result["amendments"], "amendment")
        begun = f"This is the charter in force of the federation {result['name']}, after {times}"
        prose(out, f"{begun} (`collegium charter history`). {counted(count, 'member')} founded it.")
    else:
        prose(out, f"By this charter {counted(count, 'member')} found the federation {result['name']}.")
    out.print()
    facts(out, [("charter", result["fingerprint"]), ("in full", result["federation"])])
    prose(out, "Every member has to see the same 25 digits: compare them by telephone, and each other's keys.")
    _heading(out, "Who is in")
    rows = [(m["name"], solid(m["fingerprint"]), "yes" if m["signed"] else "not yet") for m in result["members"]]
    table(out, ("member", "key, to read by telephone", "signed"), rows, empty="No members.")
    _heading(out, "What leaves this house")
    _show_leaves(out, result, count)
    if result["here"] is not None:
        _heading(out, "What it is made from here")
        _show_here(out, result["here"])
    _heading(out, "What that may show of a student")
    _show_privacy(out, result)
    for task in result["writes"]:
        _heading(out, f"What {task['task']} writes")
        prose(
            out,
            f"Texts of at most {task['max_tokens']} tokens, each a draft for a teacher: it can be wrong, and may repeat"
            f" a student's error as a fact. The model continues this, with the passages of {task['reads']} in it:",
        )
        out.print(task["template"], markup=False, highlight=False)
    _heading(out, "How it goes")
    facts(out, _course(result, count))
    _heading(out, "What can never be changed")
    prose(
        out,
        "The ε and δ of a modality, the shape, base and noise of what is there, and the fault model: others are another"
        " federation. By vote members come in and go, and amend the rest (`charter amend`): they open modalities, tasks"
        " and components, or retire some, and set the rule, pace, deadline and recipe. No vote makes this node spend"
        " more than its own ε. Privacy that is spent stays spent. At any time you can hold your data back"
        " (`node pause`), leave (`peer leave`), and have your contributions to the last"
        f" {result['refold_horizon']:,} rounds taken out again (`unlearn`).",
    )
    if result["warnings"]:
        out.print()
        for warning in result["warnings"]:
            prose(out, f"warning: {warning}")


def _heading(out: "Console", text: str) -> None:
    out.print()
    out.print(text, style="bold")


def _show_leaves(out: "Console", result: dict[str, Any], count: int) -> None:
    prose(
        out,
        "No record of a student, and no text, picture, id or result of one. What leaves are changes of the model's"
        " weights: in each round one update of each of these components.",
    )
    rows = [
        (
            one["component"],
            f"{one['parameters']:,}",
            ", ".join(one["learns_from"]),
            f"{size(one['bytes'])}{' once' if one['once'] else ''}",
            size(one["bytes_a_day"]),
            "yes" if one["noised"] else "NO",
        )
        for one in result["leaves"]
    ]
    columns = ("component", "numbers", "learns from", "a round, at most", "a day", "noised")
    table(out, columns, rows, empty="Nothing.")
    a_day = (
        f"{size(result['bytes_a_day'])} a day at this pace"
        if result["bytes_a_day"] is not None
        else "as often as rounds close (there is no pace)"
    )
    bounded = any(p["epsilon"] for p in result["privacy"])
    a_day += (
        f", {size(result['bytes_planned_rounds'])} in the {result['planned_rounds']} planned rounds. Beyond these it"
        f" goes on {'while ε lasts' if bounded else 'until it is paused'}. A withdrawal opens rounds of its own:"
        f" at most {size(result['bytes_recovery_rounds'])} each time"
    )
    others = "" if count < 2 else f" Up to {counted(count - 1, 'member')} may fetch it here."
    prose(
        out,
        f"Together {size(result['bytes_a_round'])} a round, {a_day}.{others} With them go, signed: this member's name,"
        " key and addresses; what it trains and withdraws; the number of students that it declares (lot_size, no count"
        " of the data); what each round cost in privacy; its votes.",
    )


def here(place: "Home", charter: "Charter") -> dict[str, Any] | None:
    """Return which columns of this home's data folder are read, or why that is not known; None without a home."""
    from ..node.data.feeds import house_columns
    from ..node.data.manifest import read_manifest
    from ..node.home import config as settings
    from ..node.home.declared import charter_misfits
    from ..node.home.models import missing_models

    if not place.config.exists():
        return None
    config = settings.load(place.config)
    folder = config.data.path
    found: dict[str, Any] = {
        "folder": None if folder is None else str(folder),
        "columns": None,
        "why": "",
        "misfits": [],
        "models_missing": {},
    }
    if folder is None:
        return found | {"why": "this home names no data folder ([data] path in config.toml), so it feeds nothing"}
    try:
        columns = house_columns(read_manifest(folder), charter.learning)
        lacks = missing_models(config, charter)
        return found | {"columns": columns, "misfits": charter_misfits(config, charter), "models_missing": lacks}
    except OperatorError as error:
        return found | {"why": f"not known: {error.message}"}


def _show_here(out: "Console", here: dict[str, Any]) -> None:
    from ..node.data.fits import MEND
    from ..node.home import models

    columns = here["columns"]
    if columns is None:
        prose(out, f"{here['why'][:1].upper()}{here['why'][1:]}.")
        return
    if here["misfits"]:
        prose(out, "This data folder does NOT fit the charter: this node could not train on it.")
        for misfit in here["misfits"]:
            prose(out, f"- {misfit}")
        prose(out, MEND)
    if here["models_missing"]:
        prose(out, f"Before the start: {models.lacking(here['models_missing'])}. {models.MEND}")
    rows = [(f"{feed['what']} {feed['name']}", feed["file"], _listed(feed["columns"])) for feed in columns["feeds"]]
    table(out, ("it is", "from", "columns"), rows, empty="Nothing of this data folder is read under this charter.")
    apart = f" {', '.join(columns['keys'])}: only to tell records and students apart." if columns["keys"] else ""
    groups = f" {', '.join(columns['groups'])}: only for figures by group, kept here." if columns["groups"] else ""
    prose(out, f"Updates are computed from these columns of {here['folder']}; no cell leaves.{apart}{groups}")


def _listed(names: list[str]) -> str:
    more = len(names) - MANY_COLUMNS
    return ", ".join(names[:MANY_COLUMNS]) + (f" and {more} more (--json has all)" if more > 0 else "")


def _show_privacy(out: "Console", result: dict[str, Any]) -> None:
    rows = [
        (p["modality"], of_kind(p["kind"], p["sensitivity"]), POLICIES[p["policy"]], p["epsilon"], p["delta"])
        for p in result["privacy"]
    ]
    table(out, ("modality", "kind", "privacy", "ε", "δ"), rows, empty="No modalities.")
    facts(out, [("one student", founding.student_fact(result["student"]))])
    for one in result["equity"]:
        prose(
            out,
            f"Groups: after round {one['after_round']} of {one['task']} each member releases, once, how many of its"
            f" held-out students of each {' and each '.join(one['attributes'])} the model flags ({one['flagged']}"
            f" {one['threshold']:g}), right and wrong. They train nothing, so their ε (held-out) is one of its own.",
        )
    if any(p["epsilon"] for p in result["privacy"]):
        prose(
            out,
            "ε bounds what anybody can learn of one student from all updates of this member together, whatever else"
            " they know; δ is the chance that the bound fails. A smaller ε is more private. Of each ε"
            f" {result['recovery_share']:.0%} are kept for the rounds after a student's removal. config.toml may be"
            " stricter than the charter, never laxer.",
        )


def _quiet(result: dict[str, Any]) -> list[tuple[str, object]]:
    """Say the quiet hours of the home that reviews, if it has any: its own choice, and no part of the charter."""
    quiet = result.get("quiet_hours")
    if not quiet:
        return []
    when = f"this node does not train at {', '.join(quiet['spans'])} local time (its config.toml)"
    return [("quiet hours", when + missed_words(quiet["rounds_missed"], quiet["rounds_due"]))]


def _course(result: dict[str, Any], count: int) -> list[tuple[str, object]]:
    rules: dict[tuple[str, int], list[str]] = {}
    for leaf in result["leaves"]:
        rules.setdefault((leaf["rule"], leaf["liars"]), []).append(leaf["component"])
    alone = len(rules) == 1
    return [
        ("rounds", f"{result['planned_rounds']} are planned, and the noise is made for them"),
        *founding.shard_facts(result["shards"]),
        ("pace", founding.pace_words(result["pace_seconds"], result["planned_rounds"])),
        ("start", f"nothing is trained before {result['starts_at']}" if result["starts_at"] else "at once"),
        *_quiet(result),
        ("deadline", f"a round waits {lasting(result['deadline_seconds'])} for a member that is late"),
        *(
            (
                "rule",
                f"{rule}: tolerates {counted(liars, 'member that lies', 'members that lie') if liars else 'no liar'}"
                f" in {count} updates" + ("" if alone else f" ({', '.join(names)})"),
            )
            for (rule, liars), names in rules.items()
        ),
        (
            "decisions",
            f"{result['quorum']} of {count} members ({result['fault_model']}): it goes on without"
            f" {result['tolerated_losses']}",
        ),
        ("who trains", f"members that declare at least {result['min_students']} students"),
    ]
