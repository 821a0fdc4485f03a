"""A training run over two processes: it is the run of one process, and no process outlives another."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.crypto.errors import OperatorError
from collegium.node.blueprint import recipe
from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.learner.client import Worker, process
from collegium.node.learner.messages import Engagement, Open, Train
from collegium.protocol.components import ComponentSpec
from collegium.sims.learn.datasets import prepare_digits

from ...waiting import wait_for

ENGAGED = dict.fromkeys(("encoder/image", "head/digit"), Engagement(1.0, 0.5, 1.0))
RUN = Train({}, ENGAGED, steps=6, sample_rate=0.2, lot=50.0)


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Open:
    folder = prepare_digits(tmp_path_factory.mktemp("digits"), 4, 0.5, 1)[0]
    specs, learning = preset("digits", budget=recipe.Budget(8.0, 1e-5, 10), rounds=10, institutions=4)
    return Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs), seed=5)


@contextmanager
def leader(opening: Open) -> Iterator[Worker]:
    with process() as worker:
        worker.ask(opening)
        yield worker


def children(pid: int) -> list[int]:
    """The processes whose parent is this one."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_two_processes_train_as_one_does(opening: Open) -> None:
    """With equal seeds, noise and all: the integers differ by the rounding of a grid step, in few places if any."""
    with leader(opening) as alone, leader(replace(opening, processes=2)) as two:
        assert (len(children(alone.pid)), len(children(two.pid))) == (0, 1)
        for _ in range(2):
            one, other = alone.ask(RUN), two.ask(RUN)
            assert one.subjects == other.subjects, "the same students were drawn"
            assert one.updates.keys() == other.updates.keys() == RUN.engaged.keys()
            for name, spec in specs(opening).items():
                mine, theirs = (integers(answer.updates[name], spec) for answer in (one, other))
                assert np.abs(mine).max() > 10, "it is an update"
                assert np.abs(mine - theirs).max() <= 1
                assert np.mean(mine != theirs) < 0.01
        (helper,) = children(two.pid)
        os.kill(helper, signal.SIGKILL)
        with pytest.raises(OperatorError, match="the learner worker ended"):  # the daemon starts it again
            two.ask(RUN)


def test_helpers_end_with_their_leader(opening: Open) -> None:
    with leader(replace(opening, processes=2)) as two:
        (helper,) = children(two.pid)
        words = Path(f"/proc/{helper}/cmdline").read_text().split("\0")
        meeting = Path(words[words.index("--meeting") + 1])
        assert not meeting.parent.exists(), "nothing is left in the system's folder for temporary files"
        os.kill(helper, signal.SIGSTOP)  # it would read the end of its input no more
        os.kill(two.pid, signal.SIGKILL)  # as a daemon does when students were left out
        wait_for(lambda: not Path(f"/proc/{helper}").exists())


HURRIED = """
import sys
from collegium.node.learner import serve, waiting, worker
waiting.FLOOR, waiting.TIMES = 1.0, 5
sys.exit(serve.main(worker.Worker()))
"""


def test_a_helper_that_is_stopped_is_named_and_killed(opening: Open) -> None:
    """The leader answers with its number and process, and ends: the daemon starts it again, with other helpers."""
    with process((sys.executable, "-P", "-c", HURRIED)) as two:
        two.ask(replace(opening, processes=2))
        two.ask(RUN)
        (helper,) = children(two.pid)
        os.kill(helper, signal.SIGSTOP)
        with pytest.raises(OperatorError, match=rf"helper 1 of 1 \(pid {helper}\) has not answered for \d+ s"):
            two.ask(RUN)
        wait_for(lambda: not Path(f"/proc/{helper}").exists())
        with pytest.raises(OperatorError, match="the learner worker ended"):
            two.ask(RUN)


def specs(opening: Open) -> dict[str, ComponentSpec]:
    return {spec.name: spec for spec in opening.components if spec.name in RUN.engaged}


def integers(update: bytes, spec: ComponentSpec) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.frombuffer(update, dtype=np.int8 if spec.width == 8 else np.int16).astype(np.int64)
