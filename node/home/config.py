"""config.toml: an operator's settings for one node. The charter has the rest, and the stricter of both holds.

Reading is strict: an unknown key is an error, because ignoring a misspelt privacy setting would be worse.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...crypto.errors import RefusedError, UsageError
from ...protocol.bounds import (
    MAX_DELTA,
    MAX_EPSILON,
    MAX_ROUNDS,
    MAX_STUDENTS,
    MIN_DELTA,
    MIN_EPSILON,
    delta_problem,
    epsilon_problem,
)
from ...protocol.learning import POLICIES
from ...protocol.names import person_problem
from .. import toml
from ..store.files import write_atomic
from . import quiet, timetable
from .addresses import check_advertised, check_listen, check_peer

FORMAT = 2  # of config.toml
LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
PRIVATE_ADAPTERS = ("lora", "rslora", "dora")  # as the learner has them (learner/adapters.py)


@dataclass(frozen=True, slots=True)
class Node:
    """[node]: the name shown to people, and the network. Others get `advertise` instead of `listen`."""

    name: str = "node"
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    advertise: tuple[str, ...] = ()
    mdns: bool = False
    max_neighbours: int = 6


@dataclass(frozen=True, slots=True)
class Data:
    """[data]: the folder with dataset.toml; None for a node without data. `load` makes it absolute."""

    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Learning:
    """[learning]: `rounds` 0 means no limit; `lot_size` is the declared L, 0 if none; an empty `learner`: the built-in.

    The `home_layer` is learned for this institution alone. With a `private_adapter` it reads texts by an adapter of
    that kind and of `private_rank` on each pretrained text model, also one that writes, trained every
    `personalise_every` rounds ("": none).
    `quiet_hours`: quiet.py. Training is shared out over `processes`.
    """

    contribute: bool = True
    quiet_hours: tuple[str, ...] = ()
    rounds: int = 0
    engage: tuple[str, ...] = ("*",)
    lot_size: float = 0.0
    home_layer: bool = True
    personalise_every: int = 5
    private_adapter: str = ""
    private_rank: int = 8
    processes: int = 1
    learner: tuple[str, ...] = ()

    def engages(self, component: str) -> bool:
        """Whether this node hosts and trains a component that its data need."""
        return any(fnmatchcase(component, pattern) for pattern in self.engage)

    def idle_patterns(self, components: Iterable[str]) -> list[str]:
        """Return the patterns of `engage` that match none of these names: most likely typing errors."""
        names = list(components)
        return [pattern for pattern in self.engage if not any(fnmatchcase(name, pattern) for name in names)]


@dataclass(frozen=True, slots=True)
class ModalityPrivacy:
    """[privacy.modalities.NAME]: overrides for one modality; "" and 0 stand for the value in [privacy]."""

    modality: str
    policy: str = ""
    epsilon: float = 0.0
    delta: float = 0.0


@dataclass(frozen=True, slots=True)
class Privacy:
    """[privacy]: for each student and this node's lifetime in the federation, within the charter's bounds.

    `jurisdiction` is the name of a shipped preset or the path of one's own; `load` makes a path absolute.
    """

    epsilon: float = 8.0
    delta: float = 1e-5
    policy: str = "dp"
    jurisdiction: str = ""
    modalities: tuple[ModalityPrivacy, ...] = ()


@dataclass(frozen=True, slots=True)
class Models:
    """[models]: the folders of pretrained models by the names that the charter gives them; `load` makes them absolute.

    Other models are searched among installed packages and in the Hugging Face cache.
    """

    folders: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Log:
    """[log]."""

    format: str = "console"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Alarm:
    """[alarm]: where problems are reported; without a command and a webhook, nowhere (node/alarms)."""

    command: tuple[str, ...] = ()
    webhook: str = ""
    after_seconds: int = 60


@dataclass(frozen=True, slots=True)
class Unlearning:
    """[unlearning]: when scheduled withdrawals are carried out (timetable.py, local time); "" for no fixed time.

    `consent_look`: when the students' consents are looked at, in UTC.
    """

    schedule: str = ""
    consent_look: str = "00:00"


@dataclass(frozen=True, slots=True)
class Timing:
    """[timing], in milliseconds."""

    propose_ms: int = 1000
    idle_ms: int = 1000
    sync_ms: int = 2000


@dataclass(frozen=True, slots=True)
class Storage:
    """[storage]. `prune`: delete the bytes of updates that no withdrawal can reach (the charter's refold_horizon)."""

    prune: bool = False


@dataclass(frozen=True, slots=True)
class Peers:
    """[peers]: addresses beside those of the charter. `peers.load_peers` reads those added by command."""

    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file; every key has a default."""

    node: Node = field(default_factory=Node)
    data: Data = field(default_factory=Data)
    learning: Learning = field(default_factory=Learning)
    privacy: Privacy = field(default_factory=Privacy)
    models: Models = field(default_factory=Models)
    log: Log = field(default_factory=Log)
    alarm: Alarm = field(default_factory=Alarm)
    unlearning: Unlearning = field(default_factory=Unlearning)
    timing: Timing = field(default_factory=Timing)
    storage: Storage = field(default_factory=Storage)
    peers: Peers = field(default_factory=Peers)


def _person(value: object) -> str:
    if type(value) is not str:
        raise ValueError("a name in quotes")
    problem = person_problem(value)
    if problem:
        raise ValueError(f"a name; {problem}")
    return value


def _word(value: object) -> str:
    return "" if type(value) is str and value and "\0" not in value else f"{value!r} is none"


def _folder(value: object) -> Path | None:
    if type(value) is not str or "\0" in value:
        raise ValueError('the path of a folder, or "" for none')
    return Path(value) if value else None


def _webhook(value: object) -> str:
    if type(value) is str and (not value or _is_url(value)):
        return value
    raise ValueError('an address that begins with "https://" or "http://", or "" for none')


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port_is_fine
        and text.isascii()
        and " " not in text
    )


def _model(value: object) -> Path:
    if type(value) is not str or not value or "\0" in value:
        raise ValueError("the path of a model's folder")
    return Path(value)


def _jurisdiction(value: object) -> str:
    if type(value) is not str or "\0" in value:
        raise ValueError('the name of a preset, the path of a file that ends in .toml, or "" for none')
    return value


_MILLISECONDS = toml.whole(10, 3_600_000)
_BOUNDS: dict[str, toml.Check[Any]] = {
    "epsilon": toml.number(
        f'a number from {MIN_EPSILON:g} to {MAX_EPSILON:g}; where no privacy is wanted, policy = "open"',
        lambda value: not epsilon_problem(value),
    ),
    "delta": toml.number(f"a number from {MIN_DELTA:g}, under {MAX_DELTA:g}", lambda value: not delta_problem(value)),
    "policy": toml.one_of(*POLICIES),
}
_LOT = toml.number(f"a number from 0 (not declared) to {MAX_STUDENTS}", lambda value: 0.0 <= value <= MAX_STUDENTS)

_SECTIONS: dict[str, tuple[Callable[..., object], dict[str, toml.Check[Any]]]] = {
    "node": (
        Node,
        {
            "name": _person,
            "listen": toml.list_of("addresses", 1, 8, check_listen),
            "advertise": toml.list_of("addresses", 0, 8, check_advertised),
            "mdns": toml.flag,
            "max_neighbours": toml.whole(1, 64),
        },
    ),
    "data": (Data, {"path": _folder}),
    "learning": (
        Learning,
        {
            "contribute": toml.flag,
            "quiet_hours": toml.list_of(quiet.ALLOWED, 0, 64, quiet.check),
            "rounds": toml.whole(0, MAX_ROUNDS),
            "engage": toml.list_of("patterns", 0, 256, _word),
            "lot_size": _LOT,
            "home_layer": toml.flag,
            "personalise_every": toml.whole(1, 2**31 - 1),
            "private_adapter": toml.one_of("", *PRIVATE_ADAPTERS),
            "private_rank": toml.whole(1, 256),
            "processes": toml.whole(1, 64),
            "learner": toml.list_of("words of a command", 0, 256, _word),
        },
    ),
    "privacy": (Privacy, {**_BOUNDS, "jurisdiction": _jurisdiction}),
    "log": (Log, {"format": toml.one_of(*LOG_FORMATS), "level": toml.one_of(*LOG_LEVELS)}),
    "alarm": (
        Alarm,
        {
            "command": toml.list_of("words of a command", 0, 256, _word),
            "webhook": _webhook,
            "after_seconds": toml.whole(0, 86_400),
        },
    ),
    "unlearning": (Unlearning, {"schedule": timetable.check, "consent_look": timetable.check_set}),
    "timing": (Timing, {"propose_ms": _MILLISECONDS, "idle_ms": _MILLISECONDS, "sync_ms": _MILLISECONDS}),
    "storage": (Storage, {"prune": toml.flag}),
    "peers": (Peers, {"addresses": toml.list_of("addresses", 0, 256, check_peer)}),
}


def load(path: Path) -> Config:
    """Read a node's config.toml; a relative [data] path is relative to the file's folder.

    Raises UsageError naming the file, the key and the allowed values.
    """
    advice = "Run `collegium init` first, or name the node's directory."
    config = _config(toml.read(path, advice, links=False))
    base, folder, preset = path.parent.absolute(), config.data.path, config.privacy.jurisdiction
    if folder is not None:
        config = replace(config, data=Data(base / folder.expanduser()))
    config = replace(config, models=Models(tuple((n, base / p.expanduser()) for n, p in config.models.folders)))
    if preset.endswith(".toml"):
        config = replace(config, privacy=replace(config.privacy, jurisdiction=str(base / Path(preset).expanduser())))
    return config


def parse(text: str, source: str) -> Config:
    """Read the text of a config.toml; `source` names it in errors. Raises UsageError as `load` does."""
    return _config(toml.parse(text, source))


def _config(top: toml.Table) -> Config:
    sections: dict[str, Any] = {}
    format_ = top.whole("format", 1, 1, 2**31)
    if format_ > FORMAT:
        raise UsageError(
            f"{top.source} has format {format_}; this release reads up to {FORMAT}",
            "Install the release that it was written for, or a later one.",
        )
    top.only("format", *_SECTIONS, "models")
    for name, (make, checks) in _SECTIONS.items():
        table = top.table(name, {})
        if name == "learning" and format_ == 1:
            table.raw.pop("private", None)  # private heads, whose place the home layer has taken
        more = {"modalities": _modalities(table)} if name == "privacy" else {}
        sections[name] = make(**table.given(checks), **more)
    models = top.table("models", {})
    folders = tuple((name, models.take(name, _model)) for name in sorted(models.raw))
    learning, alarm = sections["learning"], sections["alarm"]
    if alarm.command and alarm.webhook:
        raise UsageError(f"{top.where} [alarm] has a command and a webhook", "Leave one of them out.")
    if learning.private_adapter and not learning.home_layer:
        raise UsageError(
            f'{top.where} [learning]: private_adapter cannot be "{learning.private_adapter}" without a home layer',
            'Set home_layer = true, or private_adapter = "".',
        )
    if quiet.QuietHours(learning.quiet_hours).never_end:
        raise UsageError(
            f"{top.where} [learning]: quiet_hours are the whole week, so nothing would ever be trained",
            "Leave some hours out, or write contribute = false.",
        )
    return Config(**sections, models=Models(folders))


def _modalities(privacy: toml.Table) -> tuple[ModalityPrivacy, ...]:
    tables = privacy.named("modalities", {})
    return tuple(ModalityPrivacy(name, **table.given(_BOUNDS)) for name, table in sorted(tables.items()))


def create(path: Path, config: Config) -> None:
    """Write a commented config.toml. Raises RefusedError if there is one."""
    if path.exists():
        raise RefusedError(f"There is a configuration already: {path}", "Edit it, or choose another directory.")
    write_atomic(path, default_text(config).encode())


def default_text(config: Config | None = None) -> str:
    """Return a commented config.toml that `parse` reads back as `config` (by default: all defaults)."""
    c = config or Config()
    data = "" if c.data.path is None else str(c.data.path)
    return f"""\
# One node of a Collegium federation. The charter holds what all members agreed on; where both speak of the same
# thing, the stricter holds. Changes take effect at the next start. Unknown keys are errors.
format = {FORMAT}  # of this file; a release says if it cannot read it

[node]
name = {_toml(c.node.name)}  # shown to people; members are known by their keys
# Where to listen. 127.0.0.1 can be reached from this machine only, and port 0 changes at every start: for real use
# write this machine's own address and a fixed port, as in "/ip4/192.168.1.20/tcp/4001". Avoid 0.0.0.0 together with
# mdns: others on the LAN would try to dial 0.0.0.0.
listen = {_toml(c.node.listen)}
# The addresses that others dial, if they differ from `listen` (behind NAT, or by name).
advertise = {_toml(c.node.advertise)}
mdns = {_toml(c.node.mdns)}  # find members on the same LAN
max_neighbours = {c.node.max_neighbours}  # connections kept up; members reach each other through neighbours

[data]
path = {_toml(data)}  # the folder with dataset.toml, relative to this file; "" for a node without data

[learning]
contribute = {_toml(c.learning.contribute)}  # train on the data and publish updates
# Hours in which this node trains nothing, by this machine's local time: "22:00-06:00", "Mon-Fri 07:30-18:00" or
# "Sat,Sun 00:00-24:00" (days: Mon, Tue, Wed, Thu, Fri, Sat, Sun). It votes, folds and serves meanwhile. Rounds close
# without it while enough others train; where too few do, they wait until it goes on.
quiet_hours = {_toml(c.learning.quiet_hours)}
rounds = {c.learning.rounds}  # train up to this round of the federation's; 0: no limit but the privacy budget
# Patterns of components to host and train, as "head/*". Other components that the data need are only followed.
# Components that no modality or task of the data needs are not kept at all.
engage = {_toml(c.learning.engage)}
# The sample rate (`collegium charter show` prints it) times the number of students that you expect: 0.1 × 120 = 12. It
# is public, so it must not be counted from the data. 0: not declared, and nothing is trained. Sums of clipped gradients
# are divided by it; a small institution may declare that of a typical one (docs/privacy.md).
lot_size = {c.learning.lot_size!r}
# Correct the shared model by what this institution's own students show, without noise. It is kept in the learner's
# memory only and never leaves; `predict` uses it, and `round show --local` compares.
home_layer = {_toml(c.learning.home_layer)}
# Also an adapter of one's own on each pretrained text model ("lora", "rslora", "dora"; "": none). It never leaves
# either. Its training takes minutes, every personalise_every rounds.
personalise_every = {c.learning.personalise_every}
private_adapter = {_toml(c.learning.private_adapter)}
private_rank = {c.learning.private_rank}  # its rank: the higher, the more it can learn, and memorise
# Train over several processes of this machine. Each holds the data and the model, and computes its share of the drawn
# students; with as many GPUs as processes, on one of its own.
processes = {c.learning.processes}
learner = {_toml(c.learning.learner)}  # the learner's command and arguments; empty: the built-in one

[privacy]
# For each modality of each student, over all that this node ever publishes in the federation. No setting here gives
# back spent budget. "dp": with (epsilon, delta); "never": publish nothing learned from the data;
# "open": no bound by this node. For each modality the strictest of charter, jurisdiction and this is in force:
# `collegium privacy show`.
epsilon = {c.privacy.epsilon!r}
delta = {c.privacy.delta!r}
policy = {_toml(c.privacy.policy)}
# A preset (`collegium privacy presets` lists them), the path of your own file, "" for none.
jurisdiction = {_toml(c.privacy.jurisdiction)}
# Overrides for one modality:
# [privacy.modalities.essays]
# policy = "never"
{_overrides(c.privacy.modalities)}
[models]
# Folders of pretrained models by the charter's names for them, if they are not installed as packages:
# "sentence-transformers/all-MiniLM-L6-v2" = "models/minilm"
{_folders(c.models)}
[log]
format = {_toml(c.log.format)}  # "console" or "json"
level = {_toml(c.log.level)}  # "debug", "info", "warning" or "error"

[alarm]
# Where the daemon reports, once each, that a problem of this node began and that it ended: the problems that
# `collegium node status` lists. A command gets a JSON object on its standard input; a webhook gets it by POST.
# `collegium node alarms` lists them, and `--test` tries it. That the daemon has stopped, another program must report.
command = {_toml(c.alarm.command)}  # as ["mail-admin", "--subject", "collegium"]
webhook = {_toml(c.alarm.webhook)}  # in place of a command; it hears nothing that tells of the students
after_seconds = {c.alarm.after_seconds}  # a problem has to last so long

[unlearning]
# When `collegium unlearn subject ID --scheduled` withdraws, all requests together: "02:00" (daily), "Sun 02:00", or
# "1 02:00" (the first of each month), by local time.
schedule = {_toml(c.unlearning.schedule)}
# When the data are read anew, to look whose consent has ended (consent in dataset.toml), in UTC. What saw them before
# is withdrawn at the next time of `schedule`; if that is "", on Sunday at 02:00.
consent_look = {_toml(c.unlearning.consent_look)}

[timing]  # milliseconds
propose_ms = {c.timing.propose_ms}  # patience with a proposer in the first view
idle_ms = {c.timing.idle_ms}  # how often to look for work
sync_ms = {c.timing.sync_ms}  # how often to send a sync request to a neighbour

[storage]
# Delete the bytes of updates beyond the reach of withdrawals (the charter's refold horizon); a checkpoint and the
# ledger stay. With false, every state can be recomputed here from the first round on: leave it so at enough members
# that late joiners find all bytes.
prune = {_toml(c.storage.prune)}

[peers]
# More addresses of members, as "/ip4/192.0.2.7/tcp/4001/p2p/<peer id>"; `collegium peer add` keeps its own list.
addresses = {_toml(c.peers.addresses)}
"""


def _folders(models: Models) -> str:
    return "".join(f"{_toml(name)} = {_toml(str(path))}\n" for name, path in models.folders)


def _overrides(modalities: tuple[ModalityPrivacy, ...]) -> str:
    lines = []
    for entry in modalities:
        lines.append(f"[privacy.modalities.{_toml(entry.modality)}]")
        lines += [f"policy = {_toml(entry.policy)}"] if entry.policy else []
        lines += [f"epsilon = {entry.epsilon!r}"] if entry.epsilon else []
        lines += [f"delta = {entry.delta!r}"] if entry.delta else []
    return "".join(f"{line}\n" for line in lines)


def _toml(value: str | bool | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML basic string, except for one control character that only TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
