"""`collegium demo`: a whole federation on this machine, on real data, with real processes, a crash and a withdrawal.

It claims nothing that it did not just see: every line of the closing table is read from the nodes' own stores, and
`problems` names whatever did not hold.
"""

import math
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ...consensus.rules import faults
from ...crypto.errors import CollegiumError, OperatorError, UsageError
from ...node.blueprint.derive import stated
from ...node.blueprint.presets import RECIPES, preset
from ...node.blueprint.recipe import Budget
from ...node.control.client import Client
from ...node.core.events import Snapshot
from ...node.core.messages import Kind
from ...node.home.config import Privacy
from ...node.learner.client import Worker, worker
from ...node.learner.messages import opening
from ...node.runtime import logs
from ...node.runtime.folding import compute
from ...node.store.blobs import Blobs
from ...node.store.states import States
from ...node.verify import verify_home_withdrawal
from ...protocol.blocks import Vote
from ...protocol.charter import Charter
from ...protocol.components import MILLION, state_digest
from ...protocol.signing import open_signed
from ..learn.baseline import States as Trained
from ..learn.baseline import local_only, quality, scores
from ..learn.datasets import prepare_digits, prepare_oulad
from . import report
from .federation import Agreed, Daemon, Institution, Settings, found
from .observe import View, bytes_per_round, closed, fold_ledger, look, lower_bound, moment, round_seconds, snapshot
from .result import Result

ALPHA = 0.3
EPSILON, DELTA = 8.0, 1e-5
ROBUST = "clip+nnm+trimmed_mean"  # the rule where some lie, unless another one is asked for
LYING = (sys.executable, "-P", "-m", "collegium.sims.processes.lying_learner")
STALL_SECONDS = 180.0
HOLD_SECONDS = 20.0


def run(
    data: Path | None = None,
    institutions: int | None = None,
    rounds: int = 8,
    dp: bool = True,
    keep: Path | None = None,
    as_json: bool = False,
    liars: int = 0,
    rule: str | None = None,
) -> int:
    """Run the demo; return 0 only if all of it held. `data` is the OULAD folder; without it, the digits.

    `liars` institutions, those before the last, send the opposite of what they learned (lying_learner.py); then the
    default rule is a robust one.
    """
    console = Console(stderr=as_json)
    logs.configure("console", "warning")  # to stderr: standard output is for the result
    if rounds < 3:
        raise UsageError("the demo needs at least 3 rounds", "One before the crash, one with it, one after it.")
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise UsageError(f"{keep} is not empty", "Name a new folder for --keep.")
    with ExitStack() as stack:
        if keep is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-demo-")))
        else:
            root = keep.absolute()
            root.mkdir(parents=True, exist_ok=True)
        demo = Demo(root, console, data, institutions, rounds, dp, liars, rule or (ROBUST if liars else "mean"))
        stack.callback(demo.stop)
        result = demo.run()
    if as_json:
        sys.stdout.write(report.as_json(result) + "\n")
    else:
        report.show(console, result, keep)
    return 0 if result.ok else 1


