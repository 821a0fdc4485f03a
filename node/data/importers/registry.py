"""Which sources can be imported, and the import itself: all or nothing."""

import shutil
import tempfile
from pathlib import Path

from ....crypto.errors import UsageError
from . import eeg, fsdd, omniglot, onestopenglish, oulad, saf, sra
from .common import Importer, Made, Options, Progress

IMPORTERS: dict[str, Importer] = {
    "oulad": oulad.IMPORTER,
    "sra": sra.IMPORTER,
    "onestopenglish": onestopenglish.IMPORTER,
    "saf": saf.IMPORTER,
    "omniglot": omniglot.IMPORTER,
    "fsdd": fsdd.IMPORTER,
    "eeg": eeg.IMPORTER,
}


def run_import(name: str, source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Import a source into `out`, which must not exist or be empty; (institution, folder) pairs come back.

    Everything is written beside `out` and renamed at the end: an interrupted import leaves no half of it.
    Raises UsageError (unknown name or option, `out` is in use, no such source) or CorruptError (the source is damaged).
    """
    importer = IMPORTERS.get(name)
    if importer is None:
        raise UsageError(f"no importer is called {name!r}", f"There are {', '.join(IMPORTERS)}.")
    chosen = _chosen(name, importer, options)
    if not source.is_dir():
        raise UsageError(f"{source} is no folder", "Name the folder that holds the source's files.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty", "Name a folder that does not exist yet.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise UsageError(f"{out.parent} cannot be written to: {error.strerror}", "Name another folder.") from error
    try:
        made = importer.run(source, partial, chosen, progress)
        partial.replace(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}", "Free space, or name another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [(institution, out / folder.relative_to(partial)) for institution, folder in made]


def _chosen(name: str, importer: Importer, options: Options) -> Options:
    """Return the options with defaults filled in. Raises UsageError for one that the importer has no use for."""
    chosen = {}
    for key in ("by", "test", "split", "unit"):
        value, choices = getattr(options, key), importer.choices.get(key, ())
        if value and value not in choices:
            advice = f"Choose from {', '.join(choices)}." if choices else "Leave the option out."
            raise UsageError(f"{name}: --{key} {value} is unknown", advice)
        chosen[key] = value or (choices[0] if choices else "")
    if options.institutions and not 1 <= options.institutions <= importer.most:
        advice = f"Ask for 1 to {importer.most}." if importer.most else "The number follows from --by."
        raise UsageError(f"{name} cannot be shared out to {options.institutions} institutions", advice)
    return Options(**chosen, institutions=options.institutions or importer.least)
