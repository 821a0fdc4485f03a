"""The core's timers, in real time."""

from collections.abc import Callable

import trio

from ..core import events as ev
from ..core.timers import Timer


class Timers:
    """Timers that are set; one that is set again begins anew."""

    def __init__(self, submit: Callable[[ev.Event], None]) -> None:
        self._submit = submit
        self._scopes: dict[Timer, trio.CancelScope] = {}

    def set(self, effect: ev.SetTimer, nursery: trio.Nursery) -> None:
        """Hand TimerFired to the core when the delay is over."""
        older = self._scopes.pop(effect.timer, None)
        if older is not None:
            older.cancel()
        scope = self._scopes[effect.timer] = trio.CancelScope()
        nursery.start_soon(self._fire, effect, scope)

    async def _fire(self, effect: ev.SetTimer, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(effect.delay / 1000)
            if self._scopes.get(effect.timer) is scope:
                del self._scopes[effect.timer]
                self._submit(ev.TimerFired(effect.timer))
