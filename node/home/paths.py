"""The paths of a node's files: one directory, mode 0700, owned by the daemon's user."""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...crypto.errors import RefusedError, UsageError
from ..store.errors import disk_errors

GOOD_FREE = 2 << 30  # bytes of disk: less is worth a note
SOCKET_LIMIT = 100  # bytes; sun_path holds 108 on Linux and 104 on BSD and macOS, with the final zero


@dataclass(frozen=True, slots=True)
class Home:
    """The paths in a node's directory. Only `make` and `socket_folder` change the disk."""

    root: Path

    @property
    def key(self) -> Path:
        """The node's key, 0600 (crypto/keyfile.py)."""
        return self.root / "key.json"

    @property
    def config(self) -> Path:
        """The operator's settings (config.py)."""
        return self.root / "config.toml"

    @property
    def peers(self) -> Path:
        """Addresses that the operator added by command (peers.py)."""
        return self.root / "peers.json"

    @property
    def next_key(self) -> Path:
        """The next key of this member, until the ledger has it (keys.py)."""
        return self.root / "key.next.json"

    @property
    def invitations(self) -> Path:
        """The invitations that this member issued (invitations.py)."""
        return self.root / "invitations.json"

    @property
    def joining(self) -> Path:
        """The invitation that this node joins by, or the lost key that it replaces (joining.py)."""
        return self.root / "joining.json"

    @property
    def alarms(self) -> Path:
        """The problems that last, and whether they were reported (node/alarms/record.py)."""
        return self.root / "alarms.json"

    @property
    def scheduled(self) -> Path:
        """The withdrawals of students' updates that are still to come (scheduled.py)."""
        return self.root / "scheduled.json"

    @property
    def founding(self) -> Path:
        """Whom this node invited to found a federation, and what they said (node/founding/record.py)."""
        return self.root / "founding.bin"

    @property
    def founding_invitation(self) -> Path:
        """The invitation by which this node takes part in a founding (node/founding/record.py)."""
        return self.root / "invited.bin"

    @property
    def founding_lock(self) -> Path:
        """Locked by the command that founds, or takes part in a founding."""
        return self.root / "founding.lock"

    @property
    def charter(self) -> Path:
        """The federation's charter file."""
        return self.root / "charter.bin"

    @property
    def database(self) -> Path:
        """The store's database."""
        return self.root / "node.db"

    @property
    def blobs(self) -> Path:
        """The folder of update bytes."""
        return self.root / "blobs"

    @property
    def states(self) -> Path:
        """The folder of component states."""
        return self.root / "states"

    @property
    def embeddings(self) -> Path:
        """The cache of frozen embeddings (node/learner/cache.py)."""
        return self.root / "cache" / "embeddings.db"

    @property
    def private(self) -> Path:
        """The folder of private adapters, which never leave (node/learner/private.py)."""
        return self.root / "private"

    @property
    def lock(self) -> Path:
        """Locked by the daemon while it runs; holds its process id (lock.py)."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        """The daemon's log when it runs in the background."""
        return self.root / "node.log"

    @property
    def page_token(self) -> Path:
        """The token of `collegium dashboard`, 0600 (node/page/token.py)."""
        return self.root / "page.token"

    @property
    def socket(self) -> Path:
        """The control socket: control.sock in the home, if the kernel takes so long a path.

        Otherwise it lies in a folder of this user's under the system's temporary directory, named by a hash of the
        home's real path: daemon and command line find the same one as long as TMPDIR is the same for both. Call
        `socket_folder` before using it. Raises UsageError if that is too long as well.
        """
        near = self.root.absolute() / "control.sock"
        if len(os.fsencode(near)) <= SOCKET_LIMIT:
            return near
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        far = Path(tempfile.gettempdir()).absolute() / f"collegium-{os.getuid()}" / f"{name}.sock"
        if len(os.fsencode(far)) > SOCKET_LIMIT:
            advice = "Set TMPDIR to a shorter path, for the daemon and for the command line."
            raise UsageError(f"The path of the control socket is too long: {far}", advice)
        return far

    def make(self) -> None:
        """Make the directory (0700), or check that it is private. An empty one is made private.

        Raises RefusedError if others can look into one that holds files, UsageError if it cannot be made.
        """
        with disk_errors(self.root):
            try:
                self.root.parent.mkdir(parents=True, exist_ok=True)
                self.root.mkdir(mode=0o700, exist_ok=True)
                mode = stat.S_IMODE(self.root.stat().st_mode)
                if mode & 0o077 and not any(self.root.iterdir()):
                    self.root.chmod(0o700)
                    mode = 0o700
            except (FileExistsError, NotADirectoryError):
                raise UsageError(f"{self.root} is not a directory", "Name another one.") from None
        if mode & 0o077:
            raise RefusedError(f"Others can open {self.root} (mode {mode:04o})", f"Run: chmod 700 {self.root}")

    def socket_folder(self) -> Path:
        """Return the folder of `socket`, made if it is missing, after checking that it is ours alone.

        Daemon and command line both call this: in a world-writable directory another user could have made the folder
        first, and would get our commands. Raises RefusedError.
        """
        folder = self.socket.parent
        if folder == self.root.absolute():
            return folder
        with disk_errors(folder):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            advice = "Remove it, or choose a directory for the node with a path under 88 bytes."
            raise RefusedError(f"{folder} is not a private directory of this user", advice)
        return folder
