"""Fold and refold against one read of the same bytes, and the robust rules against numpy's own sort."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...consensus import effects, robust, rules
from ...consensus.components import Entry, Round
from ...crypto.errors import OperatorError
from ...crypto.hashing import digest, sha256
from ...crypto.identity import Identity
from ...node.runtime.folding import compute
from ...node.store.blobs import Blobs
from ...node.store.states import States
from ...protocol.components import ComponentSpec
from ...protocol.update import Integers, payload
from ..paper.sequences import sequence_holds
from ..simulator.small import small_charter
from .rows import Row, at_least, at_most, interleaved

STEPS = 8  # of one member in a round


def _spec(dimension: int) -> ComponentSpec:
    members = [Identity.from_seed(sha256(bytes([n]))) for n in range(2)]
    return small_charter(members, dimension=dimension).components[0]


def _update(number: int, dimension: int) -> Integers:
    """Noise of eight grid steps, like an update under DP. Shape [d], int8."""
    source = np.random.Generator(np.random.PCG64(number))
    return np.clip(np.rint(source.normal(0, 8, dimension)), -127, 127).astype("<i1")


def measure_fold(quick: bool) -> Sequence[Row]:
    """20 members' updates of one round: the rules alone, in memory, and a whole fold from the blob store."""
    members, dimension = 20, 200_000 if quick else 1_000_000
    spec = _spec(dimension)
    updates = [_update(n, dimension) for n in range(members)]
    size = members * dimension / 1e6
    weights = rules.mean_weights([100] * members, [0] * members)
    stacked = np.stack(updates)
    with tempfile.TemporaryDirectory() as folder:
        blobs, round_ = _store(Path(folder), spec, members, 1)
        paths = [blobs.path(entry.blob) for entry in round_[0].entries]
        times = interleaved(
            {
                "read": lambda: [path.read_bytes() for path in paths],
                "mean": lambda: rules.mean(updates, weights),
                "random-effects": lambda: effects.random_effects(updates, spec, [100] * members, [0] * members),
                "sort": lambda: np.sort(stacked, axis=0),
                "fold": lambda: _fold(spec, round_, blobs),
                **{name: partial(rule, updates, rules.faults(members)) for name, rule in robust.RULES.items()},
            },
            3 if quick else 7,
        )
    rate = {name: size / seconds for name, seconds in times.items()}
    return [
        at_least(f"mean of {members} × {dimension:,} int8, MB/s, against one read", rate["mean"], rate["read"], 0.5),
        *(
            at_least(f"{name}, MB/s, against numpy's own sort", rate[name], rate["sort"], 0.5)
            for name in ("random-effects", *robust.RULES)
        ),
        at_least("whole fold from the blob store (hash, unpack, mean, store), MB/s", rate["fold"], rate["read"], 0.5),
    ]


def measure_refold(quick: bool) -> Sequence[Row]:
    """100 rounds × 20 members: fold again without one member, against a read of the surviving bytes and retraining."""
    shapes = ((20, 10, 10_000),) if quick else ((20, 100, 10_000), (20, 100, 1_000_000))
    rows = [row for shape in shapes for row in _refold(*shape, repeats=3)]
    return [*rows, _survivors(10 if quick else 50)]


def _refold(members: int, rounds: int, dimension: int, repeats: int) -> list[Row]:
    spec = _spec(dimension)
    with tempfile.TemporaryDirectory() as folder:
        blobs, stored = _store(Path(folder), spec, members, rounds)
        survivors = [Round(r.number, r.height, r.entries[1:], r.faults, digest("bench", r.chain)) for r in stored]
        late = [*stored[: rounds - 10], *survivors[rounds - 10 :]]
        states = States(Path(folder) / "states")
        compute(spec, stored, blobs, states)  # with its checkpoints, as a daemon has them
        paths = [blobs.path(entry.blob) for round_ in survivors for entry in round_.entries]
        times = interleaved(
            {
                "read": lambda: [len(path.read_bytes()) for path in paths],
                "refold": lambda: _fold(spec, survivors, blobs),
                "late": lambda: _fold_late(spec, late, blobs, states),
            },
            repeats,
        )
    what = f"one of {members} members out of {rounds} rounds × {dimension:,}"
    step = _training_step() if dimension >= 1_000_000 else None
    rows = [
        at_most(f"refold {what}, s, against one read", times["refold"], times["read"], 2.0),
        Row("the same from a checkpoint, its first update 10 rounds ago", times["late"], times["read"], None, "report"),
    ]
    if step is not None:
        again = step * STEPS * (members - 1) * rounds
        title = f"the same against retraining them on one core, {STEPS} DP steps a round and member (from one)"
        rows.append(at_least(f"{title}, rate", 1 / times["refold"], 1 / again, 1000.0))
    return rows


def _fold_late(spec: ComponentSpec, rounds: Sequence[Round], blobs: Blobs, states: States) -> object:
    result = compute(spec, rounds, blobs, states)
    states.prune(spec.name, [r.chain for r in rounds[:-10]])
    return result


def _training_step() -> float:
    command = [sys.executable, "-P", "-m", "collegium.node.learner.audit.timing", "5", "million"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise OperatorError(f"the learner could not be timed: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1])["step"])


def _survivors(count: int) -> Row:
    """Random sequences of rounds and withdrawals in the ledger: each ends as the fold of the remaining members."""
    same = sum(sequence_holds(seed) for seed in range(count))
    return at_least("random sequences of rounds and withdrawals that end in the survivors' digest", same, count, 1.0)


def _store(folder: Path, spec: ComponentSpec, members: int, rounds: int) -> tuple[Blobs, list[Round]]:
    blobs, frozen = Blobs(folder / "blobs"), []
    for number in range(1, rounds + 1):
        entries = []
        for member in range(members):
            author = sha256(bytes([member]))
            values = _update(number * members + member, spec.dimension)
            data = payload(bytes(32), author, spec.name, number, values)
            name = sha256(data)
            path = blobs.path(name)  # without blobs.put: its fsync is not measured here
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            entries.append(Entry(digest("bench", data), author, name, len(data), 0, 100))
        chain = digest("bench", number.to_bytes(8, "big"))
        frozen.append(Round(number, number, tuple(entries), rules.faults(len(entries)), chain))
    return blobs, frozen


def _fold(spec: ComponentSpec, rounds: Sequence[Round], blobs: Blobs) -> object:
    with tempfile.TemporaryDirectory() as scratch:
        return compute(spec, rounds, blobs, States(Path(scratch)))
