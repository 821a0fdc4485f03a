"""Why a record gets its result: by feature, by modality, by component, and by other states of the components.

What is explained is one number, the score of the result that the model gives: of classes the logit of the result less
the mean of the other classes' (of two: the log-odds), of levels the sum of their thresholds' logits, of labels the
logit of the likeliest one, of a number the number itself in its own units. All is computed in float64, so that another
machine with the same states and the same record finds the same figures (`collegium explain verify`).

**Features**: integrated gradients (Sundararajan, Taly and Yan 2017): the integral of the gradient along the straight
from a fixed record (node/data/features.py) to this one, by Gauss-Legendre quadrature. Where the score is linear, as in
skips, that is exact: weight times difference. The effects add up to the difference of the two scores; what the
quadrature leaves is told as the gap.

**Modalities** and **components**: exact Shapley values (shapley.py). A coalition of modalities is the record without
the others, as if they were missing. A coalition of components is the model of a node that lacks the others: an encoder
that is not there gives nothing, without a backbone the embeddings are added up, and the head alone gives its bias.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...crypto.errors import UsageError
from ...crypto.hashing import digest
from ...protocol.component_names import ComponentKind as Kind
from ...protocol.learning import GENERATE, Task
from ..data.arrays import Dataset
from ..data.features import Feature, baseline, features_of, others, value_text
from ..data.manifest import read_manifest
from .answers import AtHome, BadRequestError, Change, Explained, FeatureEffect, RecordExplained
from .backbones import Experts
from .dpsgd import Batch
from .evaluate import predict
from .home_layer import correct
from .layers import mean_of_steps
from .messages import Explain, States
from .model import Bert, Inputs, embed_tokens
from .path import METHOD, integrate
from .session import Session, SplitData, build, records_of
from .shapley import MAX_PLAYERS, coalitions, shapley
from .tasks import scores

AT_ONCE = 256  # rows in one pass
TRIED = 9  # values of a number between its bounds that are tried as a change
Floats = npt.NDArray[np.float64]
Score = Callable[[Tensor], Tensor]


class _Mean(nn.Module):
    """In place of an encoder that reads tokens: its embeddings of the passages are the values."""

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        return mean_of_steps(values, steps)


def explain_file(session: Session, request: Explain, progress: Callable[[int, int], None]) -> Explained:
    """Return why the records of a file, or one of them, get their results of a task. Raises UsageError."""
    task = next((task for task in session.learning.tasks if task.name == request.task), None)
    if task is None or task.carrier not in session.specs:
        raise BadRequestError(f"there is no task {request.task!r} here")
    data, part = records_of(session, Path(request.file))
    places = [(int(s), int(k)) for s, k in np.argwhere(part.batch.weights.numpy() > 0).tolist()]
    if request.record is not None:
        places = [place for place in places if str(part.records[place]) == request.record]
        if not places:
            raise UsageError(f"{request.file}: it has no record of that name", "Name one by its key: --record KEY.")
    if request.only and len(places) > 1:
        raise UsageError(
            f"{request.file} has {len(places)} records, and this explanation is for one person",
            "Name the record by its key: --record KEY.",
        )
    if task.kind == GENERATE:
        from .explain_text import METHOD as LEFT_OUT  # noqa: PLC0415  # only who writes needs it
        from .explain_text import explain_texts  # noqa: PLC0415

        named = [(s, k, str(part.records[s, k])) for s, k in places]
        texts = explain_texts(session, request, task, data, named, progress)
        return Explained(task.kind, (), LEFT_OUT, _digest(data, task.modalities, places), tuple(texts))
    read = tuple(name for name in task.modalities if name in part.batch.inputs and name not in session.withheld)
    batch = Batch(part.batch.weights, {name: part.batch.inputs[name] for name in read}, {})
    if not any(bool(batch.inputs[name][1][place].any()) for name in read for place in places):
        advice = f"Add the columns of one of its modalities: {', '.join(task.modalities)}."
        raise UsageError(f"{request.file}: no record has a modality of task {task.name!r}", advice)
    made = Explainer(session, task, request.states, batch, read)
    records = []
    for done, place in enumerate(places, start=1):
        records.append(made.record(place, str(part.records[place]), part.subjects[place[0]]))
        progress(done, len(places))
    varied = [Explainer(session, task, {**request.states, **states}, batch, read) for states in request.variants]
    at_home = _at_home(session, request, task, part) if request.home_layer else None
    full = []
    for place, (record, score) in zip(places, records, strict=True):
        variants = tuple(float(other.score(other.one(place), score).item()) for other in varied)
        told = None
        if at_home is not None:
            shared, corrected = (torch.from_numpy(logits[place][None]) for logits in at_home)
            told = AtHome(made.results(corrected)[0], float(score(corrected) - score(shared)))
        full.append(replace(record, variants=variants, at_home=told))
    classes = tuple(session.class_names.get(task.name, ()))
    return Explained(task.kind, classes, METHOD, _digest(data, read, places), tuple(full))


def _at_home(session: Session, request: Explain, task: Task, part: SplitData) -> tuple[Floats, Floats] | None:
    """Return the logits [S, K, outputs] without and with the home layer; None where it changes nothing."""
    model = build(session, request.states)
    shared = predict(model, part.batch.without(session.withheld))
    corrected, told = correct(session, model, request.states, part, shared)
    return (shared[task.name], corrected[task.name]) if task.name in told and told[task.name].form else None


def _digest(data: Dataset, read: Sequence[str], places: Sequence[tuple[int, int]]) -> bytes:
    """Return the digest of what is read of these records: numbers, texts, and the digests of files."""
    parts: list[bytes] = []
    for name in read:
        array = data.modalities.get(name)
        parts.append(name.encode())
        for place in places if array is not None else ():
            assert array is not None
            parts.append(array.steps[place].tobytes())
            if array.texts is not None:
                parts += [str(text).encode("utf-8", "surrogatepass") for text in array.texts[place]]
            elif array.files is not None:
                parts += [b"" if file is None else file.digest for file in array.files[place]]
            else:
                parts.append(array.values[place].astype("<f4").tobytes())
    return digest("explained", *parts)


class Explainer:
    """A model in float64, the embedded records, and the features of the modalities that a task reads."""

    def __init__(self, session: Session, task: Task, states: States, batch: Batch, read: Sequence[str]) -> None:
        self.session, self.task, self.read = session, task, read
        self.model = build(session, states).cpu()
        with torch.no_grad():
            inputs = dict(self.model.embed(batch.inputs))
            for name, (values, steps) in inputs.items():
                place = Kind.ENCODER.named(name)
                if not values.is_floating_point():  # tokens of a text that an encoder from scratch reads
                    encoder = self.model.parts[place]
                    assert isinstance(encoder, Bert)
                    inputs[name] = (embed_tokens(encoder.text, values), steps)
                    self.model.parts[place] = _Mean()
        self.model.double().requires_grad_(False)
        self.inputs = {name: (values.double(), steps) for name, (values, steps) in inputs.items()}
        manifest = read_manifest(session.folder)
        entries = {entry.name: entry for entry in manifest.modalities}
        self.features: dict[str, tuple[Feature, ...]] = {}
        self.starts: dict[str, Tensor] = {}
        for name, (values, _) in self.inputs.items():
            shape = (int(values.shape[2]), int(values.shape[3]))
            entry = entries.get(name)
            self.features[name] = () if entry is None else features_of(manifest, entry, *shape)
            self.starts[name] = torch.from_numpy(baseline(self.features[name], *shape))

    def one(self, place: tuple[int, int]) -> Inputs:
        """Return one record's inputs, [1, 1, T, width] and [1, 1, T]."""
        s, k = place
        return {n: (v[s : s + 1, k : k + 1], t[s : s + 1, k : k + 1]) for n, (v, t) in self.inputs.items()}

    def logits(self, inputs: Inputs) -> Tensor:
        """Return the task's logits of rows, [R, outputs]."""
        return self.model.decide(inputs)[self.task.name][:, 0]

    def score(self, inputs: Inputs, score: Score) -> Tensor:
        """Return the explained score of rows, [R]."""
        return score(self.logits(inputs))

    def record(self, place: tuple[int, int], name: str, student: str) -> tuple[RecordExplained, Score]:
        """Return why a record gets its result, and the score that is explained."""
        own = self.one(place)
        with torch.no_grad():
            logits = self.logits(own)
        values = self.shown(logits)[0]
        result, score = self.result(logits[0])
        with torch.no_grad():
            modalities, nothing = self._by_modality(own, score)
            components, head = self._by_component(own, score)
            changes = self._changes(own, result)
        effects, start, gap = self.by_feature(own, score)
        total = float(score(logits)[0])
        return RecordExplained(
            name, student, result, tuple(values.tolist()), total, start, gap, nothing, head, effects, modalities,
            components, (), changes,
        ), score  # fmt: skip

    def shown(self, logits: Tensor) -> Floats:
        """Return the scores that users see, [R, …]: probabilities, or a number in its own units."""
        values = scores(self.task.kind, logits.numpy())
        if self.task.kind == "regression":
            low, high = self.session.ranges.get(self.task.name, (0.0, 0.0))
            values = low + (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
        return values

    def results(self, logits: Tensor) -> list[str]:
        """Return the result of each row, in words."""
        values = self.shown(logits)
        if self.task.kind == "regression":
            return [f"{row[0]:.4g}" for row in values.tolist()]
        names = self.session.class_names.get(self.task.name, ())
        labels = names if len(names) == values.shape[1] else tuple(map(str, range(values.shape[1])))
        return [str(labels[int(row.argmax())]) for row in values]

    def result(self, logits: Tensor) -> tuple[str, Score]:
        """Return a record's result, and the score of that result as a function of rows of logits [R, outputs]."""
        (result,) = self.results(logits[None])
        match self.task.kind:
            case "regression":
                low, high = self.session.ranges.get(self.task.name, (-1.0, 1.0))
                return result, lambda rows: low + (rows[:, 0] + 1.0) / 2.0 * (high - low)
            case "ordinal":
                return result, lambda rows: rows.sum(1)
            case "multilabel":
                label = int(logits.argmax())
                return result, lambda rows: rows[:, label]
            case _:
                chosen, count = int(logits.argmax()), logits.shape[0]
                weights = torch.full((count,), -1.0 / (count - 1), dtype=torch.float64)
                weights[chosen] = 1.0
                return result, lambda rows: rows @ weights

    def by_feature(self, own: Inputs, score: Score) -> tuple[tuple[FeatureEffect, ...], float, float]:
        """Return what each feature adds, the score of the record that they are compared with, and the gap."""
        starts = {n: (self.starts[n] * t.unsqueeze(3), t) for n, (_, t) in own.items()}  # invalid steps stay zero
        with self._same_experts(own):
            with torch.no_grad():
                ends = [float(self.score(at, score)[0]) for at in (starts, own)]
            paths = {name: (starts[name][0][0], values[0] - starts[name][0][0]) for name, (values, _) in own.items()}

            def along(alpha: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
                rows = {n: begin + alpha.reshape(-1, 1, 1, 1) * way for n, (begin, way) in paths.items()}
                return self._gradients(rows, {n: own[n][1].expand(len(alpha), -1, -1) for n in own}, score)

            total, gap = integrate(along, {n: way for n, (_, way) in paths.items()}, (ends[0], ends[1]))
        effects = []
        for name, (values, steps) in own.items():
            part, valid = total[name][0].numpy(), steps[0, 0].numpy()
            shown = values[0, 0].numpy().astype(np.float32)
            effects += [
                FeatureEffect(name, one.name, value_text(one, shown, valid), one.trait, one.sum(part))
                for one in self.features[name]
                if valid[list(one.steps)].any()
            ]
        return tuple(effects), ends[0], gap

    def _gradients(
        self, rows: Mapping[str, Tensor], steps: Mapping[str, Tensor], score: Score
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores of rows [R], and their gradients at the values of each modality [R, 1, T, width]."""
        leaves = {name: values.detach().requires_grad_() for name, values in rows.items()}
        scored = self.score({name: (values, steps[name]) for name, values in leaves.items()}, score)
        if not scored.requires_grad:  # nothing that is hosted here reads them
            return scored, {name: torch.zeros_like(values) for name, values in leaves.items()}
        found = torch.autograd.grad(scored.sum(), list(leaves.values()), allow_unused=True)
        return scored.detach(), {
            name: torch.zeros_like(values) if gradient is None else gradient
            for (name, values), gradient in zip(leaves.items(), found, strict=True)
        }

    @contextmanager
    def _same_experts(self, own: Inputs) -> Iterator[None]:
        """Send every row to the experts that the record itself is sent to: between experts a score jumps."""
        experts = self.model.backbone
        if not isinstance(experts, Experts):
            yield
            return
        with torch.no_grad():
            self.logits(own)
        experts.held = experts.picked(experts.routed[-1])
        try:
            yield
        finally:
            experts.held = None

    def _by_modality(self, own: Inputs, score: Score) -> tuple[dict[str, float], float]:
        """Return the modalities' Shapley values, and the score without any."""
        present = [name for name, (_, steps) in own.items() if bool(steps.any())]
        which = self._coalitions(present)
        rows: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (values, steps) in own.items():
            there = which[:, present.index(name)] if name in present else torch.zeros(len(which), dtype=torch.bool)
            there = there.reshape(-1, 1, 1)
            rows[name] = (values * there.unsqueeze(3), steps & there)
        worth = self._in_parts(rows, score)
        return dict(zip(present, shapley(worth).tolist(), strict=True)), float(worth[0])

    def _coalitions(self, players: Sequence[str]) -> Tensor:
        if len(players) > MAX_PLAYERS:
            raise UsageError(
                f"task {self.task.name!r} has {len(players)} parts, and every coalition of them would be tried",
                f"At most {MAX_PLAYERS} are explained exactly.",
            )
        return torch.from_numpy(coalitions(len(players)))

    def _in_parts(self, rows: Inputs, score: Score) -> Floats:
        count = next(iter(rows.values()))[0].shape[0]
        parts = [
            self.score({n: (v[at : at + AT_ONCE], t[at : at + AT_ONCE]) for n, (v, t) in rows.items()}, score)
            for at in range(0, count, AT_ONCE)
        ]
        return torch.cat(parts).numpy()

    def _by_component(self, own: Inputs, score: Score) -> tuple[dict[str, float], float]:
        """Return the components' Shapley values, and the score of the head alone."""
        model, task = self.model, self.task.name
        embedded = {
            Kind.ENCODER.named(name): model.parts[Kind.ENCODER.named(name)](*own[name])
            for name in model.reads[task]
            if name in own
        }
        there = [model._present(name, own[name][1]) for name in model.reads[task] if name in own]
        seen = [name for name in model.reads[task] if name in own]
        skip = Kind.SKIP.named(task)
        players = [*embedded]
        players += [str(Kind.BACKBONE)] if model.backbone is not None and seen else []
        players += [skip] if skip in model.parts else []
        which = self._coalitions(players)
        count = len(which)
        z = torch.zeros(count, 1, model.width, dtype=torch.float64)
        if seen:
            used = which[:, : len(seen)].unsqueeze(1)  # [2^n, 1, M]
            tokens = torch.stack(list(embedded.values()), dim=2) * used.unsqueeze(3)
            z = tokens.sum(2)
            if model.backbone is not None:
                present = torch.stack(there, dim=2) & used
                mixed = which[:, players.index(str(Kind.BACKBONE))].reshape(-1, 1, 1)
                z = torch.where(mixed, model.backbone(tokens, present, seen), z)
        logits = model.parts[Kind.HEAD.named(task)](z)[:, 0]
        if skip in model.parts:
            added = model.parts[skip](own)
            if isinstance(added, Tensor):
                logits = logits + which[:, players.index(skip)].unsqueeze(1) * added[:, 0]
        worth = score(logits).numpy()
        return dict(zip(players, shapley(worth).tolist(), strict=True)), float(worth[0])

    def _changes(self, own: Inputs, result: str) -> tuple[Change, ...]:
        """Return for each feature that can be changed its nearest value with another result, where there is one.

        Only of tables: one value of a series or of a text is nothing that a person can set.
        """
        if self.task.kind == "regression":
            return ()
        found = []
        for name, (values, steps) in own.items():
            if not bool(steps.any()):
                continue
            for feature in self.features[name]:
                if not feature.changeable:
                    continue
                numbers = list(feature.numbers)
                tried = others(feature, values[0, 0, 0, numbers].numpy().astype(np.float32), TRIED)
                if not tried:
                    continue
                rows = values.expand(len(tried), -1, -1, -1).clone()
                rows[:, 0, 0, numbers] = torch.from_numpy(np.stack([value for _, value in tried]))
                changed: Mapping[str, tuple[Tensor, Tensor]] = {
                    other: (rows if other == name else v.expand(len(tried), -1, -1, -1), t.expand(len(tried), -1, -1))
                    for other, (v, t) in own.items()
                }
                results = self.results(self.logits(changed))
                new = next((row for row, other in enumerate(results) if other != result), None)
                if new is not None:
                    found.append(Change(name, feature.name, tried[new][0], results[new]))
        return tuple(found)
