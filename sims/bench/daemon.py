"""The daemon without learner, against a bare py-libp2p host: start, resident memory, idle CPU."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from ...crypto.errors import OperatorError
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ..processes.federation import Agreed, Settings, found
from ..simulator.small import small_charter
from .rows import Row, at_most

BARE_HOST = """
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NID, Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YID, Yamux
from libp2p.tools.anyio_service import background_trio_service as service
from multiaddr import Multiaddr

async def main():
    pair = create_new_key_pair()
    address = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    host = new_host(key_pair=pair, listen_addrs=address,
                    sec_opt={NID: Noise(pair, noise_privkey=x25519().private_key)}, muxer_opt={YID: Yamux})
    gossip = GossipSub([PROTOCOL_ID_V11], degree=6, degree_low=4, degree_high=12, heartbeat_interval=1)
    pubsub = Pubsub(host, gossip)
    async with host.run(address), service(pubsub), service(gossip):
        await pubsub.wait_until_ready()
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
DAEMON = """
import sys
from pathlib import Path
from collegium.node.home.paths import Home
from collegium.node.runtime import serve
serve(Home(Path(sys.argv[1])), None, started=lambda: print("ready", flush=True))
"""


def measure(quick: bool) -> Sequence[Row]:
    """Start each in turn, several times; then watch one of each for a few idle seconds."""
    repeats, idle = (2, 3.0) if quick else (5, 10.0)
    members = [Identity.from_seed(sha256(b"bench daemon"))]
    template = small_charter(members, min_updates=1)
    starts: dict[str, list[float]] = {"daemon": [], "bare": []}
    memory: dict[str, list[float]] = {"daemon": [], "bare": []}
    cpu: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        root = Path(folder)
        _, institutions = found(
            root,
            [("node", None, 1.0)],
            Agreed("bench", template.components, template.learning, template.seed),
            Settings(rounds=0),
        )
        commands = {
            "daemon": [sys.executable, "-c", DAEMON, str(institutions[0].home.root)],
            "bare": [sys.executable, "-c", BARE_HOST],
        }
        for repeat in range(repeats):
            for name, command in commands.items():
                begun = time.perf_counter()
                process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                try:
                    assert process.stdout is not None
                    if process.stdout.readline().strip() != b"ready":
                        raise OperatorError(f"the {name} process did not start")
                    starts[name].append(time.perf_counter() - begun)
                    time.sleep(1.0)
                    memory[name].append(_resident(process.pid))
                    if repeat == repeats - 1:
                        before = _cpu(process.pid)
                        time.sleep(idle)
                        cpu[name] = (_cpu(process.pid) - before) / idle
                finally:
                    process.kill()
                    process.wait()
                    if process.stdout is not None:
                        process.stdout.close()
    return [
        at_most(
            "daemon start, s, against a bare py-libp2p host", median(starts["daemon"]), median(starts["bare"]), 1.3
        ),
        at_most("resident memory, MB", median(memory["daemon"]) / 1e6, median(memory["bare"]) / 1e6, 1.3),
        at_most("idle CPU, share of a core", cpu["daemon"], max(cpu["bare"], 0.001), 1.3),
    ]


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
