"""`python -m collegium.sims.processes.lying_learner`: the true worker of an institution that lies.

It answers as the built-in worker does, but of every update it sends the opposite, three times as strong: minus three
times what its students would have it learn, without the noise that it declares, within the bounds that others check.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from ...node.learner.answers import Reply, Trained
from ...node.learner.client import Worker, process
from ...node.learner.coding import decode_request, encode
from ...node.learner.frames import read_frame, write_frame
from ...node.learner.messages import Open, Request, Train
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.update import Declared, Engaged, Integers, norm_bounds
from ..learn.attacks import sign_flip, within

LOUD = 3.0  # × the truth


def lie(truth: Integers, spec: ComponentSpec, declared: Any) -> Integers:
    """Return the opposite of an update, shape [d], within the bounds that hosts accept for the declared noise."""
    low, high = norm_bounds(declared, spec)
    lied = within(sign_flip(truth[None].astype(np.float64), LOUD), low, high, 2 ** (spec.width - 1) - 1)
    return lied.astype(spec.integer_type)


def quiet(request: Train) -> Train:
    """Return a request to train without noise: a liar's own students are of no concern to it."""
    return replace(request, engaged={name: replace(rule, noise=0.0) for name, rule in request.engaged.items()})


def lies(request: Train, answer: Trained, specs: dict[str, ComponentSpec]) -> Trained:
    """Return the true answer to a request to train with every update turned round."""
    updates = {}
    for name, data in answer.updates.items():
        spec, rule = specs[name], request.engaged[name]
        noise, clip, rate = (round(value * MILLION) for value in (rule.noise, rule.clip, rule.learning_rate))
        declared = Declared(Engaged(name, bytes(32), noise, clip, rate), request.steps, round(request.lot * 1000))
        updates[name] = lie(np.frombuffer(data, dtype=spec.integer_type), spec, declared).tobytes()
    return replace(answer, updates=updates)


class LyingLearner:
    """The built-in worker, except for its answer to a training."""

    def __init__(self, truth: Worker) -> None:
        self._truth = truth
        self._specs: dict[str, ComponentSpec] = {}

    def answer(self, request: Request) -> Reply:
        """Return the worker's answer, or the opposite of its updates."""
        match request:
            case Open():
                self._specs = {spec.name: spec for spec in request.components}
                return self._truth.pass_on(request)
            case Train():
                answer = self._truth.pass_on(quiet(request))
                return lies(request, answer, self._specs) if isinstance(answer, Trained) else answer
            case _:
                return self._truth.pass_on(request)


def main() -> None:
    """Answer requests until the pipe closes."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    with process() as truth:
        learner = LyingLearner(truth)
        while (body := read_frame(stdin)) is not None:
            number, request = decode_request(body)
            write_frame(stdout, encode(number, learner.answer(request)))


if __name__ == "__main__":
    main()
