"""`collegium ledger`: agreed records, their verification, and proofs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_HEIGHT
from .files import check_new, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import emit, facts, names, plain, progress, short, size, table
from .proposals import elsewhere
from .read import answer, warn_of_missing_data

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.views.shapes_ledger import RecordLine, Said

app = typer.Typer(help="The ledger: agreed records, verified from the charter alone.", no_args_is_help=True)


@app.command("log")
def log(
    author: Annotated[str | None, typer.Option(help="Only this member's: a name, or a prefix of a key.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind: offer, update, attest, evidence, withdrawal.")
    ] = None,
    component: Annotated[str | None, typer.Option(help="Only about this component.")] = None,
    since: Annotated[int, typer.Option(min=1, max=MAX_HEIGHT, help="From this height on.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the last ones.")] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List agreed records in the order of the ledger."""
    from ..node import views

    records = answer(
        existing_home(home),
        lambda client: client.ledger_log(author=author, kind=kind, component=component, since=since, limit=limit),
        lambda context: views.ledger_log(
            context,
            author=None if author is None else views.find_member(context, author),
            kind=kind,
            component=component,
            since=since,
            limit=limit,
        ),
    )
    emit(records, as_json, lambda out: _records(out, records))


def _records(out: "Console", records: "list[RecordLine]") -> None:
    rows = [
        (r["height"], r["author"]["name"], r["seq"], r["kind"], short(r["digest"]), about(r["about"])) for r in records
    ]
    table(out, ("height", "author", "seq", "kind", "digest", "about"), rows, empty="No such record is agreed on yet.")


def about(facts_: "Said") -> str:
    """Return a record's content in one line."""
    if "component" in facts_:
        text = f"{facts_['component']} round {facts_['round']}"
        if facts_["generation"]:
            text += f" generation {facts_['generation']}"
        if "acks" in facts_:
            claims = [f"ε {c['epsilon']:g} of {c['modality']}" for c in facts_["claims"] if c["epsilon"] is not None]
            return ", ".join([text, f"{len(facts_['acks'])} acks", *claims])
        return f"{text} is {short(facts_['digest'])}"
    if "components" in facts_:
        return ", ".join(facts_["components"])
    if "through" in facts_:
        return f"{facts_['owner']['name']} withdraws up to {facts_['through']} by {facts_['mode']}"
    return ", ".join(f"{name}: {plain(value)}" for name, value in facts_.items())


@app.command("show")
def show(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A height, or a prefix of a digest.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a block or a record."""
    from ..node import views

    record = answer(
        existing_home(home),
        lambda client: client.record(reference),
        lambda context: views.ledger_show(context, reference),
    )

    def people(out: Any) -> None:
        if record["type"] == "record":
            skipped = ("type", "about", "author")
            facts(out, [("author", record["author"]["name"])])
            facts(out, [(name, value) for name, value in {**record, **record["about"]}.items() if name not in skipped])
            return
        closed = ", ".join(f"{close['component']} round {close['round']}" for close in record["close"])
        facts(
            out,
            [
                ("block", record["height"]),
                ("id", record["id"]),
                ("follows", record["prev"]),
                ("tree", f"{record['tree_size']} records, root {record['tree_root']}"),
                ("ledger state", record["fold"]),
                ("closes", closed or "no round"),
                ("decided by", f"{names(record['certificate']['signed_by'])}, view {record['certificate']['view']}"),
            ],
        )
        _records(out, record["records"])

    emit(record, as_json, people)


@app.command("verify")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A file of `export`, `prove` or `consistency`; no home needed."),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(metavar="HEIGHT:ID", help="A block id known from elsewhere that must be there; may be repeated."),
    ] = None,
    charter: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The charter that FILE must be of [the one in FILE].")
    ] = None,
    states: Annotated[
        bool, typer.Option("--states/--no-states", help="Fold the hosted components again from the updates' bytes.")
    ] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every signature, certificate and header, from the charter alone: of this node's files, or of FILE."""
    from ..node.verify import verify_home_ledger, verify_home_states

    if file is not None:
        if home is not None:
            raise UsageError("FILE and --home do not go together", "A file is verified without any node.")
        _verify_file(file, charter, pin or [], as_json)
        return
    if charter is not None:
        raise UsageError("--charter goes with a FILE", "A node's files are held to its own charter.")
    node_home = existing_home(home)
    pins = dict(map(parse_pin, pin or []))
    if states:
        warn_of_missing_data(node_home)
    with progress(as_json) as step:
        report = verify_home_ledger(node_home, pins=pins, progress=step)
        found_states, skipped = verify_home_states(node_home, report, progress=step) if states else ((), ())
    result: Any = {
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
                ("trusted height", result["height"]),
                ("block id", result["block"]),
                ("tree", f"{result['tree_size']} records, root {result['tree_root']}"),
                ("pin it", f"--pin {result['height']}:{result['block']}"),
            ],
        )
        _inert(out, result["refused_records"])
        rows = [
            (s["component"], s["round"], s["generation"], s["label"], s["updates"], s["digest"])
            for s in result["states"]
        ]
        if states:
            table(
                out,
                ("component", "round", "generation", "state", "updates", "digest"),
                rows,
                empty="Nothing hosted here.",
            )

    emit(result, as_json, people)


