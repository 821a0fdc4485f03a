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
from ...node.home import config as settings
from ...node.home import keys
from ...node.home.paths import Home
from ...protocol import schema
from ...protocol.charter import Charter, Member, Rules, SignedCharter, add_signature, check, dump_file
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning

NODE = (sys.executable, "-P", "-m", "collegium.node")


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
    """Return loopback ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return ports


def found(
    root: Path,
    named: Sequence[tuple[str, Path | None, float]],
    components: tuple[ComponentSpec, ...],
    learning: Learning,
    seed: bytes,
    *,
    name: str,
    rounds: int,
    deadline_ms: int = 60_000,
    fault_model: str = "byzantine",
    epsilon: float = 8.0,
    delta: float = 1e-5,
    policy: str = "dp",
    learner: tuple[str, ...] = (),
    timing: settings.Timing | None = None,
    hosts: Sequence[str] | None = None,
    mdns: bool = False,
    anywhere: bool = False,
    ways: Sequence[int] = (),
    learners: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Charter, list[Institution]]:
    """Make keys, configurations and one charter signed by all; `named` is (name, data folder, lot size).

    The nodes listen on this machine alone, or on the addresses of `hosts`. With `mdns` the charter names no addresses;
    `anywhere`: they listen on every address of their host. `ways` are the ports of this machine by which the others are
    to reach them instead; `learners` are commands by name, where they are not everybody's `learner`.
    """
    institutions, members = [], []
    at = hosts or ["127.0.0.1"] * len(named)
    for number, ((title, data, lot), port, host) in enumerate(zip(named, free_ports(len(named)), at, strict=True)):
        home = Home(root / title)
        home.make()
        identity = keys.create(home, None)
        address = f"/ip4/{host}/tcp/{port}"
        way = f"/ip4/{host}/tcp/{ways[number]}" if ways else address
        settings.create(
            home.config,
            settings.Config(
                node=settings.Node(
                    name=title,
                    listen=(f"/ip4/0.0.0.0/tcp/{port}" if anywhere else address,),
                    advertise=(way,) if ways else (),
                    mdns=mdns,
                ),
                data=settings.Data(data),
                learning=settings.Learning(rounds=rounds, lot_size=lot, learner=(learners or {}).get(title, learner)),
                privacy=settings.Privacy(epsilon=epsilon, delta=delta, policy=policy),
                log=settings.Log(format="json"),
                timing=timing or settings.Timing(),
            ),
        )
        institutions.append(Institution(title, home, identity, data, lot))
        members.append(Member(identity.public_key, title, () if mdns else (way,)))
    charter = Charter(
        version=1,
        name=name,
        created=int(time.time()),
        seed=seed,
        members=tuple(sorted(members, key=lambda member: member.key)),
        rules=Rules(fault_model, deadline_ms, 1, 64, 1 << 20, 1000),
        components=tuple(sorted(components, key=lambda spec: spec.name)),
        learning=learning,
    )
    check(charter)
    signed = SignedCharter(schema.dump(charter), ())
    for institution in institutions:
        signed = add_signature(charter, signed, institution.identity)
    for institution in institutions:
        institution.home.charter.write_bytes(dump_file(signed))
    return charter, institutions
