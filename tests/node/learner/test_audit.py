"""G6, the audit of the training: what is right holds, every planted mistake is found, and nothing planted stays.

Noise and coins are the system's. The guesses of an honest run would have to be six standard deviations too good to
refute a claim, those of a planted mistake as much too bad to miss it.
"""

from dataclasses import replace
from math import inf, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from collegium.cli.audit import FAULTS as NAMES
from collegium.crypto.errors import UsageError
from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.blueprint.recipe import Budget
from collegium.node.learner import dpsgd
from collegium.node.learner.answers import BadRequestError
from collegium.node.learner.audit import canaries
from collegium.node.learner.audit.canaries import Mechanism
from collegium.node.learner.audit.faults import FAULTS
from collegium.node.learner.audit.probes import CONFIDENCE, PROBES, Prepared, Probe, Witness, audit, refused, run_probe
from collegium.node.learner.audit.worker import AuditWorker
from collegium.node.learner.client import AUDITING, process
from collegium.node.learner.coding import decode_request, encode
from collegium.node.learner.dpsgd import Batch
from collegium.node.learner.gradients import StudentGradients
from collegium.node.learner.messages import Audit, AuditOwn, CrossCheck, Engagement, Open, SampledSteps
from collegium.node.learner.randomness import SystemRandomness
from collegium.node.learner.worker import Worker
from collegium.node.privacy.accountant import effective_noise, epsilon
from collegium.sims.learn.datasets import prepare_digits

from .asking import ask

SHORT = {  # as convincing, of smaller crowds
    "crowd": (800, 120, 120),
    "draw": (4000, 80, 0),
    "rate": (2000, 160, 160),
    "seed": (600, 200, 200),
    "count": (300, 120, 120),
    "prompt": (150, 50, 50),
}
STRICT = 1.0 - (1.0 - CONFIDENCE) / len(PROBES)


def short(name: str) -> Probe:
    return Probe(name, PROBES[name].prepare, *SHORT[name])


def alternating(count: int) -> npt.NDArray[np.float64]:
    return np.where(np.arange(count) % 2 == 0, 1.0, -1.0)


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpsgd, "gaussian", lambda source, size: np.zeros(size))


def small(count: int = 6, records: int = 4, steps: int = 1) -> tuple[Mechanism, Batch]:
    specs = [
        canaries.spec_of("encoder/table", "linear-tanh", {"project.weight": (3, count)}),
        canaries.spec_of("head/mark", "linear", {"linear.weight": (1, 3)}),
        canaries.spec_of("skip/mark", "linear-skip", {"table.weight": (1, count)}),
    ]
    noises = {"encoder/table": 2.0, "skip/mark": 4.0}
    widths = {"table": ("tabular", count)}
    mechanism = canaries.mechanism_of(specs, noises, modalities=widths, steps=steps, lot=8.0)
    return mechanism, canaries.crowd(count, records, ["table"], ["mark"], alternating(count))


@pytest.mark.parametrize("name", PROBES)
def test_the_training_as_it_is_holds_what_it_claims(name: str) -> None:
    finding = run_probe(short(name), confidence=STRICT)
    assert finding.refuted == ()
    assert finding.exact == pytest.approx(finding.claimed, rel=1e-9)
    assert finding.audited <= finding.provable
    if name != "draw":  # there a wrong claim is refuted, but the true one is out of reach
        assert finding.claimed < finding.provable
    if name == "crowd":
        assert finding.audited > 0.3


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_mistake_is_found_by_guesses(name: str) -> None:
    fault = FAULTS[name]
    finding = run_probe(short(fault.probe), fault.planted, confidence=STRICT)
    assert "guesses" in finding.refuted
    assert finding.claimed < finding.audited
    assert ("exact" in finding.refuted) == (name == "independent-draws")


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(10))
def test_all_of_it_again_and_again(turn: int) -> None:
    for probe in PROBES.values():
        assert run_probe(probe, confidence=STRICT).refuted == ()
    for fault in FAULTS.values():
        assert "guesses" in run_probe(PROBES[fault.probe], fault.planted, confidence=STRICT).refuted


