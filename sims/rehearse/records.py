"""Synthetic students of the shape that a charter declares, as data folders that the learner reads like any other.

Each student has a few hidden traits. Every modality shows all traits under noise, and every task's label depends on
them: a signal that can be learned, the same at all members. No real data have it, so figures on it say what the
noise of a recipe allows at the most.
"""

import json
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from ...crypto.errors import LocalProtocolError, UsageError
from ...node.data.manifest import MANIFEST
from ...protocol.learning import Learning, Modality, Task

TRAITS = 3
BLUR = 0.5  # the noise's standard deviation on features and labels; the traits' is 1
REACH = 2.5  # standard deviations that a declared bound is away
WORDS = 12  # of a text
PIXELS, BANDS, SECOND = 256, 8, 100  # of a picture that a pretrained model reads, and of a second of sound
RATE = 8000  # samples a second of a clip
MAX_NUMBERS = 200_000_000  # of all members together
Floats = npt.NDArray[np.float64]
Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """Students of one member: so many to train on, so many held out."""

    train: int
    held_out: int

    @property
    def all(self) -> int:
        """Both together."""
        return self.train + self.held_out


def check_size(learning: Learning, members: int, size: Size) -> None:
    """Refuse records that would not fit into memory. Raises UsageError."""
    numbers = members * size.all * sum(modality.width * modality.length for modality in learning.modalities)
    if numbers > MAX_NUMBERS:
        raise UsageError(
            f"{members} members of {size.train:,} students would have {numbers:,} numbers",
            f"Rehearse with fewer students: at most {MAX_NUMBERS:,} numbers are simulated.",
        )


def write(
    folder: Path, learning: Learning, members: int, size: Size, seed: int, tick: Callable[[int], None]
) -> list[Path]:
    """Write a data folder for each member below `folder`; return them. A seed makes the same records again."""
    shared = np.random.default_rng([seed, 0])
    shapes = map(_before_the_model, learning.modalities)
    views = {m.name: shared.normal(size=(TRAITS, _features(m))) for m in shapes}
    rules = {t.name: shared.normal(size=(TRAITS, _forms(t))) for t in learning.tasks}
    made = []
    for number in range(1, members + 1):
        member = folder / f"member-{number}"
        member.mkdir()
        _write_member(member, learning, views, rules, size, np.random.default_rng([seed, number]))
        made.append(member)
        tick(number)
    return made


def _write_member(
    folder: Path,
    learning: Learning,
    views: dict[str, Floats],
    rules: dict[str, Floats],
    size: Size,
    chance: np.random.Generator,
) -> None:
    traits = chance.normal(size=(size.all, TRAITS))
    unit: Columns = {"student": [f"simulated-{number}" for number in range(size.all)]}
    unit["part"] = ["train"] * size.train + ["test"] * size.held_out
    lines = ["format = 1", "[unit]", 'subject = "student"', 'table = "students"']
    lines += ["[tables.students]", 'path = "students.parquet"', 'key = "student"']
    entries: list[str] = []
    for place, modality in enumerate(map(_before_the_model, learning.modalities)):
        seen = traits @ views[modality.name] / np.sqrt(np.square(views[modality.name]).sum(0))
        entries += ["[[modality]]", f"name = {json.dumps(modality.name)}", f'kind = "{modality.kind}"']
        match modality.kind:
            case "series":
                table = f"series{place}"
                entries += [f'table = "{table}"', 'time = "time"', f"max_len = {modality.length}"]
                entries += [_bounded_columns(modality.width)]
                lines += [f"[tables.{table}]", f'path = "{table}.parquet"', 'key = "student"']
                _save(folder / f"{table}.parquet", _series(unit["student"], seen, modality, chance))
            case "text":
                names = [f"text{place}_{number}" for number in range(modality.length)]
                entries.append(f"columns = {json.dumps(names)}")
                unit |= {name: _texts(traits, chance) for name in names}
            case "audio":
                seconds = max(0.25, modality.length / 100)
                entries += [f'file = "clip{place}"', f"rate = {RATE}", f"max_seconds = {seconds}"]
                entries += [f"bands = {modality.width}", f"frames = {modality.length}"]
                unit[f"clip{place}"] = _clips(folder, place, seen, seconds, chance)
            case "image":
                entries += [f'prefix = "pixel{place}_"', "low = -1", "high = 1"]
                unit |= _numbers(f"pixel{place}_", seen, chance)
            case "tabular":
                entries.append(_bounded_columns(modality.width, f"m{place}_"))
                unit |= _numbers(f"m{place}_", seen, chance)
            case unknown:
                raise LocalProtocolError(f"no kind of modality: {unknown!r}")
    for place, task in enumerate(learning.tasks):
        entries += ["[[task]]", f"name = {json.dumps(task.name)}", f'kind = "{task.kind}"', f'column = "label{place}"']
        form = traits @ rules[task.name] / np.sqrt(np.square(rules[task.name]).sum(0))
        unit[f"label{place}"], declared = _labels(task, form + chance.normal(scale=BLUR, size=form.shape))
        entries += declared
    _save(folder / "students.parquet", unit)
    split = ["[split]", 'column = "part"']
    (folder / MANIFEST).write_text("\n".join([*lines, *entries, *split]) + "\n", encoding="utf-8")


