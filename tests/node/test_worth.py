"""What is told as no better than a constant: at the bound, just below and just above it."""

import pytest

from collegium.node.views.worth import no_better, too_certain


@pytest.mark.parametrize(
    ("metrics", "noted"),
    [
        ({"r2": 0.01}, False),
        ({"r2": 0.0}, True),
        ({"r2": -0.01}, True),
        ({"r2": None}, False),
        ({"accuracy": 0.5, "accuracy_constant": 0.5}, True),
        ({"accuracy": 0.51, "accuracy_constant": 0.5}, False),
        ({"brier": 0.25, "brier_constant": 0.25}, True),
        ({"brier": 0.24, "brier_constant": 0.25}, False),
    ],
)
def test_a_task_is_no_better_than_a_constant_from_the_bound_on(metrics: dict[str, float | None], noted: bool) -> None:
    assert bool(no_better(metrics)) is noted


def test_near_certainty_is_warned_of_from_a_tenth_of_the_records_on() -> None:
    assert too_certain(9, 100, "grade") == ""
    assert too_certain(0, 0, "grade") == ""
    assert "grade: of 10% of the records it is nearly certain" in too_certain(10, 100, "grade")
