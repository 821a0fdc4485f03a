"""A federation's training without its network: the daemon's own learner, update format and fold, round by round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np

from ...consensus.components import Entry, Round, State, fold_round, origin
from ...consensus.effects import shares
from ...consensus.rules import faults, mean, noise_variance
from ...crypto.errors import LocalProtocolError
from ...node.learner.client import Ask
from ...node.learner.messages import Engagement, Evaluate, Open, Personalise, Split, Train
from ...protocol.claims import MAX_NOISE
from ...protocol.components import FRACTION_BITS, MILLION, STATE_LIMIT, ComponentSpec
from ...protocol.learning import Learning
from ...protocol.records import GENESIS
from ...protocol.update import MIN_LOT, Engaged, Integers, norm_bounds
from .lies import LOUDLY, Stage, tell

States = dict[str, State]
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Learner:
    """One institution (or all of them pooled): its worker's session, components, lot L, and noise of its own if any."""

    name: str
    session: str
    hosted: tuple[str, ...]
    lot: float
    noises: Mapping[str, int] = field(default_factory=dict)
    claims_none: bool = False  # a lie: it adds its noise, and declares none


@dataclass(frozen=True, slots=True)
class Setting:
    """A federated training: specs and learning map of a charter, for so many rounds; which part of the data."""

    specs: Mapping[str, ComponentSpec]
    learning: Learning
    rounds: int
    split: Split = "train"
    weights: str = "designed"
    gaps_filled: bool = False  # whole models are averaged: a member that lacks a component sends no change of it
    liars: frozenset[str] = frozenset()
    attack: str | None = None  # of lies.py, which they send; without one they are honest


def opening(
    learner: Learner, folders: Sequence[str], specs: Sequence[ComponentSpec], learning: Learning, seed: bytes
) -> Open:
    """Return the request that opens a learner's session."""
    return Open(tuple(folders), tuple(specs), learning, seed, learner.hosted, session=learner.session)


def train(
    ask: Callable[[Learner], Ask],
    learners: Sequence[Learner],
    setting: Setting,
    seen: Callable[[States], None] = lambda _states: None,
    start: Mapping[str, State] | None = None,
) -> tuple[States, States]:
    """Train together; return the mean state of the last half of the rounds, and the last state.

    They begin with `start`, or the origin. Both are post-processing of released updates. A federation's members hold
    the last one. `seen` is called with the states after each round.
    """
    states = dict(start) if start is not None else {name: origin(spec) for name, spec in setting.specs.items()}
    sums = {name: np.zeros(state.shape) for name, state in states.items()}
    half = setting.rounds // 2
    for number in range(1, setting.rounds + 1):
        lying = frozenset[str]() if setting.attack is None else setting.liars
        updates = [
            {} if learner.name in lying else update(ask(learner), learner, setting, states, number)
            for learner in learners
        ]
        if lying:
            _lied(learners, updates, setting, lying, number)
        for name, spec in setting.specs.items():
            both = zip(learners, updates, strict=True)
            hosts = [(learner, each[name]) for learner, each in both if name in each]
            states[name] = _folded(states[name], spec, number, hosts, setting, len(learners))
        if number > half:
            for name, state in states.items():
                sums[name] += state
        seen(states)
    means = {name: np.rint(total / (setting.rounds - half)).astype(np.int32) for name, total in sums.items()}
    return means, states


def evaluate(
    ask: Ask, learner: Learner, states: States, split: Split = "held_out", *, home_layer: bool = False
) -> Report:
    """Return a learner's report on its own students (node/learner/evaluate.py), also with the home layer."""
    packed = {name: states[name].tobytes() for name in learner.hosted}
    answer = ask(Evaluate(packed, split, learner.session, home_layer))
    at_home = {name: asdict(report) for name, report in answer.home_layer.items()}
    return {name: {**asdict(report), "home_layer": at_home.get(name)} for name, report in answer.tasks.items()}


def personalise(ask: Ask, learner: Learner, states: States) -> None:
    """Train the learner's private adapters beside the shared states (node/learner/private.py)."""
    packed = {name: states[name].tobytes() for name in learner.hosted}
    ask(Personalise(packed, learner.session))


def update(
    ask: Ask, learner: Learner, setting: Setting, states: States, number: int
) -> dict[str, tuple[Integers, int]]:
    """Return for each hosted component the integers that would leave the node, and their declared noise variance.

    `number` is that of the training run: the shards of the students take turns.
    """
    learning = setting.learning
    engaged = _engaged(learner, setting)
    answer = ask(
        Train(
            states={name: states[name].tobytes() for name in learner.hosted},
            engaged={e.component: Engagement.of(e.clip_norm, e.noise_multiplier, e.learning_rate) for e in engaged},
            steps=learning.steps,
            sample_rate=learning.sample_rate / MILLION,
            lot=learner.lot,
            shard=number % learning.shards,
            split=setting.split,
            session=learner.session,
        )
    )
    sent = {}
    for name in learner.hosted:
        spec = setting.specs[name]
        values = np.frombuffer(answer.updates[name], dtype=spec.integer_type)
        variance = 0 if learner.claims_none else noise_variance(_header(learner, learning, name, engaged), spec)
        sent[name] = (values, variance)
    return sent


