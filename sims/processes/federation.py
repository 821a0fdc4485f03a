"""Found a federation on one machine, and run its daemons as separate processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...crypto.identity import Identity
from ...node.home import config, keys
from ...node.home.paths import Home
from ...protocol import schema
from ...protocol.charter import Charter, Member, Rules, SignedCharter, add_signature, check, dump_file
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning

NODE = (sys.executable, "-P", "-m", "collegium.node")
SYNTHETIC = (sys.executable, "-P", "-m", "collegium.sims.processes.synthetic_learner")  # a learner


@dataclass(frozen=True, slots=True)
class Institution:
    """One institution of a federation on this machine."""

    name: str
    home: Home
    identity: Identity
    data: Path | None
    lot: float


@dataclass(slots=True)
class Daemon:
    """A node's process. Killed by pid, never by name."""

    institution: Institution
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    output: list[str] = field(default_factory=list)
    prefix: tuple[str, ...] = ()  # a command that runs the command after it, somewhere

    def start(self) -> None:
        """Start the daemon; its log goes to node.log in its home."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        home = self.institution.home
        with home.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*self.prefix, *NODE, "--home", str(home.root), "--log", str(home.log)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.started = time.time()

    def kill(self) -> None:
        """SIGKILL the daemon and its worker, as a power cut would."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it died by itself, and its worker with it
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Stop in good order, at last by force."""
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):  # then it is killed below
            self.process.wait(10)
        with suppress(ProcessLookupError):  # nothing was left over
            os.killpg(self.process.pid, signal.SIGKILL)  # a worker that outlived its daemon
        self.process.wait()
        self.process = None

    def dead(self) -> str | None:
        """Return the last lines of the log if the daemon ended by itself, else None."""
        if self.process is None or self.process.poll() is None:
            return None
        lines = self.institution.home.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-5:]) or f"exit status {self.process.returncode}"


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return ports


@dataclass(frozen=True, slots=True)
class Agreed:
    """The charter that all members sign."""

    name: str
    components: tuple[ComponentSpec, ...]
    learning: Learning
    seed: bytes
    deadline_ms: int = 60_000
    fault_model: str = "byzantine"
    pace_ms: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """The text of every member's config.toml; `learners` are commands by name, where they are not `learner`."""

    rounds: int
    privacy: config.Privacy = field(default_factory=config.Privacy)
    learner: tuple[str, ...] = ()
    learners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    timing: config.Timing = field(default_factory=config.Timing)
    models: config.Models = field(default_factory=config.Models)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the nodes listen: on this machine alone, on the addresses of `hosts`, or `anywhere` on their host.

    With `mdns` the charter names no addresses. `ways` are the ports of this machine by which the others are to reach
    them instead.
    """

    hosts: Sequence[str] = ()
    mdns: bool = False
    anywhere: bool = False
    ways: Sequence[int] = ()


def found(
    root: Path,
    named: Sequence[tuple[str, Path | None, float]],
    agreed: Agreed,
    settings: Settings,
    places: Places | None = None,
) -> tuple[Charter, list[Institution]]:
    """Make keys, configurations and one charter signed by all; `named` is (name, data folder, lot size)."""
    places = places or Places()
    institutions, members = [], []
    at = places.hosts or ["127.0.0.1"] * len(named)
    for number, ((title, data, lot), port, host) in enumerate(zip(named, free_ports(len(named)), at, strict=True)):
        home = Home(root / title)
        home.make()
        identity = keys.create(home, None)
        learner = settings.learners.get(title, settings.learner)
        address = f"/ip4/{host}/tcp/{port}"
        way = f"/ip4/{host}/tcp/{places.ways[number]}" if places.ways else address
        config.create(
            home.config,
            config.Config(
                node=config.Node(
                    name=title,
                    listen=(f"/ip4/0.0.0.0/tcp/{port}" if places.anywhere else address,),
                    advertise=(way,) if places.ways else (),
                    mdns=places.mdns,
                ),
                data=config.Data(data),
                learning=config.Learning(rounds=settings.rounds, lot_size=lot, learner=learner),
                privacy=settings.privacy,
                log=config.Log(format="json"),
                timing=settings.timing,
                models=settings.models,
            ),
        )
        institutions.append(Institution(title, home, identity, data, lot))
        members.append(Member(identity.public_key, title, () if places.mdns else (way,)))
    charter = Charter(
        version=1,
        name=agreed.name,
        created=int(time.time()),
        seed=agreed.seed,
        members=tuple(sorted(members, key=lambda member: member.key)),
        rules=Rules(agreed.fault_model, agreed.deadline_ms, 1, 64, 1 << 20, 1000, pace=agreed.pace_ms),
        components=tuple(sorted(agreed.components, key=lambda spec: spec.name)),
        learning=agreed.learning,
    )
    check(charter)
    signed = SignedCharter(schema.dump(charter), ())
    for institution in institutions:
        signed = add_signature(charter, signed, institution.identity)
    for institution in institutions:
        institution.home.charter.write_bytes(dump_file(signed))
    return charter, institutions
