"""A pretrained model, imported into a folder; whatever torch has to open, a process of its own opens."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...crypto.errors import CorruptError, OperatorError
from ..pretrained.imports import Imported, imported
from ..pretrained.sound import check_sound
from ..store.errors import disk_errors
from ..store.files import write_stream

FILES = 3  # of a folder, at most


def import_model(
    source: str,
    folder: Path,
    asked: Mapping[str, Any] = MappingProxyType({}),
    tick: Callable[[str, int, int], None] | None = None,
) -> Imported:
    """Write the folder of an imported model (node/pretrained/imports.py), which must not exist or be empty.

    Raises UsageError, CorruptError, DiskFullError. What fails or is interrupted leaves nothing behind; after a crash a
    folder that is not whole has no config.json.
    """
    with tempfile.TemporaryDirectory() as scratch, disk_errors(folder):
        made = imported(source, lambda path: unpickled(path, Path(scratch)), asked)
        is_new, written = not folder.exists(), []
        try:
            folder.mkdir(exist_ok=True)
            for number, (name, parts) in enumerate(made.files()):
                if tick is not None:
                    tick(f"write {name}", number, FILES)
                written.append(folder / name)
                write_stream(folder / name, parts)
            _check(source, folder)
        except BaseException:
            with suppress(OSError):
                for path in written:
                    path.unlink(missing_ok=True)
                if is_new:
                    folder.rmdir()
            raise
    return made


def _check(source: str, folder: Path) -> None:
    """Raise what `check_sound` does, naming what was imported: the folder is removed."""
    try:
        check_sound(folder)
    except OperatorError as error:
        raise type(error)(f"{source} is no sound model. As it was imported: {error.message}", error.advice) from error


def unpickled(path: Path, scratch: Path) -> Path:
    """Convert pickled weights in a process of their own: this one never opens a pickle, nor imports torch."""
    target = scratch / "weights.safetensors"
    words = [sys.executable, "-m", "collegium.node.learner.unpickle", str(path), str(target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    if done.returncode != 0:
        raise CorruptError(f"cannot read {path} ({done.stderr.strip()[-200:]})", "Install its package again.")
    return target
