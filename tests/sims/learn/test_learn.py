"""`collegium bench learn`: the fold of the studies is the daemon's; a short run on the real data."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.recipe import NO_SEED, Budget, charter_parts
from collegium.node.learner.answers import Trained
from collegium.node.learner.messages import Train
from collegium.node.privacy.accountant import effective_noise, epsilon
from collegium.protocol.components import MILLION
from collegium.protocol.learning import RULES
from collegium.protocol.update import squared_norm
from collegium.sims.learn import bench, lies, studies
from collegium.sims.learn.federate import Learner, Setting, train
from collegium.sims.learn.runs import Ground, Run, figure, perform
from collegium.sims.learn.workers import LearnerWorker, start_workers

from ...public_data import public_data


def data() -> Path:
    return public_data("oulad").parent


@pytest.fixture(scope="module")
def crew() -> Iterator[list[LearnerWorker]]:
    with start_workers(1) as workers:
        yield workers


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def work(crew: list[LearnerWorker], imported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Studies import their data into one folder, and share a learner process, whose start takes longer than they do."""

    @contextmanager
    def shared(_: int) -> Iterator[list[LearnerWorker]]:
        crew[0].opened.clear()
        yield crew

    monkeypatch.setattr(bench, "start_workers", shared)
    monkeypatch.setenv("XDG_CACHE_HOME", str(imported))
    return studies.work_folder()


def setting(weights: str = "designed", *, gaps_filled: bool = False) -> Setting:
    specs, learning = charter_parts(studies._oulad(1.0, 500.0), Budget(3.0, 1e-5, 4, 0), min_updates=1)
    return Setting({spec.name: spec for spec in specs}, learning, 4, weights=weights, gaps_filled=gaps_filled)


def moved(given: Setting, learners: list[Learner], value: int) -> dict[str, float]:
    """Train with learners that answer `value` times their lot everywhere; return where each component ends."""

    def ask(learner: Learner) -> Any:
        def answer(request: Train) -> Trained:
            updates = {}
            for name in request.engaged:
                spec = given.specs[name]
                updates[name] = np.full(spec.dimension, value * int(learner.lot), dtype=spec.integer_type).tobytes()
            return Trained(updates, 0.0)

        return answer

    states, _ = train(ask, learners, given)
    return {name: float(state.mean()) / 256 for name, state in states.items()}


def test_component_wise_aggregation_divides_by_hosts_and_gaps_by_everybody() -> None:
    everything = tuple(sorted(setting().specs))
    learners = [Learner("a", "a", everything, 2.0), Learner("b", "b", ("head/pass",), 2.0)]
    whole, filled = moved(setting(), learners, 3), moved(setting(gaps_filled=True), learners, 3)
    # The mean of the states after rounds 3 and 4 of 4, each round moving by 6.
    assert whole["head/pass"] == pytest.approx(6 * 3.5)
    assert whole["skip/pass"] == pytest.approx(6 * 3.5)
    assert filled["head/pass"] == pytest.approx(6 * 3.5)
    assert filled["skip/pass"] == pytest.approx(3 * 3.5)


def test_weights_are_the_designed_ones_or_what_they_are_compared_with() -> None:
    hosted = tuple(sorted(setting().specs))
    # b's noise has 1/16 of a's standard deviation, and its value is 16 × as large.
    learners = [Learner("a", "a", hosted, 1.0), Learner("b", "b", hosted, 16.0)]
    shares = {}
    for weights in ("designed", "uniform", "inverse"):
        position = moved(setting(weights), learners, 1)["head/pass"] / 3.5
        shares[weights] = (position - 1) / 15  # of b
    assert shares["uniform"] == pytest.approx(1 / 2, abs=1e-3)
    assert shares["inverse"] == pytest.approx(256 / 257, abs=1e-3)
    assert shares["uniform"] < shares["designed"] <= 3 / 4 + 1e-3  # whoever is noisy keeps half of an equal share


