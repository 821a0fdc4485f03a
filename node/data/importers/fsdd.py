"""The Free Spoken Digit Dataset (Jackson et al.): ten digits, six speakers, 8 kHz."""

import ast
import json
import re
import shutil
import wave
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....crypto.errors import CorruptError, UsageError
from .. import wav
from .common import Importer, Made, Options, Progress, Row, damaged, listed, one_of, per_record, write_institution

RATE = 8000
_NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")
TEST_INDEX = 5  # clips with a smaller index are the reference protocol's test


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write a .wav for each clip, dealt out by speaker; the last speaker of each institution is held out.

    With split "index" the clips numbered 0 to 4 of every speaker are held out instead.
    """
    clips = _recordings(source) if (source / "recordings").is_dir() else _packed(source)
    accents = _accents(source)
    speakers, count = sorted({clip.speaker for clip in clips}), options.institutions
    if options.split == "speaker" and count > len(speakers) // 2:
        advice = f"Ask for at most {len(speakers) // 2}, or import with --split index."
        raise UsageError("an institution needs a speaker to train on and one to test on", advice)
    if count > len(speakers):
        raise UsageError(f"there are {len(speakers)} speakers", f"Ask for at most {len(speakers)} institutions.")
    parts: list[list[Row]] = [[] for _ in range(count)]
    for number, clip in enumerate(clips):
        if number % 100 == 0:
            progress("writing", number, len(clips))
        if accents and clip.speaker not in accents:
            raise CorruptError(f"{source}: no accent is known of a speaker", "Fetch the source again.")
        index = speakers.index(clip.speaker)
        owner, last = index % count, index + count >= len(speakers)
        held_out = last if options.split == "speaker" else clip.index < TEST_INDEX
        name = f"{clip.digit}_{clip.speaker}_{clip.index}"
        path = out / f"institution-{owner + 1}" / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        clip.write(path)
        parts[owner].append(
            {
                "clip": name, "speaker": clip.speaker, "accent": accents.get(clip.speaker), "digit": str(clip.digit),
                "file": f"audio/{name}.wav", "side": "test" if held_out else "train",
            }
        )  # fmt: skip
    head = SPEAKER if options.split == "speaker" else INDEX
    if options.unit == "record":
        head = per_record(head, "speaker")
    made = []
    for number, rows in enumerate(parts):
        name = f"institution-{number + 1}"
        groups = GROUPS.replace("ACCENTS", listed(sorted(set(accents.values())))) if accents else ""
        write_institution(out / name, {"clips": rows}, head + BODY + groups + SPLIT)
        made.append((name, out / name))
    return made


IMPORTER = Importer(
    "spoken digits", run, {"split": ("speaker", "index"), "unit": ("speaker", "record")}, least=2, most=6
)


@dataclass(frozen=True, slots=True)
class _Clip:
    """One recording: a file, or samples as bytes."""

    digit: int
    speaker: str
    index: int
    sound: Path | bytes

    def write(self, path: Path) -> None:
        """Write it. Raises CorruptError if it is no clip of 8 kHz."""
        if isinstance(self.sound, Path):
            try:
                rate = wav.read(self.sound, 60.0).rate
            except CorruptError as error:
                raise damaged(self.sound, error.message) from error
            if rate != RATE:
                raise damaged(self.sound, f"it has {rate} samples a second, not {RATE}")
            shutil.copyfile(self.sound, path)
            return
        with wave.open(str(path), "wb") as clip:
            clip.setnchannels(1)
            clip.setsampwidth(2)
            clip.setframerate(RATE)
            clip.writeframes(self.sound)


def _recordings(source: Path) -> list[_Clip]:
    """Return the clips as they were published, such as recordings/7_theo_0.wav."""
    recordings = [
        (path, match) for path in sorted((source / "recordings").glob("*.wav")) if (match := _NAME.fullmatch(path.name))
    ]
    if not recordings:
        what = f"{source / 'recordings'} has no file such as 7_theo_0.wav"
        raise UsageError(what, "Files are called {digit}_{speaker}_{index}.wav.")
    return [_Clip(int(match[1]), match[2], int(match[3]), path) for path, match in recordings]


def _packed(source: Path) -> list[_Clip]:
    """Return the clips of one file with all samples end to end."""
    path = one_of(source, "fsdd_int16_8k.npz", "recordings/7_theo_0.wav")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("audio", "n", "digit", "index", "speaker")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, "it is damaged, or lacks an array") from error
    ends = np.cumsum(arrays["n"].astype(np.int64)).tolist()
    if (ends[-1] if ends else 0) != len(arrays["audio"]) or len(
        {len(arrays[name]) for name in arrays if name != "audio"}
    ) > 1:
        raise damaged(path, "the clips' lengths do not add up")
    sounds = [
        arrays["audio"][end - int(size) : end].astype("<i2").tobytes()
        for end, size in zip(ends, arrays["n"], strict=True)
    ]
    names = zip(arrays["digit"].tolist(), arrays["speaker"].tolist(), arrays["index"].tolist(), sounds, strict=True)
    return [_Clip(int(digit), str(speaker), int(index), sound) for digit, speaker, index, sound in names]


def _accents(source: Path) -> dict[str, str]:
    """Return each speaker's accent, from speakers.json or the published metadata.py; nothing if there is neither."""
    path = source / "speakers.json"
    try:
        if path.is_file():
            about = json.loads(path.read_text("utf-8"))
        elif (path := source / "metadata.py").is_file():
            about = ast.literal_eval(path.read_text("utf-8").partition("=")[2].strip())
        elif (source / "recordings").is_dir():
            return {}
        else:
            raise UsageError(f"{source / 'speakers.json'} does not exist", "Put it beside the samples.")
        return {str(name): str(speaker["accent"]) for name, speaker in about.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise damaged(path, "it does not say what accent each speaker has") from error


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
"""
GROUPS = """[sensitive]
columns = [{ name = "accent", levels = ACCENTS }]
"""
SPLIT = """[split]
column = "side"
"""
