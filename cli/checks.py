"""The checks of `collegium doctor`. Each checks one thing and changes nothing."""

import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from ..crypto.errors import CollegiumError, OperatorError
from ..node.control.within import TooLongError, within
from ..node.home import config as settings
from ..node.home import keys
from ..node.home.addresses import own_problem
from ..node.home.lock import running
from ..node.home.paths import GOOD_FREE, Home
from ..node.views.note import Level, NoteKind
from ..node.words import counted
from .checks_charter import (
    Check,
    address_checks,
    charter_checks,
    engage_checks,
    in_force,
    ledger_of,
    policy_checks,
    privacy_checks,
)
from .checks_memory import memory_check
from .monitor import CRITICAL, silent

if TYPE_CHECKING:
    from ..consensus.ledger import Ledger

MIN_PYTHON = (3, 11)
MIN_FREE = 64 << 20  # bytes
PATIENCE, DATA_PATIENCE = 45.0, 1800.0  # seconds for a check: all but that of the data take a few
EARLIEST = 1_735_689_600  # 2025-01-01: a clock before that was never set
OF_FORMER = {"python", "packages", "clock", "directory", "key", "charter", "disk", "database"}
HANGS = (
    "Check the directory for a pipe, a device or a share that hangs.",
    "Check whether its share hangs. If there are so many data, leave them out: --no-data.",
)
VERDICTS = {Level.INFO: "ok", Level.WARNING: "warn", Level.CRITICAL: "fail"}
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*(?:(==|>=)\s*([0-9][0-9A-Za-z.]*))?")


