"""The features of a modality by the names that people know: columns, passages, pixels, parts of a picture or sound.

The learner explains numbers [T, width]; here is which of them belong to which column, and what a record's own number
means in the units of its table.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .entries import CategoricalColumn, Column, Manifest, ModalityEntry, NumericColumn
from .modalities import declared_columns
from .sensitive import sensitive

GRID = 4  # parts of a picture along each side, and of a sound's tones
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: its `steps` and `numbers` in a modality's values [T, width].

    `trait`: a fact about a person that nobody can change, or that the law protects. `changeable`: a column of a
    table, and no trait: another value of it may be suggested.
    """

    name: str
    steps: tuple[int, ...]
    numbers: tuple[int, ...]
    column: Column | None = None
    trait: bool = False
    changeable: bool = False

    def sum(self, values: Floats) -> float:
        """Return the sum of a modality's numbers [T, width] that are this feature's."""
        return float(values[np.ix_(self.steps, self.numbers)].sum())


def features_of(manifest: Manifest, entry: ModalityEntry, length: int, width: int) -> tuple[Feature, ...]:
    """Return the features of a modality whose records are [length, width] numbers, each number in one of them."""
    steps = tuple(range(length))
    if entry.kind == "text":
        return tuple(Feature(_passage(entry, step), (step,), tuple(range(width))) for step in steps)
    columns = () if entry.file else declared_columns(manifest, entry)
    if sum(column.width for column in columns) == width:
        protected = {group.name for group in manifest.groups}
        found, at = [], 0
        for column in columns:
            trait = column.immutable or column.name in protected or bool(sensitive(column.name))
            numbers = tuple(range(at, at + column.width))
            found.append(Feature(column.name, steps, numbers, column, trait, entry.kind == "tabular" and not trait))
            at += column.width
        return tuple(found)
    if entry.kind == "image" and width == entry.size**2:
        return _tiles(entry.size)
    if entry.kind == "audio" and entry.audio is not None and width == entry.audio.bands:
        parts = [tuple(map(int, part)) for part in np.array_split(np.arange(width), GRID) if part.size]
        return tuple(Feature(f"tones {part[0] + 1} to {part[-1] + 1} of {width}", steps, part) for part in parts)
    return (Feature(f"the whole {entry.kind}", steps, tuple(range(width))),)


def _passage(entry: ModalityEntry, step: int) -> str:
    segment = entry.segments[step % len(entry.segments)]
    several = entry.max_len > len(entry.segments)
    return f"{segment}, text {step // len(entry.segments) + 1}" if several else segment


def _tiles(size: int) -> tuple[Feature, ...]:
    """Return the tiles of a picture of size² pixels, in rows from the top."""
    edges = [part for part in np.array_split(np.arange(size), GRID) if part.size]
    return tuple(
        Feature(f"row {r + 1}, column {c + 1}", (0,), tuple(int(y * size + x) for y in rows for x in columns))
        for r, rows in enumerate(edges)
        for c, columns in enumerate(edges)
    )


def baseline(features: tuple[Feature, ...], length: int, width: int) -> Floats:
    """Return the record that explanations start from, [T, width]: a number in the middle of its declared bounds, a
    level as each of its levels in equal parts, zero for whatever has neither."""
    values = np.zeros((length, width))
    for feature in features:
        if isinstance(feature.column, CategoricalColumn):
            levels = feature.numbers[: len(feature.column.levels)]
            values[:, levels] = 1.0 / len(levels)
    return values


def value_text(feature: Feature, values: npt.NDArray[np.float32], steps: npt.NDArray[np.bool_]) -> str:
    """Return a record's own value of a feature, from its values [T, width] and valid steps [T]; "" where it has none
    that a few words could say. Of several steps it is the last one's, and says so."""
    there = np.flatnonzero(steps)
    if feature.column is None or not there.size:
        return ""
    own, last = values[there[-1], list(feature.numbers)], f", the last of {there.size}" if there.size > 1 else ""
    match feature.column:
        case CategoricalColumn(levels=levels):
            return ("missing" if not own.any() else (*levels, "another one")[int(own.argmax())]) + last
        case NumericColumn(low=low, high=high, missing=missing):
            gone = missing and own[1] > 0.5
            return ("missing" if gone else f"{low + (float(own[0]) + 1.0) / 2.0 * (high - low):.4g}") + last


def others(feature: Feature, own: npt.NDArray[np.float32], count: int) -> list[tuple[str, Floats]]:
    """Return other values that a changeable feature can have, nearest first: in words, and as its numbers."""
    found: list[tuple[str, Floats]] = []
    match feature.column:
        case CategoricalColumn(levels=levels):
            for number, level in enumerate(levels):
                if own[number] < 0.5:
                    found.append((level, np.eye(len(levels) + 1)[number]))
        case NumericColumn(low=low, high=high, missing=missing):
            values = sorted(np.linspace(-1.0, 1.0, count).tolist(), key=lambda value: abs(value - float(own[0])))
            if missing and own[1] > 0.5:
                return []
            for value in values:
                if abs(value - float(own[0])) > 1e-6:
                    number_text = f"{low + (value + 1.0) / 2.0 * (high - low):.4g}"
                    found.append((number_text, np.array([value, 0.0] if missing else [value])))
        case None:
            pass
    return found
