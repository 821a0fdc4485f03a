"""The demo as its user runs it: one JSON object on standard output, exit code 0 only if all of it held."""

import json
import subprocess
import sys

import pytest

from collegium.crypto.errors import UsageError
from collegium.sims.demo import Result, run


def test_the_demo_holds_and_says_what_it_promises() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "collegium.cli.main", "demo", "--json", "--rounds", "3"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["problems"] == [], done.stderr[-3000:]
    assert found["ok"] is True
    assert done.returncode == 0
    nodes = found["nodes"]
    assert len(nodes) == 4
    assert found["rounds"] == 3
    assert 0 < found["first_round_seconds"] < 120
    assert 0 < found["round_seconds_median"] < 120
    assert found["bytes_per_node_round"] >= found["bytes_lower_bound"] > 0
    for digests in found["state_digests"].values():
        assert set(digests) == set(nodes)
        assert len(set(digests.values())) == 1
    quality = found["quality"]
    assert set(quality["local"]) == set(quality["federated"]) == set(quality["own"]) == set(nodes)
    # Three rounds under DP on a strong label skew: together they are better on everybody's data than alone, on average.
    assert sum(quality["federated"].values()) > sum(quality["local"].values())
    assert all(0 < value <= 8 for value in found["epsilon"].values())
    assert found["crash"]["killed"] in nodes
    assert found["crash"]["recovered"] is True
    assert found["withdrawal"]["verified"] is True
    assert found["withdrawal"]["member"] in nodes
    assert len(found["withdrawal"]["digest"]) == 64


def test_a_problem_is_no_success() -> None:
    result = Result("digits", "accuracy", 3, ["a"], True)
    assert result.ok
    result.problems.append("hosts hold different states")
    assert not result.ok


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 3 rounds"):
        run(rounds=2)
