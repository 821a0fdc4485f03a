"""What `node start` says of the learner, and data that come later: on a real daemon in a home that init made."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collegium.node.home import Home, running

from .schools import Federation, School, collegium

Found = Callable[[], Federation]
MODEL = """
[model]
hidden = 16
[training]
steps = 2
[[modality]]
name = "person"
kind = "tabular"
width = 1
[[modality]]
name = "essay"
kind = "text"
encoder = { architecture = "bert", vocabulary = 64, positions = 8 }
[[modality]]
name = "voice"
kind = "audio"
width = 32
length = 32
privacy = "open"
[[task]]
name = "passed"
kind = "binary"
[[task]]
name = "level"
kind = "ordinal"
classes = ["A1", "A2"]
"""


def alone(found: Found, data: Path, tmp_path: Path) -> tuple[Federation, School]:
    """A federation of one school, whose charter asks for more than its data have."""
    (tmp_path / "model.toml").write_text(MODEL)
    federation = found()
    school = federation.init("north", data, lot_size=12)
    federation.charter("--model", tmp_path / "model.toml", "--fault-model", "crash", "--rounds", "10")
    return federation, school


def learner(school: School) -> Any:
    """What is said of the learner; of none, while the daemon begins anew and does not answer."""
    live = school.status()["live"]
    return live["learner"] if live else {"state": "", "detail": ""}


def test_a_start_says_what_is_trained_and_data_that_come_later_are_found(
    found: Found, essays: Callable[..., Path], tmp_path: Path
) -> None:
    whole, data = essays(60, 3), tmp_path / "share" / "data"
    data.mkdir(parents=True)
    federation, school = alone(found, data, tmp_path)

    # The share is not mounted any more.
    data.rmdir()
    begun = school.command("node", "start", code=8)
    assert begun.out.startswith("running (pid ")
    assert "dataset.toml: No such file or directory" in begun.err
    assert "cannot train" in begun.err
    assert learner(school)["state"] == "waiting"
    assert any("The data folder is not there" in note for note in school.status()["notes"])
    pid = running(Home(school.home))

    # It comes, and the table is being written anew: the same daemon goes on by itself.
    shutil.copytree(whole, data)
    (data / "pupils.csv").rename(data / "pupils.csv.new")
    federation.wait(lambda: learner(school)["state"] == "failed", "the missing table is told of")
    assert "pupils.csv" in learner(school)["detail"]
    (data / "pupils.csv.new").rename(data / "pupils.csv")
    federation.wait(lambda: learner(school)["state"] in {"ready", "training"}, "the table is found")
    federation.wait_rounds(2, components=["head/passed"])
    status = school.status()
    assert status["live"]["learner"]["cut_texts"] == {"essay": 60}, "8 words are read of each"
    assert not [note for note in status["notes"] if "learner" in note or "spared" in note]

    # The share goes while the daemon runs.
    data.rename(tmp_path / "elsewhere")
    gone = f"not there any more: {data / 'dataset.toml'}: No such file or directory"
    federation.wait(lambda: gone in " ".join(school.status()["notes"]), "it is told that the data are gone")
    (tmp_path / "elsewhere").rename(data)
    federation.wait(lambda: gone not in " ".join(school.status()["notes"]), "it is told no more")
    stopped = school.ask("node", "stop")["pid"]
    assert stopped == pid

    # All is there at once.
    begun = school.command("node", "start", "--wait", 600)
    assert "modalities: essay, person\n  not in this data folder: voice\n" in begun.out
    assert "tasks: passed\n  not in this data folder: level\n" in begun.out
    assert "of 60 records only the beginning of 'essay' is read" in begun.out
    answer = collegium("--home", school.home, "node", "status")
    assert "none can be spared" not in answer.out, "one member alone waits for nobody"
    assert "learner        ready" in answer.out or "learner        training" in answer.out
    school.command("node", "stop")

    # The data are wrong.
    (data / "dataset.toml").write_text((data / "dataset.toml").read_text().replace('"Age"', '"Alter"'))
    begun = school.command("node", "start", "--wait", 600, "--json", code=8)
    assert begun.value["trains"] is False
    assert "Alter" in begun.value["learner"]["detail"]
    assert begun.value["data"]["tasks"] == {"has": ["passed"], "lacks": ["level"], "unused": []}