def _verify_file(file: Path, charter_file: Path | None, pin: list[str], as_json: bool) -> None:
    from ..node.store.errors import disk_errors
    from ..node.verify import read_charter, verify_file

    pins = dict(map(parse_pin, pin))
    charter = None if charter_file is None else read_charter(charter_file)[0]
    with disk_errors(file), progress(as_json) as step:
        try:
            stream = file.open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise UsageError(f"There is no file {file}", "`collegium ledger export FILE` makes one.") from None
        with stream:
            report = verify_file(stream, str(file), charter=charter, pins=pins, progress=step)
    result: Any = {
        "verified": True,
        "file": str(file),
        **report.as_map(),
        "pinned": [{"height": height, "block": block.hex()} for height, block in sorted(pins.items())],
    }
    emit(result, as_json, lambda out: _outsider(out, result, None if charter is None else charter_file))


def _outsider(out: Any, result: Any, charter: Path | None) -> None:
    """Show the statements of a verified file, and the root of trust."""
    held = "compare it with one that you know" if charter is None else f"that of {charter}"
    counted = {
        "ledger": lambda: (
            f"ledger of {result['records']} records, {result['signatures']} signatures, {result['height']} blocks"
        ),
        "inclusion": lambda: f"inclusion of record {result['record']['digest']}",
        "consistency": lambda: f"height {result['height']} appends to height {result['extends']['height']}",
    }[result["type"]]()
    rows = [
        ("verified", counted),
        ("federation", f"{result['name']}, {result['federation']}: {held}"),
        ("trusted height", result["height"]),
        ("block id", result["block"]),
        ("tree", f"{result['tree_size']} records, root {result['tree_root']}"),
        ("members then", f"{len(result['members'])}, changed at {result['membership_changes']} heights before"),
    ]
    if result["type"] == "inclusion":
        record = result["record"]
        rows.append(
            ("record", f"{record['kind']} {record['seq']} of {short(record['author'])}, leaf {record['position']}")
        )
    if result["type"] == "consistency":
        older = result["extends"]
        rows.append(("extends", f"block {older['block']}, {older['tree_size']} records, root {older['tree_root']}"))
    rows.append(("pin it", f"--pin {result['height']}:{result['block']}"))
    facts(out, rows)
    _inert(out, result.get("refused_records", {}))


def _inert(out: Any, refused: Any) -> None:
    if refused:
        text = ", ".join(f"{count} × {reason}" for reason, count in refused.items())
        out.print(f"inert records, refused by every member alike: {text}")


def _checked_by_anybody(file: Path) -> str:
    return elsewhere(f"anybody checks it: collegium ledger verify {file}")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes.")],
    until: Annotated[
        int | None, typer.Option(min=1, max=MAX_HEIGHT, metavar="HEIGHT", help="Only up to this height.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the whole ledger (charter, blocks, certificates, records) for outsiders to verify."""
    from ..node.verify.outsiders import export as frames
    from ..node.verify.outsiders import source_of

    node_home = existing_home(home)
    check_new(file, force=force)
    with progress(as_json) as step, source_of(node_home, step) as source:
        height = source.height(until)
        write_new(file, frames(source, height), force=force)
    length = file.stat().st_size
    result = {"file": str(file), "height": height, "bytes": length}
    text = f"{height} blocks, {size(length)}, written to {file}; {_checked_by_anybody(file)}"
    emit(result, as_json, lambda out: out.print(text))


@app.command("prove")
def prove(
    reference: Annotated[str, typer.Argument(metavar="RECORD", help="A prefix of a record's digest.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes.")],
    at: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_HEIGHT, metavar="HEIGHT", help="In the tree at this height; by default the last one."
        ),
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a proof that a record is in the ledger, for outsiders to verify without the ledger."""
    from ..node.verify.outsiders import prove as make
    from ..node.verify.outsiders import source_of

    node_home = existing_home(home)
    check_new(file, force=force)
    with progress(as_json) as step, source_of(node_home, step) as source:
        data, checked = make(source, reference, at)
    write_new(file, [data], force=force)
    result: Any = {"file": str(file), "bytes": len(data), **checked.as_map()}
    text = f"{size(len(data))}, written to {file}; {_checked_by_anybody(file)}"

    def people(out: Any) -> None:
        _outsider(out, result, None)
        out.print(text)

    emit(result, as_json, people)


@app.command("consistency")
def consistency(
    first: Annotated[int, typer.Argument(metavar="A", min=1, max=MAX_HEIGHT, help="The earlier height.")],
    second: Annotated[int, typer.Argument(metavar="B", min=1, max=MAX_HEIGHT, help="The later height.")],
    out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the proof.")] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the ledger at height B appends to the ledger at height A; with --out, write the proof."""
    from ..node.verify.outsiders import consistency as make
    from ..node.verify.outsiders import source_of

    node_home = existing_home(home)
    if out_file is not None:
        check_new(out_file, force=force)
    with progress(as_json) as step, source_of(node_home, step) as source:
        data, checked = make(source, first, second)
    if out_file is not None:
        write_new(out_file, [data], force=force)
    result: Any = {
        "file": None if out_file is None else str(out_file),
        "bytes": len(data),
        **checked.as_map(),
        "path": [node.hex() for node in checked.path],
    }

    def people(out: Any) -> None:
        _outsider(out, result, None)
        if out_file is not None:
            out.print(f"{size(len(data))}, written to {out_file}; {_checked_by_anybody(out_file)}")

    emit(result, as_json, people)


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
