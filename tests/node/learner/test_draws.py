"""What a draw leaves behind, step by step and student by student: noise in every step, and everybody who was drawn."""

from itertools import combinations, pairwise
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.node.home import Home
from collegium.node.learner.dpsgd import Sampling, train
from collegium.node.learner.messages import Engagement, LeftOut, Open, Train
from collegium.node.learner.randomness import randomness
from collegium.node.learner.worker import Worker
from collegium.node.unlearning.students import exclude
from collegium.protocol.components import ComponentSpec, TensorSpec, base_digest, base_vector
from collegium.protocol.learning import Learning, Modality, PrivacyFloor, Task

from .asking import ask
from .test_dpsgd import MODELS, SEED, batch_of, model_of

STUDENTS = 40


def test_g6_every_step_carries_its_own_noise() -> None:
    """Noise once at the end, times √τ, has the same sum: but all steps before it would be free of any."""
    specs, steps, clip, noise, rate, lot = MODELS["everything"], 5, 0.5, 1.5, 2.0, 20.0
    model, seen = model_of(specs), []

    def weights() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        flat = torch.cat([p.detach().reshape(-1) for item in specs for p in model.tensors(item)])
        return flat.double().numpy().copy()

    seen.append(weights())
    train(
        model, {item.name: item for item in specs}, {item.name: Engagement(clip, noise, rate) for item in specs},
        batch_of(6), sampling=Sampling(steps, 1e-12, lot), source=randomness(4),
        progress=lambda _done, _total: seen.append(weights()),
    )  # fmt: skip
    assert len(seen) == steps + 1
    moved = np.diff(np.stack(seen), axis=0) / (rate * noise * clip / lot)
    for step in moved:  # almost nobody is drawn: what moves the weights is the noise of this step
        assert abs(float(np.square(step).mean()) - 1.0) < 6 * sqrt(2 / step.size)
    for one, other in pairwise(moved):
        assert abs(float((one * other).mean())) < 6 / sqrt(one.size)


def hot(folder: Path, seed: int | None = 7, left_out: LeftOut | None = None) -> Worker:
    """Students with a feature of their own each, and a linear map of the features: the update shows who was in."""
    folder.mkdir(exist_ok=True)
    names = [f"f{n}" for n in range(STUDENTS)]
    rows = [f"s{n}," + ",".join("1" if n == m else "0" for m in range(STUDENTS)) + f",{n % 2}" for n in range(STUDENTS)]
    (folder / "rows.csv").write_text("\n".join([f"student,{','.join(names)},passed", *rows]))
    columns = ", ".join(f'{{ name = "{name}", low = -1, high = 1 }}' for name in names)
    (folder / "dataset.toml").write_text(
        '[unit]\nkind = "record"\n[tables.rows]\npath = "rows.csv"\nkey = "student"\n'
        f'[[modality]]\nname = "table"\nkind = "tabular"\ncolumns = [{columns}]\n'
        '[[task]]\nname = "pass"\nkind = "binary"\ncolumn = "passed"\npositive = "1"\n[split]\nshare = 0\nsalt = ""\n'
    )
    shapes: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
        "head/pass": ("linear", {"linear.weight": (2, 1), "linear.bias": (2,)}),
        "skip/pass": ("linear-skip", {"table.weight": (2, STUDENTS)}),
    }
    specs = []
    for name, (architecture, tensors) in shapes.items():
        own = tuple(TensorSpec(tensor, shape, 500_000) for tensor, shape in tensors.items())
        base = base_digest(base_vector(SEED, name, own))
        specs.append(ComponentSpec(name, architecture, own, 14, 16, "mean", 1, 1_000_000, 1_000_000, 1_000_000, base))
    learning = Learning(
        (Modality("table", "tabular", STUDENTS, 1),), (Task("pass", "binary", 2, ("table",)),),
        (PrivacyFloor("table", "dp", 1000, 10),), 4, 1_000_000, 0, 1,
    )  # fmt: skip
    worker = Worker()
    ask(worker, Open((str(folder),), tuple(specs), learning, SEED, tuple(shapes), seed, excluded=left_out))
    return worker


@pytest.mark.parametrize("steps", [1, 4])
def test_g6_everybody_whose_data_are_in_an_update_is_named_for_its_manifest(tmp_path: Path, steps: int) -> None:
    worker = hot(tmp_path / "data")
    rules = dict.fromkeys(("head/pass", "skip/pass"), Engagement(1.0, 0.0, 1.0))
    request = Train({}, rules, steps, sample_rate=0.2, lot=8.0)
    named = set()
    for _ in range(12):
        answer = ask(worker, request)
        assert answer.subjects is not None
        values = np.frombuffer(answer.updates["skip/pass"], "<i2").reshape(2, STUDENTS)
        inside = {f"s{n}" for n in np.flatnonzero(np.abs(values).sum(0))}
        assert set(answer.subjects) == inside
        assert len(answer.subjects) == len(inside)
        named |= inside
    assert len(named) > STUDENTS / 2


def test_g6_a_retrained_update_has_noise_of_its_own(tmp_path: Path) -> None:
    """The same draw with the same noise, less one student, would publish that student's gradient."""
    home = Home(tmp_path / "node")
    home.make()
    excluded = exclude(home, "s3")
    left_out = LeftOut(excluded.salt, tuple(excluded.tags))
    sigma, lot = 4.0, 8.0
    rules = dict.fromkeys(("head/pass", "skip/pass"), Engagement(1.0, sigma, 1.0))
    request = Train({}, rules, 1, sample_rate=1.0, lot=lot)  # everybody is drawn: nothing but the noise can differ

    def trained(worker: Worker) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        values = np.frombuffer(ask(worker, request).updates["skip/pass"], "<i2").astype(np.float64) * 2.0**-14
        return np.delete(values.reshape(2, STUDENTS), 3, axis=1).reshape(-1)  # of all students but the removed one

    first, twin = hot(tmp_path / "data", seed=None), hot(tmp_path / "data", seed=None)
    again = hot(tmp_path / "data", seed=None, left_out=left_out)
    runs = [trained(worker) for worker in (first, first, twin, again, again)]
    for one, other in combinations(runs, 2):
        between = float(np.square(one - other).mean()) / (2.0 * (sigma / lot) ** 2)
        assert abs(between - 1.0) < 6 * sqrt(2 / one.size), "the difference of two runs has the noise of both"

    half = Train({}, rules, 1, sample_rate=0.5, lot=lot)
    draws = [ask(worker, half).subjects for worker in (first, again, again)]
    assert len(set(draws)) == 3, "and each draws anew"
    assert all(draw is not None and "s3" not in draw for draw in draws[1:])
