"""A relay knows who dials, cuts what leads from one part to another, and lets it through again."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from collegium.sims.processes.relays import Relays

from ...waiting import LIMIT


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    def serve() -> None:
        with suppress(OSError):  # closed: over
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def heard(connection: socket.socket) -> bytes:
    """What comes back, b"" if the connection is closed."""
    try:
        connection.sendall(b"hello")
        return connection.recv(5)
    except OSError:
        return b""


def test_what_crosses_the_cut_is_closed_until_it_is_healed(echo: int) -> None:
    relays = Relays(3, lambda node: os.getpid() if node == 0 else None)
    relays.serve([echo] * 3)

    def dial(node: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", relays.ports[node]), timeout=LIMIT)

    with dial(1) as near, dial(2) as far:
        assert heard(near) == heard(far) == b"hello"
        relays.cut((0, 1), (2,))
        assert heard(far) == b""
        assert heard(near) == b"hello", "it does not cross"
    with dial(2) as far:
        assert heard(far) == b""
    relays.heal()
    with dial(2) as far:
        assert heard(far) == b"hello"
    relays.close()
    with pytest.raises(OSError, match=r"refused|reset"):
        dial(1)


def test_a_stranger_is_not_let_through(echo: int) -> None:
    relays = Relays(1, lambda _: None)
    relays.serve([echo])
    with socket.create_connection(("127.0.0.1", relays.ports[0]), timeout=LIMIT) as connection:
        assert heard(connection) == b""
    relays.close()