def _before_the_model(modality: Modality) -> Modality:
    """Return the shape of the records that a pretrained model of images or sound reads."""
    if not modality.pretrained or modality.kind == "text":
        return modality
    width, length = (PIXELS, 1) if modality.kind == "image" else (BANDS, SECOND)
    return replace(modality, width=width, length=length)


def _features(modality: Modality) -> int:
    return 1 if modality.kind == "text" else modality.width


def _forms(task: Task) -> int:
    return 1 if task.kind in {"binary", "ordinal", "regression"} else task.classes


def _bounded_columns(width: int, prefix: str = "f") -> str:
    columns = ", ".join(f'{{ name = "{prefix}{number}", low = -1, high = 1 }}' for number in range(width))
    return f"columns = [{columns}]"


def _blurred_features(seen: Floats, chance: np.random.Generator) -> Floats:
    blurred: Floats = np.clip((seen + chance.normal(scale=BLUR, size=seen.shape)) / REACH, -1.0, 1.0)
    return blurred


def _numbers(prefix: str, seen: Floats, chance: np.random.Generator) -> Columns:
    return {f"{prefix}{number}": column for number, column in enumerate(_blurred_features(seen, chance).T)}


def _series(students: Sequence[str], seen: Floats, modality: Modality, chance: np.random.Generator) -> Columns:
    steps = modality.length
    rows = np.repeat(seen, steps, axis=0)
    columns: Columns = {"student": np.repeat(np.array(students, dtype=object), steps).tolist()}
    return columns | {"time": np.tile(np.arange(steps), len(students)), **_numbers("f", rows, chance)}


def _texts(traits: Floats, chance: np.random.Generator) -> list[str]:
    """Return a text of each student, whose words say which traits are above 0, most of the time."""
    which = chance.integers(TRAITS, size=(len(traits), WORDS))
    above = np.take_along_axis(traits, which, axis=1) + chance.normal(scale=BLUR, size=which.shape) > 0
    words = (("stone", "sea"), ("winter", "summer"), ("never", "always"))
    return [
        " ".join(words[trait][int(up)] for trait, up in zip(*row, strict=True))
        for row in zip(which.tolist(), above.tolist(), strict=True)
    ]


def _clips(folder: Path, place: int, seen: Floats, seconds: float, chance: np.random.Generator) -> list[str]:
    """Write a clip of each student, in which each band's loudness is a feature; return the paths."""
    time = np.arange(int(RATE * seconds)) / RATE
    top = 2595.0 * np.log10(1.0 + RATE / 2.0 / 700.0)
    tones = 700.0 * (10.0 ** (np.linspace(0.0, top, seen.shape[1] + 2)[1:-1] / 2595.0) - 1.0)
    waves = np.sin(2.0 * np.pi * tones[:, None] * time)
    names = []
    for number, loud in enumerate(_blurred_features(seen, chance)):
        sound = (10.0 ** (loud - 1.5)) @ waves / np.sqrt(len(tones))
        name = f"clip{place}-{number}.wav"
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((np.clip(sound, -1.0, 1.0) * 32767).astype("<i2").tobytes())
        names.append(name)
    return names


def _labels(task: Task, form: Floats) -> tuple[list[Any], list[str]]:
    """Return the students' labels and the keys of dataset.toml that declare them."""
    names = [f"class {number}" for number in range(task.classes)]
    spread = float(np.sqrt(1.0 + BLUR**2))
    if task.kind == "binary":
        return ["yes" if value > 0 else "no" for value in form[:, 0]], ['positive = ["yes"]']
    if task.kind == "regression":
        return np.clip(form[:, 0] / spread / REACH, -1.0, 1.0).tolist(), ["low = -1", "high = 1"]
    if task.kind == "multilabel":
        cells = [";".join(name for name, up in zip(names, row, strict=True) if up) or "none" for row in form > 0]
        return cells, [f"classes = {json.dumps(names)}"]
    if task.kind == "ordinal":
        edges = np.linspace(-1.5, 1.5, task.classes + 1)[1:-1] * spread
        chosen = np.searchsorted(edges, form[:, 0])
    else:
        chosen = form.argmax(axis=1)
    return [names[number] for number in chosen.tolist()], [f"classes = {json.dumps(names)}"]


def _save(path: Path, columns: Columns) -> None:
    pyarrow.parquet.write_table(pa.table(columns), path)
