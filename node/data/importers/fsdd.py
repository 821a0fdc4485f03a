"""The Free Spoken Digit Dataset (Jackson et al.): ten digits, six speakers, 8 kHz."""

import json
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ....crypto.errors import CorruptError, UsageError
from .common import Importer, Made, Options, Progress, Row, damaged, existing, listed, per_record, write_institution

RATE = 8000
TEST_INDEX = 5  # clips with a smaller index are the reference protocol's test


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write a .wav for each clip, dealt out by speaker; the last speaker of each institution is held out.

    With split "index" the clips numbered 0 to 4 of every speaker are held out instead.
    """
    clips = _load(source / "fsdd_int16_8k.npz")
    accents = _accents(source / "speakers.json")
    speakers, count = sorted(accents), options.institutions
    if options.split == "speaker" and count > len(speakers) // 2:
        advice = f"Ask for at most {len(speakers) // 2}, or import with --split index."
        raise UsageError("an institution needs a speaker to train on and one to test on", advice)
    parts: list[list[Row]] = [[] for _ in range(count)]
    ends = np.cumsum(clips["n"].astype(np.int64))
    for number, (speaker, digit, index) in enumerate(
        zip(clips["speaker"].tolist(), clips["digit"].tolist(), clips["index"].tolist(), strict=True)
    ):
        if number % 100 == 0:
            progress("writing", number, len(ends))
        if speaker not in accents:
            raise CorruptError(f"{source}: unknown speaker {speaker!r}", "Fetch the source again.")
        place = speakers.index(speaker)
        owner, last = place % count, place + count >= len(speakers)
        held_out = last if options.split == "speaker" else index < TEST_INDEX
        clip = f"{digit}_{speaker}_{index}"
        path = out / f"institution-{owner + 1}" / "audio" / f"{clip}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = ends[number] - int(clips["n"][number])
        _write(path, clips["audio"][start : ends[number]].astype("<i2").tobytes())
        parts[owner].append(
            {
                "clip": clip, "speaker": speaker, "accent": accents[speaker], "digit": str(digit),
                "file": f"audio/{clip}.wav", "side": "test" if held_out else "train",
            }
        )  # fmt: skip
    head = SPEAKER if options.split == "speaker" else INDEX
    if options.unit == "record":
        head = per_record(head, "speaker")
    made = []
    for number, rows in enumerate(parts):
        name = f"institution-{number + 1}"
        write_institution(
            out / name, {"clips": rows}, head + BODY.replace("ACCENTS", listed(sorted(set(accents.values()))))
        )
        made.append((name, out / name))
    return made


IMPORTER = Importer(
    "spoken digits", run, {"split": ("speaker", "index"), "unit": ("speaker", "record")}, least=2, most=6
)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(existing(path), allow_pickle=False) as archive:
            found = {name: archive[name] for name in ("audio", "n", "digit", "index", "speaker")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from error
    if int(found["n"].sum()) != len(found["audio"]):
        raise damaged(path, "the clips' lengths do not add up")
    return found


def _accents(path: Path) -> dict[str, str]:
    try:
        return {
            str(name): str(about["accent"]) for name, about in json.loads(existing(path).read_text("utf-8")).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def _write(path: Path, samples: bytes) -> None:
    with wave.open(str(path), "wb") as clip:
        clip.setnchannels(1)
        clip.setsampwidth(2)
        clip.setframerate(RATE)
        clip.writeframes(samples)


SPEAKER = """# Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0), speakers held out whole. With so few subjects
# their privacy is a matter of form: noise that hides one speaker of two hides everything.
format = 1
[unit]
subject = "speaker"
max_records = 512
"""
INDEX = """# Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0), the reference protocol: of each speaker and digit
# the clips 0 to 4 are held out. That is speaker-dependent: every speaker is in train and in test, so the figures are
# far above those for a new speaker, and privacy is that of a single clip.
format = 1
[unit]
kind = "record"
"""
BODY = """[tables.clips]
path = "clips.parquet"
key = "clip"
[[modality]]
name = "speech"
kind = "audio"
file = "file"
rate = 8000
max_seconds = 1.0
bands = 32
frames = 32
[[task]]
name = "digit"
kind = "multiclass"
column = "digit"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[sensitive]
columns = [{ name = "accent", levels = ACCENTS }]
[split]
column = "side"
"""
