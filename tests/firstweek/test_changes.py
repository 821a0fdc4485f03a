"""A pupil is forgotten and a member let in while rounds go on, by commands alone on real daemons."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .schools import Federation, School, collegium

NAMES = ("north", "east", "south", "west")
PUPILS = 90


def pupils(folder: Path, seed: int) -> Path:
    """Make a data folder of pupils with a table and one task, as a spreadsheet saves it."""
    folder.mkdir()
    with (folder / "pupils.csv").open("w", newline="", encoding="utf-8-sig") as file:
        out = csv.writer(file)
        out.writerow(["Pupil", "Age", "Hours", "Passed"])
        for n in range(PUPILS):
            hours = (n * 7 + seed) % 10
            out.writerow([f"S{seed}-{n:03d}", 11 + n % 6, hours, "yes" if hours + n % 3 > 5 else "no"])
    (folder / "dataset.toml").write_text(
        """format = 1
[unit]
subject = "Pupil"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "Pupil"
[[modality]]
name = "person"
kind = "tabular"
columns = [{ name = "Age", low = 10, high = 20 }, { name = "Hours", low = 0, high = 10 }]
[[task]]
name = "passed"
kind = "binary"
column = "Passed"
positive = ["yes"]
[split]
share = 0.2
salt = "week"
""",
        encoding="utf-8",
    )
    return folder


def closed(school: School) -> int:
    """The last round that this school folded of what is trained."""
    found = school.status()["components"]
    return min((c["folded_round"] or 0) for c in found if not c["component"].startswith("statistic/"))


def members(school: School) -> list[str]:
    gone = ("expelled", "left", "moved to a new key")
    return sorted(peer["name"] for peer in school.ask("peer", "list")["peers"] if peer["state"] not in gone)


def verified(school: School, receipt: Path, subject: str, key: str) -> Any:
    done = school.command("unlearn", "verify", receipt, "--subject", subject, "--key", key, "--json", code=None)
    assert done.code in (0, 7), done.out + done.err
    return done.value


@pytest.mark.soak  # minutes on a busy machine
def test_a_pupil_is_forgotten_and_a_member_let_in(found: Callable[[], Federation], tmp_path: Path) -> None:
    federation = found()
    folders = [pupils(tmp_path / name, seed) for seed, name in enumerate((*NAMES, "centre"), 1)]
    model = tmp_path / "model.toml"
    model.write_text(collegium("charter", "model", *folders[:4]).out)
    for name, folder in zip(NAMES, folders, strict=False):
        federation.init(name, folder, lot_size=30)
    federation.charter("--model", model, "--no-dp", "--rounds", 400)
    north, east, south, _ = federation.schools
    for school in federation.schools:  # no noise: the walk is about members and withdrawals
        config = school.home / "config.toml"
        config.write_text(config.read_text().replace('policy = "dp"', 'policy = "open"'))
    federation.start()
    federation.wait_rounds(2, counted=3)

    # A pupil is removed.
    receipt = tmp_path / "receipt"
    sent = north.command("unlearn", "subject", "S1-004", "--yes", "--out", receipt, "--wait", 300, "--json").value
    assert sent["withdrawn_updates"] >= 1
    east.command("unlearn", "verify", receipt, "--subject", "S1-004", "--key", "00" * 32, code=6)
    seen = closed(north)
    federation.wait(lambda: closed(north) > seen + 1, "a round after the withdrawal")
    receipt = tmp_path / "receipt-2"
    key = north.command("unlearn", "subject", "S1-004", "--yes", "--out", receipt, "--wait", 300, "--json").value["key"]
    told = verified(east, receipt, "S1-004", key)
    assert (told["result"], told["institution_name"]) == ("verified", "north")
    assert verified(east, receipt, "S1-004", key)["ledger_height"] >= told["height"]
    east.command("unlearn", "verify", code=None)

    # A member is added.
    invitation = tmp_path / "for-centre"
    north.command("peer", "invite", "centre", "--out", invitation)
    centre = federation.init("centre", folders[4], lot_size=30)
    config = centre.home / "config.toml"
    config.write_text(config.read_text().replace('policy = "dp"', 'policy = "open"'))
    centre.command("peer", "join", invitation)
    centre.command("node", "start")
    for school in (east, south):
        federation.wait(lambda s=school: s.ask("peer", "motions")["open"] or "centre" in members(s), "the admission")  # type: ignore[misc]
        school.command("peer", "approve", "centre", code=None)
    federation.wait(lambda: all("centre" in members(s) for s in federation.schools), "centre to be a member")
    federation.stop()
