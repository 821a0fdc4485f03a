"""The same checks on one node's directory, beside a running daemon or without one. Nothing there is changed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ...consensus.components import State
from ...crypto.errors import CorruptError, UsageError
from ...crypto.hashing import digest
from ...protocol.charter import FILE_LIMIT, Charter, OtherFormatError, SignedCharter, load_file
from ..core.events import StoredBlock
from ..home import keys
from ..home.away import hosted_without_data, missing_data
from ..home.config import load as load_config
from ..home.paths import Home
from ..home.policies import HostedComponents, admitted_parts, parts_here
from ..store.database import Store
from ..store.errors import disk_errors
from ..store.states import States
from .bytes import Disk, checkpoints
from .ledger import Progress, Report, verify_ledger
from .states import StateReport, verify_states
from .withdrawal import verify_withdrawal


def read_charter(path: Path) -> tuple[Charter, SignedCharter]:
    """Read a charter file. Raises UsageError if there is none, CorruptError, RefusedError (a non-member signed)."""
    with disk_errors(path):
        try:
            with path.open("rb") as file:
                data = file.read(FILE_LIMIT + 1)  # one more than there may be: then it is refused by its size
        except (FileNotFoundError, IsADirectoryError):
            advice = "Create one (`collegium charter create`), or copy it there from another member."
            raise UsageError(f"There is no charter {path}", advice) from None
    try:
        return load_file(data, str(path))
    except OtherFormatError:
        raise
    except UsageError as error:
        # No file is written before it passes every rule, so one that breaks one was changed since.
        advice = "Get an intact copy from another member, and compare the federation ids by telephone."
        raise CorruptError(f"{path} was changed or is damaged: {error.message}", advice) from error


def verify_home_ledger(
    home: Home, *, pins: Mapping[int, bytes] | None = None, progress: Progress | None = None
) -> Report:
    """Verify the ledger in a node's directory from its charter alone (`verify_ledger`)."""
    charter, _ = read_charter(home.charter)
    with Store.open_readonly(home.database) as store:
        if store.federation != charter.federation:
            raise UsageError(
                f"{home.database} belongs to another federation than {home.charter}", "Put back this node's charter."
            )
        top = store.height()
        return verify_ledger(charter, _blocks(store, top), pins=pins, progress=_scaled(progress, top))


def verify_home_states(
    home: Home, report: Report, *, progress: Progress | None = None
) -> tuple[tuple[StateReport, ...], tuple[str, ...]]:
    """Verify the states of the components that exist at this node; return their reports and the others' names."""
    held = parts_of_home(home, report.charter).held
    stored = _stored(home.states)
    others = tuple(spec.name for spec in report.charter.components if spec.name not in held)
    return verify_states(report, Disk(home.blobs), components=held, stored=stored, progress=progress), others


def verify_home_withdrawal(
    home: Home, member: bytes, *, progress: Progress | None = None, strict: bool = True
) -> dict[str, object]:
    """Verify a member's withdrawal from one node's directory, its ledger included; return what was found, as JSON.

    `digest` is one digest over the recomputed states of all components. Raises VerificationError for what does not
    hold; unless `strict`, what is wrong with the withdrawal itself is listed under "problems" instead.
    """
    on_disk = checkpoints(home.states)  # before the ledger is read
    report = verify_home_ledger(home, progress=progress)
    held = parts_of_home(home, report.charter).held
    verified = verify_withdrawal(
        report,
        member,
        Disk(home.blobs),
        components=held,
        checkpoints=on_disk,
        stored=_stored(home.states),
        progress=progress,
    )
    if strict:
        verified.require()
    parts = [part for c in verified.components if c.digest is not None for part in (c.component.encode(), c.digest)]
    return {**verified.as_map(), "digest": digest("withdrawal-states", *parts).hex(), "ledger": report.as_map()}


def parts_of_home(home: Home, charter: Charter) -> HostedComponents:
    """Return the components that exist at this node, by its config.toml and data folder; all if it has no config.

    While the data folder is away they are those that its daemon hosts then: of its last offer, else all that it
    engages.
    """
    if not home.config.exists():
        return HostedComponents(tuple(sorted(spec.name for spec in charter.components)), (), {})
    config = load_config(home.config)
    if not missing_data(config):
        return parts_here(config, charter)
    snapshot = None
    if home.database.exists():
        with Store.open_readonly(home.database) as store:
            snapshot = store.snapshot()
    return admitted_parts(config, charter, hosted_without_data(config, charter, snapshot, keys.public_of(home.key)))


def _stored(folder: Path) -> Callable[[str, bytes], State | None] | None:
    return States(folder).get if folder.is_dir() else None


def _blocks(store: Store, top: int) -> Iterator[StoredBlock]:
    for height in range(1, top + 1):
        block = store.block(height)
        if block is not None:
            yield block


def _scaled(progress: Progress | None, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, _: progress(what, done, total)
