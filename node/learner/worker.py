"""The worker's operations: a request map in, a response map out. Field by field:

- `open` {data: path or [path] (pooled), components: [map], learning: map, base_seed: bytes, hosted: [name], seed: int
  or nil, withheld: [modality], models: {name: path}, cache: path, cache_read_only: bool, purge: bool (delete from the
  cache what is of none of the data's subjects), validation: share, private: path, private_adapter: {kind: "lora" |
  "rslora" | "dora", rank: int} (with `private`: one more private component on each pretrained text model)} →
  {subjects: int (to train on), held_out: int, everybody: [text] (ids in the data, those of the excluded too),
  left_out: how many of them have a cell that cannot be used, problems: [text] (where; never what the cell holds),
  modalities: {name: {kind, width, length, records}},
  tasks: {name: {kind, classes, records}}, components: {name: d}, cut: {text modality: records of which the end is not
  read}, simulated: bool, device}. `seed` is for simulations
  only. All but the first five may be left out. Every operation on a session may name it: {session: text}.
- `try_model` {folder} → {}: loads a pretrained model of text and embeds with it; needs no session
- `respec` {components, learning, base_seed, seed} → {}: the same data under other numbers (simulations)
- `train` {states: {name: int32 LE}, engaged: {name: {clip, noise, learning_rate}}, steps, sample_rate, lot} →
  {updates: {name: integers LE in the spec's width}, saturated: {name: int}, scaled: {name: float}, seconds, subjects:
   [text], those who were drawn}. All of
  `engaged` are statistics, or none: then steps and sample_rate are 1, lot is N̂, and states are not needed
- `evaluate` {states, split: "held_out" | "validation" | "train"} → {tasks: {name: {metric, value: float or nil (not
  defined), n, metrics: {name: value}, groups: {attribute: {level: {value, n}}}}}, personal: the same, if there are
  private components, statistics: the same by the statistic's name, of those to which somebody contributed (the states
  of statistics are int64 LE)}
- `evaluate_variants` {states, variants: [{name: int32 LE}], split} → {variants: [{task: {metric, value, n}}]}: the
  figures with the states of each variant in place of `states`, one after the other, on one model. Statistics among the
  states (int64 LE) have figures by the statistic's name
- `predict_scores` {states, split} → {tasks: {name: {kind, metric, subjects: [text], scores: [[float]],
  labels: [[float]]}}}
- `predict` {states, file: path, personal: bool, task: name or nil (all)} → {records: [text], tasks: {name: {kind,
  classes: [text], scores: [[float]]}}, modalities: {name: how many of the records have it}}
- `personalise` {states} → {loss, parameters}: trains the private components, a private adapter among them, and keeps
  them
- `epsilon` {events: [[q, σ_eff, count]], delta} → {epsilon: float, claimed: thousandths}
- `budget` {modalities: [{name, epsilon: thousandths, delta: billionths, spent: [[rate, noise, count]], components:
  [name]}], components: [{name, noise, last, clip, utility, dimension}], sample_rate, steps, rounds, lines,
  recovery_share, recovery_open} → {allowed, reason, noises: {component: noise}, modalities: {name: {allowed, before,
  after, limit, rounds_left}}}. Whole numbers: rates, noises, clips, utilities and shares in millionths, ε in
  thousandths; `noises` is what to train with, never less than each component's `noise`.
- `cross_check` {events: [[q, σ_eff, count]], delta} → {pld, prv, error}: ε by the accountant in use, and the upper end
  of Opacus' PRV accountant, which may be `error` above the truth; nil where there is no noise
- `audit` {fault: name or nil, own: bool} → {findings: [{probe, canaries, guesses, correct, claimed, exact, audited,
  provable, delta, confidence, refuted: [text], seconds}], caught: [text], fault, about, confidence, seconds}: of
  synthetic students, without a session. With `own` {states, engaged, steps, sample_rate, lot, canaries: int} of the
  session's model and students, with canaries among them. `fault` plants a mistake (audit.py, faults.py)
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, assert_never, cast

from ...crypto.errors import UsageError
from ...protocol.claims import DpEvents
from ..privacy.accountant import Event, claimed, epsilon
from ..privacy.budget import Budget, Modality, Part, decide_draw
from .fields import field, number
from .protocol import OPERATIONS, Message, Operation

Progress = Callable[[int, int], None]


class Worker:
    """One learner. It keeps the opened sessions between requests and nothing else."""

    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    def handle(self, request: Message, progress: Progress) -> Message:
        """Answer a request (without `id` and `ok`). Raises CollegiumError, ValueError for what cannot be answered."""
        name = field(request, "op", str)
        if name not in OPERATIONS:
            raise UsageError(f"unknown operation {name!r}", f"This worker knows {', '.join(OPERATIONS)}.")
        operation = cast("Operation", name)
        if operation == "epsilon":
            return _epsilon(request)
        if operation == "budget":
            return _budget(request)
        if operation == "cross_check":
            from .crosscheck import cross_check  # noqa: PLC0415  # opacus brings torch

            return cross_check(_events(request, "events"), number(request, "delta"))
        from . import operations  # noqa: PLC0415  # torch and opacus take seconds; the accountant need not wait

        key = str(request.get("session", ""))
        if operation == "audit" and not request.get("own"):
            return _audit(request, None, progress)
        if operation == "try_model":
            operations.try_model(request)
            return {}
        if operation == "open":
            self._sessions.pop(key, None)  # a new one takes its place, and its memory
            self._sessions[key], answer = operations.open_data(request, progress)
            return answer
        session = self._sessions.get(key)
        if session is None:
            raise UsageError("no data folder is open", "Send open first.")
        match operation:
            case "respec":
                self._sessions[key] = operations.respec(session, request)
                return {}
            case "train":
                return operations.train_components(session, request, progress)
            case "audit":
                return _audit(request, session, progress)
            case "evaluate":
                return operations.evaluate(session, request)
            case "evaluate_variants":
                return operations.evaluate_variants(session, request, progress)
            case "predict_scores":
                return operations.predict_scores(session, request)
            case "predict":
                return operations.predict_file(session, request)
            case "personalise":
                return operations.personalise(session, request, progress)
            case _:
                assert_never(operation)


def _audit(request: Message, session: Any, progress: Progress) -> Message:
    from . import audit  # noqa: PLC0415  # hardly ever asked for

    return audit.answer(request, session, progress)


def _epsilon(request: Message) -> Message:
    value = epsilon(_events(request, "events"), number(request, "delta"))
    return {"epsilon": value, "claimed": claimed(value)}


def _budget(request: Message) -> Message:
    share, is_open = field(request, "recovery_share", int), field(request, "recovery_open", bool)
    modalities = [
        Modality(
            field(item, "name", str),
            Budget(field(item, "epsilon", int), field(item, "delta", int) / 1e9, share, is_open),
            tuple(_dp_events(line) for line in field(item, "spent", list)),
            tuple(field(item, "components", list)),
        )
        for item in _maps(request, "modalities")
    ]
    keys = ("noise", "last", "clip", "utility", "dimension")
    parts = [
        Part(field(item, "name", str), *(field(item, key, int) for key in keys))
        for item in _maps(request, "components")
    ]
    known = {part.name for part in parts}
    if not all(modality.components and set(modality.components) <= known for modality in modalities):
        raise UsageError("a modality reaches no component, or one that is not part of the draw")
    verdict = decide_draw(
        modalities,
        parts,
        sample_rate=field(request, "sample_rate", int),
        steps=field(request, "steps", int),
        rounds=field(request, "rounds", int),
        lines=field(request, "lines", int),
    )
    return asdict(verdict)


def _maps(request: Message, key: str) -> list[Message]:
    items: list[Any] = field(request, key, list)
    if not all(type(item) is dict for item in items):
        raise UsageError(f"{key} holds something that is no map")
    return items


def _dp_events(item: Any) -> DpEvents:
    if type(item) is not list or [type(part) for part in item] != [int, int, int]:
        raise UsageError(f"no draws: {item!r}", "Send [rate, noise, count], whole numbers.")
    return DpEvents(*item)


def _events(request: Message, key: str) -> list[Event]:
    return [_event(item) for item in field(request, key, list)]


def _event(item: Any) -> Event:
    if type(item) is not list or len(item) != 3 or type(item[2]) is not int:
        raise UsageError(f"no event: {item!r}", "Send [sample rate, effective noise, count].")
    return float(item[0]), float(item[1]), item[2]
