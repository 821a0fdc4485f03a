"""The daemon's notes on itself, watched: [alarm] of config.toml says where they are reported."""

from collections.abc import Sequence

from ..alarms.watch import Watch
from ..control.facts import Daemon, context_of
from ..patience import in_thread
from ..views.note import Note
from ..views.notes import notes


async def watch(daemon: Daemon) -> None:
    """Report what begins and what ends, until cancelled; nothing without a command or a webhook."""
    alarm = daemon.config.alarm
    if not alarm.command and not alarm.webhook:
        return

    async def look() -> Sequence[Note]:
        return await in_thread(notes, context_of(daemon))

    await Watch(daemon.home, alarm, daemon.config.node.name, daemon.charter.name).run(look)