def test_the_command_knows_every_fault_and_every_fault_its_probe() -> None:
    assert tuple(FAULTS) == NAMES
    assert {fault.probe for fault in FAULTS.values()} == set(PROBES)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_mistake_is_gone_afterwards(name: str) -> None:
    owners = [dpsgd, canaries, StudentGradients, Batch]
    before = [dict(vars(owner)) for owner in owners]

    def planted() -> None:
        with FAULTS[name].planted():
            changed = [one for one, owner in zip(before, owners, strict=True) if one != dict(vars(owner))]
            assert changed
            raise KeyError(name)

    with pytest.raises(KeyError):
        planted()
    assert [dict(vars(owner)) for owner in owners] == before


def test_a_prompt_of_one_row_is_refused_by_the_training_itself() -> None:
    assert refused(FAULTS["shared-prompt"])
    fixed = replace(FAULTS["shared-prompt"], naive=FAULTS["seeded-noise"].planted)
    assert not refused(fixed)


def contribution(mechanism: Mechanism, batch: Batch, student: int = 2) -> float:
    """How far one student moves what is released, without noise."""
    with_them = mechanism.release(batch, SystemRandomness())
    without = mechanism.release(batch.take(torch.arange(batch.size) != student), SystemRandomness())
    return float(np.linalg.norm(with_them["skip/mark"] - without["skip/mark"]))


def test_the_mistakes_are_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    mechanism, batch = small()
    assert contribution(mechanism, batch) == pytest.approx(1.0, abs=0.3)  # rounded to a grid of half a unit
    with FAULTS["record-clip"].planted():
        assert contribution(mechanism, batch) == pytest.approx(4.0, abs=0.3)
    with FAULTS["no-clip"].planted():
        assert contribution(mechanism, batch) > 8.0
    with FAULTS["batch-divisor"].planted():
        released = mechanism.release(batch, SystemRandomness())["skip/mark"]
    assert np.abs(released) == pytest.approx(np.full(6, 8.0 / 6.0), abs=0.3)


def test_whoever_is_clipped_together_is_moved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    mechanism = canaries.prompted(4, 2.0, 4.0)
    batch = canaries.readers([-100.0, *(100.0 * (-1.0) ** n * (n + 1) for n in range(1, 13))])
    direction = canaries.directions(mechanism, batch.take(torch.arange(1)))["prompt/text"]
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-3)
    monkeypatch.setattr(dpsgd, "READ_RECORDS", 2)

    def moved(mechanism: Mechanism) -> float:
        with_them, without = (mechanism.release(batch.take(torch.arange(n, 13)), SystemRandomness()) for n in (0, 1))
        return float(direction @ (with_them["prompt/text"] - without["prompt/text"]))

    assert moved(mechanism) == pytest.approx(1.0, abs=0.3)
    with FAULTS["shared-prompt"].planted():
        assert moved(canaries.prompted(4, 2.0, 4.0)) == pytest.approx(11.0, abs=0.8)


