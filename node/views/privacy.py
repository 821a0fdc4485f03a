"""What this node's students have paid, and what is left. The log is this node's own; nobody else sees it."""

from ..core.events import PutDraw
from .context import Context, Json, PrivacyPolicy

MILLION = 1_000_000


def privacy(context: Context, policy: PrivacyPolicy) -> Json:
    """Return the log of draws, ε spent, and the budget in force: the strictest of charter and config.

    ε of each line is the total with it, as it was reserved before training: what is reserved stays spent.
    """
    learning = context.charter.learning
    draws = context.store.draws()
    limit = _limit(context, policy)
    spent = max((draw.epsilon for draw in draws), default=0)
    share = learning.recovery_share
    kept = None if limit is None else limit * (MILLION - share) // MILLION
    return {
        "unit": "student",
        "policy": _strictest(context, policy),
        "delta": _delta(context),
        "epsilon_spent": spent / 1000,
        "epsilon_budget": None if limit is None else limit / 1000,
        "epsilon_before_recovery": None if kept is None else kept / 1000,
        "recovery_share": share / MILLION,
        "draws": [_draw(context, draw) for draw in draws],
        "floors": [
            {
                "modality": floor.modality,
                "policy": floor.policy,
                "epsilon": floor.epsilon / 1000 if floor.policy == "dp" else None,
                "delta": floor.delta / 1e9 if floor.policy == "dp" else None,
            }
            for floor in learning.floors
        ],
        "institution": {"policy": policy.policy, "epsilon": policy.epsilon, "delta": policy.delta},
        "planned_rounds": learning.planned_rounds,
        "notes": _remarks(context, policy),
        "forecast": None,
    }


def forecast(context: Context, policy: PrivacyPolicy) -> Json | None:
    """Return how many rounds like the last one still fit; None without noise or a draw to go by.

    Runs the accountant, which takes seconds and memory: the command line calls it, the daemon does not.
    """
    from ..privacy.budget import Budget, rounds_left  # noqa: PLC0415 - see above

    draws, limit = context.store.draws(), _limit(context, policy)
    if not draws or limit is None or draws[-1].draws.noise_multiplier == 0:
        return None
    reserved = [_event(draw) for draw in draws]
    left = {
        name: rounds_left(
            reserved, reserved[-1], Budget(limit, _delta(context), context.charter.learning.recovery_share, open_)
        )
        for name, open_ in (("rounds_left", False), ("rounds_left_in_recovery", True))
    }
    return {**left, "like_draw": draws[-1].draw}


def _remarks(context: Context, policy: PrivacyPolicy) -> list[str]:
    bare = [spec.name for spec in context.charter.components if spec.noise_multiplier == 0]
    if policy.policy == "open" or not bare:
        return []
    return [f"config.toml asks for {policy.policy!r}, but by the charter {', '.join(bare)} carry no noise at all."]


def _event(draw: PutDraw) -> tuple[float, float, int]:
    return draw.draws.sample_rate / MILLION, draw.draws.noise_multiplier / MILLION, draw.draws.count


def _draw(context: Context, draw: PutDraw) -> Json:
    return {
        "draw": draw.draw,
        "rounds": dict(zip(draw.components, draw.rounds, strict=True)),
        "sample_rate": draw.draws.sample_rate / MILLION,
        "noise_multiplier": draw.draws.noise_multiplier / MILLION,
        "steps": draw.draws.count,
        "epsilon": draw.epsilon / 1000,
        "published": draw.draw in context.published,
    }


def _limit(context: Context, policy: PrivacyPolicy) -> int | None:
    """Return the ε in force in thousandths; None where nothing on the path of an update asks for one."""
    floors = [floor.epsilon for floor in context.charter.learning.floors if floor.policy == "dp"]
    own = [round(policy.epsilon * 1000)] if policy.policy == "dp" and policy.epsilon else []
    return min([*floors, *own], default=None) if floors else None


def _strictest(context: Context, policy: PrivacyPolicy) -> str:
    order = ("never", "dp", "open")
    return min([policy.policy, *(floor.policy for floor in context.charter.learning.floors)], key=order.index)


def _delta(context: Context) -> float:
    return min((floor.delta for floor in context.charter.learning.floors if floor.policy == "dp"), default=0) / 1e9
