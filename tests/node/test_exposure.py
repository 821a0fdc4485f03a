"""What an amendment does to the noise and ε of an institution's own students, by hand."""

from dataclasses import replace

import pytest
from rich.console import Console

from collegium.cli.effects import show_own
from collegium.crypto.identity import Identity
from collegium.node.privacy import policy
from collegium.node.views.exposure import exposures
from collegium.protocol import schema
from collegium.protocol.amendment import Amendment, Changes, Opening, amended
from collegium.protocol.charter import Charter
from collegium.protocol.components import base_digest, base_vector
from collegium.protocol.learning import PrivacyFloor, Task
from collegium.sims.scenarios.amending import statement
from collegium.sims.simulator.small import small_charter

OLD, NEW = "head/task0", "head/more"


@pytest.fixture
def charter() -> Charter:
    """One modality under ε ≤ 8, one head with noise 2, forty steps in all at the rate 0.1."""
    small = small_charter([Identity.from_seed(bytes([number]) * 32) for number in range(4)], noise=2_000_000)
    floors = (PrivacyFloor("made-up", "dp", 8000, 10_000),)
    return replace(small, learning=replace(small.learning, floors=floors, planned_rounds=10))


def opened(charter: Charter, noise: int) -> Charter:
    """Return it with one more head over the same modality, with this noise (millionths)."""
    old = charter.specs[OLD]
    base = base_digest(base_vector(charter.seed, NEW, old.tensors))
    head = replace(old, name=NEW, noise_multiplier=noise, base=base)
    changes = Changes(opening=(Opening((), (Task("more", "binary", 2, ("made-up",)),), (), (head,)),))
    return amended(charter, schema.dump(Amendment(charter.federation, 1, changes)))


def test_a_second_head_with_noise_costs_more_and_says_how_much(charter: Charter) -> None:
    after = opened(charter, 2_000_000)
    (shown,) = exposures(charter, after, ((OLD,), (OLD, NEW)), policy.of_charter(after))
    assert (shown["reaches_before"], shown["reaches_after"]) == ([OLD], [NEW, OLD])
    assert shown["noise_before"] == 2.0
    assert shown["noise_after"] == pytest.approx(2 / 2**0.5, abs=1e-5)
    assert shown["epsilon_before"] is not None
    assert shown["epsilon_after"] is not None
    assert 0 < shown["epsilon_before"] < shown["epsilon_after"] < 8
    assert (shown["spent"], shown["limit"], shown["budget"], shown["refused_here"]) == (0, 8.0, 8.0, {})
    (little,) = exposures(charter, after, ((OLD,), (OLD, NEW)), policy.of_charter(after), {"made-up": 5500})
    screen = Console(width=200)
    for told, seen in (
        (shown, "ε 0 is spent so far; planned rounds may spend 8 of this node's 8."),
        (little, "ε 5.5 is spent so far"),
        (shown | {"spent": 8.0}, "So this node trains in no planned round any more."),
        (shown | {"epsilon_after": 9.0}, "All planned rounds would cost 9: this node trains with more noise, or stops"),
    ):
        with screen.capture() as captured:
            show_own(screen, [told])
        assert seen in " ".join(captured.get().split())


def test_a_head_that_the_own_policy_refuses_changes_nothing_and_is_named(charter: Charter) -> None:
    laxer = replace(charter, learning=replace(charter.learning, floors=(PrivacyFloor("made-up", "open", 0, 0),)))
    after, own = opened(laxer, 0), policy.of_charter(charter)
    (shown,) = exposures(laxer, after, ((OLD,), (OLD, NEW)), own)
    assert (shown["noise_before"], shown["noise_after"]) == (2.0, 2.0)
    assert shown["epsilon_before"] == shown["epsilon_after"]
    assert (shown["budget"], list(shown["refused_here"])) == (8.0, [NEW])


def test_what_reaches_no_data_here_is_not_shown(charter: Charter) -> None:
    after = opened(charter, 2_000_000)
    assert exposures(charter, after, ((OLD,), (OLD,)), policy.of_charter(after)) == []
    median = amended(charter, statement(charter, "median"))
    assert exposures(charter, median, ((OLD,), (OLD,)), policy.of_charter(median)) == []
