"""The learner's jobs: opening it, budgets, training, evaluation, and what is learned for this node alone."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import structlog
import trio

from ...crypto.errors import UsageError
from ...protocol.charter import Charter
from ...protocol.claims import NO_EPSILON
from ...protocol.components import MILLION
from ...protocol.update import Declared, Engaged, least_lot, payload, within_norm
from ..core import events as ev
from ..core.state import NodeState
from ..home.config import Config
from ..home.paths import Home
from ..learner.answers import Opened
from ..learner.messages import (
    DecideRun,
    Engagement,
    Evaluate,
    LeftOut,
    Open,
    Personalise,
    PrivateAdapter,
    Train,
    opening,
)
from ..patience import in_thread
from ..privacy.budget import Budget, Modality, NoisePart
from ..unlearning.exclusion import Exclusion
from ..unlearning.students import NONE
from . import folding
from .consenting import asks, last_day, look_of, utc
from .evaluation import metric_rows
from .holdings import Holdings
from .learner import Learner, LearnerError
from .notes import Notes
from .pace import Pace

log = structlog.get_logger(__name__)


class Jobs:
    """This node's requests to its learner; the answers become events of the core."""

    def __init__(
        self,
        home: Home,
        config: Config,
        core: NodeState,
        holdings: Holdings,
        notes: Notes,
        exclusion: Exclusion,
        submit: Callable[[ev.Event], None],
        missing: str,
    ) -> None:
        self.home, self.config, self.core = home, config, core
        self.holdings, self.notes, self.exclusion, self.submit = holdings, notes, exclusion, submit
        self._missing = missing
        self._evaluated: ev.Evaluate | None = None
        self._evaluated_at_home: ev.Evaluate | None = None  # with the home layer too
        self._personalised = (0, 0)  # the last generation and round that private adapters were due at
        self._busy_at_home = trio.Lock()
        self._reopening = False
        self.pace = Pace(core.charter.rules.round_deadline / 1000)
        self.learner = Learner(
            config.learning.learner,
            self._opening(),
            self._on_learner_ready,
            lambda: submit(ev.LearnerLost()),
            missing,
            lambda: submit(ev.LearnerReads()),
        )

    @property
    def charter(self) -> Charter:
        """The charter in force."""
        return self.core.charter

    async def reopen(self) -> None:
        """Restart the learner; its work in progress is discarded."""
        request = self._opening()
        if request is not None:
            self._reopening = True  # until it is ready: failures meanwhile are not the learner's
            self.submit(ev.LearnerReads())
            await self.learner.reopen(request)

    def asks_consents(self) -> bool:
        """Whether students' consents are looked at here: by dataset.toml as it is, or as it was read."""
        return asks(self.config) or self.learner.consents is not None

    def _opening(self) -> Open | None:
        if self.config.data.path is None or self._missing:
            return None
        excluded, learning = self.exclusion.load()[0], self.config.learning
        return replace(
            opening(self.charter, self.config.data.path, self.core.held),
            withheld=tuple(self.core.withheld),
            models={name: str(path) for name, path in self.config.models.folders},
            cache=str(self.home.embeddings),
            purge=True,  # the cache belongs to this home only: students who left the data leave it too
            home_layer=learning.home_layer,
            private=str(self.home.private) if learning.private_adapter else None,
            private_adapter=PrivateAdapter.named(learning.private_adapter, learning.private_rank),
            excluded=LeftOut(excluded.salt, tuple(sorted(excluded.tags))),
            processes=learning.processes,
            day=last_day(look_of(self.config), utc()).isoformat(),
        )

    def _on_learner_ready(self, answer: Opened) -> None:
        log.info("learner ready", subjects=answer.subjects, held_out=answer.held_out)
        if self._reopening:
            # All is to be learned again, without the students left out now.
            self._personalised, self._evaluated_at_home = (0, 0), None
        self._reopening = False
        self.exclusion.read(answer.everybody, None if answer.consents is None else answer.refused, answer.unclear)
        self.submit(ev.LearnerReady(tuple(answer.components)))

    async def check_budget(self, check: ev.CheckBudget) -> None:
        """Ask the accountant whether another training run fits the budgets, and notify the core."""
        share = self.charter.learning.recovery_share
        request = DecideRun(
            modalities=tuple(
                Modality(
                    reach.modality,
                    Budget(reach.epsilon, reach.delta / 1e9, share, check.recovery),
                    reach.spent,
                    reach.components,
                )
                for reach in check.modalities
            ),
            components=tuple(
                NoisePart(
                    part.component, part.noise_multiplier, part.last, part.clip_norm, part.utility, part.dimension
                )
                for part in check.parts
            ),
            sample_rate=check.sample_rate,
            steps=check.steps,
            rounds=check.rounds,
            lines=check.lines,
        )
        try:
            verdict = await self.learner.request(request)
        except LearnerError as error:
            self.submit(ev.TrainingFailed(check.run, f"the accountant did not answer: {error}", not self._reopening))
            return
        lacking = [reach.modality for reach in check.modalities if reach.modality not in verdict.modalities]
        if lacking:  # a learner of the operator's own
            self.submit(ev.TrainingFailed(check.run, f"the accountant did not answer of {', '.join(lacking)}"))
            return
        event = ev.BudgetAnswer(
            check.run,
            verdict.allowed,
            verdict.reason,
            verdict.noises,
            {name: decision.after for name, decision in verdict.modalities.items()},
            {
                reach.modality: verdict.modalities[reach.modality].rounds_left
                for reach in check.modalities
                if reach.epsilon != NO_EPSILON
            },
        )
        if not event.allowed and not check.recovery and self.charter.learning.recovery_share:
            kept = f"{event.reason} ({self.charter.learning.recovery_share / 10_000:g} % kept for recovery rounds)"
            event = replace(event, reason=kept)
        self.submit(event)

    async def train(self, train: ev.Train) -> None:
        """Train, pack the updates, write the manifest, and notify the core."""
        asked = trio.current_time()
        try:
            trained = [(recipe.component, recipe.chain) for recipe in train.recipes]
            states = await self._states([*trained, *train.context])
            request = Train(
                states=states,
                engaged={
                    r.component: Engagement.of(r.clip_norm, r.noise_multiplier, r.learning_rate) for r in train.recipes
                },
                steps=train.steps,
                sample_rate=train.sample_rate / MILLION,
                lot=train.lot / 1000,
                shard=train.shard,
            )
            answer = await self.learner.request(request)
            blobs = await in_thread(self._pack, train, answer.updates)
            root = NONE if answer.subjects is None else await in_thread(self.exclusion.manifests.put, answer.subjects)
        except (LearnerError, folding.MissingBlobsError, UsageError) as error:
            self.submit(ev.TrainingFailed(train.run, str(error), not self._reopening))
            return
        log.info("trained", run=train.run, seconds=answer.seconds, saturated=answer.saturated)
        await self.pace.wait(asked, answer.seconds)
        self.submit(ev.Trained(train.run, blobs, root))
        await self.notes.add(
            {(recipe.component, recipe.round): {"trained_at": time.time()} for recipe in train.recipes},
            self.core.ledger.height,
        )
        await self._at_home(after=train.run)

    async def _states(self, chains: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
        """Return states in the learner's encoding, from (component, chain). Raises MissingBlobsError."""
        states = {}
        for name, chain in chains:
            rounds = self.core.ledger.components[name].rounds
            state = await in_thread(self.holdings.state_at, name, rounds, chain)
            states[name] = folding.state_bytes(state)
        return states

    def _pack(self, train: ev.Train, updates: dict[str, bytes]) -> dict[str, tuple[bytes, int]]:
        blobs = {}
        for recipe in train.recipes:
            spec = self.core.specs[recipe.component]
            raw, size = updates.get(recipe.component, b""), spec.dimension * spec.width // 8
            if len(raw) != size:
                raise UsageError(f"the learner returned {len(raw)} bytes for {recipe.component}, not {size}")
            values = np.frombuffer(raw, dtype=spec.integer_type)
            me = self.core.me
            name, noise, clip, rate = recipe.component, recipe.noise_multiplier, recipe.clip_norm, recipe.learning_rate
            declared = Declared(Engaged(name, spec.base, noise, clip, rate), train.steps, train.lot)
            values = within_norm(values, declared, spec, least_lot(self.charter.learning))
            data = payload(self.core.federation, me, recipe.component, recipe.round, values)
            blobs[recipe.component] = (self.holdings.blobs.put(data), len(data))
        return blobs

    async def evaluate(self, evaluate: ev.Evaluate) -> None:
        """Evaluate on this node's own held-out subjects; the figures stay here (G6)."""
        if await self._measure(evaluate):
            self._evaluated = evaluate
            await self._at_home()

    async def _measure(self, evaluate: ev.Evaluate, *, home_layer: bool = False) -> bool:
        try:
            states = await self._states((name, chain) for name, _, _, chain in evaluate.states)
            answer = await self.learner.request(Evaluate(states, home_layer=home_layer))
            rows = metric_rows(
                answer, evaluate, time.time(), {task.name: task.carrier for task in self.charter.learning.tasks}
            )
        except (LearnerError, folding.MissingBlobsError) as error:
            log.warning("evaluation failed", reason=str(error))
            return False
        await in_thread(self.notes.store.put_metrics, rows)
        log.info(
            "evaluated",
            rounds={name: round_ for name, round_, _, _ in evaluate.states},
            tasks={name: report.value for name, report in answer.tasks.items()},
        )
        return True

    async def _at_home(self, after: int | None = None) -> None:
        """Evaluate the last evaluated states with the home layer as well, and train private adapters if they are due.

        Only while no run is under way and the node is not on hold. Where runs follow each other (`after` the run with
        this number), this is done every `personalise_every` rounds, and after a withdrawal: the learner's time is for
        training. Of the home layer nothing is stored but its figures; private adapters stay in the node's home.
        """
        learning = self.config.learning
        if not learning.home_layer or self.core.on_hold or self._busy_at_home.locked():
            return
        async with self._busy_at_home:
            evaluated, run, every = self._evaluated, self.core.run, learning.personalise_every
            if evaluated is None or evaluated is self._evaluated_at_home or (run is not None and run.number != after):
                return
            round_ = max((round_ for _, round_, _, _ in evaluated.states), default=0)
            generation = max((generation for _, _, generation, _ in evaluated.states), default=0)
            due = (generation, round_ // every) > (self._personalised[0], self._personalised[1] // every)
            if after is not None and not due:
                return
            self._evaluated_at_home = evaluated
            if due:
                self._personalised = (generation, round_)
                await self._personalise(evaluated, round_)
            await self._measure(evaluated, home_layer=True)

    async def _personalise(self, evaluated: ev.Evaluate, round_: int) -> None:
        if not self.config.learning.private_adapter:
            return
        try:
            states = await self._states((name, chain) for name, _, _, chain in evaluated.states)
            answer = await self.learner.request(Personalise(states))
        except (LearnerError, folding.MissingBlobsError) as error:
            log.warning("private adapters were not trained", reason=str(error))
            return
        log.info("private adapters trained", round=round_, parameters=answer.parameters)
