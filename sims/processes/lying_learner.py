"""`python -m collegium.sims.processes.lying_learner`: the true worker of an institution that lies.

It answers as the built-in worker does, but of every update it sends the opposite, three times as strong: minus three
times what its students would have it learn, without the noise that it declares, within the bounds that others check.
"""

import sys
from typing import Any

import numpy as np

from ...crypto.errors import OperatorError
from ...node.learner.client import process
from ...node.learner.protocol import Message, read_frame, write_frame
from ...protocol import schema
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.update import Declared, Engaged, Integers, norm_bounds
from ..learn.attacks import sign_flip, within

LOUD = 3.0  # × the truth


def lie(truth: Integers, spec: ComponentSpec, declared: Any) -> Integers:
    """Return the opposite of an update, shape [d], as a host accepts it for what is declared."""
    low, high = norm_bounds(declared, spec)
    found = within(sign_flip(truth[None].astype(np.float64), LOUD), low, high, 2 ** (spec.width - 1) - 1)
    return found.astype(spec.integer_type)


def quiet(request: Message) -> Message:
    """Return a request to train without noise: a liar's own students are of no concern to it."""
    return request | {"engaged": {name: entry | {"noise": 0.0} for name, entry in request["engaged"].items()}}


def lies(request: Message, answer: Message, specs: dict[str, ComponentSpec]) -> Message:
    """Return the true answer to a request to train with every update turned round."""
    updates = {}
    for name, data in answer["updates"].items():
        spec, entry = specs[name], request["engaged"][name]
        noise, clip, rate = (round(entry[key] * MILLION) for key in ("noise", "clip", "learning_rate"))
        declared = Declared(Engaged(name, bytes(32), noise, clip, rate), request["steps"], round(request["lot"] * 1000))
        updates[name] = lie(np.frombuffer(data, dtype=spec.integer_type), spec, declared).tobytes()
    return answer | {"updates": updates}


def main() -> None:
    """Answer requests until the pipe closes."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    specs: dict[str, ComponentSpec] = {}
    with process() as learner:
        while (request := read_frame(stdin)) is not None:
            number = request.pop("id")
            if request["op"] == "open":
                specs = {
                    spec.name: spec for item in request["components"] for spec in [schema.from_map(ComponentSpec, item)]
                }
            try:
                if request["op"] == "train":
                    answer = lies(request, learner.ask(quiet(request)), specs)
                else:
                    answer = learner.ask(request)
            except OperatorError as error:
                answer = {"ok": False, "error": error.message, "advice": error.advice, "exit_code": error.exit_code}
            write_frame(stdout, answer | {"id": number})


if __name__ == "__main__":
    main()
