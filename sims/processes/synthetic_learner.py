"""`python -m collegium.sims.processes.synthetic_learner`: a worker that makes updates up, for figures without training.

It has the learner's protocol (node/learner/messages.py) and imports no torch. Its updates look like noise of eight grid
steps, the least compressible thing an honest member sends.
"""

import sys
from typing import assert_never

import numpy as np

from ...node.learner.answers import EpsilonFound, Evaluated, Failed, Opened, Reply, Trained
from ...node.learner.coding import decode_request, encode
from ...node.learner.frames import read_frame, write_frame
from ...node.learner.messages import (
    Audit,
    AuditOwn,
    CrossCheck,
    DecideRun,
    DeleteFeatures,
    Epsilon,
    Evaluate,
    EvaluateVariants,
    Explain,
    Open,
    Personalise,
    Predict,
    PredictScores,
    Request,
    Respec,
    Train,
    TryModel,
)
from ...node.privacy.budget import Decision, Verdict
from ...node.unlearning.students import Excluded
from ...protocol.components import ComponentSpec

STUDENTS = tuple(f"student-{n}" for n in range(20))  # synthetic as well; each is in every sample


class SyntheticLearner:
    """Answers without data."""

    def __init__(self) -> None:
        self._specs: dict[str, ComponentSpec] = {}
        self._students: tuple[str, ...] = ()
        self._source = np.random.default_rng()

    def answer(self, request: Request) -> Reply:
        """Return a synthetic answer to a daemon's request."""
        match request:
            case Open():
                self._specs = {spec.name: spec for spec in request.components}
                excluded = Excluded()
                if request.excluded is not None:
                    excluded = Excluded(request.excluded.salt, frozenset(request.excluded.tags))
                self._students = tuple(name for name in STUDENTS if not excluded.has(name))
                dimensions = {name: self._specs[name].dimension for name in request.hosted}
                return Opened(dimensions, subjects=len(self._students), everybody=STUDENTS)
            case Train():
                updates = {name: self._update(self._specs[name]) for name in request.engaged}
                return Trained(updates, 0.0, subjects=self._students)
            case DecideRun():
                fits = Decision(allowed=True, before=0, after=0, limit=0, rounds_left=1000)
                return Verdict(True, "", {}, {modality.name: fits for modality in request.modalities})
            case Epsilon():
                return EpsilonFound(0.0, 0)
            case Evaluate():
                return Evaluated()
            case Respec() | TryModel() | EvaluateVariants() | PredictScores() | Predict() | Explain():
                return _no_answer(request)
            case Personalise() | CrossCheck() | Audit() | AuditOwn() | DeleteFeatures():
                return _no_answer(request)
            case _:
                assert_never(request)

    def _update(self, spec: ComponentSpec) -> bytes:
        values = np.clip(np.rint(self._source.normal(0.0, 8.0, spec.dimension)), -127, 127)
        return values.astype(spec.integer_type).tobytes()


def _no_answer(request: Request) -> Failed:
    return Failed("bad-request", f"this learner makes no answer up to {type(request).__name__}")


def main() -> None:
    """Answer requests until the pipe closes."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    learner = SyntheticLearner()
    while (body := read_frame(stdin)) is not None:
        number, request = decode_request(body)
        write_frame(stdout, encode(number, learner.answer(request)))


if __name__ == "__main__":
    main()
