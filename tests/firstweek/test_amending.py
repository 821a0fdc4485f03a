"""G10 with real daemons: a federation that trains tables opens a voice with a digit task, and nobody starts anew."""

import math
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.node.home import Home, running

from .schools import Federation, School

Found = Callable[[], Federation]
PUPILS = 48
RATE = 8000
OLD = """
[model]
hidden = 16
[training]
steps = 2
students = 48
[[modality]]
name = "person"
kind = "tabular"
width = 1
privacy = "open"
[[task]]
name = "passed"
kind = "binary"
modalities = ["person"]
"""
NEW = (
    OLD
    + """
[[modality]]
name = "voice"
kind = "audio"
width = 32
length = 32
privacy = "open"
[[task]]
name = "digit"
kind = "binary"
modalities = ["person", "voice"]
"""
)
TABLE = """format = 1
[unit]
subject = "Pupil"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "Pupil"
[[modality]]
name = "person"
kind = "tabular"
columns = [{ name = "Age", low = 10, high = 20 }]
[split]
share = 0.25
salt = "2026"
[[task]]
name = "passed"
kind = "binary"
column = "Passed"
positive = ["yes"]
"""
VOICE = """
[[modality]]
name = "voice"
kind = "audio"
file = "Clip"
rate = 8000
max_seconds = 0.25
[[task]]
name = "digit"
kind = "binary"
column = "Digit"
positive = ["one"]
"""


def write_pupils(folder: Path, seed: int) -> None:
    """A table, and a clip of a low or a high tone for each pupil, which dataset.toml does not name yet."""
    folder.mkdir()
    rows = ["Pupil,Age,Passed,Clip,Digit"]
    for number in range(PUPILS):
        age, one = 11 + (number * 7 + seed) % 8, (number + seed) % 2
        clip = f"clip-{number}.wav"
        rows.append(f"S{seed}-{number},{age},{'yes' if age > 14 else 'no'},{clip},{'one' if one else 'two'}")
        tone = [int(9000 * math.sin(2 * math.pi * (1500 if one else 400) * t / RATE)) for t in range(RATE // 4)]
        with wave.open(str(folder / clip), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(struct.pack(f"<{len(tone)}h", *tone))
    (folder / "pupils.csv").write_text("\n".join(rows) + "\n")
    (folder / "dataset.toml").write_text(TABLE)


def predicted(school: School, data: Path) -> list[tuple[Any, Any]]:
    found = school.ask("predict", data, "--task", "passed")["predictions"]
    return [
        (row["passed"], [value for key, value in sorted(row.items()) if key.startswith("passed:")]) for row in found
    ]


@pytest.mark.soak
def test_g10_a_running_federation_opens_a_voice_and_a_task(found: Found, tmp_path: Path) -> None:
    federation, folders = found(), [tmp_path / f"data-{n}" for n in range(4)]
    for number, folder in enumerate(folders):
        write_pupils(folder, number)
        federation.init(f"school-{number}", folder, lot_size=12)
    for school in federation.schools:
        config = school.home / "config.toml"
        config.write_text(config.read_text().replace('policy = "dp"', 'policy = "open"'))
    (tmp_path / "old.toml").write_text(OLD)
    (tmp_path / "new.toml").write_text(NEW)
    federation.charter("--model", tmp_path / "old.toml", "--rounds", 400, "--deadline", 20, "--pace", "2s", "--no-dp")
    federation.start()
    federation.wait_rounds(2, components=["head/passed"])
    pids = [running(Home(school.home)) for school in federation.schools]
    first = federation.schools[0]

    # Everybody has the new files; only the vote is missing. Nobody trains while predictions are compared.
    for folder in folders:
        (folder / "dataset.toml").write_text(TABLE + VOICE)
    federation.each("node", "pause")

    def rest() -> bool:
        shown = first.status()["components"]
        return all(c["certified_round"] == c["round"] for c in shown)

    federation.wait(rest, "the last round is certified")
    before, heights = predicted(first, folders[0]), first.status()["height"]

    words = ("charter", "amend", "--model", tmp_path / "new.toml")
    looked = first.ask(*words, "--dry-run")
    assert {"component encoder/voice", "component head/digit"} <= {change["what"] for change in looked["changes"]}
    first.command(*words, "--yes", "--reason", "spoken digits")
    (motion,) = federation.schools[1].ask("peer", "motions")["open"]
    assert motion["action"] == "amend"
    assert "head/digit" in motion["what"]
    federation.each("peer", "approve", motion["motion"], schools=federation.schools[1:3])

    def opened() -> bool:
        return all(
            any(c["component"] == "head/digit" for c in school.status()["components"]) for school in federation.schools
        )

    federation.wait(opened, "the new components are in force everywhere")
    assert predicted(first, folders[0]) == before, "equal before and after the opening block"
    history = [school.ask("charter", "history") for school in federation.schools]
    assert len({found["in_force"] for found in history}) == 1
    (amendment,) = history[0]["amendments"]
    assert amendment["passed_at_height"] > heights

    # It goes on: tables and voices, at every school, by the same daemons.
    closed = next(c for c in first.status()["components"] if c["component"] == "head/passed")["round"]
    federation.each("node", "resume")
    federation.wait_rounds(2, components=["head/digit", "encoder/voice"], counted=3)
    federation.wait_rounds(closed + 2, components=["head/passed"], counted=3)
    assert [running(Home(school.home)) for school in federation.schools] == pids
    federation.stop()
    verified = federation.schools[3].ask("ledger", "verify")
    assert verified["charter"] == {"digest": history[0]["in_force"], "amendments": 1}
