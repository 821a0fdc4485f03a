"""What happens in a federation's first weeks, by commands alone on real daemons, while rounds go on.

A pupil is removed; a member comes, and one is expelled; a daemon is killed; an old copy of a home is put back.
"""

import csv
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from .schools import Federation, School, collegium

NAMES = ("north", "east", "south", "west")
PUPILS = 120
PUPIL = "S4-005"  # at west, and by the salt below not held out
EPSILON = 100  # and many rounds: the budget is to outlast a walk on a slow machine


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
negative = ["no"]
[split]
share = 0.2
salt = "week"
""",
        encoding="utf-8",
    )
    return folder


def founded(found: Callable[[], Federation], root: Path) -> tuple[Federation, list[School]]:
    """Four schools that have trained two rounds, and go on."""
    folders = [pupils(root / name, seed) for seed, name in enumerate(NAMES, 1)]
    model = root / "model.toml"
    model.write_text(collegium("charter", "model", *folders).out)
    federation = found()
    for name, folder in zip(NAMES, folders, strict=True):
        allow(federation.init(name, folder, lot_size=12))
    federation.charter("--anyway", "--model", model, "--epsilon", EPSILON, "--rounds", 2000, "--deadline", 7200)
    assert [begun["trains"] for begun in federation.start()] == [True] * 4
    federation.wait_rounds(2, counted=3)
    return federation, list(federation.schools)


def allow(school: School) -> None:
    """Let the home spend what the charter allows."""
    config = school.home / "config.toml"
    config.write_text(config.read_text().replace("epsilon = 8.0", f"epsilon = {EPSILON}"))


def last_round(school: School) -> int:
    """The last round that this school has folded of all that is trained."""
    return min((c["folded_round"] or 0) for c in school.status()["components"])


def last_counted(school: School, name: str) -> int:
    """The last round in which an update of the member `name` counts, as `school` has it; 0: none."""
    rounds = school.get("/rounds", limit=60)
    return max((r["round"] for r in rounds if name in {one["name"] for one in r["counted"]}), default=0)


def wait_counted(federation: Federation, school: School, name: str, after: int) -> None:
    """Wait until an update of the member `name` counts in a round after this one."""
    federation.wait(lambda: last_counted(school, name) > after, f"{name}'s update in a round after {after}")


def states(school: School) -> dict[str, str]:
    """What the school's daemon says of each member."""
    return {peer["name"]: peer["state"] for peer in school.get("/peers")["peers"]}


def motions(school: School) -> bool:
    """Whether something waits for this school's ballot."""
    return any("waits for your ballot" in note for note in school.status()["notes"])


def approve(federation: Federation, schools: Iterable[School], who: str, done: Callable[[], bool]) -> None:
    """Vote yes at each of these schools, as soon as it knows of the motion; unless enough have voted already."""
    for school in schools:
        federation.wait(lambda s=school: motions(s) or done(), f"{school.name} to know of the motion")  # type: ignore[misc]
        if not done():
            school.command("peer", "approve", who, code=None)
    federation.wait(done, f"the motion about {who} to pass")


def spent(school: School) -> float:
    """What one student of this school has paid for all that was published, by its own files."""
    draws = school.ask("privacy", "show")["reservations"]
    return max(float(draw["epsilon"]["person"]) for draw in draws if draw["published"] or draw["recalled"])


def all_verify(federation: Federation) -> None:
    """Every ledger verifies, and no two of them have different records at one place."""
    records: dict[tuple[int, int], set[str]] = {}
    federation.each("ledger", "verify")
    for answer in federation.each("ledger", "log", "--limit", 1000, "--json"):
        for record in answer.value:
            records.setdefault((record["height"], record["position"]), set()).add(record["digest"])
    assert all(len(digests) == 1 for digests in records.values())


def nobody_lied(federation: Federation) -> None:
    """No log tells of a fork or a double vote, and nobody was expelled by a proof."""
    for school in federation.schools:
        log = school.log(1 << 30)
        assert "double-vote" not in log, school.log()
        assert "fork " not in log, school.log()
        seats = school.status()["federation"]["expelled"]
        assert {one["name"] for one in seats} <= {"south"}, seats


def crash(school: School, copy: Path) -> None:
    """End the daemon by SIGKILL, and keep a copy of its home as it lies there."""
    school.kill()
    assert school.status()["running"] is False
    shutil.copytree(school.home, copy, ignore=shutil.ignore_patterns("*.sock"))


def start_again(school: School) -> None:
    """Start the daemon after a crash: nothing is lost, and it trains."""
    begun = school.command("node", "start", "--wait", 600, "--json").value
    assert begun["trains"], begun
    assert begun["older"] == [], "a crash loses nothing"


def put_back(school: School, copy: Path) -> Any:
    """Put the old copy in the place of the home of a stopped daemon, start it; return what `node start` said."""
    shutil.rmtree(school.home)
    shutil.copytree(copy, school.home)
    return school.command("node", "start", "--wait", 600, "--json").value


def is_told_that_it_was_older(school: School, begun: Any) -> None:
    """`node start`, `node status`, `doctor` and node.log say that others had more of this node than its own disk."""
    assert "older than the others' records" in " ".join(begun["older"]), begun
    assert "older than the others' records" in " ".join(school.command("node", "status").out.split())
    checks = school.command("doctor", "--json", code=None).value["checks"]
    assert any("older than the others' records" in one["found"] for one in checks), checks
    assert "home-was-older" in school.log(1 << 30)


