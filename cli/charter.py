"""`collegium charter`: found a federation, sign its charter, show the signatures."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import RefusedError, UsageError
from ..node.words import counted, of_kind
from ..protocol.bounds import MAX_HEIGHT
from . import amending, founding
from . import review as reviewing
from .drawing import (
    AnywayOption,
    DeadlineOption,
    DeltaOption,
    EpsilonOption,
    FaultModelOption,
    MinStudentsOption,
    ModelOption,
    NameOption,
    NoDpOption,
    PaceOption,
    PresetOption,
    RoundsOption,
    RuleOption,
    StartOption,
    Terms,
    YesOption,
    draw_up,
)
from .files import check_new
from .members import parse_member, read_members
from .options import ForceOption, HomeOption, JsonOption, PassphraseOption, existing_home, home_of, key_passphrase
from .output import confirm, emit, facts, say, table
from .proposals import elsewhere
from .quiet import of_home
from .read import charter_in_force, from_store
from .review import overview

if TYPE_CHECKING:
    from ..protocol.charter import Charter, SignedCharter
    from ..protocol.learning import Modality, PrivacyFloor

app = typer.Typer(help="The founding document of a federation.", no_args_is_help=True)
FileArgument = Annotated[Path | None, typer.Argument(metavar="FILE", help="A charter file; by default the home's.")]


@app.command("create")
def create(
    name: NameOption,
    preset: PresetOption = None,
    model: ModelOption = None,
    member: Annotated[
        list[str] | None, typer.Option(metavar="NAME=HEXKEY@ADDR[,ADDR]", help="A member; repeat it for each.")
    ] = None,
    members: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Members in TOML: [[member]] with name, key, addresses.")
    ] = None,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    rounds: RoundsOption = None,
    no_dp: NoDpOption = False,
    rule: RuleOption = None,
    fault_model: FaultModelOption = "byzantine",
    deadline: DeadlineOption = 60.0,
    pace: PaceOption = "0",
    start: StartOption = "",
    min_students: MinStudentsOption = 20,
    anyway: AnywayOption = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write; by default the home's.")] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw up a charter in a file. Every member then signs it (`charter sign`); over the network: `charter found`."""
    from ..protocol import schema
    from ..protocol.charter import SignedCharter

    terms = Terms(
        name,
        preset,
        model,
        epsilon,
        delta,
        rounds,
        no_dp,
        rule,
        fault_model,
        deadline,
        pace,
        founding.start_of(start),
        min_students,
        anyway,
    )
    terms.check()
    people = [parse_member(text) for text in member or []] + (read_members(members) if members is not None else [])
    if not people:
        raise UsageError("A charter needs members", elsewhere("Give --member for each, as `collegium init` prints it."))
    founding.check_twice(people)
    founding.check_addresses(people, anyway=anyway)
    path = out if out is not None else home_of(home).charter
    if out is not None:
        check_new(out, force=force)
    elif path.exists():
        raise RefusedError(f"There is a charter already: {path}", "Move it away, or write elsewhere with --out.")
    drawn = draw_up(terms, people, os.urandom(32), int(time.time()))
    signed = SignedCharter(schema.dump(drawn.charter), ())
    write_charter(path, signed)
    result = {"file": str(path), **overview(drawn.charter, signed), "student": founding.student(drawn.charter)}
    result["noise"] = founding.loudness(drawn.charter, drawn.students)

    def show_it(console: Any) -> None:
        facts(
            console,
            [
                ("charter", path),
                ("federation", result["federation"]),
                *founding.start_facts(drawn.charter),
                ("pace", founding.pace_fact(drawn.charter)),
                ("one student", founding.student_fact(result["student"])),
            ],
        )
        founding.show_loudness(console, result["noise"], drawn.students)
        sign_it = "collegium charter sign" + ("" if out is None else f" {path}")
        console.print(f"Next: sign it yourself (`{sign_it}`), and send the signed file to every member.")
        console.print(elsewhere(f"Each runs `collegium charter sign {path.name}` and sends its own copy back to you."))

    for warning in drawn.warnings:
        say(f"warning: {warning}")
    emit(result, as_json, show_it)


@app.command("model")
def model_(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Data folders with a dataset.toml each.")],
    as_json: JsonOption = False,
) -> None:
    """Print a model file, to edit, for the modalities and tasks of data folders: `charter create --model` reads it."""
    from ..node.blueprint.derive import TEXT_MODEL, TEXT_NOTE, model_toml

    text = model_toml(folders)
    emit({"model": text}, as_json, lambda _console: typer.echo(text, nl=False))
    if TEXT_MODEL in text:
        say(TEXT_NOTE)


