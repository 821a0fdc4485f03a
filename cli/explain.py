"""`collegium explain`: why the model gives a record its result, by role; and whether another node finds the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..crypto.errors import UsageError, VerificationError
from .files import check_new, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import Progress, emit, json_text, progress, say

if TYPE_CHECKING:
    from ..node.explaining import Explanation, Role
    from ..node.home.paths import Home
    from ..node.page.source import Explains
    from ..node.verify import Model

OPENING = "starting a learner on the own data"
EXPLAINING = "explaining"
ADVICE = "Set [data] path: its dataset.toml says what the columns of a file mean."
SHARED = (
    "It explains the model that the federation shares (`predict --shared`). Of this institution's home layer it tells"
    " the result alone: no other node could compute that again."
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet with the columns of the unit table.")]


class FileFirst(TyperGroup):
    """A noun whose first word may be a file: `explain FILE` is `explain file FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperGroup."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["file", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=FileFirst, help="Why the model gives a record its result, for those who may know it.", no_args_is_help=True
)


@app.command("file")
def explain(
    file: File,
    role: Annotated[
        str, typer.Option("--role", metavar="R", help="student, guardian, instructor or administrator: who reads it.")
    ],
    task: Annotated[str | None, typer.Option("--task", metavar="T", help="The task, if there are several.")] = None,
    record: Annotated[
        str | None, typer.Option("--record", metavar="KEY", help="This record of the file: a student's own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT.json", help="Also write it there, to be verified.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="OUT.html", help="Also write it there as a page.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain what `predict` says of a record, or of a class, as one role may see it. A daemon may run or not."""
    from ..node.explaining import html, text, written
    from ..node.verify import home_model

    node_home = existing_home(home)
    for target in (out, page):
        if target is not None:
            check_new(target, force=force)
    reader = _role(role)
    with progress(as_json) as step:
        model = home_model(node_home, from_bytes=False, progress=step)
        made = explained(node_home, model, file, reader, _task(model, task), record, step)
    whole = written(made)
    if out is not None:
        write_new(out, [json_text(whole).encode()], force=force)
    if page is not None:
        write_new(page, [html(made).encode()], force=force)
    emit(whole, as_json, lambda console: console.print(text(made), soft_wrap=True))
    if not as_json:
        say(f"note: {SHARED}")


@app.command("verify")
def verify(
    explanation: Annotated[Path, typer.Argument(metavar="FILE", help="What `explain --out` wrote, anywhere.")],
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="The records that it explains.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute an explanation again from this node's states and the same records, and compare all of its figures."""
    from ..node.explaining import compare, read
    from ..node.verify import home_model

    node_home = existing_home(home)
    theirs = read(explanation)
    proof = theirs.proof
    with progress(as_json) as step:
        model = home_model(node_home, from_bytes=False, at=proof.at, progress=step)
        federation = model.report.ledger.federation.hex()
        if proof.federation != federation:
            raise UsageError(
                f"{explanation} is of federation {proof.federation[:16]}, and this node is in {federation[:16]}",
                "Verify it at a member of its federation.",
            )
        task = _task(model, proof.task)
        ours = explained(node_home, model, records, proof.role, task, proof.record, step, here=False)
    found = compare(theirs, ours)
    height = {"theirs": proof.height, "here": model.report.ledger.height}
    if found.differences:
        more = f" (and {len(found.differences) - 8} more)" if len(found.differences) > 8 else ""
        raise VerificationError(
            f"{explanation}: " + "; ".join(found.differences[:8]) + more,
            f"It is of height {height['theirs']}, this node is at {height['here']}. Figures are equal where states,"
            " method and records are.",
        )
    result: Any = {
        "verified": True,
        "role": proof.role,
        "task": proof.task,
        "figures": found.figures,
        "largest_difference": found.largest,
        "height": height,
    }

    def people(console: Any) -> None:
        console.print(
            f"Verified: {found.figures} figures are the same here, the largest difference is {found.largest:.1e}."
        )
        console.print(f"It was made at height {height['theirs']}; this node is at {height['here']}.")

    emit(result, as_json, people)


def explained(
    home: "Home",
    model: "Model",
    file: Path,
    role: "Role",
    task: str,
    record: str | None,
    step: Progress | None,
    *,
    here: bool = True,
) -> "Explanation":
    """Return an explanation for this role, with what the home layer makes of it if that is asked for `here`.

    Raises UsageError; RefusedError for a home layer where removals are not known.
    """
    from ..node.explaining import Contributor, Explanation, proof_of, view, without_members
    from ..node.explaining import here as told_here
    from ..node.explaining.roles import of_one
    from ..node.home import config as settings
    from ..node.learner.messages import Explain
    from ..protocol.learning import GENERATE
    from .learners import own_learner

    if not file.exists():
        raise UsageError(f"There is no {file}", "Name a CSV or Parquet file, or a folder like the data folder.")
    kind = next(one.kind for one in model.report.charter.learning.tasks if one.name == task)
    one = of_one(role, kind)
    if role == "instructor" and not one and record is not None:
        raise UsageError("--record, and an instructor sees the class", "Leave it out, or choose another role.")
    if not model.trained:
        raise UsageError("No round is closed yet: there are no states", "Wait for the first round: `round list`.")
    members = without_members(home, model, progress=step) if role == "administrator" else ()
    states = {name: c.state.astype("<i4").tobytes() for name, c in model.components.items()}
    at_home = here and kind != GENERATE and settings.load(home.config).learning.home_layer
    variants = tuple(member.states for member in members)
    request = Explain(states, str(file.absolute()), task, record, variants, home_layer=at_home)
    _tell(step, OPENING, 0)
    with own_learner(home, model, ADVICE, home_layer=at_home) as learner:
        _tell(step, OPENING, 1)
        if step is not None:
            learner.told = lambda done, total: step(EXPLAINING, done, total)
        answer = learner.ask(replace(request, only=record is None and one))
        learner.told = None
    contributors = [Contributor(member.name, member.key) for member in members]
    named = answer.records[0].record if one else record
    proof = proof_of(role, task, named, model, answer)
    return Explanation(proof, view(role, answer, contributors), told_here(role, answer))


def _tell(step: Progress | None, what: str, done: int) -> None:
    if step is not None:
        step(what, done, done)


def _role(name: str) -> "Role":
    from ..node.explaining import ROLES

    found: Sequence[Role] = [role for role in ROLES if role == name]
    if not found:
        raise UsageError(f"There is no role {name!r}", f"Roles are {', '.join(ROLES)}.")
    return found[0]


def _task(model: "Model", name: str | None) -> str:
    """Return the task to explain. Raises UsageError where none, or more than one, could be meant."""
    from ..protocol.component_names import ComponentKind, of_kind

    written = [task.name for task in model.report.charter.learning.writers.values() if task.carrier in model.components]
    tasks = sorted([*of_kind(ComponentKind.HEAD, model.components), *written])
    if name is None and len(tasks) == 1:
        return tasks[0]
    if name not in tasks:
        what = "which task?" if name is None else f"there is no task {name!r} here"
        raise UsageError(what, f"Known here: {', '.join(tasks)}. Name one by --task.")
    return name


def for_page(home: "Home") -> "Explains":
    """Return what the page of a home explains results by."""

    def explains(file: str, role: "Role", task: str | None, record: str | None, /) -> "Explanation":
        from ..node.verify import home_model

        model = home_model(home, from_bytes=False)
        return explained(home, model, Path(file).expanduser(), role, _task(model, task), record, None)

    return explains
