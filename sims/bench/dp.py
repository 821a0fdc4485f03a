"""A DP step against the same step without DP, and against Opacus' hooks: same model, same students, taking turns."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ...crypto.errors import OperatorError
from .rows import Row, at_least, at_most

CACHED = 3.0
GHOST, HOOKS = 1.5, 6.0  # goals (design.md section 13): where all gradients are of linear layers, and elsewhere
WRITES = "LoRA on 2 of 12 layers of a small Llama that writes, 16 students, ms"
TITLES = {
    "linear": ("tables and steps, linear and attention, 200 students", GHOST),
    "backbone": ("the same with a backbone", GHOST),
    "text-head": ("head on cached embeddings of text, 100 students", GHOST),
    "conv-image": ("convolutions on 28 × 28 pixels, 100 students", HOOKS),
    "lora": ("LoRA on a small transformer, 32 students", GHOST),
}


def measure(quick: bool) -> Sequence[Row]:
    """Time the learner's own step in a process of its own, with one thread, or on the GPU if there is one."""
    measured = _timed("timing", 2 if quick else 40)
    rows = []
    for name, (title, goal) in TITLES.items():
        ms = {kind: seconds * 1e3 for kind, seconds in measured["models"][name].items()}
        what = f"{title}, ms on {measured['device']}"
        rows.append(at_most(f"DP step, {what}, against plain SGD", ms["dp"], ms["plain"], goal))
        rows.append(
            Row(
                "  with Opacus' hooks, against plain SGD",
                ms["opacus"],
                ms["plain"],
                ms["opacus"] / ms["plain"],
                "report",
            )
        )
    ms = _writing(quick)
    return [*rows, at_most(f"DP step, {WRITES}, against plain SGD", ms["dp"], ms["plain"], GHOST)]


def cached(quick: bool) -> Row:
    """Time a step of a model that writes without the cache of hidden states, and with it: a row of `bench learner`."""
    ms = _writing(quick)
    what = f"DP step without the cache of hidden states, {WRITES}, against with it"
    return at_least(what, ms["uncached"], ms["dp"], CACHED)


def _writing(quick: bool) -> dict[str, float]:
    return {kind: seconds * 1e3 for kind, seconds in _timed("writing_time", 1 if quick else 20).items()}


def _timed(module: str, repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", f"collegium.node.learner.audit.{module}", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise OperatorError(f"the learner could not be timed: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
