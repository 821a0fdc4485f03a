"""A backup that is made while rounds go on, and put back after more of them and a pupil's removal."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .schools import Federation, collegium
from .test_changes import (
    PUPIL,
    all_verify,
    founded,
    is_told_that_it_was_older,
    last_counted,
    last_round,
    nobody_lied,
    spent,
    wait_counted,
)


@pytest.mark.soak  # minutes on a busy machine
def test_a_backup_of_a_running_home_is_restored_and_neither_forks_nor_forgets_what_it_spent(
    found: Callable[[], Federation], tmp_path: Path
) -> None:
    federation, (north, _, _, west) = founded(found, tmp_path)
    made = west.command("node", "backup", tmp_path / "backup.tar", "--json").value
    assert made["height"] > 0
    assert made["damaged"] == []

    # Rounds go on; a pupil is removed, which the backup knows nothing of. Then the disk is lost.
    wait_counted(federation, north, "west", last_round(north))
    words = ("unlearn", "subject", PUPIL, "--yes", "--wait", 600, "--json")
    assert west.command(*words, "--out", tmp_path / "receipt").value["withdrawn_updates"] >= 1
    wait_counted(federation, north, "west", last_round(north))
    paid, height, before = spent(west), north.status()["height"], last_counted(north, "west")
    federation.away.append(west)
    west.command("node", "stop")
    shutil.rmtree(west.home)

    restored = collegium("node", "restore", tmp_path / "backup.tar", west.home, "--json").value
    assert restored["height"] == made["height"]
    assert restored["data_there"] is True
    begun = west.command("node", "start", "--wait", 600, "--json").value
    federation.away.remove(west)
    federation.wait(lambda: west.status()["height"] >= height, "west to catch up")
    is_told_that_it_was_older(west, begun)
    assert spent(west) >= paid - 0.001, "what is spent stays spent"
    federation.wait(lambda: west.status()["live"]["removals_unknown"], "west to hear of its own withdrawals")
    again = last_round(north)
    federation.wait(lambda: last_round(north) > again + 2, "the others to go on")
    assert last_counted(north, "west") <= max(before, again), "nothing was trained"
    west.command(*words, "--out", tmp_path / "receipt-2")
    assert west.command("unlearn", "resume", "--yes", "--json").value == {"resumed": True}
    wait_counted(federation, north, "west", last_round(north))
    federation.stop()
    nobody_lied(federation)
    all_verify(federation)
