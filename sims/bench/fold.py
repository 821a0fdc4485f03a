"""Fold and refold against one read of the same bytes, and the robust rules against numpy's own sort."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...consensus import robust, rules
from ...consensus.components import Entry, Round
from ...crypto.hashing import digest, sha256
from ...crypto.identity import Identity
from ...node.runtime.folding import compute
from ...node.store.blobs import Blobs
from ...node.store.states import States
from ...protocol.components import ComponentSpec
from ...protocol.update import Integers, payload
from ..cluster import small_charter
from .rows import Row, at_least, at_most, interleaved


def _spec(dimension: int) -> ComponentSpec:
    members = [Identity.from_seed(sha256(bytes([n]))) for n in range(2)]
    return small_charter(members, dimension=dimension).components[0]


def _update(number: int, dimension: int) -> Integers:
    """Noise of eight grid steps, which is what an update under DP looks like. Shape [d], int8."""
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
        blobs, round_ = _store(Path(folder), spec, [updates])
        paths = [blobs.path(entry.blob) for entry in round_[0].entries]
        times = interleaved(
            {
                "read": lambda: [path.read_bytes() for path in paths],
                "mean": lambda: rules.mean(updates, weights),
                "sort": lambda: np.sort(stacked, axis=0),
                "fold": lambda: _fold(spec, round_, blobs),
                **{name: partial(rule, updates, rules.faults(members)) for name, rule in robust.RULES.items()},
            },
            3 if quick else 7,
        )
    rate = {name: size / seconds for name, seconds in times.items()}
    return [
        at_least(f"mean of {members} × {dimension:,} int8, MB/s, against one read", rate["mean"], rate["read"], 0.5),
        *(at_least(f"{name}, MB/s, against numpy's own sort", rate[name], rate["sort"], 0.5) for name in robust.RULES),
        at_least("whole fold from the blob store (hash, unpack, mean, store), MB/s", rate["fold"], rate["read"], 0.5),
    ]


def measure_refold(quick: bool) -> Sequence[Row]:
    """100 rounds × 20 members: fold again without one member, against one read of the surviving bytes."""
    members, rounds, dimension = 20, 10 if quick else 100, 10_000
    spec = _spec(dimension)
    with tempfile.TemporaryDirectory() as folder:
        blobs, found = _store(
            Path(folder), spec, [[_update(r * members + n, dimension) for n in range(members)] for r in range(rounds)]
        )
        survivors = [Round(r.number, r.height, r.entries[1:], r.faults, digest("bench", r.chain)) for r in found]
        paths = [blobs.path(entry.blob) for round_ in survivors for entry in round_.entries]
        times = interleaved(
            {
                "read": lambda: [path.read_bytes() for path in paths],
                "refold": lambda: _fold(spec, survivors, blobs),
            },
            3 if quick else 5,
        )
    figure = f"refold one of {members} members over {rounds} rounds × {dimension:,}, s, against one read"
    return [at_most(figure, times["refold"], times["read"], 2.0)]


def _store(folder: Path, spec: ComponentSpec, rounds: list[list[Integers]]) -> tuple[Blobs, list[Round]]:
    blobs, found = Blobs(folder / "blobs"), []
    for number, updates in enumerate(rounds, 1):
        entries = []
        for member, values in enumerate(updates):
            author = sha256(bytes([member]))
            data = payload(bytes(32), author, spec.name, number, values)
            name = sha256(data)
            path = blobs.path(name)  # without blobs.put: its fsync is not what is measured here
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            entries.append(Entry(digest("bench", data), author, name, len(data), 0, 100))
        chain = digest("bench", bytes([number]))
        found.append(Round(number, number, tuple(entries), rules.faults(len(entries)), chain))
    return blobs, found


def _fold(spec: ComponentSpec, rounds: Sequence[Round], blobs: Blobs) -> object:
    with tempfile.TemporaryDirectory() as scratch:
        return compute(spec, rounds, blobs, States(Path(scratch)))
