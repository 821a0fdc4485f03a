"""What somebody without a key can do to a daemon that runs as its operator started it (G9)."""

import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
import trio.lowlevel

from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.control.client import Client
from collegium.node.core import events as ev
from collegium.node.core.inbox import MAX_IDLE, PIECE
from collegium.node.core.messages import SyncResponse
from collegium.node.home import config as settings
from collegium.node.home.lock import running
from collegium.node.home.paths import Home
from collegium.node.views.shapes import MemberName
from collegium.protocol import schema
from collegium.protocol.records import Record

from ...waiting import LIMIT, wait_for

Make = Callable[..., Any]
DESCRIPTORS = 1024
MIN_SPARE = 600
MAX_LINES = 50  # that thousands of refused connections may add to the log


def connected(home: Home) -> list[MemberName]:
    live = Client(home).status()["live"]
    return live["connected"] if live is not None else []


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def knock(port: int, held: "deque[socket.socket]", keep: int) -> None:
    """Connect without waiting for it; of all connections only the newest are kept."""
    client = socket.socket()
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.connect(("127.0.0.1", port))
    held.append(client)
    while len(held) > keep:
        held.popleft().close()


def garbage(port: int) -> None:
    """Say something that is no handshake, and go."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
        client.sendall(b"\xff" * 100)


def queued(port: int) -> int:
    """How many connections wait at a listening socket to be accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "0A" and local.endswith(f":{port:04X}"):
            return int(queues.split(":")[1], 16)
    return 0


def until_accepted(port: int) -> None:
    wait_for(lambda: not queued(port))


def command(*words: object, shell: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `collegium` as a user does, in a shell that has run `shell` before."""
    return subprocess.run(
        ["sh", "-c", f'{shell}exec "$@"', "sh", sys.executable, "-m", "collegium.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=os.environ | {"NO_COLOR": "1"},
    )


def test_g9_thousands_of_connections_cost_a_daemon_neither_descriptors_nor_lines_of_its_log(
    federation: Make,
) -> None:
    two = federation(count=2, rounds=0)
    home = two.institutions[0].home
    (listen,) = settings.load(home.config).node.listen
    done = command("node", "start", "--home", home.root, shell=f"ulimit -n {DESCRIPTORS}; ")
    assert done.returncode == 0, done.stderr
    pid = running(home)
    assert pid is not None
    held: deque[socket.socket] = deque()
    try:
        most, port = 0, int(listen.rsplit("/", 1)[1])
        for _ in range(14):
            for _ in range(100):
                knock(port, held, keep=900)
            until_accepted(port)
            most = max(most, descriptors(pid))
        for client in held:
            client.close()
        held.clear()
        before = len(home.log.read_text().splitlines())
        for number in range(2000):
            garbage(port)
            if number % 50 == 0:
                until_accepted(port)
        assert len(home.log.read_text().splitlines()) < before + MAX_LINES
        for _ in range(100):
            knock(port, held, keep=900)
        status = command("node", "status", "--json", "--home", home.root)
        assert status.returncode == 0, status.stderr + home.log.read_text()[-2000:]
        assert json.loads(status.stdout)["live"]
        assert most < DESCRIPTORS - MIN_SPARE
        two.daemons[1].start()  # the other member, from the same address, while all these connections are held
        wait_for(lambda: connected(home), seen=lambda: home.log.read_text()[-3000:])
        assert [member["name"] for member in connected(home)] == ["node-1"]
        assert running(home) == pid
    finally:
        for client in held:
            client.close()
        command("node", "stop", "--force", "--home", home.root)


def test_g9_a_neighbours_useless_answer_leaves_the_daemon_time_for_others(runtime: Any) -> None:
    """What answers the operator runs on the same thread: it has its turn between the pieces of an answer."""
    core = runtime.core
    member, *others = [Identity.from_seed(sha256(b"member %d" % number)) for number in range(6)]
    keys = (*core.ledger.members, member.public_key, *(other.public_key for other in others))
    core.ledger = replace(core.ledger, members=tuple(sorted(keys)))  # it signs nothing before more of them answer
    core.ledger = replace(core.ledger, heads={**core.ledger.heads, member.public_key: (10**6, bytes(32))})
    old = Record(core.federation, member.public_key, 1, bytes(32), "offer", b"")
    records = tuple(bytes(64) + schema.dump(replace(old, seq=number + 1)) for number in range(MAX_IDLE - 1))
    data = schema.dump(SyncResponse(core.federation, 0, (), records, (), 0))
    turns = [0]

    async def operator() -> None:
        while member.public_key not in core.reports:
            turns[0] += member.public_key in core.answers
            await trio.lowlevel.checkpoint()

    async def test() -> None:
        with trio.fail_after(300):
            async with trio.open_nursery() as runtime._nursery:
                runtime._nursery.start_soon(runtime._work)
                runtime._nursery.start_soon(operator)
                runtime.submit(ev.SyncReply(member.public_key, data))
                while member.public_key not in core.reports:  # noqa: ASYNC110 - it announces nothing
                    await trio.sleep(0.01)
                runtime._nursery.cancel_scope.cancel()

    trio.run(test)
    assert turns[0] >= MAX_IDLE // PIECE - 2
