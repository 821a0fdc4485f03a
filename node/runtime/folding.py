"""Component states: stored ones by their chain, otherwise replayed from the bytes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import numpy as np

from ...consensus.components import Entry, Round, State, origin, replay
from ...crypto.errors import CorruptError
from ...protocol.components import FRACTION_BITS, ComponentSpec
from ...protocol.records import GENESIS
from ...protocol.update import Integers, payload_values
from ..store.blobs import Blobs
from ..store.states import States

CHECKPOINT_EVERY = 10  # rounds; the last few are kept as well, so that a refold starts close to what changed
KEEP_LAST = 4
LARGE = 500_000  # parameters above which threads read ahead


class MissingBlobsError(Exception):
    """Bytes that the fold needs are not stored here, or no longer."""

    def __init__(self, blobs: Sequence[bytes]) -> None:
        self.blobs = tuple(blobs)
        super().__init__(f"{len(self.blobs)} blobs are missing")


def compute(spec: ComponentSpec, rounds: Sequence[Round], blobs: Blobs, states: States) -> tuple[State, int]:
    """Return the state after `rounds` and the number of saturated coordinates; store it and its checkpoints.

    Raises MissingBlobsError.
    """
    state, start = origin(spec), 0
    for index in range(len(rounds), 0, -1):
        checkpoint = states.get(spec.name, rounds[index - 1].chain)
        if checkpoint is not None and checkpoint.shape == (spec.words,):
            state, start = checkpoint, index
            break
    todo = rounds[start:]
    missing = [entry.blob for round_ in todo for entry in round_.entries if not blobs.has(entry.blob)]
    if missing:
        raise MissingBlobsError(missing)

    def values(entry: Entry) -> Integers:
        try:
            return payload_values(blobs.get(entry.blob), spec)
        except (KeyError, CorruptError) as error:
            raise MissingBlobsError([entry.blob]) from error

    saturated = 0
    for round_, read in _read_ahead(todo, values, spec):
        state, more = replay(state, spec, [round_], lambda entry, read=read: read[entry.update])  # type: ignore[misc]
        saturated += more
        if round_ is rounds[-1] or round_.number % CHECKPOINT_EVERY == 0:
            states.put(spec.name, round_.number, round_.chain, state)
    return state, saturated


def _read_ahead(
    rounds: Sequence[Round], values: Callable[[Entry], Integers], spec: ComponentSpec
) -> Iterator[tuple[Round, dict[bytes, Integers]]]:
    """Yield each round with its updates; threads read large updates of the next round meanwhile.

    Hashing and unpacking release the GIL; with small updates, switching threads costs more than that gains.
    """
    if spec.dimension < LARGE:
        for round_ in rounds:
            yield round_, {entry.update: values(entry) for entry in round_.entries}
        return
    with ThreadPoolExecutor(os.cpu_count()) as readers:
        ahead = [readers.submit(values, entry) for entry in rounds[0].entries] if rounds else []
        for round_, following in zip_longest(rounds, rounds[1:]):
            read = {entry.update: job.result() for entry, job in zip(round_.entries, ahead, strict=True)}
            ahead = [readers.submit(values, entry) for entry in following.entries] if following is not None else []
            yield round_, read


def kept(rounds: Sequence[Round], horizon: int) -> set[bytes]:
    """Return the chains of the states to keep; none of these holds a withdrawn update.

    No withdrawal reaches a round that is `horizon` rounds old (design.md section 9): every refold can start from the
    last checkpoint before that.
    """
    last = rounds[-1].number if rounds else 0
    oldest = _base(last, horizon)
    return {
        r.chain
        for r in rounds
        if (r.number % CHECKPOINT_EVERY == 0 and r.number >= oldest) or r.number > last - KEEP_LAST
    }


def beyond(last: int, horizon: int) -> int:
    """Return the last round beyond the reach of withdrawals, 0 for none."""
    return max(0, last - horizon)


def _base(last: int, horizon: int) -> int:
    """Return the round whose state every refold can start from, 0 for none.

    One checkpoint more than the horizon needs: rounds may close between a withdrawal and its refold.
    """
    return max(0, beyond(last, horizon) // CHECKPOINT_EVERY - 1) * CHECKPOINT_EVERY


def spent(rounds: Sequence[Round], horizon: int) -> Round | None:
    """Return the round up to which no update's bytes are needed once the state after it is on disk."""
    number = _base(rounds[-1].number if rounds else 0, horizon)
    return rounds[number - 1] if number else None


def irreplaceable(rounds: Sequence[Round], horizon: int, blobs: Blobs) -> set[bytes]:
    """Return the chain of the state that replaces pruned bytes; empty if all states can be computed from bytes."""
    base = spent(rounds, horizon)
    if base is None or all(blobs.has(e.blob) for r in rounds[: base.number] for e in r.entries):
        return set()
    return {base.chain}


def prune(spec: ComponentSpec, rounds: Sequence[Round], horizon: int, blobs: Blobs, states: States) -> int:
    """Delete bytes that no refold can need; return how many were deleted. Their state is made durable first."""
    base = spent(rounds, horizon)
    if base is None:
        return 0
    old = [entry.blob for round_ in rounds[: base.number] for entry in round_.entries]
    old = [blob for blob in old if blobs.has(blob)]
    if not old:
        return 0
    if not states.sync(spec.name, base.chain):
        return 0  # the checkpoint is missing: it has to be computed from the bytes
    return blobs.delete(old)


def state_at(spec: ComponentSpec, rounds: Sequence[Round], chain: bytes, blobs: Blobs, states: States) -> State:
    """Return the state that `chain` names among `rounds`, shape [d]. Raises MissingBlobsError."""
    if chain == GENESIS:
        return origin(spec)
    checkpoint = states.get(spec.name, chain)
    if checkpoint is not None:
        return checkpoint
    upto = [index for index, round_ in enumerate(rounds) if round_.chain == chain]
    if not upto:
        raise MissingBlobsError([])
    return compute(spec, rounds[: upto[0] + 1], blobs, states)[0]


def state_bytes(state: State) -> bytes:
    """Return a state in the learner's encoding: int32 little-endian; a statistic's int64 as two of these."""
    return np.ascontiguousarray(state, dtype="<i4").tobytes()


def movement(spec: ComponentSpec, state: State) -> int:
    """Return the mean square of the weights' change since the first state, in units of 2^-64; a statistic has none."""
    if spec.is_statistic:
        return 0
    drift = state.astype(np.float64) * 2.0 ** (32 - FRACTION_BITS - spec.step_log2)
    return int(np.dot(drift, drift) / max(1, state.size))