app.command("amend")(amending.amend)
app.command("history")(amending.history)
app.command("diff")(amending.diff)
app.command("effect")(amending.effect)


@app.command("show")
def show(
    file: FileArgument = None,
    at: Annotated[
        int | None,
        typer.Option(
            "--at",
            metavar="HEIGHT",
            min=1,
            max=MAX_HEIGHT,
            help="The charter in force at this height, with its amendments.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a charter: members, rules, components, privacy. Without --at it is the founding one."""
    from ..protocol import schema

    charter, signed = _read(file, home)
    if at is not None:
        charter = _in_force(file, home, at)
    result: Any = overview(charter, signed) | {
        "charter": _hexed(schema.to_map(charter)),
        "student": founding.student(charter),
    }

    def people(out: Any) -> None:
        rules, learning = charter.rules, charter.learning
        facts(
            out,
            [
                ("name", charter.name),
                ("federation id", result["federation"]),
                ("by telephone", result["fingerprint"]),
                ("fault model", f"{rules.fault_model}: goes on without {result['tolerated_losses']} of its members"),
                ("deadline", f"a round waits {rules.round_deadline / 1000:g} s for a host that is late"),
                founding.fusion_fact(charter),
                *founding.start_facts(charter),
                ("pace", founding.pace_fact(charter)),
                ("late updates", f"count for {rules.max_staleness} more rounds"),
                ("withdrawals", f"are folded out of the last {rules.refold_horizon} rounds"),
                ("planned rounds", charter.learning.planned_rounds),
                ("one student", founding.student_fact(result["student"])),
                *founding.shard_facts(learning.shards),
                ("a step draws", f"{learning.drawn:g} of the students; lot_size is that times their expected number"),
                (
                    "trains",
                    f"who declares at least {charter.learning.min_students} students, by its lot_size; others host"
                    " and vote",
                ),
            ],
        )
        _member_table(out, result)
        numbers = [(s.width, s.noise_multiplier / 1e6, s.clip_norm / 1e6) for s in charter.components]
        rows = [
            (s.name, s.dimension, founding.architecture(s), _rule(charter, s.name), *more)
            for s, more in zip(charter.components, numbers, strict=True)
        ]
        columns = ("component", "parameters", "architecture", "rule", "bits", "noise", "clip")
        table(out, columns, rows, empty="No components.")
        learning = charter.learning
        floors = {floor.modality: floor for floor in learning.floors}
        modalities = [
            (m.name, of_kind(m.kind, m.sensitivity), m.width, m.length, _pretrained(m), *_floor(floors[m.name]))
            for m in learning.modalities
        ]
        headings = ("modality", "kind", "width", "length", "pretrained", "privacy", "ε", "δ")
        table(out, headings, modalities, empty="No modalities.")
        tasks = [(task.name, task.kind, task.classes, ", ".join(task.modalities)) for task in learning.tasks]
        table(out, ("task", "kind", "classes", "reads"), tasks, empty="No tasks.")
        for task in learning.writers.values():
            out.print(f"{task.name} writes {task.classes} tokens at most, after this template:")
            out.print(task.template, markup=False, highlight=False)
        if charter.number:
            out.print(f"in force after {counted(charter.number, 'amendment')}; its digest is {charter.digest.hex()}")

    emit(result, as_json, people)


@app.command("review")
def review(file: FileArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say in plain words what a charter (without FILE the one in force) binds to: what leaves, ε, pace, rule."""
    charter, signed = _read(file, home)
    place = home_of(home)
    charter = charter if file is not None else charter_in_force(place)
    result = reviewing.review(charter, signed, place) | {"quiet_hours": of_home(place, charter)}
    emit(result, as_json, lambda out: reviewing.show(out, result))


@app.command("sign")
def sign(
    file: FileArgument = None,
    merge: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Take over the signatures of another copy; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a copy there as well.")] = None,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Sign although members cannot reach each other, or this node cannot train."),
    ] = False,
    yes: YesOption = False,
    passphrase_file: PassphraseOption = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a charter as `review` does, ask, sign it with this node's key, keep it; merge other copies' signatures."""
    from ..node.home import keys
    from ..node.verify import read_charter
    from ..protocol.charter import add_signature

    place = existing_home(home)
    if out is not None:
        check_new(out, force=force)
    charter, signed = _read(file, home)
    others = [(path, *_read(path, home)) for path in merge or []]
    if file is not None and place.charter.exists():
        others.append((place.charter, *read_charter(place.charter)))
    for path, other, copy in others:
        founding.check_same((file or place.charter, charter), (path, other), kept=place.charter)
        signed = merged(signed, copy)
    if charter.member(keys_public := _public(place)) is None:
        raise RefusedError(
            f"key {keys_public.hex()[:16]} is not a member of federation {charter.name!r}",
            "Ask whoever drafts the charter to add your public key (`collegium init` prints it).",
        )
    new = all(entry.member != keys_public for entry in signed.signatures)
    result = reviewing.examine(place, charter, signed, anyway=anyway, printed=new and not as_json)
    if new:
        confirm("Sign this charter?", yes)
        signed = add_signature(charter, signed, keys.load(place, key_passphrase(place, passphrase_file)))
    write_charter(place.charter, signed)
    if out is not None:
        write_charter(out, signed)
    result |= {**overview(charter, signed), "warnings": result["warnings"], "file": str(place.charter)}

    def people(out: Any) -> None:
        out.print()
        _members(out, result)
        for line in founding.next_steps(place, charter, result["missing"]):
            out.print(line)

    emit(result, as_json, people)


@app.command("verify")
def verify(file: FileArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check a charter's rules and signatures; list the members that signed or have not, and warnings."""
    charter, signed = _read(file, home)
    result: Any = overview(charter, signed)

    def people(out: Any) -> None:
        _members(out, result)
        out.print("signed by everybody" if result["complete"] else f"still to sign: {', '.join(result['missing'])}")
        for warning in result["warnings"]:
            out.print(f"warning: {warning}")

    emit(result, as_json, people)
    if not result["complete"]:
        raise typer.Exit(6)


def merged(a: "SignedCharter", b: "SignedCharter") -> "SignedCharter":
    """Return a copy with the signatures of both; each was checked when its file was read."""
    from ..protocol.charter import SignedCharter

    by_member = {entry.member: entry for entry in (*b.signatures, *a.signatures)}
    return SignedCharter(a.charter, tuple(by_member[key] for key in sorted(by_member)))


def _in_force(file: Path | None, home: Path | None, height: int) -> "Charter":
    from ..node import views

    if file is not None:
        raise UsageError("--at is of this node's ledger, and FILE is a founding charter", "Leave out FILE, or --at.")
    return from_store(existing_home(home), lambda context: views.charter_at(context, height))


def _rule(charter: "Charter", name: str) -> str:
    return "retired" if name in charter.retired else charter.rule(name)


def _pretrained(modality: "Modality") -> str | None:
    named = (
        f"{each.model} {each.digest.hex()[:16]}" + f", {each.max_tokens} tokens" * bool(each.max_tokens)
        for each in modality.pretrained
    )
    return ", ".join(named) or None


def _floor(floor: "PrivacyFloor") -> tuple[object, ...]:
    return floor.policy, floor.epsilon / 1000 if floor.policy == "dp" else None, floor.delta / 1e9 or None


def _read(file: Path | None, home: Path | None) -> "tuple[Charter, SignedCharter]":
    from ..node.verify import read_charter

    if file is not None and not file.is_file():
        raise UsageError(
            f"There is no charter file {file}", "Check the path, or ask the member who sent you the charter for it."
        )
    return read_charter(file if file is not None else home_of(home).charter)


def write_charter(path: Path, signed: "SignedCharter") -> None:
    """Write a charter file. Raises UsageError if there is no such folder."""
    from ..node.store.files import write_atomic
    from ..protocol.charter import dump_file

    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {path.absolute().parent}", "Make it, or run `collegium init` first.")
    write_atomic(path, dump_file(signed))


def _public(home: Any) -> bytes:
    from .read import public_key

    key = public_key(home)
    if key is None:
        raise UsageError(f"There is no readable key in {home.root}", "Run `collegium init` there first.")
    return key


def _members(out: Any, summary: dict[str, Any]) -> None:
    out.print(f"federation {summary['federation']}")
    out.print(f"by telephone {summary['fingerprint']}")
    _member_table(out, summary)


def _member_table(out: Any, summary: dict[str, Any]) -> None:
    rows = [
        (m["name"], m["key"], "signed" if m["signed"] else "not signed", " ".join(m["addresses"]) or None)
        for m in summary["members"]
    ]
    table(out, ("member", "key", "signature", "addresses"), rows, empty="No members.")


def _hexed(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _hexed(item) for name, item in value.items()}
    return [_hexed(item) for item in value] if isinstance(value, list) else value
