"""`collegium demo`: a whole federation on this machine, on real data, with real processes, a crash and a withdrawal.

It claims nothing that it did not just see: every line of the closing table is read from the nodes' own stores, and
`problems` names whatever did not hold.
"""

import math
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ...consensus.rules import faults
from ...crypto.errors import CollegiumError, OperatorError, UsageError
from ...node.blueprint.derive import stated
from ...node.blueprint.presets import RECIPES, preset
from ...node.blueprint.recipe import Budget
from ...node.control.client import Client
from ...node.home.config import Privacy
from ...node.learner.client import Worker
from ...node.learner.messages import opening
from ...node.runtime import logs
from ...node.verify import verify_home_withdrawal
from ...protocol.components import MILLION
from ..learn.baseline import States as Trained
from ..learn.baseline import local_only, quality, scores
from ..learn.datasets import prepare_digits, prepare_oulad
from . import report
from .federation import Agreed, Daemon, Institution, Settings, found
from .observe import bytes_per_round, closed, fold_ledger, lower_bound, moment, round_seconds, snapshot
from .result import Result
from .running import Running, folder_for, signed, wait_for

ALPHA = 0.3
EPSILON, DELTA = 8.0, 1e-5
ROBUST = "clip+nnm+trimmed_mean"  # the rule where some lie, unless another one is asked for
LYING = (sys.executable, "-P", "-m", "collegium.sims.processes.lying_learner")


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
    with ExitStack() as stack:
        root = folder_for(keep, stack)
        demo = Demo(root, console, data, institutions, rounds, dp, liars, rule or (ROBUST if liars else "mean"))
        stack.callback(demo.stop)
        result = demo.run()
    if as_json:
        sys.stdout.write(report.as_json(result) + "\n")
    else:
        report.show(console, result, keep)
    return 0 if result.ok else 1


class Demo(Running):
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
        self.rounds, self.dp = rounds, dp
        name = "digits" if data is None else "oulad"
        console.print(f"[bold]Founding a federation[/bold] on {'scikit-learn digits' if data is None else data} …")
        folders = _folders(root, data, institutions)
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
        charter, members = found(
            root,
            [(title, folder, lot) for title, folder in folders],
            Agreed(f"demo-{name}", specs, learning, seed, deadline_ms=30_000),
            Settings(
                rounds,
                Privacy(epsilon=EPSILON, delta=DELTA, policy="dp" if dp else "open"),
                learners=dict.fromkeys(lying, LYING),
            ),
        )
        self.result = Result(
            name, rounds, [i.name for i in members], dp, rule, lying, metric="accuracy" if data is None else "AUC"
        )
        self.result.statistic = next(spec.name for spec in specs if spec.is_statistic)
        self.disturbed: set[int] = {1}
        super().__init__(root, console, charter, members, self.result)

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
            before = self.final_states()
            with ExitStack() as stack:
                folders = [i.data for i in self.institutions if i.data is not None]
                workers = self.workers([opening(self.charter, folder) for folder in folders], stack)
                self._quality(before, workers)
                self._withdraw(workers)
        except OperatorError as error:
            result.problems.append(str(error))
        self._audit()
        return result

    def _train(self) -> None:
        self.start()
        victim = self.daemons[1 % len(self.daemons)]
        crash_round = max(2, self.rounds // 2)
        with Live(self.table(), console=self.console, refresh_per_second=4, transient=True) as live:
            self.until(lambda: self.views[1 % len(self.views)].draws >= crash_round, live, "the round of the crash")
            self._crash(victim, crash_round, live)
            self.until_trained(self.rounds, live)
        self.console.print(self.table(whole=True))

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

        self.until(back, live, f"{name} to catch up")
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
        return dict(signed(snapshot(keeper), speaker.identity.public_key, self.charter))

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

        wait_for(certified, "the refolded state to be certified everywhere")
        time.sleep(0.5)
        left = [scores(learner, states) for states in [self.final_states()] for learner in workers]
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
        """What every demo checks, and that the killed daemon came back."""
        self.audit(EPSILON if self.dp else None)
        if not self.result.recovered:
            self.result.problems.append(f"{self.result.killed or 'the killed daemon'} did not recover")

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


def _folders(root: Path, data: Path | None, institutions: int | None) -> list[tuple[str, Path]]:
    if data is None:
        folders = prepare_digits(root / "data", institutions or 4, ALPHA, seed=0)
        return [(f"school-{index + 1}", folder) for index, folder in enumerate(folders)]
    return [(f"module-{name}", path) for name, path in prepare_oulad(data, root / "data", institutions or 7)]
