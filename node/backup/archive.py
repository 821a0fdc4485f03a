"""The format of a backup: a tar archive, uncompressed, of regular files with these names, in this order.

    collegium-backup.json   the format's version, and of which node and height it is
    node.db                 the database as of one moment (store/copy.py)
    blobs/…, states/…, manifests/…, private/…, and the small files of the home; the keys come last
    manifest.json           the size and SHA-256 of every file before it, by name

The archive holds the node's private key. The digests reveal damage. They do not show who wrote the archive, since an
author of changes can change them too. The learner's cache, logs, lock, socket and the data are not in it.
"""

import json
import re
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version

from ...crypto.errors import CorruptError, UsageError

FORMAT = 1
HEAD, MANIFEST, DATABASE = "collegium-backup.json", "manifest.json", "node.db"
SMALL = (
    "charter.bin",
    "config.toml",
    "peers.json",
    "invitations.json",
    "joining.json",
    "excluded.json",
    "scheduled.json",
    "founding.bin",
    "invited.bin",
)
SMALL_LIMIT = 64 << 20  # bytes of a file that is read whole
HEAD_LIMIT = 64 << 10
_PRESET = r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.toml"  # jurisdictions of one's own lie beside config.toml
_KEY = r"key(?:\.next|\.[0-9a-f]{16})?\.json"
_NAME = re.compile(
    rf"{re.escape(DATABASE)}|{'|'.join(map(re.escape, SMALL))}|{_KEY}|{_PRESET}"
    r"|blobs/([0-9a-f]{2})/([0-9a-f]{2})/\1\2[0-9a-f]{60}"
    r"|states/[0-9a-f]{32}/[0-9a-f]{64}\.state"
    r"|manifests/[0-9a-f]{64}"
    r"|private/[A-Za-z0-9_%.~-]+\.safetensors"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def belongs(name: str) -> bool:
    """Whether a home may get a file of this name from a backup. No such name leads out of the home."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Head:
    """The first file: whose copy this is. `federation` and `height` are of the database, "" and 0 without one."""

    format: int
    release: str
    created: str
    federation: str
    height: int
    public_key: str
    sealed: bool

    def dump(self) -> bytes:
        """Return it as JSON."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Entry:
    """A file's size and SHA-256, in hex."""

    size: int
    sha256: str


def head(*, federation: bytes, height: int, public_key: bytes, sealed: bool) -> Head:
    """Return the head of a backup that is made now, by this release."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Head(FORMAT, version("collegium"), now, federation.hex(), height, public_key.hex(), sealed)


def read_head(data: bytes, source: str) -> Head:
    """Read the first file of a backup; `source` names the archive.

    Raises UsageError for a newer format, CorruptError for anything else that is no head.
    """
    try:
        fields = json.loads(data)
        made = Head(**fields) if fields["format"] == FORMAT else None
        number, wrote = fields["format"], fields["release"]
        types = {name: type(value) for name, value in fields.items()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(source, f"{HEAD} in it cannot be read") from error
    if type(number) is int and number > FORMAT:
        raise UsageError(
            f"The backup {source} has format {number}, by release {str(wrote)[:40]}; this release reads up to {FORMAT}",
            "Install the release that wrote it, or a later one, and restore with that.",
        )
    if made is None or types != Head.__annotations__:
        raise damaged(source, f"{HEAD} in it cannot be read")
    return made


def dump_manifest(entries: dict[str, Entry]) -> bytes:
    """Return the last file of a backup."""
    return (json.dumps({name: asdict(entry) for name, entry in entries.items()}, indent=0) + "\n").encode()


def read_manifest(data: bytes, source: str) -> dict[str, Entry]:
    """Read the last file of a backup. Raises CorruptError."""
    try:
        entries = {str(name): Entry(**entry) for name, entry in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(source, f"{MANIFEST} in it cannot be read") from error
    if not all(
        type(e.size) is int and isinstance(e.sha256, str) and _DIGEST.fullmatch(e.sha256) for e in entries.values()
    ):
        raise damaged(source, f"{MANIFEST} in it cannot be read")
    return entries


def damaged(source: str, why: str) -> CorruptError:
    """Return the error for an archive of which nothing may be believed."""
    return CorruptError(f"{source} is no whole backup: {why}", "Nothing was restored. Take another copy of it.")
