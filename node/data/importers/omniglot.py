"""Omniglot, the small background sets (Lake, Salakhutdinov, Tenenbaum 2015): handwriting as image and as strokes."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ....crypto.errors import CorruptError
from .common import Importer, Made, Options, Progress, Row, damaged, existing, listed, per_record, write_institution

SETS = ("background_small1", "background_small2")
DRAWERS = 20
_MEMBER = re.compile(r"[^/]+/([^/]+)/(character\d+)/(\d{4}_(\d{2}))\.(?:png|txt)")  # not __MACOSX, not .DS_Store


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write the drawings, dealt out by drawer; about a quarter of each institution's drawers is held out."""
    count = options.institutions
    items: dict[str, Row] = {}
    for match, image in _members([source / f"images_{name}.zip" for name in SETS], progress):
        alphabet, character, record, drawer = match.groups()
        number = int(drawer) - 1
        if not 0 <= number < DRAWERS:
            raise CorruptError(f"{source}: drawing {record} is by an unknown drawer", "Fetch the source again.")
        if record in items:
            continue  # the two sets have an alphabet in common
        owner, index = number % count, number // count
        size = len(range(owner, DRAWERS, count))
        items[record] = {
            "owner": owner, "record": record, "drawer": f"drawer-{drawer}", "alphabet": alphabet,
            "character": f"{alphabet}/{character}", "image": f"images/{record}.png",
            "side": "test" if index >= size - max(1, round(size / 4)) else "train",
        }  # fmt: skip
        path = out / f"institution-{owner + 1}" / "images" / f"{record}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    strokes: dict[str, list[tuple[float, float, int, float]]] = {}
    for match, text in _members([source / f"strokes_{name}.zip" for name in SETS], progress):
        if match[3] in items and match[3] not in strokes:
            strokes[match[3]] = _points(text, f"{source}: strokes of {match[3]}")
    alphabets = sorted({item["alphabet"] for item in items.values()})
    characters = sorted({item["character"] for item in items.values()})
    made = []
    for number in range(count):
        name = f"institution-{number + 1}"
        own = [
            {key: value for key, value in item.items() if key != "owner"}
            for item in items.values()
            if item["owner"] == number
        ]
        tables = {"items": own, "strokes": _table([item["record"] for item in own], strokes)}
        manifest = _manifest(alphabets, characters)
        write_institution(out / name, tables, per_record(manifest, "drawer") if options.unit == "record" else manifest)
        made.append((name, out / name))
    return made


UNITS = {"unit": ("drawer", "record")}
IMPORTER = Importer("handwritten characters, as image and as pen strokes", run, UNITS, least=2, most=DRAWERS // 2)


def _members(paths: list[Path], progress: Progress) -> Iterator[tuple[re.Match[str], bytes]]:
    for path in paths:
        try:
            with zipfile.ZipFile(existing(path)) as archive:
                members = [match for name in archive.namelist() if (match := _MEMBER.fullmatch(name))]
                for number, match in enumerate(members):
                    if number % 100 == 0:
                        progress(path.name, number, len(members))
                    yield match, archive.read(match[0])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise damaged(path, error) from error


def _points(raw: bytes, where: str) -> list[tuple[float, float, int, float]]:
    """Return (x, y, 1 where a stroke begins, milliseconds since the point before) of each point."""
    points: list[tuple[float, float, int, float]] = []
    begins, before = 1, None
    try:
        for line in raw.decode("ascii").split():
            if line in {"START", "BREAK"}:
                begins = 1
                continue
            x, y, time = (float(part) for part in line.split(","))
            points.append((x, -y, begins, 0.0 if before is None else time - before))
            begins, before = 0, time
    except ValueError as error:
        raise CorruptError(f"{where} cannot be read: {error}", "Fetch the source again.") from error
    return points


def _table(records: list[str], strokes: dict[str, list[tuple[float, float, int, float]]]) -> pa.Table:
    lengths = [len(strokes.get(record, ())) for record in records]
    points = np.array([point for record in records for point in strokes.get(record, ())]).reshape(-1, 4)
    return pa.table(
        {
            "record": np.repeat(np.array(records, dtype=object), lengths),
            "point": np.concatenate([np.arange(length) for length in lengths]),
            **{name: points[:, column] for column, name in enumerate(("x", "y", "begins", "pause"))},
        }
    )


def _manifest(alphabets: list[str], characters: list[str]) -> str:
    return f"""# Omniglot, background sets small 1 and 2 (Lake, Salakhutdinov, Tenenbaum 2015, MIT). The subject is
# the drawer by number. Within an alphabet a number is one person; that it is the same person in every alphabet the
# source does not promise, and to take it for one errs on the side of privacy. Drawers are held out whole.
format = 1
[unit]
subject = "drawer"
table = "items"
max_records = 256
[tables.items]
path = "items.parquet"
key = "record"
[tables.strokes]
path = "strokes.parquet"
key = "record"
[[modality]]
name = "image"
kind = "image"
table = "items"
file = "image"
size = 28
invert = true # ink is 1, paper is -1
[[modality]]
name = "strokes"
kind = "series"
table = "strokes"
time = "point"
max_len = 64
resample = true
columns = [
  {{ name = "x", low = 0, high = 105 }},
  {{ name = "y", low = 0, high = 105 }},
  {{ name = "begins", low = 0, high = 1 }},
  {{ name = "pause", low = 0, high = 500 }},
]
[[task]]
name = "alphabet"
kind = "multiclass"
column = "alphabet"
classes = {listed(alphabets)}
[[task]]
name = "character"
kind = "multiclass"
column = "character"
classes = {listed(characters)}
[split]
column = "side"
"""
