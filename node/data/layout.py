"""The meaning of a modality's features and a task's labels, as `dataset.toml` declares it.

Institutions with the same layout turn the same record into the same numbers: the names and order of columns, levels and
classes, and the bounds. Where the tables lie, and how their files name records, is each institution's own.
"""

from collections.abc import Iterator
from itertools import islice, permutations
from typing import Any, TypeAlias

from ...crypto.hashing import digest
from ...protocol.codec import encode
from .entries import CategoricalColumn, Column, ModalityEntry, TaskEntry

Layout: TypeAlias = dict[str, Any]
"""A canonical map (protocol/codec.py); numbers that are no whole numbers are text, as Python's repr writes them."""

TRIED, SWAPPED, GUESSES = 6, 64, 5000  # items of a list tried in every order, with two exchanged; layouts tried


def modality_layout(entry: ModalityEntry) -> Layout:
    """Return the layout of a modality."""
    layout: Layout = {"kind": entry.kind}
    if entry.columns:
        layout["columns"] = [_column(column) for column in entry.columns]
    if entry.kind == "series":
        layout |= {"time": entry.time, "until": repr(float(entry.until))}
        layout |= {"max_len": entry.max_len, "resample": int(entry.resample)}
        layout |= {"slot": entry.slot, "slots": list(entry.slots)} if entry.slot else {}
    elif entry.kind == "text":
        layout["columns"] = list(entry.segments)
        if entry.order:
            layout |= {"order": entry.order, "texts": entry.texts, "separator": entry.separator}
    elif entry.kind == "image":
        layout |= {"prefix": entry.prefix, "low": repr(float(entry.low)), "high": repr(float(entry.high))}
        layout |= {"size": entry.size, "invert": int(entry.invert)}
    elif entry.audio is not None:
        audio = entry.audio
        layout |= {"rate": audio.rate, "max_seconds": repr(float(audio.max_seconds)), "bands": audio.bands}
        layout |= {"frames": audio.frames, "normalise": int(audio.normalise)}
    return layout


def task_layout(task: TaskEntry) -> Layout:
    """Return the layout of a task. Of the values that count as positive the order means nothing."""
    layout: Layout = {"kind": task.kind}
    if task.kind == "binary":
        layout["positive"] = sorted(task.positive)
    elif task.kind == "regression":
        layout |= {"low": repr(float(task.low)), "high": repr(float(task.high))}
    elif task.kind == "generate":
        layout["max_tokens"] = task.tokens
    else:
        layout["classes"] = list(task.classes)
    return layout


def layout_digest(layout: Layout) -> bytes:
    """Return the 32 bytes by which a charter states a layout."""
    return digest("layout", encode(layout))


def difference(first: Layout, second: Layout) -> str:
    """Say where two layouts first differ: "classes: ['a', 'b']; ['b', 'a']"; "" if they do not."""
    return _difference(first, second, "")


def described(layout: Layout) -> str:
    """Return a layout in words: "kind: tabular; columns: age (low 0.0, high 99.0, missing 0), town (levels a, b)"."""
    return "; ".join(f"{key}: {_value_text(value)}" for key, value in layout.items())


def guess(own: Layout, wanted: bytes) -> Layout | None:
    """Return the layout with the digest `wanted` if it is `own` with one list in another order, else None.

    A digest does not show its input. Orders of few items, and two items exchanged, can be tried.
    """
    return next(
        (candidate for candidate in islice(_reordered(own), GUESSES) if layout_digest(candidate) == wanted), None
    )


def _column(column: Column) -> Layout:
    if isinstance(column, CategoricalColumn):
        return {"name": column.name, "levels": list(column.levels)}
    return {
        "name": column.name, "low": repr(float(column.low)), "high": repr(float(column.high)),
        "missing": int(column.missing),
    }  # fmt: skip


def _difference(first: Any, second: Any, at: str) -> str:
    if first == second:
        return ""
    if isinstance(first, dict) and isinstance(second, dict) and first.get("name") == second.get("name"):
        keys = dict.fromkeys([*first, *second])
        within = f"{at} {first['name']!r}" if "name" in first else at
        return next(filter(None, (_difference(first.get(k), second.get(k), f"{within} {k}".strip()) for k in keys)))
    if isinstance(first, list) and isinstance(second, list) and _names(first) == _names(second) != []:
        return next(filter(None, (_difference(a, b, at) for a, b in zip(first, second, strict=True))))
    return f"{at}: {_shown(first)}; {_shown(second)}"


def _names(items: list[Any]) -> list[str]:
    return [item["name"] for item in items if isinstance(item, dict)]


def _value_text(value: Any) -> str:
    """Return a value whole, columns with what they declare."""
    if isinstance(value, list):
        return ", ".join(map(_value_text, value))
    if isinstance(value, dict) and "name" in value:
        return f"{value['name']} ({', '.join(f'{k} {_value_text(v)}' for k, v in value.items() if k != 'name')})"
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_names(value) or map(str, value))
    return described(value) if isinstance(value, dict) else str(value)


def _reordered(value: Any) -> Iterator[Any]:
    """Yield a value with one of the lists in it in another order."""
    if isinstance(value, dict):
        for key, inner in value.items():
            for reordered in _reordered(inner):
                yield {**value, key: reordered}
    elif isinstance(value, list):
        if len(value) <= TRIED:
            yield from map(list, permutations(value))
        else:
            yield sorted(value, key=str)
            for a in range(len(value) if len(value) <= SWAPPED else 0):
                for b in range(a):
                    swapped = list(value)
                    swapped[a], swapped[b] = swapped[b], swapped[a]
                    yield swapped
        for index, inner in enumerate(value):
            for reordered in _reordered(inner):
                yield [*value[:index], reordered, *value[index + 1 :]]
