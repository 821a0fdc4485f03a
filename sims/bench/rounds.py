"""Rounds without training over real daemons: time and bytes, against plain TCP all to all and the lower bound."""

import math
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.home.config import Privacy
from ...protocol.charter import Charter
from ..processes.federation import SYNTHETIC, Agreed, Daemon, Settings, found
from ..processes.observe import View, bytes_per_round, closed, fold_ledger, look, lower_bound, moment, round_seconds
from ..simulator.small import small_charter
from .rows import Row, at_most, limit

NODES = 4
PAYLOAD = 203_304  # bytes: 50,826 parameters as float32, a model of a common tutorial
WAIT_SECONDS = 120.0


def measure(quick: bool) -> Sequence[Row]:
    """4 daemons, one component whose updates have 203 KB; each learner makes its update up at once."""
    rounds = 6 if quick else 20
    members = [Identity.from_seed(sha256(bytes([n]))) for n in range(NODES)]
    # A clip norm that lets made-up updates of eight grid steps a coordinate pass the norm bound.
    template = small_charter(members, dimension=PAYLOAD, clip_norm=20_000_000)
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        root = Path(folder)
        charter, institutions = found(
            root,
            [(f"node-{n}", root, 1.0) for n in range(NODES)],
            Agreed("bench", template.components, template.learning, template.seed, deadline_ms=10_000),
            Settings(rounds, Privacy(policy="open"), learner=SYNTHETIC),
        )
        daemons = [Daemon(institution) for institution in institutions]
        views = [View() for _ in institutions]
        started = time.time()
        try:
            for daemon in daemons:
                daemon.start()
            while not all(closed(view, charter) >= rounds for view in views):
                if time.time() - started > WAIT_SECONDS:
                    raise TimeoutError(f"no {rounds} rounds in {WAIT_SECONDS:g} s; see {root}")
                time.sleep(0.5)  # rarely: the observer shares the machine with the daemons
                views = [look(i, v) for i, v in zip(institutions, views, strict=True)]
            bound = lower_bound(fold_ledger(institutions[0], charter), institutions, {1})
            cpu = sum(_cpu(daemon.process.pid) for daemon in daemons if daemon.process is not None)
            memory = sum(_resident(daemon.process.pid) for daemon in daemons if daemon.process is not None)
        finally:
            for daemon in daemons:
                daemon.stop()
    seconds = [s for r in range(2, rounds + 1) if not math.isnan(s := round_seconds(views, charter, r))]
    whole = _pace(views, charter, rounds)
    first = min(moment(view, charter, 1, "folded_at") for view in views) - started
    received = bytes_per_round(views, charter, {1})
    tcp = _plain_tcp(NODES, PAYLOAD)
    return [
        limit("first closed round after the daemons start, s", first, 8.0),
        limit(f"a round without training, {NODES} nodes, 203 KB, median s", median(seconds), 0.3),
        Row("the same, from close to close, median s", whole),
        Row(
            "a round, s, against the same bytes over plain TCP all to all", median(seconds), tcp, median(seconds) / tcp
        ),
        at_most("bytes received a node and round, against every other's update once", received, bound, 1.10),
        Row("CPU a node and round, start included, s", cpu / NODES / rounds),
        limit("memory of all processes together, GB", memory / 1e9, 1.5),
    ]


def _pace(views: Sequence[View], charter: Charter, rounds: int) -> float:
    folded = [max(moment(view, charter, r, "folded_at") for view in views) for r in range(1, rounds + 1)]
    return median(b - a for a, b in pairwise(folded))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    """Return the resident bytes of a daemon and its worker, without what they share with each other twice."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(") ", 1)[1].split()
            if int(stat.parent.name) == pid or int(fields[1]) == pid:
                for line in (stat.parent / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += float(line.split()[1]) * 1024
        except (OSError, IndexError):
            continue  # the process ended while we looked
    return total


def _plain_tcp(nodes: int, size: int) -> float:
    """Return the seconds in which `nodes` threads send `size` bytes to each other over loopback TCP."""
    data = secrets.token_bytes(size)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(nodes)]

    def receive(listener: socket.socket) -> None:
        for _ in range(nodes - 1):
            connection, _ = listener.accept()
            with connection:
                while connection.recv(1 << 16):
                    pass

    def send(me: int) -> None:
        for other, listener in enumerate(listeners):
            if other != me:
                with socket.create_connection(listener.getsockname()) as connection:
                    connection.sendall(data)

    times = []
    for _ in range(5):
        threads = [threading.Thread(target=receive, args=(listener,)) for listener in listeners]
        threads += [threading.Thread(target=send, args=(me,)) for me in range(nodes)]
        before = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times.append(time.perf_counter() - before)
    for listener in listeners:
        listener.close()
    return median(times)
