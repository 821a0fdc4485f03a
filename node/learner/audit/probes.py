"""Probes of this package's training: canaries are in or not, an attacker guesses which, the guesses bound ε from below.

A *probe* is one mechanism and one attack on it. It runs `dpsgd.train` and `quantise`, as in every round; the statistics
are in `privacy/auditing.py`. An audit can only refute a claim, never prove it: it finds an ε that is too low if its
attack is strong enough, and each probe is strong against other mistakes (`faults.py` plants them):

| probe | canaries | strong against |
|---|---|---|
| `crowd` | all in one run of three components; 8 records each | gradients that are not clipped, or not by student |
| `draw` | all in one run of 64 components; a low sample rate | ε computed as if each component drew for itself |
| `rate` | all in one run; a very low sample rate | students who are drawn more often than claimed |
| `seed` | all in one run; the attacker tries the scenario's seed | noise that can be drawn again |
| `count` | one in each of many tiny runs, beside one student | a divisor that follows the number of students |
| `prompt` | the same; a soft prompt, memory for two students | students whose gradients are clipped together |

In the tiny runs the data of different canaries are never combined, so all runs together are as private as each: the
same bound holds. The claimed ε is the accountant's for the node's own events (`canaries.claimed_events`); a second,
exact check recomputes it from the samples and noises that the training drew (`Witness`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import sqrt
from time import monotonic
from typing import Any

import numpy as np
import torch

from ....protocol.component_names import ComponentKind
from ...privacy.accountant import effective_noise, epsilon
from ...privacy.auditing import Bools, Floats, correct_guesses, epsilon_lower_bound, most_provable
from .. import dpsgd
from ..answers import Audited, BadRequestError, Finding
from ..dpsgd import Batch
from ..messages import Audit, AuditOwn
from ..randomness import SystemRandomness, gaussian, uniform
from ..session import Session, build, load_states
from ..worker import OnProgress
from . import canaries as at
from .canaries import FAR, SCENARIO_SEED, Events, Mechanism, replaced
from .faults import FAULTS, Fault

CONFIDENCE = 0.95  # confidence that no probe of an audit refutes a true claim
DELTA = 1e-5


@dataclass(slots=True)
class Witness:
    """The training's requests for randomness: for each sample of students, the number of components that got noise."""

    draws: list[int] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the calls of `dpsgd.uniform` and `dpsgd.gaussian`."""
        sampled, noised = vars(dpsgd)["uniform"], vars(dpsgd)["gaussian"]  # what is there now: maybe a fault

        def draw(source: Any, size: int) -> Floats:
            self.draws.append(0)
            return sampled(source, size)  # type: ignore[no-any-return]  # from a dict of Any

        def noise(source: Any, size: int) -> Floats:
            assert self.draws, "noise before any draw of students"
            self.draws[-1] += 1
            return noised(source, size)  # type: ignore[no-any-return]  # as above

        with replaced(dpsgd, "uniform", draw), replaced(dpsgd, "gaussian", noise):
            yield

    def events(self, mechanism: Mechanism) -> Events:
        """Return the real events: each sample with its noises."""
        noises = [mechanism.engaged[name].noise for name in sorted(mechanism.engaged)]
        events: Events = []
        at_component = 0
        for count in self.draws:
            # One sample for all components, or one for each: noises come in the order of the components.
            own = [noises[(at_component + n) % len(noises)] for n in range(count)]
            at_component += count
            events.append((mechanism.sample_rate, effective_noise(own), 1))
        return events


@dataclass(frozen=True, slots=True)
class Probe:
    """One mechanism with m canaries and the attack on it; it fixes the number of guesses before any run."""

    name: str
    prepare: Callable[[int], "Prepared"]
    canaries: int
    guessed_in: int
    guessed_out: int


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A probe ready to run: which canaries are in → the attacker's scores [m]. `runs` of `mechanism` do it."""

    mechanism: Mechanism
    attack: Callable[[Bools], Floats]
    runs: int = 1


