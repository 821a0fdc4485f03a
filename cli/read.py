"""Answers for reading commands: from the running daemon, or else from the node's files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, TypeVar

from ..crypto.errors import CorruptError, UnreachableError, UsageError
from .output import say

if TYPE_CHECKING:
    from ..node.control.client import Client
    from ..node.home.paths import Home
    from ..node.views import Context
    from ..protocol.charter import Charter

PATIENCE = 2.0  # seconds
T = TypeVar("T")


def answer(home: "Home", ask: "Callable[[Client], T]", read: "Callable[[Context], T]") -> T:
    """Ask the daemon; without one, while it starts, or if it hangs, read the store as the daemon left it."""
    from ..node.control.client import Client, HangsError
    from ..node.home.lock import running

    if running(home) is not None:
        try:
            with _patience():
                return ask(Client(home))
        except HangsError as error:
            if not home.database.exists():
                raise
            say(f"warning: {error.message}. Below is what its disk has.")
            say(f"  {error.advice}")
        except UnreachableError:
            if not home.database.exists():
                raise
    return from_store(home, read)


@contextmanager
def _patience() -> Iterator[None]:
    """Say after some seconds that the daemon still has to answer."""
    late = Timer(PATIENCE, say, [f"the daemon has not answered for {PATIENCE:g} s; it may be busy: waiting …"])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def from_store(home: "Home", read: "Callable[[Context], T]") -> T:
    """Read the store, whether or not a daemon runs. Raises UsageError if the node never ran."""
    from ..node.home import joining
    from ..node.home.config import load as load_config
    from ..node.home.peers import load_peers
    from ..node.home.quiet import QuietHours
    from ..node.home.scheduled import load_schedule
    from ..node.store.database import Store
    from ..node.verify import parts_of_home, read_charter
    from ..node.views import offline

    charter, _ = read_charter(home.charter)
    if not home.database.exists():
        raise UsageError(f"The node in {home.root} has never run", "Start it: collegium node start.")
    with Store.open_readonly(home.database) as store:
        invitation = joining.load(home)
        facts: dict[str, object] = {
            "title": "" if invitation is None else invitation.name,
            "scheduled": load_schedule(home).requests,
        }
        try:
            in_force = offline(charter, store).charter
            warn_of_missing_data(home)
            if home.config.exists():
                learning = load_config(home.config).learning
                facts["unmatched"] = tuple(learning.idle_patterns(spec.name for spec in in_force.components))
                facts["quiet"] = QuietHours(learning.quiet_hours)
            parts = parts_of_home(home, in_force)
            facts |= {"hosted": parts.hosted, "followed": parts.followed, "withheld": parts.withheld}
        except (UsageError, CorruptError) as error:  # the ledger is readable without the data folder
            say(f"warning: what this node hosts is not known: {error}")
        return read(offline(charter, store, me=public_key(home), added=load_peers(home), **facts))


def charter_in_force(home: "Home") -> "Charter":
    """Return the charter in force at a node's directory: the founding one with the amendments of its ledger.

    Raises UsageError or CorruptError where either cannot be read.
    """
    from ..node.store.database import Store
    from ..node.verify import read_charter
    from ..node.views import offline

    charter, _ = read_charter(home.charter)
    if not home.database.exists():
        return charter
    with Store.open_readonly(home.database) as store:
        return offline(charter, store).charter


def warn_of_missing_data(home: "Home") -> None:
    """Say so if the data folder cannot be read: which components are here is then known by the last offer alone."""
    from ..node.home.away import missing_data
    from ..node.home.config import load as load_config

    if home.config.exists() and (reason := missing_data(load_config(home.config))):
        say(f"warning: the data folder is away ({reason}): the components here are those of this node's last offer")


def public_key(home: "Home") -> bytes | None:
    """Return the node's public key, from a sealed key file too; None if it cannot be read."""
    from ..node.home import keys

    return keys.public_of(home.key)
