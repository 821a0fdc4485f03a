"""What a service manager is told over NOTIFY_SOCKET, as sd_notify(3) has it: that the daemon is ready, lives, stops.

Without a NOTIFY_SOCKET nothing is told. Whether the daemon lives is told by its own loop: when that hangs, nothing is.
"""

import os
import socket
from contextlib import suppress

import trio

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


def notify(text: str) -> None:
    """Tell the service manager; nobody there is no error."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        out.connect("\0" + name[1:] if name.startswith("@") else name)
        out.send(text.encode())


async def keep_told(ready: trio.Event) -> None:
    """Tell that the daemon is ready once it is, then again and again that it lives."""
    await ready.wait()
    notify(READY)
    pause = _pause()
    while pause:
        notify(ALIVE)
        await trio.sleep(pause)


def _pause() -> float:
    """Return how often the watchdog wants to be told: twice in its time; 0 if it watches nothing here."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(microseconds) / 2_000_000
