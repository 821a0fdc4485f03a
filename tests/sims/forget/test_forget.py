"""`unlearn audit`: its guesses see what is there and nothing else, its refold is the product's, its rewind is exact."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from math import inf, log2
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from collegium.consensus.components import origin, replay
from collegium.crypto.errors import UsageError
from collegium.node.blueprint.presets import preset
from collegium.node.learner.answers import Done, Trained
from collegium.node.learner.messages import Respec, Train
from collegium.sims.forget import audit as forget
from collegium.sims.forget import ground
from collegium.sims.forget.groups import by_group
from collegium.sims.forget.history import History, begin, follow
from collegium.sims.forget.inference import chance_exposure, exposure, halves, judge, lira, rmia
from collegium.sims.learn.federate import Learner, Setting
from collegium.sims.learn.workers import LearnerWorker, start_workers

# ---- guesses


def shadowed(signal: float, seed: int = 1) -> tuple[Any, Any, Any, Any]:
    """Logits of 300 candidates of very different difficulty; whoever is trained on gets `signal` more."""
    source = np.random.default_rng(seed)
    difficulty, members = source.normal(0.0, 3.0, 300), source.random(300) < 0.5
    inside = halves(300, 8, source)
    shadows = difficulty + signal * inside + source.normal(0.0, 0.5, inside.shape)
    return difficulty + signal * members + source.normal(0.0, 0.5, 300), shadows, inside, members


@pytest.mark.parametrize("score", [lira, rmia])
def test_guesses_find_a_signal_and_only_that(score: Any) -> None:
    logits, shadows, inside, members = shadowed(1.0)
    guessed = judge(score(logits, shadows, inside), members, np.random.default_rng(1))
    assert guessed.low > 0.75
    assert guessed.low < guessed.auc < guessed.high
    # Without shadows the difficulty hides it.
    assert judge(logits, members, np.random.default_rng(1)).auc < 0.7
    logits, shadows, inside, members = shadowed(0.0)
    nothing = judge(score(logits, shadows, inside), members, np.random.default_rng(1))
    assert nothing.low < 0.5 < nothing.high


def test_lira_is_the_likelihood_ratio_of_two_gaussians() -> None:
    inside = np.array([[True, False], [True, False], [False, True], [False, True]])
    shadows = np.array([[2.0, 0.5], [3.0, -0.5], [0.0, 1.0], [1.0, 2.0]])
    # Means in: 2.5, 1.5; out: 0.5, 0. Every deviation is 0.5, two degrees of freedom of four are left.
    spread = np.sqrt(4 * 0.25 / 2)
    expected = [
        ((x - out) ** 2 - (x - into) ** 2) / (2 * spread**2) for x, into, out in ((1.0, 2.5, 0.5), (1.0, 1.5, 0))
    ]
    assert lira(np.array([1.0, 1.0]), shadows, inside) == pytest.approx(expected)


def test_rmia_is_the_ratio_to_the_mean_of_both_halves() -> None:
    inside = np.array([[True], [False], [False]])
    shadows = np.log(np.array([[0.9 / 0.1], [0.3 / 0.7], [0.5 / 0.5]]))
    expected = np.log(0.8 / ((0.9 + 0.4) / 2))
    assert rmia(np.log(np.array([0.8 / 0.2])), shadows, inside) == pytest.approx([expected])


def test_one_percent_of_few_is_nobody() -> None:
    members = np.array([True] * 4 + [False] * 99)
    scores = np.concatenate([[5.0, 1.99, 0.0, 3.0], np.linspace(-1.0, 2.0, 99)])
    guessed = judge(scores, members, np.random.default_rng(1))
    assert (guessed.allowed, guessed.tpr) == (0, 0.5)
    members = np.append(members, [False])
    guessed = judge(np.append(scores, 4.0), members, np.random.default_rng(1))
    assert (guessed.allowed, guessed.tpr) == (1, 0.5)  # one of a hundred: 4.0 is let through, and 2.0 is the bar


def test_exposure_by_hand() -> None:
    references = np.array([0.0, 1.0, 2.0])
    assert exposure(np.array([3.0]), references) == 2.0
    assert exposure(np.array([3.0, -1.0]), references) == 1.0
    assert chance_exposure(3) == pytest.approx((log2(4) + log2(2) + log2(4 / 3) + 0.0) / 4)


def test_every_candidate_is_in_half_of_the_shadows() -> None:
    inside = halves(50, 6, np.random.default_rng(2))
    assert set(inside.sum(axis=0).tolist()) == {3}
    assert len({row.tobytes() for row in inside}) == 6


# ---- the federation


def setting() -> Setting:
    specs, learning = preset("digits", budget=None, rounds=4, institutions=3)
    return Setting({spec.name: spec for spec in specs}, learning, 4)


def answers(given: Setting) -> Any:
    """A learner whose updates are a function of its seed and of the states that it begins from."""
    seeds: dict[str, int] = {}

    def ask(request: Respec | Train) -> Done | Trained:
        if isinstance(request, Respec):
            assert [spec.name for spec in request.components] == list(given.specs)
            assert request.seed is not None
            seeds[request.session] = request.seed
            return Done()
        updates = {}
        for name, state in request.states.items():
            seen = sha256(f"{seeds[request.session]} {name}".encode() + state).digest()
            source = np.random.default_rng(list(seen))
            updates[name] = source.integers(-50, 51, given.specs[name].dimension).astype("<i2").tobytes()
        return Trained(updates, 0.0)

    return ask


def trained(seed: str, joined: int = 2, without: str = "") -> tuple[History, Any, Any]:
    made = setting()
    learners = [Learner(name, name, tuple(made.specs), 5.0) for name in "abc"]

    def present(number: int) -> Sequence[Learner]:
        return [
            learner for learner in learners if learner.name != without and (learner.name != "b" or number >= joined)
        ]

    ask = answers(made)
    return follow(begin(made, bytes(32)), ask, present, 4, seed), ask, learners


def test_a_refold_is_the_fold_of_the_others_entries_alone() -> None:
    history, _, _ = trained("s")
    for name, spec in history.setting.specs.items():
        rounds = [replace(r, entries=tuple(e for e in r.entries if e.author != b"b")) for r in history.rounds[name]]
        alone, _ = replay(origin(spec), spec, rounds, lambda entry: history.values[entry.update])
        assert np.array_equal(history.refold("b")[name], alone)
        assert not np.array_equal(alone, history.last[name])
        assert np.array_equal(history.refold("nobody")[name], history.last[name])


def test_a_rewind_under_the_same_draws_is_the_retrained_model() -> None:
    """Bit for bit: nothing of the member can be in it."""
    history, ask, learners = trained("s", joined=3)
    retrained, _, _ = trained("s", without="b")
    assert history.first_of("b") == 3
    others = [learner for learner in learners if learner.name != "b"]
    before = len(history.states)
    rewound = follow(history.until(2), ask, lambda _: others, 2, "s")
    refolded = history.refold("b")
    for name, state in retrained.last.items():
        assert np.array_equal(rewound.last[name], state)
        assert not np.array_equal(refolded[name], state)
        assert not np.array_equal(history.last[name], state)
    assert (len(history.states), len(rewound.states)) == (before, 5)
    again, _, _ = trained("t", without="b")
    assert not np.array_equal(again.last["head/digit"], retrained.last["head/digit"])


# ---- the data


def test_the_member_is_shared_out_without_overlap(tmp_path: Path) -> None:
    prepared = ground.prepare("digits", tmp_path, None, 1)
    assert (prepared.member, len(prepared.others)) == ("institution-1", 3)
    assert not prepared.planted & prepared.references
    assert not (prepared.planted | prepared.references) & set(prepared.candidates)
    assert prepared.chosen < set(prepared.candidates)
    path = prepared.write(tmp_path / "out", prepared.chosen)
    before = pyarrow.parquet.read_table(prepared.folder / "digits.parquet").to_pylist()
    after = pyarrow.parquet.read_table(path / "digits.parquet").to_pylist()
    truth = {row["image"]: row["digit"] for row in before}
    for row in after:
        name = row["image"]
        assert (row["split"] == "train") == (name in prepared.chosen | prepared.planted)
        assert (row["digit"] != truth[name]) == (name in prepared.planted | prepared.references)
    with pytest.raises(UsageError, match="no institution 'nobody'"):
        ground.prepare("digits", tmp_path / "again", "nobody", 1)


# ---- the audit


def of(report: dict[str, Any], name: str) -> Any:
    (row,) = [row for row in report["models"] if row["model"] == name]
    return row


@pytest.fixture(scope="module")
def worker() -> Iterator[LearnerWorker]:
    with start_workers(1) as crew:
        yield crew[0]


@pytest.fixture
def one_worker(worker: LearnerWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits share one learner process, whose start takes longer than they do."""

    @contextmanager
    def shared(_: int) -> Iterator[list[LearnerWorker]]:
        worker.opened.clear()
        yield [worker]

    monkeypatch.setattr(forget, "start_workers", shared)


