"""The page's server: HTTP on one port of 127.0.0.1, in a process of its own."""

import signal
import socket
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from ...crypto.errors import UsageError
from .app import build
from .guard import Guard
from .source import Source
from .token import token

ADDRESS = "127.0.0.1"


def run(source: Source, port: int, opened: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `opened` is called with the link that lets one browser in.

    Raises UsageError if the port is taken.
    """
    secret = token(source.home)
    with socket.socket(socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            advice = "Another page may be open: leave out --port, or give another one."
            raise UsageError(f"Port {port} of {ADDRESS} cannot be used: {error.strerror}", advice) from error
        listener.listen()
        chosen = listener.getsockname()[1]
        guard = Guard(build(source), chosen, secret)
        trio.run(_serve, listener.detach(), guard, lambda: opened(f"http://{ADDRESS}:{chosen}{guard.link}"))


async def _serve(descriptor: int, guard: Guard, opened: Callable[[], None]) -> None:
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.2
    config.include_server_header = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def asked_to_stop() -> None:
            await anext(aiter(signals))

        opened()
        app: Any = guard  # an ASGI application; hypercorn's type of it is narrower
        await serve(app, config, shutdown_trigger=asked_to_stop)