def run(home: Home, *, data: bool = True) -> list[Check]:
    """Run all checks on a node's directory; a check that fails to run is a finding, and the others still run."""
    ledger = _agreed_ledger(home)
    gone = _is_former_member(home, ledger)
    checks: list[tuple[str, Callable[[Home], Iterator[Check]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("clock", _clock),
        ("directory", _directory),
        ("key", _key),
        ("config", _config),
        ("charter", partial(charter_checks, ledger=ledger, gone=gone)),
        ("disk", _disk),
        ("ports", _ports),
        ("database", _database),
        ("policy", partial(policy_checks, ledger=ledger)),
        ("engage", partial(engage_checks, ledger=ledger)),
        ("privacy", partial(privacy_checks, ledger=ledger)),
        ("daemon", _daemon),
    ]
    checks.insert(-3, ("data", partial(_data, ledger=ledger)) if data else ("memory", partial(_memory, ledger=ledger)))
    if gone:
        checks = [(name, check) for name, check in checks if name in OF_FORMER]
    results: list[Check] = []
    unusable = ""  # why config.toml cannot be used: other checks that need it say nothing new
    for name, check in checks:
        patience = DATA_PATIENCE if name == "data" else PATIENCE
        try:
            results += within(patience, partial(list, check(home)))
        except TooLongError:
            text = f"the check did not end within {patience:g} s"
            results.append(Check(name, "fail", text, HANGS[name == "data"]))
        except CollegiumError as error:
            message = error.message if isinstance(error, OperatorError) else str(error)
            if message == unusable:
                continue
            unusable = message if name == "config" else unusable
            results.append(Check(name, "fail", message, error.advice if isinstance(error, OperatorError) else ""))
        except Exception as error:  # noqa: BLE001 - the other checks still run
            results.append(Check(name, "fail", f"{type(error).__name__}: {error}", "Report this."))
    # The data and the daemon may have the same finding: the first of both is enough.
    once: dict[str, Check] = {}
    for result in results:
        key = result.found.rstrip(".") if result.verdict == "warn" else f"{result.name}: {result.found}"
        once.setdefault(key, result)
    return list(once.values())


def _agreed_ledger(home: Home) -> "Ledger | None":
    """Return the ledger on this disk, folded once for all checks; None if it fails, which a check reports."""

    def look() -> "Ledger | None":
        from ..node.verify import read_charter
        from .read import public_key

        key = public_key(home)
        if key is None or not home.database.exists() or not home.charter.exists():
            return None
        return ledger_of(home, read_charter(home.charter)[0], key)

    try:
        return within(PATIENCE, look)
    except Exception:  # noqa: BLE001 - a check reports it
        return None


def _is_former_member(home: Home, ledger: "Ledger | None") -> bool:
    """Whether this key is a former member's: it needs no data, no address and no daemon."""
    from .read import public_key

    seat = None if ledger is None else ledger.roll.seats.get(public_key(home) or b"")
    return seat is not None and bool(seat.gone)


def _python(_home: Home) -> Iterator[Check]:
    here = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] >= MIN_PYTHON
    advice = "" if good else f"Install Python {'.'.join(map(str, MIN_PYTHON))} or later."
    yield Check("python", "ok" if good else "fail", here, advice)


def _packages(_home: Home) -> Iterator[Check]:
    wrong, count = [], 0
    for line in requires("collegium") or []:
        match = _PINNED.match(line)
        if match is None or "extra ==" in line:
            continue
        name, relation, wanted = match.groups()
        count += 1
        try:
            here = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if relation and not _fits(here, relation, wanted):
            wrong.append(f"{name} is {here}, needed is {relation}{wanted}")
    advice = "Install Collegium again with its constraints file: pip install -c constraints.txt collegium."
    yield (
        Check("packages", "fail", "; ".join(wrong), advice) if wrong else Check("packages", "ok", f"all {count} there")
    )


def _fits(here: str, relation: str, wanted: str) -> bool:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", text.split("+", maxsplit=1)[0])[:4])

    return here.split("+", maxsplit=1)[0] == wanted if relation == "==" else numbers(here) >= numbers(wanted)


def _clock(_home: Home) -> Iterator[Check]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < EARLIEST:
        yield Check("clock", "warn", shown, "Set it. Agreement does not need it, logs and people do.")
    else:
        yield Check("clock", "ok", shown)


def _directory(home: Home) -> Iterator[Check]:
    if not home.root.is_dir():
        yield Check("directory", "fail", f"there is no {home.root}", "Run `collegium init`, or name it by --home.")
        return
    mode = home.root.stat().st_mode & 0o777
    open_ = bool(mode & 0o077)
    advice = f"Run: chmod 700 {home.root}" if open_ else ""
    yield Check("directory", "fail" if open_ else "ok", f"{home.root} (mode {mode:04o})", advice)


def _key(home: Home) -> Iterator[Check]:
    sealed = keys.needs_passphrase(home)
    if not sealed:
        keys.load(home, None)
    yield Check("key", "ok", "sealed by a passphrase" if sealed else "not sealed: only its mode guards it")


def _config(home: Home) -> Iterator[Check]:
    config = settings.load(home.config)
    if config.data.path is None:
        yield Check("config", "warn", "no data folder: this node only hosts", "Set [data] path to contribute.")
    elif config.learning.contribute and not config.learning.lot_size:
        yield Check(
            "config",
            "fail",
            "lot_size is not declared",
            "Set [learning] lot_size to the sample rate (`charter show`) times the number of students that you expect.",
        )
    else:
        yield Check("config", "ok", str(home.config))


def _disk(home: Home) -> Iterator[Check]:
    root = home.root.absolute()
    nearest = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(nearest).free
    verdict = "fail" if free < MIN_FREE else "warn" if free < GOOD_FREE else "ok"
    advice = "" if verdict == "ok" else "Free space: a full disk stops the daemon (nothing stored is lost)."
    yield Check("disk", verdict, f"{free / 1e9:.1f} GB free", advice)


def _data(home: Home, *, ledger: "Ledger | None") -> Iterator[Check]:
    folder = settings.load(home.config).data.path
    if folder is None:
        return
    from ..node.data.arrays import load  # pyarrow; only this check needs it
    from ..node.data.summary import near_warnings

    dataset = load(folder, tolerant=True)
    yield Check("data", "ok", f"{counted(len(dataset.subjects), 'subject')} in {folder}")
    if dataset.left_out:
        subjects = counted(len(dataset.left_out), "subject is", "subjects are")
        text = f"{subjects} left out: a cell of theirs cannot be used"
        yield Check("data", "warn", text, f"`collegium data check {folder}` names each.")
    for warning in near_warnings(dataset):
        yield Check("data", "warn", warning)
    if home.charter.exists():
        from ..node.home.declared import data_warnings

        labels = {
            name: int((task.labels == task.labels).any(axis=(1, 2)).sum()) for name, task in dataset.tasks.items()
        }
        charter = in_force(home, ledger)
        config = settings.load(home.config)
        for problem, advice in data_warnings(config, charter, len(dataset.subjects), labels):
            yield Check("data", "warn", problem, advice)
        yield from memory_check(config, charter, dataset)


def _memory(home: Home, *, ledger: "Ledger | None") -> Iterator[Check]:
    if home.charter.exists():
        yield from memory_check(settings.load(home.config), in_force(home, ledger), None)


def _ports(home: Home) -> Iterator[Check]:
    if running(home) is not None:
        return  # its own daemon holds them
    node = settings.load(home.config).node
    problem, advice = own_problem(node.listen, node.advertise)
    if problem and not node.mdns:
        yield Check("addresses", "warn", problem, advice.replace("--advertise", "[node] advertise in config.toml:"))
    yield from address_checks(home, node.advertise or node.listen)
    for address in node.listen:
        _, family, host, _, port = address.split("/")[:5]
        with socket.socket(socket.AF_INET6 if family == "ip6" else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                advice = "Choose another under [node] listen, or stop who holds it."
                yield Check("ports", "fail", f"{address}: {error.strerror}", advice)
                continue
        yield Check("ports", "ok", address)


def _database(home: Home) -> Iterator[Check]:
    if not home.database.exists():
        yield Check("database", "ok", "none yet: the daemon makes it at its first start")
        return
    from ..node.core.state import PAUSED_FLAG  # numpy; only this check needs it
    from ..node.home.quiet import QuietHours
    from ..node.store.database import Store
    from ..node.views.notes import paused
    from ..node.views.quiet import resting

    with Store.open_readonly(home.database) as store:
        yield Check("database", "ok", f"height {store.height()}")
        for note in paused(bool(store.flags().get(PAUSED_FLAG, 0))):
            yield Check("daemon", "warn", note.found, note.advice)
    for note in resting(QuietHours(settings.load(home.config).learning.quiet_hours)):
        yield Check("daemon", VERDICTS[note.level], note.found, note.advice)


def _daemon(home: Home) -> Iterator[Check]:
    from ..node.control.client import Client  # httpx; only this check needs it

    pid = running(home)
    if pid is None:
        yield Check("daemon", "warn", "not running", "Start it: collegium node start.")
        return
    code, why, advice = silent(home)
    if code:
        yield Check("daemon", "fail" if code == CRITICAL else "warn", why, advice)
        return
    status = Client(home).status()
    for note in status["findings"]:
        name = "learner" if note["kind"] == NoteKind.LEARNER_FAILED else "daemon"
        yield Check(name, VERDICTS[Level(note["level"])], note["found"], note["advice"])
    yield Check("daemon", "ok", f"answers (pid {pid}), height {status['height']}")
