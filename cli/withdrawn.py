"""A checked withdrawal in words: verified facts, pending ones, and those that cannot be shown from here."""

from typing import TYPE_CHECKING, Any, assert_never

from ..node.words import counted
from .output import facts, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.verify.states import Label

ALIKE = 5  # problems that are shown
PROGRESS = "`collegium unlearn status`"
NOT_SHOWN = "what is on other members' disks, and whether the institution deleted its own data"


def tell(out: "Console", report: Any) -> None:
    """Print the report on one member's withdrawals, from this node's own files."""
    name, components = report["name"], report["components"]
    removed = sum(c["removed_updates"] for c in components)
    others = sum(c["rewound_updates_of_others"] for c in components)
    kept = sum(c["updates_beyond_refold_horizon"] for c in components)
    lines: list[tuple[str, object]] = [
        ("withdrawal of", f"{name}, agreed at height {report['height']}"),
        ("result", _result(report, removed, others)),
        ("certified", certified(components)),
    ]
    if kept:
        lines.append(
            (
                "stays",
                f"{counted(kept, 'update')} of {name}, older than the refold horizon: in the model still",
            )
        )
    lines += [("erased here", f"{report['erased_blobs']} blobs"), ("not shown", NOT_SHOWN)]
    facts(out, lines)
    rows = [
        (
            c["component"],
            c["generation"],
            c["round"],
            c["removed_updates"] + c["rewound_updates_of_others"],
            c["updates_beyond_refold_horizon"],
            _state(c),
            c["digest"] or "not hosted here",
        )
        for c in components
    ]
    columns = ("component", "generation", "round", "removed", "too old", "state", "digest without it")
    table(out, columns, rows, empty="")
    for problem in report["problems"][:ALIKE]:
        out.print(f"problem: {problem}")
    if len(report["problems"]) > ALIKE:
        out.print(f"{len(report['problems']) - ALIKE} more problems: --json lists them all.")


def certified(components: Any) -> str:
    """Return the components whose state the hosts certified, and the others with reasons, in words."""
    labels: dict[str, Label] = {c["component"]: c["label"] for c in components}
    waiting = [c for c in components if labels[c["component"]] == "not certified yet"]
    few = [name for name, label in labels.items() if label == "uncertified"]
    parts = []
    if waiting:
        names = ", ".join(f"{c['component']}{_signed(c)}" for c in waiting)
        parts.append(f"not yet: the state of {names}. Ask again when enough hosts have signed it: {PROGRESS}")
    if few:
        parts.append(f"not to be had: {', '.join(few)} has too few hosts for a certificate, whoever signs")
    done = len(components) - len(waiting) - len(few)
    if done or not parts:
        parts.insert(0, f"by the hosts, {'all' if done == len(components) else done} of {len(components)} components")
    return "; ".join(parts)


def _signed(c: Any) -> str:
    return f" ({c['attested']} of {c['needed']} hosts)" if "attested" in c else ""


def _result(report: Any, removed: int, others: int) -> str:
    if report["problems"]:
        return "NOT verified: see the problems below"
    if report["pending"]:
        return _pending(report)
    if not removed + others:
        return "verified: nothing that it withdrew counts in any round"
    gone = f"the {counted(removed, 'update')}" + (f", and {others} of other members," if others else "")
    held = sum(c["digest"] is not None for c in report["components"])
    return (
        f"verified: {gone} count in no round any more; {held} of {len(report['components'])} states were computed"
        " again here without them"
    )


def _pending(report: Any) -> str:
    """Return the sentence on a withdrawal that is agreed, but not carried out yet."""
    unsigned = sum("not-certified" in what for what in report["pending"])
    kept = sum(what.startswith("blob-not-erased") for what in report["pending"])
    parts = [f"the hosts have still to sign {unsigned} of {len(report['components'])} states without it"]
    parts = parts if unsigned else []
    if kept:
        parts.append(f"{kept} withdrawn blobs are erased once they have")
    waiting = "; ".join(parts) or "old states are still erased"
    return f"not yet: {waiting}. It takes no further round; follow it: {PROGRESS}"


def _state(c: Any) -> str:
    label: Label = c["label"]
    match label:
        case "uncertified":
            return f"signed by {c['attested']}, too few hosts to certify"
        case "certified":
            return f"certified by {c['attested']} (needs {c['needed']})"
        case "not certified yet":
            return f"not certified yet: {c['attested']} of {c['needed']}"
        case _:
            assert_never(label)
