"""A learner for tests: answers as the synthetic one, and writes down what it was asked (file named by argv[1])."""

import sys
from typing import Any

import numpy as np

from collegium.node.learner.protocol import encode_frame, read_frame, write_frame
from collegium.protocol import schema
from collegium.protocol.components import ComponentSpec


def main() -> None:
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    specs: dict[str, ComponentSpec] = {}
    while (request := read_frame(stdin)) is not None:
        with open(sys.argv[1], "ab") as record:  # noqa: PTH123
            record.write(encode_frame({k: v for k, v in request.items() if k != "states"}))
        answer: dict[str, Any] = {"id": request["id"], "ok": True, "tasks": {}}
        if request["op"] == "open":
            specs = {item["name"]: schema.from_map(ComponentSpec, item) for item in request["components"]}
            answer["components"] = {name: spec.dimension for name, spec in specs.items()}
        elif request["op"] == "budget":
            (modality,) = request["modalities"]
            spent = sum(line[2] for line in modality["spent"])
            found = {"before": spent, "after": spent + request["steps"], "limit": 12, "rounds_left": 1}
            answer |= {"allowed": found["after"] <= 12, "reason": "12 steps are enough", "noises": {}}
            answer["modalities"] = {modality["name"]: found}
        elif request["op"] == "train":
            source = np.random.default_rng()
            answer |= {"seconds": 0.0, "saturated": {}}
            answer["updates"] = {
                name: np.rint(source.normal(0.0, 8.0, specs[name].dimension)).astype(specs[name].integer_type).tobytes()
                for name in request["engaged"]
            }
        elif request["op"] == "epsilon":
            answer |= {"epsilon": 0.0, "claimed": 0}
        write_frame(stdout, answer)


if __name__ == "__main__":
    main()
