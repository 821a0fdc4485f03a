"""TCP relays in front of daemons on this machine, so that a network between real processes can be parted, without root.

A relay identifies the dialler by the process that holds the other end of the socket (/proc). What leads from one part
to another is closed, and closed again as often as it is dialled, as a firewall with an opinion would do it.
"""

import os
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path


class Relays:
    """One relay for each node, at 127.0.0.1:`ports[n]`; `pid(n)` is the node's process, None while it is down."""

    def __init__(self, count: int, pid: Callable[[int], int | None]) -> None:
        self._pid = pid
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.ports = [int(listener.getsockname()[1]) for listener in self._listeners]
        self._parts: Sequence[Collection[int]] = ()
        self._open: dict[tuple[socket.socket, socket.socket], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def serve(self, targets: Sequence[int]) -> None:
        """Begin to relay, to these ports of the nodes."""
        for node, port in enumerate(targets):
            threading.Thread(target=self._accept, args=(node, port), daemon=True).start()

    def cut(self, *parts: Collection[int]) -> None:
        """Close what leads from one part to another, and let nothing new through."""
        with self._lock:
            self._parts = parts
            for pair, (first, second) in self._open.items():
                if self._is_parted(first, second):
                    _shut(*pair)

    def heal(self) -> None:
        """Let everything through again. Nodes get no notice: each finds out when it dials next."""
        with self._lock:
            self._parts = ()

    def close(self) -> None:
        """Stop relaying."""
        for listener in self._listeners:
            _shut(listener)
            listener.close()
        with self._lock:
            for pair in self._open:
                _shut(*pair)

    def _is_parted(self, first: int, second: int) -> bool:
        return any((first in part) is not (second in part) for part in self._parts)

    def _accept(self, node: int, port: int) -> None:
        with suppress(OSError):  # the listener is closed: it is over
            while True:
                connection, address = self._listeners[node].accept()
                threading.Thread(target=self._relay, args=(connection, address[1], node, port), daemon=True).start()

    def _relay(self, dialled: socket.socket, caller: int, node: int, port: int) -> None:
        with suppress(OSError), dialled:
            who = self._node_at(caller)
            with socket.create_connection(("127.0.0.1", port)) as beyond:
                pair = (dialled, beyond)
                with self._lock:
                    if who is None or self._is_parted(who, node):
                        return
                    self._open[pair] = (who, node)
                back = threading.Thread(target=_pump, args=(beyond, dialled), daemon=True)
                back.start()
                _pump(dialled, beyond)
                back.join()
                with self._lock:
                    del self._open[pair]

    def _node_at(self, port: int) -> int | None:
        """Return the node whose process holds the socket at this local port; None for another process."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        wanted = {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}
        for node in range(len(self.ports)):
            with suppress(OSError):  # it was killed while we looked
                for path in Path(f"/proc/{self._pid(node)}/fd").iterdir():
                    with suppress(OSError):  # closed meanwhile
                        if os.readlink(path) in wanted:  # noqa: PTH115 - a socket's name is no path
                            return node
        return None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _shut(source, sink)


def _shut(*sockets: socket.socket) -> None:
    for endpoint in sockets:
        with suppress(OSError):  # it is shut already
            endpoint.shutdown(socket.SHUT_RDWR)