TINY = forget.Request(rounds=6, joined=1, recovery=0, shadows=0, seed=3)


@pytest.mark.usefixtures("one_worker")
def test_the_audit_sees_a_refold_that_did_nothing() -> None:
    """The canaries are in the model before; a refold takes them out, and one that is left out does not."""
    honest, faulty = forget.audit(TINY), forget.audit(replace(TINY, fault="no-refold"))
    for report in (honest, faulty):
        assert of(report, "before")["canaries"]["low"] > 0.5
        assert of(report, "before")["canaries"]["exposure"] > report["chance_exposure"] + 0.3
        assert of(report, "retrained")["canaries"]["low"] < 0.5
        assert of(report, "rewind")["weights_apart"] == of(report, "rewind")["probabilities_apart"] == 0.0
    assert of(honest, "refold")["canaries"]["low"] < 0.5
    assert of(honest, "refold")["canaries"]["auc"] < of(honest, "before")["canaries"]["auc"] - 0.1
    left = of(faulty, "refold")
    assert left["canaries"] == of(faulty, "before")["canaries"]
    assert left["weights_apart"] == of(faulty, "before")["weights_apart"] > 0
    assert {name: of(honest, name)["canaries"] for name in ("before", "retrained")} == {
        name: of(faulty, name)["canaries"] for name in ("before", "retrained")
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rounds": 1}, "no audit"),
        ({"joined": 7}, "no audit"),
        ({"shadows": 3}, "too few, or odd"),
        ({"shadows": 2}, "too few, or odd"),
        ({"epsilon": 0.0}, "is none"),
        ({"epsilon": -inf}, "is none"),
        ({"fault": "none"}, "unknown fault"),
        ({"dataset": "mnist"}, "no data set 'mnist'"),
        ({"member": "nobody"}, "no institution 'nobody'"),
    ],
)
@pytest.mark.usefixtures("one_worker")
def test_what_makes_no_audit_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        forget.audit(replace(TINY, **change))


def test_groups_are_reported_where_they_are_large_enough() -> None:
    levels = np.array(["F"] * 120 + ["M"] * 60 + [""] * 20)
    truth = np.array([0, 1] * 100)
    chance = np.where(truth == 1, 0.9, 0.1)
    chance[[0, 2, 4]] = 0.8  # three of 60 women at risk are missed
    found = by_group(np.stack([1 - chance, chance], axis=1), truth, levels)
    assert found.keys() == {"F"}, "of 30 men at risk nothing is said"
    assert found["F"]["missed"] == pytest.approx(0.05)
    assert found["F"]["falsely_flagged"] == 0.0
