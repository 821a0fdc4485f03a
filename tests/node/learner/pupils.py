"""A school of made-up pupils: a table with traits, a series of days, a drawing; whether they pass, and their level."""

from pathlib import Path

import numpy as np

from collegium.protocol.learning import Modality, Task

MANIFEST = """
format = 1
[unit]
subject = "student"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "id"
[tables.days]
path = "days.csv"
key = "id"
[[modality]]
name = "about"
kind = "tabular"
columns = [
  { name = "hours", low = 0, high = 20, missing = true },
  { name = "age", low = 10, high = 20, immutable = true },
  { name = "gender", levels = ["f", "m"] },
  { name = "course", levels = ["a", "b", "c"] },
]
[[modality]]
name = "days"
kind = "series"
table = "days"
time = "day"
max_len = 6
columns = [{ name = "clicks", low = 0, high = 30 }, { name = "tries", low = 0, high = 5 }]
[[modality]]
name = "drawing"
kind = "image"
prefix = "p"
low = 0
high = 1
[[task]]
name = "pass"
kind = "binary"
column = "mark"
positive = ["good"]
[[task]]
name = "level"
kind = "ordinal"
column = "level"
classes = ["low", "middle", "high"]
[split]
share = 0.2
salt = "x"
"""
PUPILS, SIDE = 60, 4
ABOUT, DAYS = Modality("about", "tabular", 10, 1), Modality("days", "series", 2, 6)
DRAWING = Modality("drawing", "image", SIDE**2, 1)
READ = ("about", "days", "drawing")
TASKS = (Task("pass", "binary", 2, READ), Task("level", "ordinal", 3, READ))
WIDTH = 16


def write_pupils(folder: Path, pupils: int = PUPILS, seed: int = 3) -> Path:
    """Write the data folder of so many pupils."""
    source = np.random.default_rng(seed)
    rows, days = [f"id,student,hours,age,gender,course,mark,level,{','.join(f'p{n}' for n in range(16))}"], []
    for n in range(pupils):
        hours, light = source.uniform(0, 20), source.uniform(0, 1, SIDE**2)
        good = hours / 20 + light[:4].mean() + source.normal(0, 0.1) > 1
        level = ("low", "middle", "high")[min(2, int(hours / 7))]
        cells = ["" if n % 9 == 0 else f"{hours:.2f}", f"{source.uniform(10, 20):.1f}", "fm"[n % 2], "abc"[n % 3]]
        pixels = ",".join(f"{value:.3f}" for value in light)
        rows.append(f"r{n},s{n},{','.join(cells)},{'good' if good else 'bad'},{level},{pixels}")
        days += [f"r{n},{day},{source.integers(0, 30)},{source.integers(0, 5)}" for day in range(n % 7)]
    (folder / "dataset.toml").write_text(MANIFEST)
    (folder / "pupils.csv").write_text("\n".join(rows) + "\n")
    (folder / "days.csv").write_text("\n".join(["id,day,clicks,tries", *days]) + "\n")
    return folder
