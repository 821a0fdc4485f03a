"""A 50 MB blob between two processes: pulled as the daemon pulls it, over a bare py-libp2p stream, over plain TCP."""

import hashlib
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import trio

from ...crypto.errors import OperatorError
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.network import Callbacks, NetworkConfig, open_network
from ...node.store.blobs import Blobs
from .rows import Row, at_least

SERVER, CLIENT = Identity.from_seed(sha256(b"bench server")), Identity.from_seed(sha256(b"bench client"))

BARE = """
import sys, time, trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NID, Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YID, Yamux
from multiaddr import Multiaddr

async def main(size, address):
    pair = create_new_key_pair()
    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    host = new_host(key_pair=pair, listen_addrs=listen,
                    sec_opt={NID: Noise(pair, noise_privkey=x25519().private_key)}, muxer_opt={YID: Yamux})
    data = bytes(1 << 20)
    async def serve(stream):
        left = size
        while left:
            part = data[: min(len(data), left)]
            await stream.write(part)
            left -= len(part)
        await stream.close()
    host.set_stream_handler("/bare/1", serve)
    async with host.run(listen):
        if address is None:
            print(f"{host.get_addrs()[0]}", flush=True)
            await trio.sleep_forever()
        info = info_from_p2p_addr(Multiaddr(address))
        await host.connect(info)
        for _ in range(int(sys.argv[3])):
            stream = await host.new_stream(info.peer_id, ["/bare/1"])
            before, got = time.perf_counter(), 0
            while got < size:
                got += len(await stream.read(1 << 16))
            print(time.perf_counter() - before, flush=True)
            await stream.close()
        await host.close()

trio.run(main, int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
"""


def measure(quick: bool) -> Sequence[Row]:
    """MB/s of each, in turns."""
    size, repeats = (10 << 20, 2) if quick else (50 << 20, 5)
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        root = Path(folder)
        data = secrets.token_bytes(size)
        Blobs(root / "blobs").put(data)
        ours, bare, tcp, disk = [], [], [], []
        with (
            _process([sys.executable, "-m", __name__, folder]) as serving,
            _process([sys.executable, "-c", BARE, str(size)]) as bare_serving,
        ):
            address, bare_address = _line(serving), _line(bare_serving)
            for repeat in range(repeats + 1):
                seconds = trio.run(_pull, address, sha256(data), size, root / f"pulled-{repeat}")
                output = subprocess.run(  # noqa: S603 - our own interpreter
                    [sys.executable, "-c", BARE, str(size), bare_address, "1"],
                    capture_output=True,
                    check=True,
                    timeout=120,
                )
                if repeat:  # the first one warms
                    ours.append(seconds)
                    bare.append(float(output.stdout.split()[-1]))
                    tcp.append(_tcp(data))
                    disk.append(_durable(data, root / f"written-{repeat}"))
    rate = {name: size / 1e6 / median(times) for name, times in (("ours", ours), ("bare", bare), ("tcp", tcp))}
    return [
        at_least(
            f"blob pull of {size >> 20} MiB, hashed and durable, MB/s, bare py-libp2p", rate["ours"], rate["bare"], 0.7
        ),
        Row("the same against plain TCP", rate["ours"], rate["tcp"], rate["ours"] / rate["tcp"]),
        Row("seconds of it that hashing and fsync alone take", median(ours), median(disk), median(ours) / median(disk)),
    ]


def _process(command: list[str]) -> "_Running":
    return _Running(command)


class _Running:
    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603 - ours

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    if not line:
        raise OperatorError("the serving process did not start")
    return line


async def _pull(address: str, digest: bytes, size: int, folder: Path) -> float:
    config = NetworkConfig(seed=CLIENT.seed, listen=("/ip4/127.0.0.1/tcp/0",), topic="bench")
    blobs = Blobs(folder)
    async with open_network(config, Callbacks(lambda key: key == SERVER.public_key)) as network:
        peer = await network.connect(address)
        before = time.perf_counter()
        with blobs.writer(digest, size) as writer:
            await network.fetch(peer, digest, size, writer.write, writer.offset)
            writer.commit()
        return time.perf_counter() - before


def _tcp(data: bytes) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        before = time.perf_counter()
        with socket.create_connection(listener.getsockname()) as connection:
            got = 0
            while got < len(data):
                got += len(connection.recv(1 << 16))
        seconds = time.perf_counter() - before
        thread.join()
    return seconds


def _durable(data: bytes, folder: Path) -> float:
    blobs = Blobs(folder)
    before = time.perf_counter()
    with blobs.writer(hashlib.sha256(data).digest(), len(data)) as writer:
        for start in range(0, len(data), 1 << 16):
            writer.write(data[start : start + (1 << 16)])
        writer.commit()
    return time.perf_counter() - before


async def _serve(folder: Path) -> None:
    blobs = Blobs(folder / "blobs")
    config = NetworkConfig(seed=SERVER.seed, listen=("/ip4/127.0.0.1/tcp/0",), topic="bench")

    def path(digest: bytes) -> tuple[Path, int] | None:
        size = blobs.size(digest)
        return None if size is None else (blobs.path(digest), size)

    async with open_network(config, Callbacks(lambda key: key == CLIENT.public_key, blob_path=path)) as network:
        sys.stdout.write(network.addresses()[0] + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_serve, Path(sys.argv[1]))