class Demo:
    """One run."""

    def __init__(
        self,
        root: Path,
        console: Console,
        data: Path | None,
        institutions: int | None,
        rounds: int,
        dp: bool,
        liars: int = 0,
        rule: str = "mean",
    ) -> None:
        self.root, self.console, self.rounds, self.dp = root, console, rounds, dp
        name = "digits" if data is None else "oulad"
        console.print(f"[bold]Founding a federation[/bold] on {'scikit-learn digits' if data is None else data} …")
        folders = self._folders(data, institutions)
        count = len(folders)
        if not 0 <= liars < count - 1:
            raise UsageError(f"{liars} of {count} institutions cannot lie", "At least two have to be honest.")
        if rule != "mean" and liars > (tolerated := faults(count)):
            raise UsageError(
                f"{liars} of {count} institutions lie, and {rule} tolerates {tolerated}",
                f"Let {tolerated} lie, take more institutions, or --rule mean to see the damage.",
            )
        lying = [title for title, _ in folders[count - 1 - liars : count - 1]]
        seed = secrets.token_bytes(32)
        specs, learning = preset(
            # One training run more than rounds: what the killed daemon had reserved stays spent.
            name,
            budget=Budget(EPSILON, DELTA, rounds + 1) if dp else None,
            rounds=rounds + 1,
            institutions=count,
            rule=rule,
            base_seed=seed,
            statistic=True,
        )
        learning = stated(learning, [folder for _, folder in folders])
        recipe = RECIPES[name]
        lot = max(1.0, round(recipe.sample_rate / MILLION * recipe.students / count, 1))
        self.charter, self.institutions = found(
            root,
            [(title, folder, lot) for title, folder in folders],
            Agreed(f"demo-{name}", specs, learning, seed, deadline_ms=30_000),
            Settings(
                rounds,
                Privacy(epsilon=EPSILON, delta=DELTA, policy="dp" if dp else "open"),
                learners=dict.fromkeys(lying, LYING),
            ),
        )
        self.daemons = [Daemon(institution) for institution in self.institutions]
        self.views = [View() for _ in self.institutions]
        self.result = Result(
            name, "accuracy" if data is None else "AUC", rounds, [i.name for i in self.institutions], dp, rule, lying
        )
        self.result.statistic = next(spec.name for spec in specs if spec.is_statistic)
        self.names = {i.identity.public_key: i.name for i in self.institutions}
        self.started = 0.0
        self.disturbed: set[int] = {1}

    def _folders(self, data: Path | None, institutions: int | None) -> list[tuple[str, Path]]:
        if data is None:
            folders = prepare_digits(self.root / "data", institutions or 4, ALPHA, seed=0)
            return [(f"school-{index + 1}", folder) for index, folder in enumerate(folders)]
        return [(f"module-{name}", path) for name, path in prepare_oulad(data, self.root / "data", institutions or 7)]

    def stop(self) -> None:
        """Stop every daemon."""
        for daemon in self.daemons:
            daemon.stop()

    # ---- the story

    def run(self) -> Result:
        """Run the whole demo; problems are noted, not raised, as long as it can go on."""
        result = self.result
        self.console.print(
            f"{len(self.institutions)} institutions, each with its own directory, key, data and daemon; "
            f"components {', '.join(spec.name for spec in self.charter.components)}; "
            + (f"DP-SGD, ε ≤ {EPSILON:g} for each student at δ = {DELTA:g}" if self.dp else "no differential privacy")
        )
        if result.liars:
            sentence = f"{', '.join(result.liars)} lie: they send three times the opposite of what they learned"
            self.console.print(f"[red]{sentence}[/red]; the rule is {result.rule}")
        if self.result.task == "digits":
            self.console.print(
                f"1,797 digits, split by label with Dirichlet α = {ALPHA}; each image counts as one subject"
            )
        try:
            self._train()
            self._figures()
            before = self._final_states()
            with ExitStack() as stack:
                workers = self._workers(stack)
                self._quality(before, workers)
                self._withdraw(workers)
        except OperatorError as error:
            result.problems.append(str(error))
        self._audit()
        return result

    def _train(self) -> None:
        self.started = time.time()
        for daemon in self.daemons:
            daemon.start()
        victim = self.daemons[1 % len(self.daemons)]
        crash_round = max(2, self.rounds // 2)
        with Live(self._table(), console=self.console, refresh_per_second=4, transient=True) as live:
            self._until(lambda: self.views[1 % len(self.views)].draws >= crash_round, live, "the round of the crash")
            self._crash(victim, crash_round, live)
            self._until(lambda: all(closed(v, self.charter) >= self.rounds for v in self.views), live, "the last round")
            self._until(lambda: all((0, self.rounds) in v.metrics for v in self.views), live, "the last evaluation")
        self.console.print(replace(self._table(), whole=True))

    def _crash(self, victim: Daemon, round_: int, live: Live) -> None:
        name = victim.institution.name
        victim.kill()
        self.result.killed = name
        self.disturbed |= {round_, round_ + 1, round_ - 1}
        # Its records at any member: the others have what the crash took from its own disk.
        before = {w: d for i in self.institutions for w, d in self._words(i, victim.institution).items()}
        live.console.print(f"[red]kill -9[/red] {name} in the middle of round {round_}")
        time.sleep(1.0)
        victim.start()
        live.console.print(f"{name} started again; the others go on")

        def back() -> bool:
            return closed(self.views[self.daemons.index(victim)], self.charter) >= round_

        self._until(back, live, f"{name} to catch up")
        after = self._words(victim.institution, victim.institution)
        # Votes of decided heights are let go; no record ever is, and no word may change.
        lost = [
            word
            for word, payload in before.items()
            if after.get(word, payload if word[0] == "vote" else b"") != payload
        ]
        if lost:
            self.result.problems.append(f"{name} lost or changed {len(lost)} signed statements in the crash")
        self.result.recovered = not lost

    def _words(self, keeper: Institution, speaker: Institution) -> dict[tuple[object, ...], bytes]:
        """Return another institution's records by seq and votes by step, from one institution's disk."""
        return dict(_signed(snapshot(keeper), speaker.identity.public_key, self.charter))

    def _until(self, done: Callable[[], bool], live: Live | None, what: str) -> None:
        last, changed = None, time.time()
        while not done():
            time.sleep(0.1)
            self.views = [look(i, v) for i, v in zip(self.institutions, self.views, strict=True)]
            for daemon in self.daemons:
                reason = daemon.dead()
                if reason is not None:
                    raise OperatorError(f"the daemon of {daemon.institution.name} ended: {reason}")
            if live is not None:
                live.update(self._table())
            state = [(v.height, v.draws, len(v.metrics), len(v.notes)) for v in self.views]
            if state != last:
                last, changed = state, time.time()
            elif time.time() - changed > STALL_SECONDS:
                rounds = zip(self.institutions, self.views, strict=True)
                where = ", ".join(f"{i.name} at round {closed(v, self.charter)}" for i, v in rounds)
                raise OperatorError(
                    f"nothing happened for {STALL_SECONDS:g} s while waiting for {what}: {where}",
                    f"Read node.log of the members that are behind, in {self.root}.",
                )

    def _table(self) -> report.Progress:
        return report.Progress(
            self.views, self.institutions, self.charter, self.result.metric, self.started, self.names
        )

    def _final_states(self) -> Trained:
        """Ask every host which state it holds, and compare with what its own ledger and bytes fold to."""
        states: Trained = {}
        for institution in self.institutions:
            ledger = fold_ledger(institution, self.charter)
            expected = {}
            for spec in self.charter.components:
                component = ledger.components[spec.name]
                with tempfile.TemporaryDirectory() as scratch:
                    state, _ = compute(spec, component.rounds, Blobs(institution.home.blobs), States(Path(scratch)))
                states[spec.name] = state
                expected[spec.name] = state_digest(spec.name, state).hex()
            held = _held_digests(institution, expected)
            for name, digest in expected.items():
                self.result.state_digests.setdefault(name, {})[institution.name] = held.get(name, "")
                if held.get(name) != digest:
                    self.result.problems.append(f"{institution.name} holds another state of {name} than it should")
        return states

    def _workers(self, stack: ExitStack) -> list[Worker]:
        """Open a worker on the data of each institution."""
        folders = [i.data for i in self.institutions if i.data is not None]
        with ThreadPoolExecutor(len(folders)) as pool:
            return list(pool.map(lambda folder: stack.enter_context(worker(opening(self.charter, folder))), folders))

    def _quality(self, federated: Trained, workers: list[Worker]) -> None:
        result, sums = self.result, self.result.statistic
        self.console.print("\nTraining each institution alone with the same recipe, for comparison …")
        folders = [(i.name, i.lot) for i in self.institutions]
        with ThreadPoolExecutor(len(folders)) as pool:

            def train(index: int) -> Trained:
                return local_only(self.charter, workers[index], folders[index][1], self.rounds)

            alone = list(pool.map(train, range(len(folders))))
            everybody = list(pool.map(lambda learner: scores(learner, federated), workers))
            for (name, _), states in zip(folders, alone, strict=True):
                learners_scores = list(pool.map(lambda learner, states=states: scores(learner, states), workers))
                result.local[name] = quality(learners_scores)
                result.own_local[name] = quality([learners_scores[result.nodes.index(name)]])
                result.statistic_local[name] = quality(learners_scores, sums)
        together = quality(everybody)
        result.statistic_federated = quality(everybody, sums)
        for index, institution in enumerate(self.institutions):
            result.federated[institution.name] = together
            result.own_federated[institution.name] = quality([everybody[index]])

    def _withdraw(self, workers: list[Worker]) -> None:
        result, leaver = self.result, self.institutions[-1]
        observer = self.institutions[0]
        result.withdrawn = leaver.name
        self.console.print(f"[yellow]{leaver.name} withdraws[/yellow] everything it contributed (refold) …")
        Client(leaver.home).request_withdrawal()

        def certified() -> bool:
            components = [fold_ledger(i, self.charter).components.values() for i in self.institutions]
            return all(
                c.generation >= 1
                and c.certified is not None
                and c.certified.generation == c.generation
                and not c.erasures
                for listing in components
                for c in listing
            )

        _wait_for(certified, "the refolded state to be certified everywhere")
        time.sleep(0.5)
        left = [scores(learner, states) for states in [self._final_states()] for learner in workers]
        result.after_withdrawal = quality(left)
        result.statistic_after_withdrawal = quality(left, result.statistic)
        try:
            checked = verify_home_withdrawal(observer.home, leaver.identity.public_key)
            result.withdrawal_verified = True
            result.withdrawal_digest = str(checked["digest"])
            result.verified.append(
                f"the withdrawal of {leaver.name}, from the ledger and bytes of {observer.name} alone"
            )
        except CollegiumError as error:
            result.problems.append(f"the withdrawal was not verified: {error}")

    # ---- what held

    def _audit(self) -> None:
        """G1: equal states. G8: nothing signed twice anywhere. G6: ε within the budget."""
        result = self.result
        for name, digests in result.state_digests.items():
            if len(set(digests.values())) != 1:
                result.problems.append(f"hosts hold different states of {name}")
        if result.state_digests and not any("different states" in p for p in result.problems):
            result.verified.append("every host holds the same bits")
        words: dict[tuple[object, ...], bytes] = {}
        for institution in self.institutions:
            for word, digest in _signed(snapshot(institution), None, self.charter):
                if words.setdefault(word, digest) != digest:
                    result.problems.append(f"{self.names.get(word[1], '?')} signed twice: {word[0]} {word[2:]}")  # type: ignore[call-overload]  # the key
        result.verified.append(f"no two different statements under one number among {len(words)} signed ones")
        if not result.recovered:
            result.problems.append(f"{result.killed or 'the killed daemon'} did not recover")
        for institution, view in zip(self.institutions, self.views, strict=True):
            view = look(institution, view)  # noqa: PLW2901 - the last look
            result.epsilon[institution.name] = view.epsilon / 1000
            if view.epsilon > EPSILON * 1000:
                result.problems.append(f"{institution.name} spent ε = {view.epsilon / 1000}")
        if self.dp:
            result.verified.append(f"every ε stayed within {EPSILON:g}, each training run on disk before it began")

    def _figures(self) -> None:
        result, charter = self.result, self.charter
        first = [moment(view, charter, 1, "folded_at") for view in self.views]
        result.first_round_seconds = min(first) - self.started if first else math.nan
        undisturbed = set(range(1, self.rounds + 1)) - self.disturbed
        # A short demo has no round that the start or the crash did not touch: then say what there was.
        skip = self.disturbed if len(undisturbed) > 1 else set()
        seconds = [round_seconds(self.views, charter, r) for r in range(1, self.rounds + 1) if r not in skip]
        result.round_seconds = [value for value in seconds if not math.isnan(value)]
        result.bytes_per_node_round = bytes_per_round(self.views, charter, skip)
        ledger = fold_ledger(self.institutions[0], charter)
        result.bytes_lower_bound = lower_bound(ledger, self.institutions, skip)


def _signed(stored: Snapshot, author: bytes | None, charter: Charter) -> Iterator[tuple[tuple[object, ...], bytes]]:
    """Yield what members signed: ("record", author, seq) and ("vote", author, height, view, step), with a digest."""
    records = [record for block in stored.blocks for record in block.records]
    for record in (*records, *stored.records):
        if author in (None, record.value.author):
            yield ("record", record.value.author, record.value.seq), record.digest
    for _, data in stored.messages:
        if data[0] == Kind.VOTE:
            vote = open_signed(Vote, data[1:], charter.federation, trusted=True).value
            if author in (None, vote.author):
                yield ("vote", vote.author, vote.height, vote.view, vote.step), vote.block


def _held_digests(institution: Institution, expected: dict[str, str]) -> dict[str, str]:
    """Return the digests of the states that a running host holds; one that still folds is waited for."""
    deadline = time.time() + HOLD_SECONDS
    while True:
        components = Client(institution.home).components()
        held = {item["component"]: str(item["digest"]) for item in components}
        if held == expected or time.time() > deadline:
            return held
        time.sleep(0.2)


def _wait_for(done: Callable[[], bool], what: str) -> None:
    deadline = time.time() + STALL_SECONDS
    while not done():
        if time.time() > deadline:
            raise OperatorError(f"waited {STALL_SECONDS:g} s for {what}")
        time.sleep(0.3)
