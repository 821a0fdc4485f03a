"""Four schools found a federation over the network, by commands alone; Ctrl-C in between loses nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .schools import Federation, Going, School, collegium, free_address
from .test_changes import pupils

EAST, SOUTH, WEST = "the school in the east", "south", "west"


def states(founder: Going) -> dict[str, str]:
    """How each invited member stands, by the founder's last line."""
    listings = [line["members"] for line in founder.lines if "members" in line]
    return {one["invited_as"]: one["state"] for one in listings[-1]} if listings else {}


def invitations(founder: Going) -> dict[str, str]:
    founder.until(lambda: any("invitations" in line for line in founder.lines), "invitations")
    return {one["name"]: one["invitation"] for one in founder.lines[0]["invitations"]}


def found_over_the_network(federation: Federation, *options: object) -> None:
    """Found a federation of all these schools: the first draws it up, the others join by its invitations."""
    first, *others = federation.schools
    invited = [word for school in others for word in ("--invite", school.name)]
    founder = federation.go(first, "charter", "found", "--name", "week", *options, *invited, "--yes", "--json")
    given = invitations(founder)
    for joining in [federation.go(school, "join", given[school.name], "--yes") for school in others]:
        joining.end()
    founder.end()
    assert founder.lines[-1]["complete"]


@pytest.mark.soak  # test_week.py founds one without interruptions, cli/test_founding.py interrupts a smaller one
def test_four_schools_found_a_federation(found: Callable[[], Federation], tmp_path: Path) -> None:
    folders = {name: pupils(tmp_path / name, seed) for seed, name in enumerate(("north", "east", SOUTH, WEST), 1)}
    model = tmp_path / "model.toml"
    model.write_text(collegium("charter", "model", *folders.values()).out)
    federation = found()
    north, east, south = (federation.init(name, folders[name], lot_size=12) for name in ("north", "east", SOUTH))
    west = School(WEST, federation.root / WEST)  # it has no home before it joins
    federation.schools.append(west)
    words: tuple[object, ...] = ("charter", "found", "--name", "district", "--model", model, "--epsilon", 100)
    words += ("--rounds", 20, "--yes", "--json", *(w for name in (EAST, SOUTH, WEST) for w in ("--invite", name)))

    # One comes, the founder is interrupted, and goes on with the same invitations.
    founder = federation.go(north, *words)
    given = invitations(founder)
    in_the_east = federation.go(east, "join", given[EAST], "--yes")
    founder.until(lambda: states(founder).get(EAST) == "joined", "the first member")
    assert "Nothing is lost" in founder.end(130, interrupt=True).err
    in_the_east.until(lambda: "trying again" in in_the_east.err, "that the founder is away")
    founder = federation.go(north, *words)
    again = invitations(founder)
    assert again == {name: given[name] for name in (SOUTH, WEST)}, "who has come needs none"

    # A member is interrupted while it waits; all are in when the last one comes, in a home that joining makes.
    in_the_south = federation.go(south, "join", given[SOUTH], "--yes")
    in_the_south.until(lambda: f"waiting for {WEST} to come" in in_the_south.err, "a wait for the last member")
    in_the_south.end(130, interrupt=True)
    options = ("--name", WEST, "--listen", free_address(), "--data", folders[WEST], "--lot-size", 12, "--yes")
    in_the_west = federation.go(west, "join", given[WEST], *options)
    founder.until(lambda: all(states(founder).get(n) == "signed" for n in (EAST, WEST)), "two signatures")
    (review,) = [line["review"] for line in founder.lines if "review" in line]
    assert [m["name"] for m in review["members"]] == ["east", "north", "south", "west"]

    # What was signed stays: others options, and to go on without somebody, are refused by the names of who signed.
    founder.end(130, interrupt=True)
    for more in (("--rounds", 19), ("--without", SOUTH), ("--invite", "a fifth")):
        refused = north.command(*words, *more, code=5).out
        assert "east, west signed the draft" in refused, refused

    in_the_south = federation.go(south, "join", given[SOUTH], "--yes")
    in_the_south.until(lambda: "trying again" in in_the_south.err, "that the founder is away")
    founder = federation.go(north, *words)
    for member in (in_the_east, in_the_south, in_the_west):
        text = member.end().out
        assert "What leaves this house" in text
        assert "signed by everybody" in text
        assert review["fingerprint"] in text
    founder.end()
    assert founder.lines[-1]["complete"]
    charters = {(school.home / "charter.bin").read_bytes() for school in federation.schools}
    assert len(charters) == 1, "each has the same file"
    assert south.command("join", given[SOUTH]).out == south.command("join", given[SOUTH]).out  # it is all done
    north.command(*words)