@pytest.mark.parametrize("name", ["oulad", "everything"])
def test_what_one_student_can_reach_costs_no_more_than_is_claimed(name: str) -> None:
    if name == "everything":
        pytest.importorskip("transformers")
        try:
            recipe = studies.everything(1.0, 500.0)
        except UsageError as error:
            pytest.skip(error.message)
    else:
        recipe = studies._oulad(1.0, 500.0)
    specs, learning = charter_parts(recipe, Budget(3.0, 1e-5, 20, 0), min_updates=1, base_seed=NO_SEED)
    for task in learning.tasks:
        private = [m for m in task.modalities if learning.floor(m).policy == "dp"]
        reached = [spec for spec in specs if learning.upstream(spec.name) & set(private)]
        if not private:
            continue
        sigma = effective_noise([spec.noise_multiplier / MILLION for spec in reached])
        cost = epsilon([(learning.sample_rate / MILLION, sigma, 20 * learning.steps)], 1e-5)
        assert 2.7 < cost <= 3.0 + 1e-3
    assert all((spec.noise_multiplier == 0) == (not any(
        learning.floor(m).policy == "dp" for m in learning.upstream(spec.name))) for spec in specs)  # fmt: skip


def test_a_figure_is_over_institutions_or_records() -> None:
    report = {
        "a": {"t": {"metrics": {"auc": 0.5}, "records": 1}},
        "b": {"t": {"metrics": {"auc": 0.8}, "records": 2}},
        "c": {},
    }
    assert figure(report, "t", "auc", lambda _name: True, pooled=False) == pytest.approx(0.65)
    assert figure(report, "t", "auc", lambda _name: True, pooled=True) == pytest.approx(0.7)
    assert figure(report, "t", "auc", lambda name: name == "b", pooled=False) == pytest.approx(0.8)


def test_a_rate_is_chosen_by_the_mean_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {(1.0, 0): 0.9, (1.0, -1): 0.1, (2.0, 0): 0.6, (2.0, -1): 0.6}

    def perform(_bench: Any, runs: list[Run], _what: str) -> list[float]:
        assert all(run.tune for run in runs)  # nobody who is held out has a say
        return [values[run.rate, run.seed] + (run.mode == "local") * run.rate for run in runs]

    monkeypatch.setattr(bench._Bench, "_perform", perform)
    monkeypatch.setattr(bench, "MAX_RATES_MORE", 0)
    tuned = bench._Bench.__new__(bench._Bench)
    tuned.name, tuned.seeds, tuned.rates = "oulad", range(1, 3), (2.0, 1.0)
    kinds = [Run("federated", None, 0.0, 0), Run("local", None, 0.0, 0)]
    assert tuned._tuned(kinds, lambda value: value) == [2.0, 2.0]
    tuned.seeds = range(1, 2)
    assert tuned._tuned(kinds, lambda value: value) == [1.0, 2.0]


def test_rates_are_tried_until_the_best_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, float]] = []
    best = {"federated": 8.0, "local": 0.5, "central": 2.0}

    def perform(_bench: Any, runs: list[Run], _what: str) -> list[float]:
        tried.extend((run.mode, run.rate) for run in runs)
        return [-abs(log2(run.rate / best[run.mode])) for run in runs]

    monkeypatch.setattr(bench._Bench, "_perform", perform)
    tuned = bench._Bench.__new__(bench._Bench)
    tuned.name, tuned.seeds, tuned.rates = "oulad", range(1, 2), (1.0, 2.0, 4.0)
    assert tuned._tuned([Run(mode, None, 0.0, 0) for mode in best], lambda value: value) == [8.0, 0.5, 2.0]
    rates = {mode: [rate for name, rate in tried if name == mode] for mode in best}
    assert rates == {"federated": [1, 2, 4, 8, 16], "local": [1, 2, 4, 0.5, 0.25], "central": [1, 2, 4]}


