"""A data folder that cannot be read: a share that is not mounted. What a node hosts without it."""

from collections.abc import Iterable
from contextlib import suppress
from itertools import chain

from ...crypto.errors import RemoteProtocolError
from ...protocol.charter import Charter
from ...protocol.records import Body, Offer, Record, body_of
from ..core.events import Snapshot
from ..data.manifest import MANIFEST
from .config import Config


def missing_data(config: Config) -> str:
    """Return the reason why the configured data folder's dataset.toml cannot be read, or "".

    A node without a data folder, or with a learner of its own, waits for none.
    """
    folder = config.data.path
    if folder is None or config.learning.learner:
        return ""
    try:
        with (folder / MANIFEST).open("rb"):
            return ""
    except OSError as error:
        return f"{folder / MANIFEST}: {error.strerror}"


def hosted_without_data(
    config: Config, charter: Charter, snapshot: Snapshot | None, me: bytes | None
) -> tuple[str, ...]:
    """Return the components to host without the data: those of the last offer of `me`, else all that it engages."""
    components = {spec.name for spec in charter.components}
    own = () if snapshot is None else (record for record in _newest_first(snapshot) if record.author == me)
    offers = (body for body in map(_body, own) if isinstance(body, Offer))
    names = next((offer.components for offer in offers), components)
    return tuple(sorted(name for name in names if name in components and config.learning.engages(name)))


def _newest_first(snapshot: Snapshot) -> Iterable[Record]:
    records = chain(reversed(snapshot.records), (r for b in reversed(snapshot.blocks) for r in reversed(b.records)))
    return (record.value for record in records)


def _body(record: Record) -> Body | None:
    if record.kind != "offer":
        return None
    with suppress(RemoteProtocolError):  # malformed: the ledger refuses it by name
        return body_of(record)
    return None
