"""G6: a spent budget stops contributions, nothing is refunded, and noise grows where a budget would not last."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import pytest

from collegium.node.privacy.accountant import MILLION, UNBOUNDED, Event, claimed, epsilon
from collegium.node.privacy.budget import (
    FORECAST_LIMIT,
    Budget,
    Modality,
    NoisePart,
    Verdict,
    count_rounds,
    decide_run,
    events,
    spread,
)
from collegium.protocol.claims import DpEvents, effective_noise, merge

Q, STEPS = 100_000, 8
CLOSED = Budget(epsilon=4000, delta=1e-5, recovery_share=250_000, recovery_open=False)
OPEN = replace(CLOSED, recovery_open=True)
HEAD, MARKS, ESSAYS = (
    NoisePart("head", 2 * MILLION, 0, MILLION, MILLION, 400),
    NoisePart("encoder/marks", 2 * MILLION, 0, MILLION, MILLION, 100),
    NoisePart("encoder/essays", 2 * MILLION, 0, MILLION, MILLION, 1600),
)
PARTS = (HEAD, MARKS, ESSAYS)


def modality(name: str = "marks", budget: Budget = CLOSED, spent: tuple[DpEvents, ...] = ()) -> Modality:
    return Modality(name, budget, spent, (f"encoder/{name}", "head"))


def decide(*modalities: Modality, rounds: int = 1, parts: tuple[NoisePart, ...] = PARTS, lines: int = 64) -> Verdict:
    return decide_run(modalities, parts, sample_rate=Q, steps=STEPS, rounds=rounds, lines=lines)


def noise_of(verdict: Verdict, name: str = "marks") -> int:
    return effective_noise([verdict.noises[f"encoder/{name}"], verdict.noises["head"]])


def after(spent: tuple[DpEvents, ...], verdict: Verdict, rounds: int, name: str = "marks") -> int:
    return claimed(epsilon(events([*spent, DpEvents(Q, noise_of(verdict, name), STEPS * rounds)]), 1e-5))


def test_g6_draws_are_allowed_until_the_limit_and_never_above() -> None:
    spent: tuple[DpEvents, ...] = ()
    drawn, forecast = 0, -1
    while (verdict := decide(modality(spent=spent))).allowed:
        decision = verdict.modalities["marks"]
        if forecast < 0:
            forecast = decision.rounds_left
        spent = merge([*spent, DpEvents(Q, noise_of(verdict), STEPS)])
        drawn += 1
        assert decision.after == claimed(epsilon(events(spent), 1e-5)) <= CLOSED.limit
        assert drawn < 200
    # The charter's noise for as long as that fits; then a last few rounds with more.
    assert drawn >= forecast > 1
    refused = verdict.modalities["marks"]
    assert refused.rounds_left == 0
    assert refused.before <= refused.limit < refused.after
    assert "marks: ε" in verdict.reason


def test_the_charters_noise_is_used_where_it_is_enough() -> None:
    plan = decide(modality())
    left = plan.modalities["marks"].rounds_left
    assert decide(modality(), rounds=left).noises == {part.name: part.noise for part in PARTS}
    assert decide(modality(), rounds=left + 1).noises != {part.name: part.noise for part in PARTS}


@pytest.mark.parametrize("spent", [(), (DpEvents(Q, 1_300_000, 4 * STEPS),)])
def test_g6_noise_grows_until_the_budget_lasts_for_what_is_planned(spent: tuple[DpEvents, ...]) -> None:
    rounds = 400
    verdict = decide(modality(spent=spent), rounds=rounds)
    assert verdict.allowed
    assert after(spent, verdict, rounds) <= CLOSED.limit
    assert after(spent, verdict, rounds) >= 0.97 * CLOSED.limit, "and no more than is needed"
    assert verdict.modalities["marks"].rounds_left >= rounds
    assert verdict.noises["encoder/essays"] == ESSAYS.noise, "what marks do not reach is not touched"
    # σ_c² a_c is the same for all: the split of design.md section 6.
    products = [verdict.noises[part.name] ** 2 * part.share for part in (HEAD, MARKS)]
    assert max(products) <= 1.001 * min(products)


def test_g6_every_budget_holds_at_once() -> None:
    tight = replace(CLOSED, epsilon=1000)
    both = decide(modality(), modality("essays", tight), rounds=100)
    assert decide(modality("essays", tight), modality(), rounds=100).noises == both.noises
    alone = decide(modality("essays", tight), rounds=100)
    assert both.allowed
    for name in ("encoder/essays", "head"):
        assert both.noises[name] >= alone.noises[name]
    assert after((), both, 100) <= CLOSED.limit
    assert after((), both, 100, "essays") <= tight.limit


def test_g6_one_spent_modality_stops_the_draw_by_its_name() -> None:
    verdict = decide(modality(), modality("essays", spent=(DpEvents(Q, 300_000, 100),)))
    assert not verdict.allowed
    assert "essays" in verdict.reason
    assert "marks" not in verdict.reason
    assert verdict.modalities["marks"].allowed
    assert not verdict.modalities["essays"].allowed


def test_what_was_used_last_is_used_again_while_it_is_enough() -> None:
    first = decide(modality(), rounds=400)
    parts = tuple(replace(part, last=first.noises[part.name]) for part in PARTS)
    # Ten rounds fewer than were planned would bear less noise; but every other noise is another line of the spend
    # statement.
    again = decide(modality(spent=(DpEvents(Q, noise_of(first), STEPS),)), rounds=389, parts=parts)
    assert again.noises == first.noises


def test_beyond_what_was_planned_no_noise_is_added() -> None:
    """A budget that the planned rounds used up must not end in one more round that is noise alone."""
    first = decide(modality(), rounds=0)
    assert first.noises == {part.name: part.noise for part in PARTS}
    assert first.allowed, "as long as it fits, it is trained"
    spent = (DpEvents(Q, noise_of(first), STEPS * first.modalities["marks"].rounds_left),)
    one_more = decide(modality(spent=spent), rounds=1)
    assert one_more.allowed
    assert one_more.noises["head"] > HEAD.noise, "it would fit with more noise"
    assert not decide(modality(spent=spent), rounds=0).allowed
    parts = tuple(replace(part, last=one_more.noises[part.name]) for part in PARTS)
    assert decide(modality(spent=spent), rounds=0, parts=parts).allowed, "what was used last may go on"


def test_noise_is_bounded_and_then_the_rounds_run_out() -> None:
    spent = (DpEvents(Q, 1_250_000, 4 * STEPS),)
    little = Budget(claimed(epsilon(events(spent), 1e-5)) + 5, 1e-5, 0, recovery_open=False)
    verdict = decide(modality(budget=little, spent=spent), rounds=2**31)
    assert verdict.allowed
    assert verdict.noises["head"] == 16 * HEAD.noise
    assert verdict.noises["encoder/marks"] == 16 * MARKS.noise
    assert 0 < verdict.modalities["marks"].rounds_left < FORECAST_LIMIT


def test_utility_moves_noise_to_where_less_is_learned() -> None:
    parts = (replace(HEAD, utility=4 * MILLION), MARKS, ESSAYS)
    plain, moved = decide(modality(), rounds=400), decide(modality(), rounds=400, parts=parts)
    assert moved.noises["head"] < plain.noises["head"]
    assert moved.noises["encoder/marks"] > plain.noises["encoder/marks"]
    assert after((), moved, 400) <= CLOSED.limit


def test_a_level_between_the_bounds_is_the_formula() -> None:
    level = 4.0 * MILLION * sqrt(HEAD.share + MARKS.share)
    noises = spread((HEAD, MARKS), level)
    assert abs(effective_noise(list(noises.values())) - 4 * MILLION) <= 2
    assert spread((HEAD, MARKS), 0.0) == {"head": HEAD.noise, "encoder/marks": MARKS.noise}


def test_the_recovery_share_opens_only_after_a_withdrawal() -> None:
    assert CLOSED.limit == 3000
    assert OPEN.limit == 4000
    spent: tuple[DpEvents, ...] = (DpEvents(Q, 2 * MILLION, STEPS),)
    while claimed(epsilon(events(spent), 1e-5)) <= CLOSED.limit:
        spent = (replace(spent[0], count=spent[0].count + 10 * STEPS),)
    assert not decide(modality(spent=spent)).allowed
    assert decide(modality(budget=OPEN, spent=spent)).allowed


def test_the_limit_rounds_down() -> None:
    assert Budget(epsilon=1001, delta=1e-5, recovery_share=250_000, recovery_open=False).limit == 750


def test_a_draw_without_noise_never_fits_a_budget_and_always_fits_none() -> None:
    bare = (replace(HEAD, noise=0), MARKS, ESSAYS)
    verdict = decide(modality(budget=OPEN), parts=bare)
    assert not verdict.allowed
    assert verdict.modalities["marks"].rounds_left == 0
    free = Budget(UNBOUNDED, 1e-5, 250_000, recovery_open=False)
    assert decide(modality(budget=free), parts=bare).allowed
    assert decide(modality(budget=free)).modalities["marks"].after < UNBOUNDED


def test_merged_spend_statement_are_what_is_counted() -> None:
    """The ε that is claimed is that of the lines that the spend statement has room for."""
    spent = tuple(DpEvents(Q, (20 + n) * 100_000, 4) for n in range(6))
    verdict = decide(modality(spent=spent), lines=3)
    lines = merge([*spent, DpEvents(Q, noise_of(verdict), STEPS)], 3)
    assert len(lines) == 3
    assert verdict.modalities["marks"].after == claimed(epsilon(events(lines), 1e-5))


def rounds_left(reserved: Sequence[Event], run: Event, budget: Budget) -> int:
    """Count the rounds like `run` that still fit, one by one by the accountant."""
    q, sigma, steps = run
    return count_rounds(lambda n: claimed(epsilon([*reserved, (q, sigma, steps * n)], budget.delta)) <= budget.limit)


def test_the_forecast_is_bounded() -> None:
    assert rounds_left([], (0.001, 100.0, 1), OPEN) == FORECAST_LIMIT


@pytest.mark.parametrize("rounds", [1, 7])
def test_a_forecast_equals_a_count(rounds: int) -> None:
    draw = (0.1, 1.2, 8)
    limit = claimed(epsilon([(0.1, 1.2, 8 * rounds)], 1e-5))
    exact = Budget(epsilon=limit, delta=1e-5, recovery_share=0, recovery_open=False)
    short = Budget(epsilon=limit - 1, delta=1e-5, recovery_share=0, recovery_open=False)
    assert rounds_left([], draw, exact) == rounds
    assert rounds_left([], draw, short) == rounds - 1
