"""A learner for tests: answers as the synthetic one, and writes down what it was asked (file named by argv[1])."""

import sys
from dataclasses import replace

from collegium.node.learner.answers import Reply
from collegium.node.learner.coding import decode_request, encode
from collegium.node.learner.frames import read_frame, write_frame
from collegium.node.learner.messages import DecideRun, Request, Train
from collegium.node.privacy.budget import Decision, Verdict
from collegium.sims.processes.synthetic_learner import SyntheticLearner

STEPS = 12  # are enough for the budget


def answer(learner: SyntheticLearner, request: Request) -> Reply:
    if not isinstance(request, DecideRun):
        return learner.answer(request)
    (modality,) = request.modalities
    spent = sum(line.count for line in modality.spent)
    after = spent + request.steps
    decision = Decision(after <= STEPS, spent, after, STEPS, max(0, STEPS - spent) // request.steps)
    return Verdict(decision.allowed, "12 steps are enough", {}, {modality.name: decision})


def main() -> None:
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    learner = SyntheticLearner()
    while (body := read_frame(stdin)) is not None:
        number, request = decode_request(body)
        noted = replace(request, states={}) if isinstance(request, Train) else request
        with open(sys.argv[1], "ab") as record:  # noqa: PTH123
            write_frame(record, encode(number, noted))
        write_frame(stdout, encode(number, answer(learner, request)))


if __name__ == "__main__":
    main()
