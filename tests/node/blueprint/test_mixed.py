"""Members with different modalities under the model file that `charter model` prints."""

import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.derive import TEXT_MODEL, model_toml
from collegium.node.blueprint.recipe import NO_SEED, Budget, charter_parts, needed
from collegium.node.data.manifest import read_manifest
from collegium.node.learner.heads import LinearSkip
from collegium.node.learner.messages import Engagement, Evaluate, Open, Predict, Train
from collegium.node.learner.model import Inputs, M3TModel
from collegium.node.learner.worker import Worker
from collegium.protocol.charter import Charter, Member, Rules, check
from collegium.sims.processes.federation import Agreed, Daemon, Settings, found
from collegium.sims.processes.observe import View, closed, fold_ledger, look

from ...waiting import wait_for
from ..learner.asking import ask

MEMBERS = {
    "n1": ("table", "clicks"),
    "n2": ("table", "note"),
    "n3": ("scan", "voice"),
    "n4": ("table", "clicks", "note", "scan", "voice"),
}
STUDENTS = 16
TOP = """
format = 1
[unit]
subject = "student"
table = "rows"
[tables.rows]
path = "rows.csv"
key = "student"
[tables.steps]
path = "steps.csv"
key = "student"
[[task]]
name = "pass"
kind = "binary"
column = "passed"
positive = "1"
[[task]]
name = "level"
kind = "multiclass"
column = "level"
classes = ["A", "B", "C"]
[split]
share = 0.25
salt = "x"
"""
DECLARED = {
    "table": 'kind = "tabular"\ncolumns = [{ name = "a", low = -1, high = 1 }, { name = "b", levels = ["x", "y"] }]',
    "clicks": 'kind = "series"\ntable = "steps"\ntime = "day"\nmax_len = 3\n'
    'columns = [{ name = "n", low = 0, high = 9 }]',
    "note": 'kind = "text"\ncolumns = ["note"]',
    "scan": 'kind = "image"\nfile = "scan"\nsize = 8',
    "voice": 'kind = "audio"\nfile = "voice"\nrate = 8000\nmax_seconds = 0.1\nbands = 8\nframes = 6',
}
RULE = Engagement(1.0, 0.0, 1.0)


def member(folder: Path, modalities: tuple[str, ...]) -> Path:
    """Write a data folder with some modalities, of students of its own."""
    folder.mkdir()
    source = np.random.default_rng(len(folder.name))
    sections = "".join(f'[[modality]]\nname = "{name}"\n{DECLARED[name]}\n' for name in modalities)
    (folder / "dataset.toml").write_text(TOP + sections)
    rows, steps = ["student,a,b,note,scan,voice,passed,level"], ["student,day,n,m"]
    for number in range(STUDENTS):
        Image.fromarray(source.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / f"{number}.png")
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(source.integers(-9000, 9000, 600).astype("<i2").tobytes())
        rows.append(
            f"s{number},{source.uniform(-1, 1):.3f},{'xy'[number % 2]},the cat {number},{number}.png,{number}.wav,"
            f"{number % 2},{'ABC'[number % 3]}"
        )
        steps += [f"s{number},{day},{source.integers(1, 9)},1" for day in range(3)]
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    (folder / "steps.csv").write_text("\n".join(steps) + "\n")
    return folder


def charter_of(text: str, folder: Path) -> Charter:
    """The charter of a model file, its texts read from scratch: no pretrained model is needed here."""
    path = folder / "model.toml"
    path.write_text(text.replace(f'pretrained = "{TEXT_MODEL}"', ""))
    specs, learning = charter_parts(read_model(path).recipe, Budget(8.0, 1e-5, 2), min_updates=1)
    rules = Rules("crash", 1000, 1, 64, 1 << 20, 1000)
    drawn = Charter(1, "t", 0, NO_SEED, (Member(bytes(32), "a", ()),), rules, specs, learning)
    check(drawn)
    return drawn


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mixed")
    return {name: member(root / name, modalities) for name, modalities in MEMBERS.items()}


