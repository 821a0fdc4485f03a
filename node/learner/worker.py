"""The worker's operations: a request map in, a response map out. Field by field:

- `open` {data: path, components: [map], learning: map, base_seed: bytes, hosted: [name], seed: int or nil} →
  {subjects: int (to train on), held_out: int, modalities: {name: {kind, width, length, records}},
  tasks: {name: {kind, classes, records}}, components: {name: d}, simulated: bool}. `seed` is for simulations only.
- `train` {states: {name: int32 LE}, engaged: {name: {clip, noise, learning_rate}}, steps, sample_rate, lot} →
  {updates: {name: integers LE in the spec's width}, saturated: {name: int}, scaled: {name: float}, seconds}
- `evaluate` {states, split: "held_out" | "train"} → {tasks: {name: {metric: "auc" | "accuracy",
  value: float or nil (one class only), n}}}
- `predict_scores` {states, split: default "held_out"} → {tasks: {name: {metric, subjects: [text], scores: [float] for
  binary or [[float]], labels: [int]}}}
- `epsilon` {events: [[q, σ_eff, count]], delta} → {epsilon: float, claimed: thousandths}
- `budget` {reserved: [[q, σ_eff, count]], draw: [q, σ_eff, steps], epsilon: thousandths, delta, recovery_share:
  millionths, recovery_open: bool} → {allowed, before, after, limit, rounds_left}
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ...crypto.errors import UsageError
from ..privacy.accountant import Event, claimed, epsilon
from ..privacy.budget import Budget, decide
from .fields import field, number
from .protocol import OPERATIONS, Message

Progress = Callable[[int, int], None]


class Worker:
    """One learner. It keeps the opened session between requests and nothing else."""

    def __init__(self) -> None:
        self._session: Any = None

    def handle(self, request: Message, progress: Progress) -> Message:
        """Answer a request (without `id` and `ok`). Raises CollegiumError, ValueError for what cannot be answered."""
        name = field(request, "op", str)
        if name not in OPERATIONS:
            raise UsageError(f"unknown operation {name!r}", f"This worker knows {', '.join(OPERATIONS)}.")
        if name == "epsilon":
            return _epsilon(request)
        if name == "budget":
            return _budget(request)
        from . import operations  # noqa: PLC0415  # torch and opacus take seconds; the accountant need not wait

        if name == "open":
            self._session, answer = operations.open_data(request)
            return answer
        if self._session is None:
            raise UsageError("no data folder is open", "Send open first.")
        if name == "train":
            return operations.train_components(self._session, request, progress)
        if name == "evaluate":
            return operations.evaluate(self._session, request)
        return operations.predict_scores(self._session, request)


def _epsilon(request: Message) -> Message:
    value = epsilon(_events(request, "events"), number(request, "delta"))
    return {"epsilon": value, "claimed": claimed(value)}


def _budget(request: Message) -> Message:
    budget = Budget(
        field(request, "epsilon", int),
        number(request, "delta"),
        field(request, "recovery_share", int),
        field(request, "recovery_open", bool),
    )
    return asdict(decide(_events(request, "reserved"), _event(field(request, "draw", list)), budget))


def _events(request: Message, key: str) -> list[Event]:
    return [_event(item) for item in field(request, key, list)]


def _event(item: Any) -> Event:
    if type(item) is not list or len(item) != 3 or type(item[2]) is not int:
        raise UsageError(f"no event: {item!r}", "Send [sample rate, effective noise, count].")
    return float(item[0]), float(item[1]), item[2]
