"""Architectures that a package brings: installed, declared, held against a loop over students, and missed."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from collegium.crypto.errors import UsageError
from collegium.node import architectures
from collegium.node.architectures import Architecture, installed, reference, words
from collegium.node.blueprint.fusion import described
from collegium.node.learner import own
from collegium.node.learner.messages import Engagement, Evaluate, Open, Train
from collegium.node.learner.worker import Worker
from collegium.protocol.charter import Charter
from collegium.protocol.components import ComponentSpec, TensorSpec

from ...firstweek.schools import federations
from ..blueprint.test_declare import chartered, component, write
from .asking import ask
from .test_dpsgd import HEAD, SERIES, TABULAR, batch_of, hold_against_a_loop, model_of

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "architecture"
MODEL = """
[model]
hidden = 4
backbone = "weighted-sum"
[[modality]]
name = "series"
kind = "series"
width = 2
length = 4
encoder = { architecture = "gated-series", taps = 3, learning_rate = 0.5 }
[[task]]
name = "pass"
kind = "binary"
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the example package is installed, as `pip install` does it, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("packages")
    shutil.copytree(EXAMPLE, source)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *offline, "--target", target, source], check=True)
    return target


@pytest.fixture
def here(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it that this process finds, and forgets afterwards."""
    folder = tmp_path / "site"
    shutil.copytree(packages, folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("collegium_gated", None)
    own._try.cache_clear()


def data(folder: Path) -> Path:
    folder.mkdir()
    source = np.random.default_rng(1)
    students, steps = ["id,passed"], ["id,day,a,b"]
    for number in range(60):
        students.append(f"s{number},{number % 2}")
        rows = source.normal(size=(4, 2)) * 0.3 + (number % 2 - 0.5)
        steps += [f"s{number},{day},{a:.2f},{b:.2f}" for day, (a, b) in enumerate(rows.clip(-2, 2))]
    (folder / "rows.csv").write_text("\n".join(students))
    (folder / "steps.csv").write_text("\n".join(steps))
    columns = ", ".join(f'{{ name = "{name}", low = -2, high = 2 }}' for name in "ab")
    (folder / "dataset.toml").write_text(
        '[unit]\nsubject = "id"\ntable = "rows"\n[tables.rows]\npath = "rows.csv"\nkey = "id"\n'
        '[tables.steps]\npath = "steps.csv"\nkey = "id"\n'
        '[[modality]]\nname = "series"\nkind = "series"\ntable = "steps"\ntime = "day"\nmax_len = 4\n'
        f'columns = [{columns}]\n[[task]]\nname = "pass"\nkind = "binary"\ncolumn = "passed"\npositive = "1"\n'
        '[split]\nshare = 0.3\nsalt = ""\n'
    )
    return folder


def opening(charter: Charter, folder: Path) -> Open:
    names = tuple(spec.name for spec in charter.components)
    return Open((str(folder),), charter.components, charter.learning, charter.seed, names, 5)


def test_a_packages_architectures_are_declared_by_name_and_trained_by_a_federation(tmp_path: Path, here: Path) -> None:
    charter = chartered(write(tmp_path, MODEL))
    encoder, backbone = component(charter, "encoder/series"), component(charter, "backbone")
    named = reference(encoder.architecture)
    assert named is not None
    assert (named.name, named.distribution, named.version) == ("gated-series", "collegium-gated", "1.0")
    assert installed("gated-series") == named
    assert (encoder.dimension, encoder.learning_rate, backbone.dimension) == (8 * 2 * 3 + 8, 500_000, 4)
    assert words(encoder.architecture) == "gated-series (collegium-gated 1.0)"
    assert described(backbone) == "are joined by weighted-sum (collegium-gated 1.0)"
    # Two members train and the mean of their updates is the next state, without noise.
    workers = [Worker(), Worker()]
    for number, worker in enumerate(workers):
        ask(worker, opening(charter, data(tmp_path / f"member-{number}")))
    specs = {spec.name: spec for spec in charter.components}
    states = {name: np.zeros(spec.dimension, np.int64) for name, spec in specs.items()}
    before = ask(workers[0], Evaluate({})).tasks["pass"].value
    for _ in range(3):
        raw = {name: state.astype("<i4").tobytes() for name, state in states.items()}
        rules = dict.fromkeys(specs, Engagement(1.0, 0.0, 2.0))
        answers = [ask(worker, Train(raw, rules, steps=5, sample_rate=0.5, lot=20.0)) for worker in workers]
        for name, spec in specs.items():
            updates = [np.frombuffer(a.updates[name], spec.integer_type).astype(np.int64) for a in answers]
            states[name] += 256 * sum(updates) // 2
    assert all(state.any() for state in states.values())
    after = ask(workers[1], Evaluate({n: s.astype("<i4").tobytes() for n, s in states.items()})).tasks["pass"].value
    assert before is not None
    assert after is not None
    assert after > 0.9 > before


def test_the_gradients_of_a_packages_modules_equal_a_loop_over_students(here: Path) -> None:
    sizes = architectures.Sizes(4, 2, 4)
    parts = {}
    for name, at in (("encoder/series", "gated-series"), ("backbone", "weighted-sum")):
        named = installed(at)
        assert named is not None
        tensors = tuple(replace(t, bound=500_000) for t in architectures.load(named).tensors(sizes, {}))
        parts[name] = replace(SERIES, name=name, architecture=str(named), tensors=tensors)
    specs, batch = [TABULAR, *parts.values(), HEAD], batch_of(11)
    hold_against_a_loop(specs, batch)
    model = model_of(specs)
    together = model(batch.inputs)["grade"]
    for values, steps in batch.inputs.values():
        values[~steps] = 99.0
    alone = torch.cat([model(batch.take(torch.tensor([s])).inputs)["grade"][:, :1] for s in range(11)])
    assert torch.allclose(alone, together[:, :1], atol=1e-6)


def test_a_member_that_lacks_it_is_told_what_to_install(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charter = chartered(write(tmp_path, MODEL))
    folder = data(tmp_path / "data")

    def refused(match: str) -> UsageError:
        with pytest.raises(UsageError, match=match) as error:
            ask(Worker(), opening(charter, folder))
        return error.value

    code = here / "collegium_gated" / "__init__.py"
    before = code.read_text()
    code.write_text(before.replace("sigmoid", "cos"))
    assert "the files of" in refused("are others than the charter names").message
    code.write_text(before)
    ask(Worker(), opening(charter, folder))  # the same files are the same digest
    (metadata,) = here.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    refused("1.1 is installed here")
    monkeypatch.undo()
    error = refused("weighted-sum .collegium-gated 1.0. is not installed here")
    assert "the wheel of collegium-gated 1.0" in error.advice


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "of another kind": ({"kind": "backbone"}, "is for a backbone"),
    "state beside parameters": ({"module": lambda _: Stateful()}, "state beside its parameters"),
    "a sum over records": ({"module": lambda _: Plain(lambda x: x.softmax(0))}, "an empty record"),
    "another width": ({"module": lambda _: Plain(lambda x: x[:, :2])}, r"give \(2, 2\), not \(2, 4\)"),
    "not finite": ({"module": lambda _: Plain(lambda x: x / 0)}, "no finite numbers"),
    "dropout": ({"module": lambda _: Plain(nn.Dropout(0.5))}, "it fails on made-up records"),
    "wrong gradients": (
        {"student_gradients": lambda m, _x, g: {"w": torch.zeros(len(g), *m.w.shape)}}, "the gradient of w is not"
    ),
}  # fmt: skip


class Plain(nn.Module):
    """`f(mean over steps · w)`."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor] = torch.tanh) -> None:
        super().__init__()
        self.w, self.function = nn.Parameter(torch.zeros(2, 4)), function

    def forward(self, values: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return self.function(values.mean(1) @ self.w + 1.0)


class Stateful(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))


def plain(_: Sequence[TensorSpec]) -> nn.Module:
    return Plain()


@pytest.mark.parametrize("what", [None, *WRONG])
def test_a_module_is_tried_before_it_is_trained(what: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Architecture("encoder", lambda _sizes, _options: (), plain)
    changes, message = WRONG[what] if what else ({}, "")
    monkeypatch.setattr(own, "load", lambda _: replace(good, **changes))
    own._try.cache_clear()
    tensors = (TensorSpec("w", (2, 4), 500_000),)
    spec: ComponentSpec = replace(SERIES, architecture=f"plain@some-package==1.0#{'0' * 64}", tensors=tensors)
    if not what:
        model_of([spec, HEAD])
        return
    with pytest.raises(UsageError, match=message):
        model_of([spec, HEAD])


def test_a_model_file_whose_package_is_not_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gated-series' does not read series") as error:
        chartered(write(tmp_path, MODEL))
    assert "packages that are installed here" in error.value.advice
    with pytest.raises(UsageError, match="'weighted-sum' is unknown"):
        chartered(write(tmp_path, MODEL.replace("gated-series", "attention-pool").replace("taps = 3, ", "")))


def test_what_a_package_does_not_take_is_refused_with_the_file(tmp_path: Path, here: Path) -> None:
    with pytest.raises(UsageError, match=r"model.toml \[\[modality\]\] series encoder: .* an odd number"):
        chartered(write(tmp_path, MODEL.replace("taps = 3", "taps = 4")))
    with pytest.raises(UsageError, match="is for a backbone"):
        chartered(write(tmp_path, MODEL.replace("gated-series", "weighted-sum").replace("taps = 3, ", "")))


@pytest.mark.soak  # the first test is the short form
def test_two_daemons_train_an_architecture_of_a_package(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(packages))
    model = write(tmp_path, MODEL)
    with federations(tmp_path) as found:
        federation = found()
        for name in ("north", "south"):
            federation.init(name, data(tmp_path / f"data-{name}"), lot_size=4)
        federation.charter("--model", model, "--fault-model", "crash", "--rounds", "2", "--epsilon", "8")
        north, south = federation.schools
        assert "gated-series (collegium-gated 1.0)" in " ".join(north.command("charter", "show").out.split())
        assert not any("wheel" in text for text in north.ask("charter", "review")["warnings"])
        federation.start()
        federation.wait_rounds(2, components=("encoder/series", "backbone", "head/pass"), counted=2)
        # Without the package the daemon goes on, and says what it lacks.
        south.command("node", "stop")
        monkeypatch.delenv("PYTHONPATH")
        assert any("the wheel of collegium-gated 1.0" in text for text in south.ask("charter", "review")["warnings"])
        begun = south.command("node", "start", code=8)
        assert "is not installed here" in begun.err
