"""Which checkpoints and update bytes are kept, and that nothing which is still needed goes (G7, G8)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.consensus.components import Entry, Round, chained, origin, replay
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.runtime import folding
from collegium.node.store.blobs import Blobs
from collegium.node.store.states import States
from collegium.protocol.components import ComponentSpec
from collegium.protocol.records import GENESIS
from collegium.protocol.update import payload, payload_values
from collegium.sims.simulator.small import small_charter

MEMBERS = [Identity.from_seed(bytes([n]) * 32) for n in range(4)]
CHARTER = small_charter(MEMBERS)
SPEC: ComponentSpec = CHARTER.components[0]
HORIZON, LAST = 15, 37


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Blobs, States]:
    return Blobs(tmp_path / "blobs"), States(tmp_path / "states")


def rounds(blobs: Blobs, count: int = LAST) -> tuple[Round, ...]:
    made = []
    for number in range(1, count + 1):
        entries = []
        for index, who in enumerate(MEMBERS):
            values = np.full(SPEC.dimension, number + index, dtype=np.int8)
            frame = payload(CHARTER.federation, who.public_key, SPEC.name, number, values)
            blobs.put(frame)
            entries.append(Entry(sha256(frame + b"h"), who.public_key, sha256(frame), len(frame), 0, 1, number))
        made.append(Round(number, number, tuple(entries), 1, GENESIS))
    return chained(made, GENESIS)


def stored(blobs: Blobs, lists: tuple[Round, ...]) -> list[int]:
    return [r.number for r in lists if all(blobs.has(entry.blob) for entry in r.entries)]


def test_g7_only_bytes_that_no_withdrawal_reaches_go(stores: tuple[Blobs, States]) -> None:
    blobs, states = stores
    lists = rounds(blobs)
    before, _ = folding.compute(SPEC, lists, blobs, states)
    assert folding.prune(SPEC, lists, HORIZON, blobs, states) == 10 * 4, "one checkpoint before the one at 20"
    assert stored(blobs, lists) == list(range(11, LAST + 1))
    assert folding.prune(SPEC, lists, HORIZON, blobs, states) == 0, "again changes nothing"
    states.prune(SPEC.name, folding.kept(lists, HORIZON))
    assert states.get(SPEC.name, lists[9].chain) is not None
    # The oldest round that a withdrawal can reach: the refold starts from the checkpoint and needs no byte that went.
    gone = replace(lists[LAST - HORIZON], entries=lists[LAST - HORIZON].entries[1:])
    after = chained([*lists[: LAST - HORIZON], gone, *lists[LAST - HORIZON + 1 :]], GENESIS)
    refolded, _ = folding.compute(SPEC, after, blobs, states)
    full = Blobs(blobs.folder.parent / "all")
    rounds(full)
    expected, _ = replay(origin(SPEC), SPEC, after, lambda e: payload_values(full.get(e.blob), SPEC))
    assert np.array_equal(refolded, expected)
    assert not np.array_equal(refolded, before)


def test_g8_without_its_checkpoint_nothing_goes(stores: tuple[Blobs, States]) -> None:
    blobs, states = stores
    lists = rounds(blobs)
    assert folding.prune(SPEC, lists, HORIZON, blobs, states) == 0
    folding.compute(SPEC, lists, blobs, states)
    (path,) = states.folder.rglob(f"{lists[9].chain.hex()}.state")
    path.write_bytes(path.read_bytes()[:-1])  # torn
    assert folding.prune(SPEC, lists, HORIZON, blobs, states) == 0
    assert stored(blobs, lists) == list(range(1, LAST + 1))


@pytest.mark.parametrize("count", [0, 1, HORIZON, HORIZON + 9])
def test_a_young_federation_keeps_all(stores: tuple[Blobs, States], count: int) -> None:
    blobs, states = stores
    lists = rounds(blobs, count)
    folding.compute(SPEC, lists, blobs, states)
    assert folding.prune(SPEC, lists, HORIZON, blobs, states) == 0
    assert stored(blobs, lists) == list(range(1, count + 1))
    assert {r.chain for r in lists[-4:]} <= folding.kept(lists, HORIZON)


def test_a_long_life_keeps_a_bounded_number_of_checkpoints(stores: tuple[Blobs, States]) -> None:
    made = tuple(Round(n, n, (), 0, sha256(b"%d" % n)) for n in range(1, 10_001))
    assert len(folding.kept(made, 1000)) <= 1000 // folding.CHECKPOINT_EVERY + 2 + folding.KEEP_LAST
    assert made[8999].chain in folding.kept(made, 1000)


@pytest.mark.parametrize("last", range(38, 48))
def test_g7_rounds_that_close_before_the_refold_take_no_checkpoint_that_it_needs(
    stores: tuple[Blobs, States], last: int
) -> None:
    """A withdrawal reaches the oldest round of its horizon, and the lists go on growing before anybody folds again."""
    blobs, states = stores
    lists = rounds(blobs, last)
    for count in range(last - 10, last + 1):
        folding.compute(SPEC, lists[:count], blobs, states)
        states.prune(SPEC.name, folding.kept(lists[:count], HORIZON))
        folding.prune(SPEC, lists[:count], HORIZON, blobs, states)
    oldest = last - HORIZON  # index of the round last - HORIZON + 1
    gone = replace(lists[oldest], entries=lists[oldest].entries[1:])
    later = [Round(last + n, 1, (), 0, GENESIS) for n in range(1, 9)]
    after = chained([*lists[:oldest], gone, *lists[oldest + 1 :], *later], GENESIS)
    states.prune(SPEC.name, folding.kept(after, HORIZON))
    folding.prune(SPEC, after, HORIZON, blobs, states)
    folding.compute(SPEC, after, blobs, states)


def test_g1_a_state_that_differs_is_computed_from_the_bytes_as_long_as_they_are_there(
    stores: tuple[Blobs, States],
) -> None:
    """Its own checkpoints may hold the fault: only what nothing can be computed from any more is believed."""
    blobs, states = stores
    lists = rounds(blobs)
    folding.compute(SPEC, lists, blobs, states)
    assert folding.irreplaceable(lists, HORIZON, blobs) == set()
    folding.prune(SPEC, lists, HORIZON, blobs, states)
    assert folding.irreplaceable(lists, HORIZON, blobs) == {lists[9].chain}
