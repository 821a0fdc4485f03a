"""What was asked for on the page, from the asking to the outcome, in the memory of this process alone.

A ticket's name is in the address of its page; what was typed, a student's id among it, is in none.
"""

import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from threading import Lock
from typing import assert_never

import structlog

from ....crypto.errors import CollegiumError, OperatorError, RefusedError, UsageError
from ...control.within import Job, TooLongError
from .steps import Choice, Outcome, Plan, Step

log = structlog.get_logger(__name__)

MOST = 32  # tickets
AGE = 1800.0  # seconds that a finished one is kept
OVER = "Ask for it again: what was asked for is kept for half an hour, and until the page's server ends."


class Ticket:
    """One action under way. Its steps are made in threads of their own."""

    def __init__(self, title: str, first: Callable[[], Step]) -> None:
        self.title, self.begun, self.number = title, time.monotonic(), 0
        self.told: list[str] = []
        self._price: Job[Sequence[str]] | None = None
        self._lock = Lock()
        self._job = Job(self._guarded(first))

    def step(self, seconds: float = 0.0) -> Step | None:
        """Return where it stands, None while that is being made. Raises what its making raised."""
        try:
            return self._job.result(seconds)
        except TooLongError:
            return None

    @property
    def working(self) -> bool:
        """Whether something is under way."""
        try:
            return self.step() is None
        except CollegiumError:
            return False

    def price(self, seconds: float = 0.0) -> Sequence[str] | None:
        """Return what the plan costs, None while it is computed; a plan without a price has none to wait for."""
        plan = self.step()
        if not isinstance(plan, Plan) or plan.price is None:
            return ()
        with self._lock:
            if self._price is None:
                self._price = Job(plan.price)
        try:
            return self._price.result(seconds)
        except TooLongError:
            return None
        except CollegiumError as error:
            return (f"What it costs cannot be computed: {error}",)

    def answer(self, number: int, option: int) -> None:
        """Confirm the plan or choose an option, once: the same answer again changes nothing. Raises UsageError."""
        with self._lock:
            step = self.step()
            if step is None or number != self.number:
                return
            match step:
                case Plan():
                    job = self._guarded(lambda: step.do(self.told.append))
                case Choice():
                    if not 0 <= option < len(step.options):
                        raise UsageError("There is no such answer", "Choose one of the buttons.")
                    job = self._guarded(step.options[option].then)
                case Outcome():
                    return
                case _:
                    assert_never(step)
            self.number += 1
            self._price = None
            self._job = Job(job)

    def _guarded(self, make: Callable[[], Step]) -> Callable[[], Step]:
        """Return it so that a fault of ours is an error too. Its message is not logged: it may hold an id."""

        def made() -> Step:
            try:
                return make()
            except CollegiumError:
                raise
            except Exception as error:  # noqa: BLE001 - it is logged, without its message
                where = "".join(traceback.format_tb(error.__traceback__))
                log.error("action failed", action=self.title, error=type(error).__name__, where=where)
                raise OperatorError(
                    f"internal error: {type(error).__name__}", "The terminal of `collegium dashboard` has it."
                ) from None

        return made


class Tickets:
    """The tickets of one page."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}

    def open(self, title: str, first: Callable[[], Step]) -> str:
        """Begin an action; return its ticket's name. Raises RefusedError while too many are under way."""
        now = time.monotonic()
        for name, ticket in list(self._tickets.items()):
            finished = not ticket.working
            if finished and (now - ticket.begun > AGE or len(self._tickets) >= MOST):
                del self._tickets[name]
        if len(self._tickets) >= MOST:
            raise RefusedError(f"{MOST} actions of this page are under way", "Wait for one of them.")
        name = secrets.token_urlsafe(18)
        self._tickets[name] = Ticket(title, first)
        return name

    def get(self, name: str) -> Ticket:
        """Return a ticket. Raises UsageError if there is none of this name any more."""
        ticket = self._tickets.get(name)
        if ticket is None or (time.monotonic() - ticket.begun > AGE and not ticket.working):
            raise UsageError("This is over, or was never asked for", OVER)
        return ticket