def run_probe(probe: Probe, fault: Any = nullcontext, *, confidence: float = CONFIDENCE) -> Finding:
    """Run a probe, with a seeded fault or without. The canaries' coins are the system's randomness."""
    started = monotonic()
    witness = Witness()
    with fault():
        ready = probe.prepare(probe.canaries)
        mechanism = ready.mechanism
        claimed = epsilon(at.claimed_events(mechanism.engaged, mechanism.sample_rate, mechanism.steps), DELTA)
        included = uniform(SystemRandomness(), probe.canaries) < 0.5
        with witness.watching():
            scores = ready.attack(included)
    guesses = probe.guessed_in + probe.guessed_out
    correct = correct_guesses(scores, included, probe.guessed_in, probe.guessed_out)
    audited = epsilon_lower_bound(probe.canaries, guesses, correct, DELTA, confidence)
    # All runs are equal, and no canary is in two of them.
    draws, rest = divmod(len(witness.draws), ready.runs)
    assert rest == 0
    exact = epsilon(Witness(witness.draws[:draws]).events(mechanism), DELTA)
    refuted = [name for name, value in (("guesses", audited), ("exact", exact)) if value > claimed * (1.0 + 1e-9)]
    return Finding(
        probe.name,
        probe.canaries,
        guesses,
        correct,
        claimed,
        exact,
        audited,
        most_provable(probe.canaries, guesses, DELTA, confidence),
        DELTA,
        confidence,
        tuple(refuted),
        monotonic() - started,
    )


def _columns(mechanism: Mechanism, canaries: Batch, included: Bools) -> Floats:
    directions = at.directions(mechanism, canaries)
    data = canaries.take(torch.from_numpy(np.flatnonzero(included)))
    return at.column_scores(mechanism, directions, mechanism.release(data, at.mechanism_source()))


def _crowd(count: int) -> Prepared:
    """Two encoders and a skip, four steps of everybody: as one Gaussian of μ = 0.8."""
    steps, tasks, modalities = 4, ["mark"], ["left", "right"]
    specs = [
        at.spec_of("encoder/left", "linear-tanh", {"project.weight": (4, count)}),
        at.spec_of("encoder/right", "linear-tanh", {"project.weight": (4, count)}),
        at.spec_of("head/mark", "linear", {"linear.weight": (1, 4)}),
        at.spec_of("skip/mark", "linear-skip", {"left.weight": (1, count)}),
    ]
    noises = at.split_noise({"encoder/left": 1.0, "encoder/right": 1.5, "skip/mark": 2.0}, 0.8, steps)
    widths = dict.fromkeys(modalities, ("tabular", count))
    mechanism = at.mechanism_of(specs, noises, modalities=widths, steps=steps, lot=count / 2)
    canaries = at.crowd(count, 8, modalities, tasks, at.signs(count, SystemRandomness()))
    return Prepared(mechanism, partial(_columns, mechanism, canaries))


def _draw(count: int) -> Prepared:
    """One sample of few students over 64 components, each with so much noise that it alone reveals nothing."""
    rate, tasks = 0.07, [f"t{number}" for number in range(64)]
    specs = [at.spec_of(ComponentKind.SKIP.named(task), "linear-skip", {"table.weight": (1, count)}) for task in tasks]
    noises = at.split_noise({spec.name: 1.0 for spec in specs}, 4.5, 1)
    specs += [at.spec_of(ComponentKind.HEAD.named(task), "linear", {"linear.weight": (1, 1)}) for task in tasks]
    mechanism = at.mechanism_of(
        specs,
        noises,
        modalities={"table": ("tabular", count)},
        tasks=tasks,
        sample_rate=rate,
        lot=rate * count / 2,
    )
    signs = at.signs(count, SystemRandomness())
    canaries = at.crowd(count, 1, ["table"], tasks, signs)

    def attack(included: Bools) -> Floats:
        data = canaries.take(torch.from_numpy(np.flatnonzero(included)))
        directions = dict.fromkeys(noises, -signs)  # what `directions` finds, too, but slowly for so many components
        return at.column_scores(mechanism, directions, mechanism.release(data, at.mechanism_source()))

    return Prepared(mechanism, attack)


