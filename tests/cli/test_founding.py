"""`charter found` and `join` in real processes: refusals, wrong invitations, a changed draft, the founder's table."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.identity import Identity
from collegium.node.home.invitations import FOUNDING_PREFIX, from_text, to_text
from collegium.protocol.signing import sign

from ..firstweek.schools import Federation, Going, School, federations
from ..firstweek.test_founding import invitations, states
from .terminal import Terminal

COLLEGIUM = (sys.executable, "-P", "-m", "collegium.cli.main")
FOUND = ("charter", "found", "--name", "t", "--preset", "digits", "--no-dp", "--fault-model", "crash")


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Callable[[], Federation]]:
    with federations(tmp_path) as make:
        yield make


@pytest.fixture
def at_a_terminal() -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(school: School, *words: object) -> Terminal:
        started.append(Terminal([*COLLEGIUM, "--home", str(school.home), *map(str, words)]))
        return started[-1]

    yield start
    for process in started:
        process.kill()


MARKS = """format = 1
[unit]
subject = "pupil"
table = "marks"
[tables.marks]
path = "marks.csv"
key = "pupil"
[[modality]]
name = "marks"
kind = "tabular"
columns = [{ name = "hours", low = 0, high = 40 }]
[[task]]
name = "grade"
kind = "binary"
column = "result"
positive = ["pass"]
[split]
share = 0.5
salt = "x"
"""


def three(federation: Federation) -> tuple[School, School, School]:
    north, east, west = (federation.init(name, None) for name in ("north", "east", "west"))
    return north, east, west


def found_by(federation: Federation, school: School, *more: object) -> tuple[Going, dict[str, str]]:
    founder = federation.go(school, *FOUND, "--yes", "--json", *more)
    return founder, invitations(founder)


def test_who_refuses_is_seen_and_left_out(
    found: Callable[[], Federation], at_a_terminal: Callable[..., Terminal]
) -> None:
    federation = found()
    north, east, west = three(federation)
    words = (*FOUND, "--invite", "east", "--invite", "west")
    founder = at_a_terminal(north, *words)
    founder.until(lambda screen: "Ctrl-C loses nothing" in screen.text)
    texts = "".join(line for line in founder.screen.scroll.splitlines()).split("collegium join ")[1:]
    given = [text.partition("For ")[0].partition("Send each")[0].strip() for text in texts]
    assert all(from_text(text).value.name == name for text, name in zip(given, ("east", "west"), strict=True))
    in_the_east = federation.go(east, "join", given[0], "--yes")
    founder.until(lambda screen: any("east" in x and "has come" in x for x in screen.lines))
    assert all(len(line) <= 80 for line in founder.screen.lines)
    (row,) = [line for line in founder.screen.lines if line.startswith("east") and "has come" in line]
    assert re.search(r"(\d{5} ){4}\d{5}$", row), "digits to be read aloud stand on one line"
    in_the_west = at_a_terminal(west, "join", given[1])
    founder.until(lambda screen: "put it to the others? [y/N]" in screen.text)
    founder.send("y\n")
    in_the_west.until(lambda screen: "Sign this charter? [y/N]" in screen.text)
    in_the_west.send("n\n")
    assert "you refuse this charter" in in_the_west.end().scroll
    assert in_the_west.code == 5
    founder.until(lambda screen: any("west" in x and "REFUSES the charter" in x for x in screen.lines))
    in_the_east.until(lambda: "west refuses the draft" in in_the_east.err, "the refusal of another")
    founder.until(lambda screen: any(x.startswith("east") and "signed" in x for x in screen.lines))  # it is kept
    assert "Nothing is lost" in founder.end(interrupt=True).scroll
    assert founder.code == 130
    refused = north.command(*FOUND, "--yes", "--without", "west", code=5).err
    assert "west cannot be left out any more: east signed the draft" in refused


def test_one_that_never_comes_is_left_out(found: Callable[[], Federation]) -> None:
    federation = found()
    north, east, west = three(federation)
    founder, given = found_by(federation, north, "--invite", "east", "--invite", "west")
    config, folder = east.home / "config.toml", federation.root / "marks"
    folder.mkdir()
    (folder / "dataset.toml").write_text(MARKS)
    before = config.read_text()
    unfitting = before.replace('path = ""', f'path = "{folder}"').replace('policy = "dp"', 'policy = "open"')
    config.write_text(unfitting)
    unfit = federation.go(east, "join", given["east"], "--yes", "--json")
    founder.until(lambda: states(founder).get("east") == "joined", "the first")
    founder.end(130, interrupt=True)
    founder = federation.go(north, *FOUND, "--yes", "--json", "--without", "west")
    refused = " ".join(unfit.end(5).out.split())
    assert "it has modalities marks and tasks grade, the charter modalities image and tasks digit" in refused
    config.write_text(before)
    in_the_east = federation.go(east, "join", given["east"], "--yes", "--json")
    founder.end()
    assert {m["name"] for m in in_the_east.end().value["members"]} == {"north", "east"}
    north.command(*FOUND, "--yes")  # all is done
    for more in (("--deadline", 61), ("--invite", "south")):
        refused = north.command(*FOUND, "--yes", *more, code=5).err
        assert "east signed the draft" in " ".join(refused.split()), "what is signed stays, and is not passed over"
    late = west.command("join", given["west"], code=4)  # nobody is there any more
    assert "no address of the invitation can be reached" in late.err


def test_a_wrong_invitation_is_refused_with_what_to_do(found: Callable[[], Federation]) -> None:
    federation = found()
    north, east, west = three(federation)
    founder, given = found_by(federation, north, "--invite", "east", "--invite", "west")

    def told(school: School, code: int, *words: object) -> str:
        return " ".join(school.command("join", *words, code=code).err.split())

    assert "no intact invitation" in told(east, 2, given["east"][:-9])
    assert "no intact invitation" in told(east, 2, given["east"].replace(FOUNDING_PREFIX, "collegium:")[:-4])
    key = Identity.generate()
    forged = replace(from_text(given["east"]).value, author=key.public_key)
    text = to_text(sign(key, forged), FOUNDING_PREFIX)
    assert "no address of the invitation can be reached" in told(east, 4, text), "another's key at that address"
    (east.home / "invited.bin").unlink()
    text = to_text(sign(key, replace(forged, expires=1)), FOUNDING_PREFIX)
    assert "this invitation has expired" in told(east, 5, text)
    assert "founds a federation itself" in told(north, 2, given["east"])

    in_the_east = federation.go(east, "join", given["east"], "--yes")
    founder.until(lambda: states(founder).get("east") == "joined", "the first")
    assert "invitation-used" in told(west, 5, given["east"])
    assert "takes part in a founding by another invitation" in told(west, 2, given["west"])
    (west.home / "invited.bin").unlink()
    assert "name-taken" in told(west, 5, given["west"], "--name", "east")
    assert "at this moment" in told(east, 2, given["east"]), "two commands in one home"
    again = federation.go(west, "join", given["west"], "--name", "west", "--yes")
    founder.end()
    again.end()
    in_the_east.end()
    assert "takes part in a founding by another invitation" in told(west, 2, given["east"])


def test_a_draft_that_changed_after_a_member_signed_is_refused_by_name(
    found: Callable[[], Federation], tmp_path: Path
) -> None:
    """The founder puts an old copy of its home back, which knows of no signature, and draws up another charter."""
    federation = found()
    north, east, west = three(federation)
    founder, given = found_by(federation, north, "--invite", "east", "--invite", "west")
    in_the_east = federation.go(east, "join", given["east"], "--yes")
    founder.until(lambda: states(founder).get("east") == "joined", "the first")
    shutil.copytree(north.home, tmp_path / "old")
    in_the_west = federation.go(west, "join", given["west"])  # nobody to ask: it reviews, and signs nothing
    assert "There is no terminal to ask at" in in_the_west.end(2).err
    founder.until(lambda: states(founder) == {"east": "signed", "west": "reviewed"}, "a signature")
    founder.end(130, interrupt=True)
    shutil.rmtree(north.home)
    (tmp_path / "old").rename(north.home)
    founder, _ = found_by(federation, north, "--rounds", "7")
    again = federation.go(west, "join", given["west"], "--yes")
    refused = in_the_east.end(5).err
    assert "the founder 'north' changed the draft after this member signed it" in refused
    assert "has changed the draft" not in refused
    founder.until(lambda: states(founder).get("west") == "signed", "the other, which had not signed")
    again.kill()
    assert "changed the draft after" in east.command("join", given["east"], code=5).err
