"""The memory `tenure-mean`: the mean of a component's states at the end of each member's tenure (design.md section 5).

A function of the frozen lists and the updates' bytes: each of these states is folded again here, and the last one is
the model's. So it follows a withdrawal like every state, and any host finds the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...consensus import membership
from ...consensus.components import State, mean_state, tenure_ends
from ...crypto.errors import VerificationError
from ...protocol.components import state_digest
from ..home.paths import Home
from ..store.states import States
from .bytes import Disk
from .ledger import Progress, Report
from .model import Component, Model
from .states import Stored, anchor, refold


@dataclass(frozen=True, slots=True)
class Memory:
    """A component's mean state, [d] int32, its digest, and the round at the end of each member's tenure."""

    state: State
    digest: bytes
    ends: Mapping[bytes, int]


def tenure_means(home: Home, model: Model, *, progress: Progress | None = None) -> dict[str, Memory]:
    """Return the memory of each component of a verified model. Raises VerificationError naming the component.

    A statistic, and a component whose members all contributed to the last round, has its state itself.
    """
    kept = States(home.states).get if home.states.is_dir() else None
    return {
        name: _memory(model.report, part, Disk(home.blobs), kept, progress) for name, part in model.components.items()
    }


def _memory(report: Report, part: Component, disk: Disk, kept: Stored | None, progress: Progress | None) -> Memory:
    spec, ledger = part.spec, report.ledger
    c = ledger.components[spec.name]
    c = replace(c, rounds=c.rounds[: part.round])
    ends = {} if spec.is_statistic else tenure_ends(spec, c.rounds, lambda key: membership.present(ledger.roll, key))
    if set(ends.values()) <= {part.round}:
        return Memory(part.state, part.digest, ends)
    since, first = anchor(report, c, disk, kept)
    total, before = sum(len(round_.entries) for round_ in c.rounds[since:]), 0
    states: dict[int, State] = {}
    for number in sorted({*ends.values(), part.round}):
        if number < since:
            states[number] = _certified(report, part, number, c.rounds[number - 1].chain, kept)
            continue

        def step(done: int, folded: int = before) -> None:
            if progress is not None:
                progress(f"states of {spec.name} at the end of tenures", folded + done, total)

        before += sum(len(round_.entries) for round_ in c.rounds[since:number])
        _, first, _ = refold(report, spec, c.rounds[:number], disk, step, since=since, first=first)
        since, states[number] = number, first
    if state_digest(spec.name, states[part.round]) != part.digest:
        raise VerificationError(
            f"{spec.name} round {part.round}: state-differs: folded again it is not the state in force",
            "Do not use this state. `collegium ledger verify` says more.",
        )
    mean = mean_state([states[number] for _, number in sorted(ends.items())])
    return Memory(mean, state_digest(spec.name, mean), ends)


def _certified(report: Report, part: Component, number: int, chain: bytes, kept: Stored | None) -> State:
    """Return a stored state from before the bytes that are here, if a quorum certified it."""
    name = part.spec.name
    state = kept(name, chain) if kept is not None else None
    certified = {(x.chain, x.digest) for x in report.certifications if x.component == name}
    if state is None or (chain, state_digest(name, state)) not in certified:
        raise VerificationError(
            f"{name} round {number}: state-missing: a member's tenure ended there, and this node has neither that state"
            " nor the updates' bytes",
            "Predict without --tenure-mean, or at a member that was there in that round.",
        )
    return state