def test_canaries_are_clipped_and_orthogonal_and_scores_are_inner_products(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism, batch = small()
    directions = canaries.directions(mechanism, batch)
    assert batch.weights.sum(1).tolist() == [1.0] * 6
    alone = [canaries.directions(mechanism, batch.take(torch.tensor([n]))) for n in range(6)]
    released = mechanism.release(batch, SystemRandomness())
    scores = canaries.column_scores(mechanism, directions, released)
    for name in mechanism.engaged:
        rows = np.stack([one[name] for one in alone])
        assert rows @ rows.T == pytest.approx(np.eye(6), abs=1e-4)
        assert directions[name] == pytest.approx(rows.sum(0), abs=1e-5)
    expected = [sum(one[name] @ released[name] / r.noise**2 for name, r in mechanism.engaged.items()) for one in alone]
    assert scores == pytest.approx(np.array(expected), abs=1e-4)


def test_the_directions_of_a_skip_are_the_signs() -> None:
    ready = PROBES["draw"].prepare(5)
    signs = alternating(5)
    batch = canaries.crowd(5, 1, ["table"], [f"t{n}" for n in range(64)], signs)
    for direction in canaries.directions(ready.mechanism, batch).values():
        assert direction == pytest.approx(-signs, abs=1e-4)


def test_a_release_is_the_noised_sum_on_the_grid_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism, batch = small(count=400, records=1, steps=4)
    released = mechanism.release(batch, SystemRandomness())["skip/mark"]
    signs = alternating(400)
    left = released + 4.0 * signs  # four steps, each with every student
    assert left.std() == pytest.approx(4.0 * sqrt(4), rel=0.25)
    rule = mechanism.engaged["skip/mark"]
    unit = mechanism.specs["skip/mark"].grid_step * mechanism.lot / rule.learning_rate
    assert unit == pytest.approx(4.0 * sqrt(4) / 8.0)
    assert released / unit == pytest.approx(np.rint(released / unit), abs=1e-9)


def test_the_claim_is_that_of_one_draw_over_all_components() -> None:
    mechanism, _ = small(steps=3)
    events = canaries.claimed_events(mechanism.engaged, 0.5, 3)
    assert events == [(0.5, effective_noise([2.0, 4.0]), 3)]
    with FAULTS["independent-draws"].planted():
        assert canaries.claimed_events(mechanism.engaged, 0.5, 3) == [(0.5, 2.0, 3), (0.5, 4.0, 3)]


def test_a_witness_tells_one_draw_from_several() -> None:
    mechanism, batch = small(steps=3)
    witness = Witness()
    with witness.watching():
        mechanism.release(batch, SystemRandomness())
    assert witness.draws == [2, 2, 2]
    both = (1.0, effective_noise([2.0, 4.0]), 1)
    assert witness.events(mechanism) == [both] * 3
    assert Witness([1, 1]).events(mechanism) == [(1.0, 2.0, 1), (1.0, 4.0, 1)]
    assert epsilon(Witness([2, 0]).events(mechanism), 1e-5) == inf


def test_the_recount_knows_the_worked_case_of_independent_draws() -> None:
    """Out of reach of guesses: q = 0.05, 400 steps, three components."""
    mechanism, _ = small()
    engaged = {name: Engagement(1.0, noise, 1.0) for name, noise in (("a", 1.0), ("b", 1.5), ("c", 2.0))}
    mechanism = replace(mechanism, engaged=engaged, sample_rate=0.05, steps=400)
    exact = epsilon(Witness([3] * 400).events(mechanism), 1e-5)
    assert exact == pytest.approx(11.78, abs=0.01)
    assert epsilon(canaries.claimed_events(engaged, 0.05, 400), 1e-5) == pytest.approx(exact, rel=1e-9)
    with FAULTS["independent-draws"].planted():
        claim = epsilon(canaries.claimed_events(engaged, 0.05, 400), 1e-5)
    assert claim == pytest.approx(8.13, abs=0.01)
    assert epsilon(Witness([1] * 1200).events(mechanism), 1e-5) == pytest.approx(claim, rel=1e-9)


def test_training_that_forgets_the_noise_is_found_without_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism, batch = small()
    real: Any = dpsgd.train

    def quiet(*arguments: Any, **others: Any) -> Any:
        engaged = {name: replace(rule, noise=0.0) for name, rule in arguments[2].items()}
        return real(*arguments[:2], engaged, *arguments[3:], **others)

    monkeypatch.setattr(dpsgd, "train", quiet)

    def attack(included: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        mechanism.release(batch, SystemRandomness())
        return np.zeros(included.size)

    finding = run_probe(Probe("silent", lambda count: Prepared(mechanism, attack), 6, 1, 1))
    assert finding.exact == inf
    assert finding.refuted == ("exact",)


def test_an_audit_of_one_fault_says_by_what_it_was_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    progress: list[tuple[int, int]] = []
    result = audit(Audit("seeded-noise"), lambda done, total: progress.append((done, total)))
    assert result.caught == ("guesses",)
    assert [finding.probe for finding in result.findings] == ["seed"]
    assert result.findings[0].confidence == pytest.approx(STRICT)
    assert progress == [(0, 1)]
    monkeypatch.setitem(PROBES, "prompt", short("prompt"))
    assert audit(Audit("shared-prompt"), lambda *_: None).caught == ("assertion", "guesses")
    with pytest.raises(UsageError, match="unknown fault"):
        audit(Audit("none"), lambda *_: None)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Worker, AuditOwn]:
    folder = prepare_digits(tmp_path_factory.mktemp("digits"), 4, 0.5, 1)[0]
    components, learning = preset("digits", budget=Budget(8.0, 1e-5, 10), rounds=10, institutions=4)
    worker = AuditWorker()
    names = tuple(spec.name for spec in components)
    ask(worker, Open((str(folder),), components, learning, NO_SEED, names))
    engaged = dict.fromkeys(names, Engagement(1.0, 4.0, 0.1))
    return worker, AuditOwn({}, engaged, steps=4, sample_rate=1.0, lot=60.0, canaries=100)


def test_a_sessions_own_training_is_audited_with_canaries_among_its_students(
    opened: tuple[Worker, AuditOwn],
) -> None:
    worker, request = opened
    (finding,) = ask(worker, request).findings
    assert (finding.probe, finding.canaries, finding.guesses) == ("own", 100, 40)
    noises = [rule.noise for rule in request.engaged.values()]
    assert finding.claimed == pytest.approx(epsilon([(1.0, effective_noise(noises), 4)], 1e-5))
    assert finding.exact == pytest.approx(finding.claimed, rel=1e-9)
    assert finding.refuted == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engaged": {"head/other": Engagement(1.0, 1.0, 1.0)}}, "not hosted"),
        ({"engaged": {}}, "no audit"),
        ({"sample_rate": 0.0}, "no audit"),
        ({"lot": 0.0}, "no audit"),
        ({"session": "elsewhere"}, "no data folder is open"),
    ],
)
def test_an_audit_of_a_session_that_cannot_be(
    opened: tuple[Worker, AuditOwn], change: dict[str, Any], reason: str
) -> None:
    worker, request = opened
    with pytest.raises(UsageError, match=reason):
        ask(worker, replace(request, **change))


