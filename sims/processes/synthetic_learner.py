"""`python -m collegium.sims.processes.synthetic_learner`: a worker that makes updates up, for figures without training.

It speaks the learner's frames and imports no torch. Its updates look like noise of eight grid steps, the least
compressible thing an honest member sends.
"""

import sys
from typing import Any

import numpy as np

from ...node.home.students import Excluded
from ...node.learner.protocol import read_frame, write_frame
from ...protocol import schema
from ...protocol.components import ComponentSpec

STUDENTS = tuple(f"student-{n}" for n in range(20))  # made up as well; each takes part in every draw


def main() -> None:
    """Answer requests until the pipe closes."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    specs: dict[str, ComponentSpec] = {}
    students: list[str] = []
    source = np.random.default_rng()
    while (request := read_frame(stdin)) is not None:
        answer: dict[str, Any] = {"id": request["id"], "ok": True}
        if request["op"] == "open":
            for item in request["components"]:
                spec = schema.from_map(ComponentSpec, item)
                specs[spec.name] = spec
            answer |= {"components": {name: specs[name].dimension for name in request["hosted"]}, "tasks": {}}
            excluded = Excluded(request["excluded"]["salt"], frozenset(request["excluded"]["tags"]))
            answer["everybody"] = list(STUDENTS)
            students = [name for name in STUDENTS if not excluded.has(name)]
        elif request["op"] == "train":
            answer |= {"seconds": 0.0, "saturated": {}, "updates": {}, "subjects": students}
            for name in request["engaged"]:
                values = np.clip(np.rint(source.normal(0.0, 8.0, specs[name].dimension)), -127, 127)
                answer["updates"][name] = values.astype(specs[name].integer_type).tobytes()
        elif request["op"] == "budget":
            named = [item["name"] for item in request["modalities"]]
            fits = {"allowed": True, "before": 0, "after": 0, "limit": 0, "rounds_left": 1000}
            answer |= {"allowed": True, "reason": "", "noises": {}, "modalities": dict.fromkeys(named, fits)}
        elif request["op"] == "epsilon":
            answer |= {"epsilon": 0.0, "claimed": 0}
        else:
            answer |= {"tasks": {}}
        write_frame(stdout, answer)


if __name__ == "__main__":
    main()
