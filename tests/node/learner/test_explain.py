"""Explanations of single results: complete, exact where the model is linear, and what a brute force finds."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from math import log
from pathlib import Path

import numpy as np
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint import parts
from collegium.node.blueprint.parts import Part
from collegium.node.blueprint.recipe import NO_SEED, Recipe, charter_parts
from collegium.node.learner.answers import RecordExplained
from collegium.node.learner.audit.worker import AuditWorker
from collegium.node.learner.messages import DeleteFeatures, Engagement, Explain, Open, Predict, Train
from collegium.node.learner.shapley import coalitions, shapley
from collegium.node.learner.worker import Worker
from collegium.protocol.components import FRACTION_BITS, MILLION, base_vector, weights

from .asking import ask
from .pupils import ABOUT, DAYS, DRAWING, READ, TASKS, WIDTH, write_pupils

FEW = 8  # pupils whose records are explained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pupils(tmp_path_factory.mktemp("school"))


@pytest.fixture(scope="module")
def few(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pupils."""
    few = tmp_path_factory.mktemp("few")
    lines = (folder / "pupils.csv").read_text().splitlines()
    (few / "pupils.csv").write_text("\n".join(lines[: FEW + 1]) + "\n")
    header, *days = (folder / "days.csv").read_text().splitlines()
    there = [line for line in days if int(line.split(",")[0][1:]) < FEW]
    (few / "days.csv").write_text("\n".join([header, *there]) + "\n")
    return few


def opened(folder: Path, *more: Part, encoders: bool = True) -> tuple[Worker, Open, dict[str, bytes]]:
    """A worker with the data, and states that a training without much noise ends in."""
    made: list[Part] = [parts.head(task, WIDTH) for task in TASKS]
    if encoders:
        made.append(parts.encoder(ABOUT, WIDTH, "linear-tanh"))
        made.append(parts.encoder(DAYS, WIDTH, "attention-pool"))
        made.append(parts.encoder(DRAWING, WIDTH, "conv-image", channels=(4,)))
    recipe = Recipe((ABOUT, DAYS, DRAWING), TASKS, (*made, *more), 300, 1, 100_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    request = Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs), seed=1)
    worker = AuditWorker()
    ask(worker, request)
    engaged = {spec.name: Engagement(1.0, 1e-3, 4.0) for spec in specs}
    updates = ask(worker, Train({}, engaged, steps=40, sample_rate=0.9, lot=40.0)).updates
    states = {
        name: (np.frombuffer(update, "<i2").astype(np.int32) << FRACTION_BITS).astype("<i4").tobytes()
        for name, update in updates.items()
    }
    return worker, request, states


def explained(worker: Worker, states: dict[str, bytes], file: Path, task: str = "pass") -> tuple[RecordExplained, ...]:
    return ask(worker, Explain(states, str(file), task)).records


