"""`collegium ledger`: what was agreed on, and whether it is what it says."""

from typing import Annotated, Any

import typer

from ..crypto.errors import UsageError
from .options import HomeOption, JsonOption, existing_home
from .output import emit, facts, names, progress, short, table
from .read import answer

app = typer.Typer(help="The ledger: what was agreed on, checked from the charter alone.", no_args_is_help=True)


@app.command("log")
def log(
    author: Annotated[str | None, typer.Option(help="Only this member's: a name, or the beginning of a key.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind: offer, update, attest, evidence, withdrawal.")
    ] = None,
    component: Annotated[str | None, typer.Option(help="Only about this component.")] = None,
    since: Annotated[int, typer.Option(min=1, help="From this height on.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the last ones.")] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List agreed records in the order of the ledger."""
    from ..node import views  # noqa: PLC0415 - imports of commands wait until they run

    query = {"author": author, "kind": kind, "component": component, "since": since, "limit": limit}
    found: Any = answer(
        existing_home(home),
        lambda client: client.get("/ledger/log", **query),
        lambda context: views.ledger_log(
            context,
            author=None if author is None else views.find_member(context, author),
            kind=kind,
            component=component,
            since=since,
            limit=limit,
        ),
    )
    emit(found, as_json, lambda out: _records(out, found))


def _records(out: Any, records: Any) -> None:
    rows = [
        (r["height"], r["author"]["name"], r["seq"], r["kind"], short(r["digest"]), about(r["about"])) for r in records
    ]
    table(out, ("height", "author", "seq", "kind", "digest", "about"), rows, empty="No such record is agreed on yet.")


def about(facts_: Any) -> str:
    """Say in a line what a record is about."""
    if "component" in facts_:
        text = f"{facts_['component']} round {facts_['round']}"
        if facts_["epoch"]:
            text += f" epoch {facts_['epoch']}"
        if "acks" in facts_:
            claims = [f"ε {c['epsilon']:g} of {c['modality']}" for c in facts_["claims"] if c["epsilon"] is not None]
            return ", ".join([text, f"{len(facts_['acks'])} acks", *claims])
        return f"{text} is {short(facts_['digest'])}"
    if "components" in facts_:
        return ", ".join(facts_["components"])
    if "through" in facts_:
        return f"{facts_['owner']['name']} withdraws up to {facts_['through']} by {facts_['mode']}"
    return ", ".join(f"{name}: {value}" for name, value in facts_.items())


@app.command("show")
def show(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A height, or the beginning of a digest.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a block or a record."""
    from ..node import views  # noqa: PLC0415 - as above

    found: Any = answer(
        existing_home(home),
        lambda client: client.record(reference),
        lambda context: views.ledger_show(context, reference),
    )

    def people(out: Any) -> None:
        if found["type"] == "record":
            skipped = ("type", "about", "author")
            facts(out, [("author", found["author"]["name"])])
            facts(out, [(name, value) for name, value in {**found, **found["about"]}.items() if name not in skipped])
            return
        closed = ", ".join(f"{close['component']} round {close['round']}" for close in found["close"])
        facts(
            out,
            [
                ("block", found["height"]),
                ("id", found["id"]),
                ("follows", found["prev"]),
                ("tree", f"{found['tree_size']} records, root {found['tree_root']}"),
                ("ledger state", found["fold"]),
                ("closes", closed or "no round"),
                ("decided by", f"{names(found['certificate']['signed_by'])}, view {found['certificate']['view']}"),
            ],
        )
        _records(out, found["records"])

    emit(found, as_json, people)


@app.command("verify")
def verify(
    pin: Annotated[
        list[str] | None,
        typer.Option(metavar="HEIGHT:ID", help="A block id known from elsewhere that must be there; may be repeated."),
    ] = None,
    states: Annotated[
        bool, typer.Option("--states/--no-states", help="Fold the hosted components again from the updates' bytes.")
    ] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every signature, certificate, header and state in this node's files, from the charter alone."""
    from ..node.verify import verify_home_ledger, verify_home_states  # noqa: PLC0415 - as above

    place = existing_home(home)
    pins = dict(map(parse_pin, pin or []))
    with progress(as_json) as step:
        report = verify_home_ledger(place, pins=pins, progress=step)
        found_states, skipped = verify_home_states(place, report, progress=step) if states else ((), ())
    found: Any = {
        "verified": True,
        **report.as_map(),
        "pinned": [{"height": height, "block": block.hex()} for height, block in sorted(pins.items())],
        "states": [state.as_map() for state in found_states],
        "not_hosted_here": list(skipped),
    }

    def people(out: Any) -> None:
        facts(
            out,
            [
                (
                    "verified",
                    f"{report.records} records, {report.signatures} signatures, {report.ledger.height} blocks",
                ),
                ("trusted height", found["height"]),
                ("block id", found["block"]),
                ("tree", f"{found['tree_size']} records, root {found['tree_root']}"),
                ("pin it", f"--pin {found['height']}:{found['block']}"),
            ],
        )
        if found["refused_records"]:
            refused = ", ".join(f"{count} × {reason}" for reason, count in found["refused_records"].items())
            out.print(f"inert records, refused by every member alike: {refused}")
        rows = [
            (s["component"], s["round"], s["epoch"], s["label"], s["updates"], s["digest"]) for s in found["states"]
        ]
        if states:
            table(
                out, ("component", "round", "epoch", "state", "updates", "digest"), rows, empty="Nothing hosted here."
            )

    emit(found, as_json, people)


def parse_pin(text: str) -> tuple[int, bytes]:
    """Read HEIGHT:ID. Raises UsageError."""
    height, _, name = text.partition(":")
    try:
        block = bytes.fromhex(name)
    except ValueError:
        block = b""
    if not height.isdecimal() or len(height) > 18 or int(height) < 1 or len(block) != 32:
        raise UsageError(f"{text!r} is no pin", "Write HEIGHT:ID, the id in 64 hexadecimal digits.")
    return int(height), block
