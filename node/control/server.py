"""The control API's server: HTTP on a socket in the node's home that only its owner may open."""

import os
import socket
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from .app import build
from .facts import Daemon


async def serve_control(daemon: Daemon, stop: trio.Event, listening: trio.Event) -> None:
    """Serve until `stop` is set, and set `listening` when callers are taken.

    The socket's file is made with mode 0600: nobody else may command this node.
    """
    daemon.home.socket_folder()
    daemon.home.socket.unlink(missing_ok=True)  # left by a daemon that was killed; we hold the directory's lock
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)  # only while the file is made
        try:
            listener.bind(str(daemon.home.socket))
        finally:
            os.umask(before)
        listener.listen()
        listening.set()
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 0.2
        try:
            # Starlette speaks ASGI; hypercorn's type of it is narrower.
            app: Any = build(daemon)
            await serve(app, config, shutdown_trigger=stop.wait)
        finally:
            daemon.home.socket.unlink(missing_ok=True)