@pytest.fixture(scope="module")
def charter(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Charter:
    text = model_toml(list(folders.values()))
    assert text.count("skip = true") == 2
    assert text.count("layout = ") == len(DECLARED) + 2
    return charter_of(text, tmp_path_factory.mktemp("charter"))


def opened(charter: Charter, data: Path, without: tuple[str, ...] = (), **more: Any) -> tuple[Worker, list[str]]:
    """A worker on a folder, under a policy that withholds some modalities, and what it hosts."""
    declared = {entry.name for entry in read_manifest(data).modalities} - set(without)
    tasks = {"pass", "level"}
    hosted = list(needed(charter.learning, [spec.name for spec in charter.components], declared, tasks))
    worker = Worker()
    request = Open((str(data),), charter.components, charter.learning, NO_SEED, tuple(hosted), 5, withheld=without)
    ask(worker, replace(request, **more))
    return worker, hosted


def trained(worker: Worker, hosted: list[str], noise: float = 0.0) -> dict[str, npt.NDArray[np.int16]]:
    rules = dict.fromkeys(hosted, replace(RULE, noise=noise))
    answer = ask(worker, Train({}, rules, steps=2, sample_rate=1.0, lot=4.0))
    return {name: np.frombuffer(raw, "<i2") for name, raw in answer.updates.items()}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The modalities that each forward pass gets, and each skip in it."""
    batches: list[set[str]] = []
    for part in (M3TModel, LinearSkip):
        whole = part.forward

        def forward(self: torch.nn.Module, inputs: Inputs, whole=whole) -> object:  # type: ignore[no-untyped-def]
            batches.append(set(inputs))
            return whole(self, inputs)

        monkeypatch.setattr(part, "forward", forward)
    return batches


OTHERWISE = {
    "classes in another order": (
        '["A", "B", "C"]', '["C", "A", "B"]', r"task 'level' .* here and in the charter classes: C, A, B; A, B, C",
    ),
    "levels exchanged": (
        '["x", "y"]', '["y", "x"]', r"modality 'table' .* here and in the charter columns 'b' levels: y, x; x, y",
    ),
    "another column": (
        '{ name = "n", low = 0, high = 9 }', '{ name = "m", low = 0, high = 9 }', "'clicks'",
    ),
    "other bounds": (
        "low = -1, high = 1", "low = 0, high = 1", r"modality 'table' .*low 0.0.* only a digest .* as many features",
    ),
    "other times": ('time = "day"', 'time = "day"\nuntil = 2', r"modality 'clicks' .* until: 2.0"),
    "what counts as positive": ('positive = "1"', 'positive = "0"', r"task 'pass' .* positive: 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_folder_that_means_something_else_by_the_same_width_is_refused(
    charter: Charter, tmp_path: Path, what: str
) -> None:
    before, after, message = OTHERWISE[what]
    folder = member(tmp_path / "n4", MEMBERS["n4"])
    path = folder / "dataset.toml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(UsageError, match=message) as error:
        opened(charter, folder)
    assert str(folder) in error.value.message
    assert "declare the same" in error.value.advice
    # A charter that states nothing, as before: only counts and widths are compared.
    learning = charter.learning
    silent = replace(
        learning,
        modalities=tuple(replace(m, layout=b"") for m in learning.modalities),
        tasks=tuple(replace(task, layout=b"") for task in learning.tasks),
    )
    opened(replace(charter, learning=silent), folder)


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_trains_whatever_modalities_it_lacks(
    charter: Charter, folders: dict[str, Path], name: str, seen: list[set[str]]
) -> None:
    worker, hosted = opened(charter, folders[name])
    assert {"head/pass", "skip/pass"} <= set(hosted)
    updates = trained(worker, hosted)
    assert set(updates) == set(hosted)
    assert seen
    assert all(inputs <= set(MEMBERS[name]) for inputs in seen)
    # The part of a skip over what the member lacks is not moved by its data, and is noised like the rest.
    noisy = trained(worker, hosted, noise=1.0)["skip/pass"]
    tensors = next(spec for spec in charter.components if spec.name == "skip/pass").tensors
    assert [tensor.name for tensor in tensors] == ["clicks.weight", "table.weight"]
    ends = np.cumsum([np.prod(tensor.shape) for tensor in tensors])
    for tensor, end in zip(tensors, ends.tolist(), strict=True):
        part = slice(end - int(np.prod(tensor.shape)), end)
        assert updates["skip/pass"][part].any() == (tensor.name.removesuffix(".weight") in MEMBERS[name]), tensor.name
        assert noisy[part].any(), tensor.name


@pytest.mark.parametrize("at_home", [True, False])
def test_g6_no_skip_brings_back_what_is_withheld(
    charter: Charter, folders: dict[str, Path], seen: list[set[str]], at_home: bool
) -> None:
    worker, hosted = opened(charter, folders["n1"], ("clicks",), home_layer=at_home)
    assert "skip/pass" in hosted
    update = trained(worker, hosted)["skip/pass"]
    ask(worker, Evaluate({}))
    ask(worker, Predict({}, str(folders["n1"] / "rows.csv")))
    assert len(seen) >= 8
    assert all(inputs == {"table"} for inputs in seen)
    clicks = next(spec for spec in charter.components if spec.name == "skip/pass").tensors[0]
    assert not update[: int(np.prod(clicks.shape))].any()
    session = worker._sessions[""]
    assert ("clicks" in session.parts["train"].batch.inputs) is at_home


def test_a_modality_without_an_encoder_in_the_charter_is_read_by_its_skip(
    charter: Charter, folders: dict[str, Path], seen: list[set[str]]
) -> None:
    specs = tuple(spec for spec in charter.components if spec.name != "encoder/clicks")
    bare = replace(charter, components=specs)
    worker, hosted = opened(bare, folders["n1"])
    assert trained(worker, hosted)["skip/pass"][:2].any(), "of clicks"
    assert all(inputs == {"clicks", "table"} for inputs in seen)
    seen.clear()
    worker, hosted = opened(bare, folders["n2"])  # it has no clicks
    trained(worker, hosted)
    worker, hosted = opened(bare, folders["n1"], ("clicks",))
    trained(worker, hosted)
    assert not any("clicks" in inputs for inputs in seen)


def test_a_hosted_encoder_without_its_modality_is_still_refused(charter: Charter, folders: dict[str, Path]) -> None:
    hosted = ("encoder/clicks", "head/pass")
    request = Open((str(folders["n2"]),), charter.components, charter.learning, NO_SEED, hosted, 5)
    with pytest.raises(UsageError, match="the data have no modality 'clicks'"):
        ask(Worker(), request)


@pytest.mark.soak  # firstweek/test_examples.py has the short form: a school with every kind of modality
def test_daemons_with_different_modalities_close_every_round_of_every_component(
    charter: Charter, folders: dict[str, Path], tmp_path: Path
) -> None:
    drawn, institutions = found(
        tmp_path,
        [(name, folder, 4.0) for name, folder in folders.items()],
        Agreed("mixed", charter.components, charter.learning, charter.seed, 120_000, "crash"),
        Settings(rounds=2),
    )
    daemons, views = [Daemon(institution) for institution in institutions], [View() for _ in institutions]
    held = {name: {spec.name for spec in drawn.components} for name in folders}
    for name, modalities in MEMBERS.items():
        held[name] = set(needed(drawn.learning, sorted(held[name]), set(modalities), {"pass", "level"}))

    def said() -> str:
        return "\n".join(f"--- {i.name}\n{i.home.log.read_text(errors='replace')[-2000:]}" for i in institutions)

    def both_closed() -> bool:
        assert "the data folder cannot be used" not in said(), said()
        assert [daemon.dead() for daemon in daemons] == [None] * 4
        views[:] = [look(i, v) for i, v in zip(institutions, views, strict=True)]
        return closed(views[3], drawn) >= 2

    try:
        for daemon in daemons:
            daemon.start()
        wait_for(both_closed, said)
    finally:
        for daemon in daemons:
            daemon.kill()
    names = {institution.identity.public_key: institution.name for institution in institutions}
    for name, component in fold_ledger(institutions[3], drawn).components.items():
        counted = {names[entry.author] for round_ in component.rounds for entry in round_.entries}
        assert counted == {who for who, has in held.items() if name in has}, name
