"""The demo as its user runs it: one JSON object on standard output, exit code 0 only if all of it held."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.presets import preset
from collegium.node.blueprint.recipe import Budget
from collegium.node.learner.answers import Trained
from collegium.node.learner.messages import Engagement, Train
from collegium.protocol.components import MILLION
from collegium.protocol.update import Declared, Engaged, norm_bounds, squared_norm
from collegium.sims.processes.demo import run
from collegium.sims.processes.lying_learner import lies, quiet
from collegium.sims.processes.result import Result

from ...public_data import public_data
from ...tour import FOLDER, KEY, PAGE, follow, holds, lacking, steps

MARGIN = 0.03  # AUC that two liars of seven may cost the honest, as a mean; rounds and noise differ from run to run


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The demo, and the folder that it left."""
    folder = tmp_path_factory.mktemp("demo") / "tour"
    done = subprocess.run(
        [sys.executable, "-m", "collegium.cli.main", "demo", "--json", "--rounds", "3", "--keep", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done, folder


def test_the_demo_holds_and_says_what_it_promises(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = demo
    result = json.loads(done.stdout)
    assert result["problems"] == [], done.stderr[-3000:]
    assert result["ok"] is True
    assert done.returncode == 0
    nodes = result["nodes"]
    assert len(nodes) == 4
    assert result["rounds"] == 3
    assert result["first_round_seconds"] > 0
    assert result["round_seconds_median"] > 0
    assert result["bytes_per_node_round"] >= result["bytes_lower_bound"] > 0
    for digests in result["state_digests"].values():
        assert set(digests) == set(nodes)
        assert len(set(digests.values())) == 1
    quality = result["quality"]
    assert set(quality["local"]) == set(quality["federated"]) == set(quality["own"]) == set(nodes)
    # Three rounds under DP on a strong label skew: together they are better on everybody's data than alone, on average.
    assert sum(quality["federated"].values()) > sum(quality["local"].values())
    assert all(0 < value <= 8 for value in result["epsilon"].values())
    assert result["crash"]["killed"] in nodes
    assert result["crash"]["recovered"] is True
    assert result["withdrawal"]["verified"] is True
    assert result["withdrawal"]["member"] in nodes
    assert len(result["withdrawal"]["digest"]) == 64


def test_the_tour_s_commands_work_and_print_what_it_shows(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = demo
    key, wrong = "", []
    for step in steps(PAGE.read_text(encoding="utf-8")):
        done = follow(step, folder, key)
        printed = done.stdout + done.stderr
        assert holds(step, done.returncode), f"{step.command}\n{printed}"
        match = KEY.search(done.stdout)
        key = match[1] if match else key
        wrong += [(step.command, line) for line in lacking(step, printed.replace(str(folder), FOLDER))]
    assert key
    assert not wrong, "python tests/tour.py FOLDER takes the outputs anew"


def test_a_problem_is_no_success() -> None:
    result = Result("digits", 3, ["a"], True, metric="accuracy")
    assert result.ok
    result.problems.append("hosts hold different states")
    assert not result.ok


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 3 rounds"):
        run(rounds=2)


@pytest.mark.parametrize("strength", [0.0, 0.5, 300.0])
def test_g5_a_lie_is_the_opposite_of_the_truth_within_the_bounds_of_what_it_declares(strength: float) -> None:
    specs, learning = preset("oulad", budget=Budget(8.0, 1e-5, 8), rounds=8, institutions=7)
    source = np.random.default_rng(1)
    engaged = {s.name: Engagement.of(s.clip_norm, s.noise_multiplier, s.learning_rate) for s in specs}
    request = Train({}, engaged, learning.steps, learning.sample_rate / MILLION, lot=100.5)
    assert all(rule.noise == 0.0 for rule in quiet(request).engaged.values())
    truth = {
        spec.name: np.rint(source.normal(0.0, strength, spec.dimension)).astype(spec.integer_type) for spec in specs
    }
    answer = Trained({name: values.tobytes() for name, values in truth.items()}, 1.0)
    lied = lies(request, answer, {spec.name: spec for spec in specs})
    assert lied.seconds == 1.0
    for spec in specs:
        lie = np.frombuffer(lied.updates[spec.name], dtype=spec.integer_type)
        recipe = Engaged(spec.name, bytes(32), spec.noise_multiplier, spec.clip_norm, spec.learning_rate)
        low, high = norm_bounds(Declared(recipe, learning.steps, 100_500), spec)
        assert low <= squared_norm(lie) <= high
        against = float(lie.astype(np.float64) @ truth[spec.name])
        assert against < 0 or not truth[spec.name].any()


def test_all_but_one_cannot_lie() -> None:
    with pytest.raises(UsageError, match="3 of 4"):
        run(liars=3)


def honest_auc(*options: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "collegium.cli.main", "demo", "--json", "--data", str(public_data("oulad")), *options],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    result = json.loads(done.stdout)
    assert result["problems"] == [], done.stderr[-3000:]
    own = [figures["federated"] for name, figures in result["quality"]["own"].items() if name in HONEST]
    assert set(result["nodes"]) - set(result["liars"]) >= HONEST
    return float(np.mean(own))


HONEST = {f"module-{name}" for name in ("AAA", "BBB", "CCC", "DDD", "GGG")}


@pytest.mark.soak
def test_g5_two_liars_of_seven_cost_the_honest_little_under_the_robust_rule_and_much_under_the_mean() -> None:
    without = honest_auc()
    robust = honest_auc("--liars", "2")
    spoilt = honest_auc("--liars", "2", "--rule", "mean")
    assert robust > without - MARGIN, (without, robust, spoilt)
    assert spoilt < without - 2 * MARGIN, (without, robust, spoilt)