def test_an_audit_of_a_session_without_noise_is_refused(opened: tuple[Worker, AuditOwn]) -> None:
    worker, request = opened
    quiet = {name: replace(rule, noise=0.0) for name, rule in request.engaged.items()}
    with pytest.raises(UsageError, match="above 0"):
        ask(worker, replace(request, engaged=quiet))


def test_an_audit_by_too_few_canaries_is_no_request(opened: tuple[Worker, AuditOwn]) -> None:
    with pytest.raises(BadRequestError, match=r"AuditOwn.canaries: 3 is not between 10"):
        decode_request(encode(1, replace(opened[1], canaries=3)))


def test_two_accountants_agree() -> None:
    with process(AUDITING) as learner:
        for sigma, steps, low, high in ((0.7682212795973759, 400, 11.77, 11.85), (2.0, 400, 0.0, 8.13)):
            both = learner.ask(CrossCheck((SampledSteps(0.05, sigma, steps),), 1e-5))
            assert both.pld is not None
            assert both.prv is not None
            assert low < both.pld <= both.prv + both.error < high
            assert both.prv <= both.pld + 2 * both.error
        nothing = learner.ask(CrossCheck((SampledSteps(0.05, 0.0, 1),), 1e-5))
    assert (nothing.pld, nothing.prv) == (None, None)