def _skip(width: int, strength: float, lot: float, sample_rate: float = 1.0) -> Mechanism:
    specs = [
        at.spec_of("head/mark", "linear", {"linear.weight": (1, 1)}),
        at.spec_of("skip/mark", "linear-skip", {"table.weight": (1, width)}),
    ]
    noises = {"skip/mark": 1.0 / strength}
    return at.mechanism_of(specs, noises, modalities={"table": ("tabular", width)}, lot=lot, sample_rate=sample_rate)


def _rate(count: int) -> Prepared:
    """One step over one student in fifty: its small noise suffices for them, and is far too small for all."""
    mechanism = _skip(count, 1.2, 0.02 * count / 2, 0.02)
    canaries = at.crowd(count, 1, ["table"], ["mark"], at.signs(count, SystemRandomness()))
    return Prepared(mechanism, partial(_columns, mechanism, canaries))


def _seed(count: int) -> Prepared:
    """One step over all students; the attacker draws the noise again from the seed, for every size of the data.

    If no noise was drawn with that seed, this only adds the same amount of noise again.
    """
    mechanism = _skip(count, 0.5, count / 2)
    canaries = at.crowd(count, 1, ["table"], ["mark"], at.signs(count, SystemRandomness()))
    (rule,) = mechanism.engaged.values()

    def attack(included: Bools) -> Floats:
        directions = at.directions(mechanism, canaries)
        data = canaries.take(torch.from_numpy(np.flatnonzero(included)))
        ((name, released),) = mechanism.release(data, at.mechanism_source()).items()
        spread = int(3.0 * sqrt(count))
        best = released
        for size in range(max(0, count // 2 - spread), count // 2 + spread):
            again = np.random.default_rng(SCENARIO_SEED)
            uniform(again, size)
            left = released - rule.noise * rule.clip * gaussian(again, released.size)
            if np.square(left).sum() < np.square(best).sum() or best is released:
                best = left
        return at.column_scores(mechanism, directions, {name: best})

    return Prepared(mechanism, attack)


def _count(count: int) -> Prepared:
    """Each canary alone with one other student: the length of the release reveals its divisor."""
    width = 256
    mechanism = _skip(width, 0.5, 2.0)
    pair = at.crowd(width, 1, ["table"], ["mark"], np.ones(width))

    def attack(included: Bools) -> Floats:
        scores = np.zeros(count)
        for run, inside in enumerate(included.tolist()):
            data = pair.take(torch.arange(2 if inside else 1))
            (released,) = mechanism.release(data, at.mechanism_source()).values()
            scores[run] = -float(np.square(released).sum())
        return scores

    return Prepared(mechanism, attack, count)


def _prompt(count: int) -> Prepared:
    """Each canary before twelve others who, taken two by two, all outvote one way; shifted by the canary, the other.

    By student they cancel. Only two students fit into memory at once, so clipping those together changes all pairs.
    """
    mechanism = at.prompted(4, 2.0, 4.0)
    others = [FAR * (-1.0) ** number * (number + 1) for number in range(1, 13)]
    canary = at.readers([-FAR])
    everybody = at.readers([-FAR, *others])

    def attack(included: Bools) -> Floats:
        ((name, direction),) = at.directions(mechanism, canary).items()
        scores = np.zeros(count)
        with replaced(dpsgd, "READ_RECORDS", 2):
            for run, inside in enumerate(included.tolist()):
                data = everybody.take(torch.arange(0 if inside else 1, 13))
                scores[run] = float(direction @ mechanism.release(data, at.mechanism_source())[name])
        return scores

    return Prepared(mechanism, attack, count)


PROBES = {
    probe.name: probe
    for probe in (
        Probe("crowd", _crowd, 2000, 160, 160),
        Probe("draw", _draw, 4000, 80, 0),
        Probe("rate", _rate, 2000, 160, 160),
        Probe("seed", _seed, 600, 200, 200),
        Probe("count", _count, 600, 200, 200),
        Probe("prompt", _prompt, 200, 70, 70),
    )
}


def audit(request: Audit, progress: OnProgress) -> Audited:
    """Run all probes, or with a fault the one that looks for it. Raises BadRequestError for an unknown fault."""
    fault = _fault(request.fault)
    probes = [PROBES[fault.probe]] if fault is not None else list(PROBES.values())
    result = _run(probes, fault, 1.0 - (1.0 - CONFIDENCE) / len(PROBES), progress)
    if fault is not None and fault.naive is not None and refused(fault):
        return replace(result, caught=("assertion", *result.caught))
    return result


def audit_own(request: AuditOwn, session: Session, progress: OnProgress) -> Audited:
    """Audit a session's own training. Raises BadRequestError for an unknown fault or component, or wrong numbers."""
    return _run([_own(session, request)], _fault(request.fault), CONFIDENCE, progress)


def _fault(name: str | None) -> Fault | None:
    if name is not None and name not in FAULTS:
        raise BadRequestError(f"unknown fault {name!r}", f"Known: {', '.join(FAULTS)}.")
    return FAULTS[name] if name is not None else None


def _run(probes: Sequence[Probe], fault: Fault | None, confidence: float, progress: OnProgress) -> Audited:
    started, findings = monotonic(), []
    for done, probe in enumerate(probes):
        progress(done, len(probes))
        findings.append(run_probe(probe, nullcontext if fault is None else fault.planted, confidence=confidence))
    return Audited(
        findings=tuple(findings),
        fault=fault.name if fault is not None else None,
        about=fault.about if fault is not None else "",
        caught=tuple(sorted({reason for finding in findings for reason in finding.refuted})),
        confidence=CONFIDENCE,
        seconds=monotonic() - started,
    )


def refused(fault: Fault) -> bool:
    """Whether the training's own checks refuse a fault."""
    assert fault.naive is not None
    with fault.naive():
        try:
            PROBES[fault.probe].prepare(1).attack(np.ones(1, dtype=np.bool_))
        except AssertionError:
            return True
    return False


def _own(session: Session, request: AuditOwn) -> Probe:
    """A session's model on its own students, with canaries among them; the attacker knows all but the coins."""
    engaged, steps, rate, lot = request.engaged, request.steps, request.sample_rate, request.lot
    for name, rule in engaged.items():
        if name not in session.specs:
            raise BadRequestError(f"component {name!r} is engaged but not hosted")
        if min(rule.clip, rule.noise, rule.learning_rate) <= 0.0:
            raise BadRequestError(
                f"engaged {name!r}: clip, noise and learning rate are above 0 where there is an ε to audit"
            )
    if not engaged or rate <= 0.0 or lot <= 0.0:
        raise BadRequestError(f"no audit: {len(engaged)} engaged, {steps} steps, sample rate {rate}, lot {lot}")

    def prepare(count: int) -> Prepared:
        start = load_states(session, request.states)
        mechanism = Mechanism(build(session, request.states), session.modules, start, engaged, steps, rate, lot)
        base = session.parts["train"].batch.without(session.withheld)
        canaries = at.disguised(base, session.learning.tasks, count, SystemRandomness())

        def attack(included: Bools) -> Floats:
            data = at.together(base, canaries.take(torch.from_numpy(np.flatnonzero(included))))
            released, others = mechanism.release(data, session.source), at.directions(mechanism, base)
            scores = np.zeros(count)
            for canary in range(count):
                directions = at.directions(mechanism, canaries.take(torch.tensor([canary])))
                scores[canary] = sum(
                    float(directions[name] @ (released[name] - steps * rate * others[name]))
                    / (rule.noise * rule.clip) ** 2
                    for name, rule in engaged.items()
                )
            return scores

        return Prepared(mechanism, attack)

    canaries = request.canaries
    return Probe("own", prepare, canaries, canaries // 5, canaries // 5)
