"""The problems that were reported to an operator, on disk: a restart reports nothing twice."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from ..home.paths import Home
from ..store.files import write_atomic
from ..views.note import NoteKind

log = structlog.get_logger(__name__)

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Raised:
    """A problem that lasts: since when (Unix seconds), in which words, and whether it was reported."""

    kind: NoteKind
    subject: str
    since: float
    found: str
    advice: str
    reported: bool = False


def load(home: Home) -> tuple[Raised, ...]:
    """Return the problems that last. A file that cannot be read counts as none: each is reported once more."""
    try:
        with home.alarms.open("rb") as file:
            entries = json.loads(file.read(MAX_BYTES))
        return tuple(_raised(entry) for entry in entries)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("alarms.json cannot be read; problems that last are reported again", error=repr(error))
        return ()


def save(home: Home, raised: tuple[Raised, ...]) -> None:
    """Replace the record. Raises DiskFullError or UsageError (not allowed)."""
    write_atomic(home.alarms, json.dumps([asdict(one) for one in raised], indent=1).encode())


def _raised(entry: dict[str, Any]) -> Raised:
    since, sent = float(entry["since"]), entry["reported"] is True
    texts = [entry[key] for key in ("subject", "found", "advice")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is no text")
    subject, problem, advice = texts
    return Raised(NoteKind(entry["kind"]), subject, since, problem, advice, sent)
