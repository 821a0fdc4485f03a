"""Learner workers used directly, without a daemon: the local-only baseline and metrics over several institutions."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..consensus.components import origin
from ..crypto.errors import OperatorError
from ..node.learner.protocol import Message, encode_frame, failure, read_frame
from ..protocol import schema
from ..protocol.charter import Charter
from ..protocol.components import FRACTION_BITS, MILLION, ComponentSpec
from ..protocol.statistics import words
from ..protocol.update import Integers

States = dict[str, npt.NDArray[np.int32]]
Ask = Callable[[Message], Message]


class Worker:
    """One learner worker; made by `process`, or by `worker` on a data folder: then `opened` is the answer to `open`."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: BinaryIO | None = None) -> None:
        self._process = process
        self._errors = errors
        self._number = 0
        self.opened: Message = {}

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, message: Message) -> Message:
        """Send a request and wait for its answer. Raises the worker's own OperatorError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        try:
            self._process.stdin.write(encode_frame({"id": self._number, **message}))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        while True:
            answer = read_frame(self._process.stdout)  # type: ignore[arg-type]  # a pipe opened for bytes reads bytes
            if answer is None:
                raise self._ended()
            if answer.get("id") == self._number and "ok" in answer:
                if not answer["ok"]:
                    raise failure(answer)
                return answer

    def _ended(self) -> OperatorError:
        last = ""
        if self._errors is not None:
            self._errors.seek(0)
            last = next(iter(self._errors.read().decode(errors="replace").splitlines()[::-1]), "")
        return OperatorError("the learner worker ended" + (f": {last}" if last else ""))


@contextmanager
def process(command: Sequence[str] = ()) -> Iterator[Worker]:
    """Run a worker; `command` instead of the built-in one."""
    with TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own module, or the operator's own learner
            list(command) or [sys.executable, "-P", "-m", "collegium.node.learner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Worker(process, errors)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what it did not read
                        pipe.close()


@contextmanager
def worker(
    charter: Charter, data: Path, hosted: Sequence[str] | None = None, command: Sequence[str] = (), **more: object
) -> Iterator[Worker]:
    """Run a worker on a data folder; `more` are further fields of its `open` (node/learner/worker.py)."""
    with process(command) as opened:
        opened.opened = opened.ask(
            {
                "op": "open",
                "data": str(data),
                "components": [schema.to_map(spec) for spec in charter.components],
                "learning": schema.to_map(charter.learning),
                "base_seed": charter.seed,
                "hosted": [spec.name for spec in charter.components] if hosted is None else list(hosted),
                "seed": None,
                **more,
            }
        )
        yield opened


def local_only(charter: Charter, learner: Worker, lot: float, rounds: int) -> States:
    """Train one institution alone, with the federation's own recipe, noise and rounds; statistics are released once.

    `lot` is L.
    """
    learning, rate = charter.learning, charter.learning.sample_rate / MILLION
    trained = [spec for spec in charter.components if not spec.additive]
    sums = [spec for spec in charter.components if spec.additive]
    states = {spec.name: origin(spec) for spec in charter.components}
    for _ in range(rounds):
        updates = _updates(learner, states, trained, learning.steps, rate, lot)
        for spec in trained:
            states[spec.name] = states[spec.name] + (updates[spec.name].astype(np.int32) << FRACTION_BITS)
    if sums:
        updates = _updates(learner, {}, sums, 1, 1.0, lot / rate)
        states |= {spec.name: words(updates[spec.name].astype(np.int64)) for spec in sums}
    return states


def _updates(
    learner: Worker,
    states: Mapping[str, npt.NDArray[np.int32]],
    specs: Sequence[ComponentSpec],
    steps: int,
    sample_rate: float,
    lot: float,
) -> dict[str, Integers]:
    answer = learner.ask(
        {
            "op": "train",
            "states": {name: state.tobytes() for name, state in states.items()},
            "engaged": {
                spec.name: {
                    "clip": spec.clip_norm / MILLION,
                    "noise": spec.noise_multiplier / MILLION,
                    "learning_rate": spec.learning_rate / MILLION,
                }
                for spec in specs
            },
            "steps": steps,
            "sample_rate": sample_rate,
            "lot": lot,
        }
    )
    return {spec.name: np.frombuffer(answer["updates"][spec.name], dtype=spec.integer_type) for spec in specs}


def scores(learner: Worker, states: Mapping[str, npt.NDArray[np.int32]]) -> Mapping[str, Message]:
    """Return each task's scores and labels on the institution's held-out records."""
    packed = {name: state.tobytes() for name, state in states.items()}
    tasks: Mapping[str, Message] = learner.ask({"op": "predict_scores", "states": packed, "split": "held_out"})["tasks"]
    return tasks


def quality(tasks: Sequence[Mapping[str, Message]], name: str = "") -> float:
    """Return the metric of a task (the first), or of a statistic of one, over all the given institutions' held-out
    records together."""
    name = name or next(iter(tasks[0]))
    labels = np.concatenate([np.asarray(found[name]["labels"], dtype=np.float64) for found in tasks])[:, 0]
    values = np.concatenate([np.asarray(found[name]["scores"], dtype=np.float64) for found in tasks])
    if tasks[0][name]["metric"] == "accuracy":
        return float(np.mean(values.argmax(axis=1) == labels))
    return auc(values[:, 1], labels)


def auc(values: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Return the area under the ROC curve by the rank formula, ties counted half; NaN if a class is missing."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