def test_a_runs_noise_is_a_function_of_its_seed(work: Path, crew: list[LearnerWorker], tmp_path: Path) -> None:
    """design.md section 12; and students who are set apart while rates are chosen are not those that are reported."""
    source = data()
    study = studies.study("oulad")
    everybody = study.institutions(source, work)
    some = {name: everybody[name] for name in ("AAA", "GGG")}
    updates = {}
    crew[0].opened.clear()
    ground = Ground("oulad", some, tmp_path / "cache.db")
    for key, seed, tune in (("a", 1, False), ("again", 1, False), ("b", 2, False), ("tune", 1, True)):
        run = Run("federated", 3.0, 2.0, seed, tune=tune)
        updates[key] = perform(crew[0], run, ground, study.recipe, 2, 1.0)
    assert updates["a"] == updates["again"]
    assert updates["a"] != updates["b"]
    held_out = {name: report["pass"]["n"] for name, report in updates["a"].items()}
    apart = {name: report["pass"]["n"] for name, report in updates["tune"].items()}
    for name in some:
        with_all, without = ground.sizes[name, False], ground.sizes[name, True]
        assert apart[name] == with_all - without, "the validation part is of those that are trained on later"
        assert held_out[name] != apart[name]
    assert all(
        "last" in report["pass"] and "last" not in updates["tune"][name]["pass"]
        for name, report in updates["a"].items()
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attack", lies.LIES)
def test_liars_stay_in_their_bounds(attack: str, rule: str) -> None:
    """G5: they send the same, each within its own least and greatest norm."""
    spec = replace(setting().specs["head/pass"], rule=rule)
    honest = np.rint(np.random.Generator(np.random.PCG64(5)).normal(4, 20, (5, spec.dimension)))
    norms = sorted(float(learner @ learner) for learner in honest)
    bounds = [(int(norms[0] / 4), int(norms[-1])), (int(norms[-1] * 2), int(norms[-1] * 3))]
    stage = lies.Stage(spec, honest, [400] * 7, bounds, (1, 0))
    sent = lies.tell(attack, stage)
    assert all(low <= squared_norm(lie) <= high for lie, (low, high) in zip(sent, bounds, strict=True))
    first, second = (lie.astype(float) / np.sqrt(squared_norm(lie)) for lie in sent)
    assert first @ second > 0.99
    assert [lie.tobytes() for lie in lies.tell(attack, stage)] == [lie.tobytes() for lie in sent]


def test_liars_are_folded_with_the_honest_and_train_nothing() -> None:
    hosted = tuple(sorted(setting().specs))
    learners = [Learner(name, name, hosted, 2.0) for name in "abcdefg"]
    asked: list[str] = []

    def ask(learner: Learner) -> Any:
        def answer(request: Train) -> Trained:
            asked.append(learner.name)
            ups = {name: np.full(robust.specs[name].dimension, 60, "<i2").tobytes() for name in request.engaged}
            return Trained(ups, 0.0)

        return answer

    places = {}
    for rule in ("mean", "clip+nnm+trimmed_mean"):
        plain = setting()
        robust = replace(
            plain,
            specs={name: replace(spec, rule=rule) for name, spec in plain.specs.items()},
            liars=frozenset("bf"),
            attack="sign flip × 3",
        )
        places[rule] = float(train(ask, learners, robust)[0]["head/pass"].mean()) / 256
        honest = float(train(ask, learners, replace(robust, attack=None))[0]["head/pass"].mean()) / 256
        assert honest == pytest.approx(60 * 3.5)
    assert asked.count("b") == asked.count("a") / 2
    assert places["mean"] < 0.6 * 60 * 3.5
    assert places["clip+nnm+trimmed_mean"] == pytest.approx(60 * 3.5, abs=0.01)


@pytest.mark.usefixtures("work")
def test_attacks_are_measured_on_the_honest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data()
    monkeypatch.setattr(bench, "RULES", ("mean", bench.ATTACKED))
    monkeypatch.setattr(bench, "LIES", {"sign flip × 3": lies.LIES["sign flip × 3"]})
    assert bench.run(only="attacks", seeds=1, as_json=True, quick=True, workers=1) == 0
    rows = json.loads(capsys.readouterr().out)["attacks"]["rows"]
    assert [(row["attack"], row["mode"]) for row in rows] == [
        ("none", "mean"), ("none", bench.ATTACKED), ("sign flip × 3", "mean"), ("sign flip × 3", bench.ATTACKED)
    ]  # fmt: skip
    assert all(set(row["institutions"]) == {"AAA", "CCC", "DDD", "EEE", "GGG"} for row in rows)
    values = [row["values"][0] for row in rows]
    assert values[2] < values[3] - 0.1


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(UsageError, match="no study 'mnist'"):
        bench.run(only="mnist")


@pytest.mark.usefixtures("work")
def test_a_short_run_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data()
    assert bench.run(only="oulad", seeds=1, epsilon=inf, out=tmp_path / "out", as_json=True, quick=True, workers=1) == 0
    results = json.loads(capsys.readouterr().out)["oulad"]
    assert results == json.loads((tmp_path / "out" / "learn.json").read_text())["oulad"]
    assert [row["mode"] for row in results["rows"]] == ["federated", "federated + home layer", "local", "central"]
    for row in results["rows"]:
        assert row["epsilon"] is None
        assert set(row["institutions"]) == {"AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG"}
        assert 0.6 < row["values"][0] < 0.9
    assert (tmp_path / "out" / "oulad.png").read_bytes().startswith(b"\x89PNG")