@pytest.mark.soak  # minutes on a busy machine
def test_a_newcomer_trains_a_member_is_expelled_and_an_old_home_comes_back(
    found: Callable[[], Federation], tmp_path: Path
) -> None:
    federation, (north, east, south, west) = founded(found, tmp_path)

    # A daemon dies. Rounds wait for it, but not what the members decide.
    crash(west, tmp_path / "copy")
    federation.away.append(west)

    # A member is added meanwhile, and trains.
    invitation = tmp_path / "for-centre"
    north.command("peer", "invite", "centre", "--out", invitation)
    centre = federation.init("centre", pupils(tmp_path / "centre", 5), lot_size=12)
    allow(centre)
    centre.command("join", invitation)
    centre.command("node", "start", "--wait", 600)
    approve(federation, (east, south), "centre", lambda: "centre" in states(north))
    before = last_round(north)
    start_again(west)
    federation.away.remove(west)
    federation.wait(lambda: all("centre" in states(s) for s in federation.here), "all to know centre")
    wait_counted(federation, north, "west", before)
    wait_counted(federation, north, "centre", 0)
    wait_counted(federation, west, "centre", 0)
    paid = spent(west)
    federation.away.append(west)
    west.command("node", "stop")

    # A member is expelled meanwhile. It is told, and so are the others.
    north.command("peer", "expel", "south", "--reason", "sends noise", "--yes")
    approve(federation, (east, centre), "south", lambda: states(north)["south"] == "expelled")
    federation.wait(lambda: all(states(s)["south"] == "expelled" for s in federation.here), "all to know of it")
    assert any("expelled by the members" in note for note in south.status()["notes"]), south.status()["notes"]
    assert "expelled" in south.command("doctor", code=None).out
    south.command("peer", "leave", "--yes", code=5)
    assert north.ask("peer", "show", "south")["gone"] == "expelled"
    assert north.status()["federation"]["members"] == 4
    federation.away.append(south)
    south.command("node", "stop")

    # The old copy of a home is put back: it catches up, is told so, signs nothing twice and forgets no spending.
    height, before = north.status()["height"], last_round(north)
    begun = put_back(west, tmp_path / "copy")
    federation.away.remove(west)
    federation.wait(lambda: west.status()["height"] >= height, "west to catch up")
    is_told_that_it_was_older(west, begun)
    assert spent(west) >= paid - 0.001, "what is spent stays spent"
    assert states(west)["south"] == "expelled"
    wait_counted(federation, north, "west", before)
    assert last_counted(north, "south") <= before
    federation.stop()
    federation.away.clear()
    nobody_lied(federation)
    all_verify(federation)


@pytest.mark.soak  # minutes on a busy machine
def test_a_pupil_is_removed_and_an_old_home_that_knows_nothing_of_it_is_put_back(
    found: Callable[[], Federation], tmp_path: Path
) -> None:
    federation, (north, east, _, west) = founded(found, tmp_path)
    crash(west, tmp_path / "copy")
    west.command("predict", tmp_path / "west", "--out", tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PUPILS
    assert {row["passed"] for row in rows} <= {"yes", "no"}
    start_again(west)
    seen = last_round(west)
    federation.wait(lambda: last_round(west) > seen + 10, "ten rounds, of which one surely drew the pupil")

    # A pupil is removed. Another member checks the receipt.
    def removed(name: str) -> Any:
        words = ("unlearn", "subject", PUPIL, "--yes", "--out", tmp_path / name, "--wait", 600, "--json")
        return west.command(*words).value

    def verified(name: str, key: str) -> Any:
        words = ("unlearn", "verify", tmp_path / name, "--subject", PUPIL, "--key", key, "--json")
        done = east.command(*words, code=None)
        assert done.code in (0, 7), done.out + done.err  # 7: no update was in force that could show it
        return done.value

    assert removed("receipt")["withdrawn_updates"] >= 1
    east.command("unlearn", "verify", tmp_path / "receipt", "--subject", PUPIL, "--key", "00" * 32, code=6)
    wait_counted(federation, west, "west", last_round(west))
    verdict = verified("receipt-2", removed("receipt-2")["key"])
    assert (verdict["result"], verdict["institution_name"]) == ("verified", "west")
    east.command("unlearn", "verify")

    # An old copy is put back, which has forgotten that the pupil is left out: it trains nothing until that is mended.
    paid, before = spent(west), last_counted(north, "west")
    west.command("node", "stop")
    begun = put_back(west, tmp_path / "copy")
    is_told_that_it_was_older(west, begun)
    assert "unlearn subject" in " ".join(begun["older"]), begun
    assert spent(west) >= paid - 0.001, "what is spent stays spent"
    assert not begun["trains"], begun
    federation.wait(lambda: west.status()["live"]["removals_unknown"], "west to hear of its own withdrawals")
    assert "trains nothing" in " ".join(west.command("node", "status").out.split())
    again = last_round(north)
    federation.wait(lambda: last_round(north) > again + 2, "the others to go on")
    assert last_counted(north, "west") <= max(before, again), "nothing was trained"
    removed("receipt-3")
    assert west.command("unlearn", "resume", "--yes", "--json").value == {"resumed": True}
    wait_counted(federation, west, "west", last_round(west))
    assert verified("receipt-4", removed("receipt-4")["key"])["result"] == "verified"
    federation.stop()
    nobody_lied(federation)
    all_verify(federation)