def _lied(
    learners: Sequence[Learner],
    updates: Sequence[dict[str, tuple[Integers, int]]],
    setting: Setting,
    lying: frozenset[str],
    number: int,
) -> None:
    """Add the liars' updates: one lie for each component and round, made from all honest updates.

    Each liar declares the noise and the lot that an honest member with its data would declare, and its norm is bounded
    accordingly; or, to be loud, the most noise and the least lot that are not refused.
    """
    loud = {name: MAX_NOISE * spec.noise_multiplier for name, spec in setting.specs.items()}
    if setting.attack in LOUDLY:
        learners = [replace(learner, lot=MIN_LOT / 1000, noises=loud) for learner in learners]
    for index, (name, spec) in enumerate(setting.specs.items()):
        liars = [place for place, learner in enumerate(learners) if learner.name in lying and name in learner.hosted]
        honest_updates = [each[name] for each in updates if name in each]
        if not liars or len(honest_updates) < 2:
            continue
        headers = [_header(learners[place], setting.learning, name, _engaged(learners[place], setting))
                   for place in liars]  # fmt: skip
        variances = [noise_variance(header, spec) for header in headers]
        stage = Stage(
            spec,
            np.stack([values for values, _ in honest_updates]).astype(np.float64),
            [*(variance for _, variance in honest_updates), *variances],
            [norm_bounds(header, spec) for header in headers],
            (number, index),
        )
        assert setting.attack is not None
        for place, values, variance in zip(liars, tell(setting.attack, stage), variances, strict=True):
            updates[place][name] = (values, variance)


def _engaged(learner: Learner, setting: Setting) -> list[Engaged]:
    engaged = []
    for name in learner.hosted:
        spec = setting.specs[name]
        noise = max(spec.noise_multiplier, learner.noises.get(name, 0))
        engaged.append(Engaged(name, GENESIS, noise, spec.clip_norm, spec.learning_rate))
    return engaged


def _header(learner: Learner, learning: Learning, name: str, engaged: Sequence[Engaged]) -> Any:
    lot = max(1, round(learner.lot * 1000))
    return _Header(name, learning.steps, lot, {entry.component: entry for entry in engaged})


@dataclass(frozen=True, slots=True)
class _Header:
    """As much of an update's header as its noise's variance depends on."""

    component: str
    steps: int
    lot: int
    entries: Mapping[str, Engaged]

    @property
    def recipe(self) -> Engaged:
        """See UpdateHeader."""
        return self.entries[self.component]


def _folded(
    state: State,
    spec: ComponentSpec,
    number: int,
    hosts: Sequence[tuple[Learner, tuple[Integers, int]]],
    setting: Setting,
    everybody: int,
) -> State:
    if not hosts:
        return state
    values = {learner.name: update for learner, (update, _) in hosts}
    if setting.weights == "designed" and not setting.gaps_filled:
        entries = tuple(
            Entry(learner.name.encode(), sha256(learner.name.encode()).digest(), b"", 0, 0, variance)
            for learner, (_, variance) in hosts
        )
        entries = tuple(sorted(entries, key=lambda entry: entry.author))
        round_ = Round(number, number, entries, faults(len(entries)), b"")
        return fold_round(state, spec, round_, lambda entry: values[entry.update.decode()])[0]
    if setting.gaps_filled:
        total = sum(update.astype(np.float64) for update in values.values())
        increment = np.rint(total * (1 << FRACTION_BITS) / everybody).astype(np.int64)
    else:
        increment = mean(list(values.values()), _weights(setting.weights, [variance for _, (_, variance) in hosts]))
    folded: State = np.clip(state + increment, -STATE_LIMIT, STATE_LIMIT).astype(np.int32)
    return folded


def _weights(rule: str, variances: Sequence[int]) -> list[int]:
    """The weights compared with those of the rules: equal ones, ∝ 1/variance, or that from .2 to 2.5 equal shares."""
    match rule:
        case "uniform":
            return [(1 << 16) // len(variances)] * len(variances)
        case "inverse":
            inverse = [1.0 / max(variance, 1) for variance in variances]
            return [max(1, int((1 << 16) * value / sum(inverse))) for value in inverse]
        case "bounded":
            return shares([max(1, variance) for variance in variances])
        case _:
            raise LocalProtocolError(f"there are no weights {rule!r}")