BACKBONES = {
    "none": (),
    "mlp": (parts.backbone(WIDTH, 4),),
    "transformer": (parts.transformer_backbone(WIDTH, 1, 8),),
    "concat": (parts.concat_backbone(WIDTH, 4, READ),),
    "attention": (parts.attention_backbone(WIDTH),),
    "experts": (parts.experts_backbone(WIDTH, 4, 3, 2),),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_effects_add_up_on_trained_models(folder: Path, few: Path, name: str) -> None:
    skips = tuple(parts.skip(task, {"about": 10, "days": 2}) for task in TASKS)
    worker, _, states = opened(folder, *BACKBONES[name], *skips)
    for task in ("pass", "level"):
        records = explained(worker, states, few, task)
        assert len(records) == FEW
        for record in records:
            effects = sum(effect.effect for effect in record.features)
            assert effects == pytest.approx(record.score - record.start, abs=1e-4), record.record
            assert sum(record.modalities.values()) == pytest.approx(record.score - record.nothing, abs=1e-9)
            assert sum(record.components.values()) == pytest.approx(record.score - record.head, abs=1e-9)
        assert max(abs(record.score - record.start) for record in records) > 0.5, "else it shows nothing"
    wanted = {"encoder/about", "encoder/days", "encoder/drawing", "skip/level", *(p.name for p in BACKBONES[name])}
    assert set(records[0].components) == wanted


def log_odds(worker: Worker, states: dict[str, bytes], folder: Path) -> dict[str, float]:
    answer = ask(worker, Predict(states, str(folder), task="pass"))
    scores = answer.tasks["pass"].scores
    return {name: log(row[1] / row[0]) for name, row in zip(answer.records, scores, strict=True)}


def test_modalities_are_what_every_order_of_joining_gives(folder: Path, few: Path, tmp_path: Path) -> None:
    """The other door: predictions of files without the columns of some modalities."""
    worker, _, states = opened(folder, parts.backbone(WIDTH, 4), parts.skip(TASKS[0], {"about": 10}))
    lines = [line.split(",") for line in (few / "pupils.csv").read_text().splitlines()]
    places = {"about": range(2, 6), "drawing": range(8, 24)}
    worth: dict[frozenset[str], dict[str, float]] = {}
    for number, row in enumerate(coalitions(3)):
        there = frozenset(name for name, inside in zip(READ, row.tolist(), strict=True) if inside)
        if not there:
            continue
        only = tmp_path / str(number)
        only.mkdir()
        kept = [0, 1, *(place for name, span in places.items() if name in there for place in span)]
        (only / "pupils.csv").write_text("\n".join(",".join(line[at] for at in kept) for line in lines) + "\n")
        if "days" in there:
            (only / "days.csv").write_bytes((few / "days.csv").read_bytes())
        worth[there] = log_odds(worker, states, only)
    for record in explained(worker, states, few):
        sign = 1.0 if record.result == "good" else -1.0
        has = [name for name in READ if name in record.modalities]

        def value(names: Sequence[str], record: RecordExplained = record, sign: float = sign) -> float:
            return sign * worth[frozenset(names)][record.record] if names else record.nothing

        for name in has:
            joins = [order[: order.index(name)] for order in permutations(has)]
            brute = sum(value((*before, name)) - value(before) for before in joins) / len(joins)
            assert record.modalities[name] == pytest.approx(brute, abs=1e-4), "predictions are of single precision"


def test_shapley_values_are_the_mean_over_all_orders() -> None:
    worth = np.random.default_rng(1).normal(size=32)
    values = shapley(worth)
    orders = list(permutations(range(5)))
    for player in range(5):
        joins = [sum(1 << other for other in order[: order.index(player)]) for order in orders]
        assert values[player] == pytest.approx(np.mean([worth[row | 1 << player] - worth[row] for row in joins]))
    assert shapley(np.array([3.0])).size == 0


def test_a_skip_is_explained_exactly_by_its_weights(folder: Path) -> None:
    worker, request, states = opened(folder, parts.skip(TASKS[0], {"about": 10}), encoders=False)
    spec = next(spec for spec in request.components if spec.name == "skip/pass")
    vector = weights(base_vector(NO_SEED, spec.name, spec.tensors), np.frombuffer(states[spec.name], "<i4"), spec)
    matrix = vector.reshape(2, 10).astype(np.float64)
    lines = (folder / "pupils.csv").read_text().splitlines()
    answer = ask(worker, Explain(states, str(folder), "pass", record="r4"))
    (record,) = answer.records
    hours, age, gender, course = lines[5].split(",")[2:6]
    weight = (matrix[1] - matrix[0]) * (1.0 if record.result == "good" else -1.0)
    by_hand = {
        "hours": weight[0] * (float(hours) / 10 - 1),
        "age": weight[2] * (float(age) / 5 - 3),
        "gender": weight[3 + "fm".index(gender)] - weight[3:5].mean(),
        "course": weight[6 + "abc".index(course)] - weight[6:9].mean(),
    }
    assert {effect.name: effect.effect for effect in record.features} == pytest.approx(by_hand, abs=1e-6)
    assert {effect.name: effect.value for effect in record.features} == {
        "hours": f"{float(hours):.4g}",
        "age": f"{float(age):.4g}",
        "gender": gender,
        "course": course,
    }
    assert {effect.name for effect in record.features if effect.trait} == {"age", "gender"}


def test_a_suggested_change_gives_another_result_and_is_of_no_trait(folder: Path, few: Path, tmp_path: Path) -> None:
    worker, _, states = opened(folder, parts.skip(TASKS[0], {"about": 10}))
    header, *lines = (few / "pupils.csv").read_text().splitlines()
    columns = header.split(",")
    days = (few / "days.csv").read_text().splitlines()
    tried = 0
    for record in explained(worker, states, few):
        for change in record.changes:
            assert (change.modality, change.name) in {("about", "hours"), ("about", "course")}
            row = next(line for line in lines if line.startswith(f"{record.record},")).split(",")
            row[columns.index(change.name)] = change.value
            (tmp_path / "pupils.csv").write_text(f"{header}\n{','.join(row)}\n")
            own = [line for line in days if line.startswith((f"{record.record},", "id,"))]
            (tmp_path / "days.csv").write_text("\n".join(own) + "\n")
            (now,) = explained(worker, states, tmp_path)
            assert now.result == change.result != record.result
            tried += 1
    assert tried >= 3


def test_an_explanation_knows_its_record_and_other_states(folder: Path, few: Path) -> None:
    worker, _, states = opened(folder)
    whole = ask(worker, Explain(states, str(few), "pass"))
    one = ask(worker, Explain(states, str(folder), "pass", record="r3"))
    assert one.records == (next(record for record in whole.records if record.record == "r3"),)
    assert one.digest != whole.digest
    other = {"head/pass": bytes(len(states["head/pass"]))}
    varied = ask(worker, Explain(states, str(folder), "pass", record="r3", variants=({}, other)))
    assert varied.records[0].variants == pytest.approx((one.records[0].score, 0.0))
    assert varied.digest == one.digest
    with pytest.raises(UsageError, match="no record of that name"):
        ask(worker, replace(Explain(states, str(folder), "pass"), record="r999"))


def test_deleting_what_counts_takes_a_result_away_sooner_than_any_random_order(folder: Path) -> None:
    worker, _, states = opened(folder, parts.backbone(WIDTH, 4))
    found = ask(worker, DeleteFeatures(states, "pass", records=8, orders=10, seed=1))
    assert found.records == 8
    assert found.by_effect > max(1.2 * found.at_random, found.best), found
