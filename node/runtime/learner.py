"""The daemon's side of the learner worker: a child process that may crash or be killed without harm."""

import subprocess
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

import structlog
import trio

from ...crypto.errors import CollegiumError, OperatorError
from ..learner.answers import Answer, BadReplyError, ErrorKind, Failed, Opened, Progress
from ..learner.client import BUILT_IN
from ..learner.coding import decode_reply, encode, expect
from ..learner.frames import HEADER, frame, frame_length
from ..learner.messages import Asks, Open, Train
from .logs import pass_on

log = structlog.get_logger(__name__)

MIN_BACKOFF, MAX_BACKOFF = 1.0, 60.0
A = TypeVar("A")


class LearnerError(OperatorError):
    """The worker refused a request (with a `kind`), died during it, or gave no usable answer (None)."""

    def __init__(self, message: str, advice: str = "", kind: ErrorKind | None = None) -> None:
        self.kind = kind
        super().__init__(message, advice)


class Learner:
    """Runs the worker, restarts it with backoff, and answers requests one after the other.

    `state` is "starting", "ready", "training", "failed", "waiting" (for a data folder) or "off"; `detail` is the
    reason. Unusable data, such as a missing table, are opened again with backoff. `device` is the compute device,
    `progress` the steps of a training run, or the records that a pretrained model has read, done and in all (0, 0:
    nothing is under way), `cut` the number of a text modality's records that are read in part. `on_ended`: a worker
    that was ready ended by itself, and another one begins.
    """

    def __init__(
        self,
        command: Sequence[str],
        opening: Open | None,
        on_ready: Callable[[Opened], None],
        on_lost: Callable[[], None] = lambda: None,
        waiting_for: str = "",
        on_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = list(command) or list(BUILT_IN)
        self._opening = opening
        self._on_ready, self._on_lost, self._on_ended = on_ready, on_lost, on_ended
        self._excused = False  # this worker was ready, or was killed on purpose: its end is no failure yet
        self._process: trio.Process | None = None
        self._waiting: dict[int, _Call] = {}
        self._numbers = 0
        self._sending = trio.Lock()
        self.state = "waiting" if waiting_for else "starting"
        self.detail = waiting_for
        self.device = ""
        self.left_out = 0  # students with a cell that cannot be used
        self.consents: dict[str, int] | None = None  # how many students consent; None: nobody asks
        self.students: int | None = None  # students in the data, held out or not; None: unknown
        self.labelled: dict[str, int] = {}  # by task: the number of records with a label
        self.progress = (0, 0)
        self._said = ""  # why the last request failed, if it did
        self.cut: dict[str, int] = {}
        self._reopening = False

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        if self._opening is None and self.state != "waiting":
            self.state, self.detail = "off", "no data folder is configured"
        if self.state == "waiting":
            self._on_lost()  # other members should not wait for components that cannot be trained
        backoff = MIN_BACKOFF
        while True:
            started = trio.current_time()
            self.progress = (0, 0)
            try:
                await self._live()
            except (OSError, CollegiumError) as error:
                self.detail = str(error)
            if self._reopening:  # it was killed on purpose
                self._reopening, self._excused, backoff = False, False, MIN_BACKOFF
                self.state, self.detail = "starting", "the data are read again"
                continue
            if self.state not in {"off", "waiting"}:
                self.state = "failed"
                if self._excused:
                    self._on_ended()
                else:
                    self._on_lost()
            self._excused = False
            if trio.current_time() - started > MAX_BACKOFF:
                backoff = MIN_BACKOFF
            log.warning("learner worker stopped", reason=self.detail, again_in_seconds=backoff)
            await trio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF)

    async def _live(self) -> None:
        self._process = process = await trio.lowlevel.open_process(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, process, nursery.cancel_scope)
                nursery.start_soon(_forward, process)
                if self._opening is not None:
                    nursery.start_soon(self._open)
        finally:
            self._process = None
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
            for call in self._waiting.values():
                call.end(LearnerError("the learner worker died", "it is started again by itself"))
            self._waiting.clear()

    async def _open(self) -> None:
        """Open the data, again and again until they are usable or the worker ends."""
        assert self._opening is not None
        backoff, logged = MIN_BACKOFF, ""
        while True:
            try:
                answer = await self.request(self._opening)
            except LearnerError as error:
                backoff = min(2 * backoff, MAX_BACKOFF)
                self.state, self.detail = "failed", str(error)
                if str(error) != logged:
                    log.error(_failure_text(error.kind), reason=str(error), again_in_seconds=backoff)
                if not logged:
                    self._on_lost()
                logged = str(error)
                await trio.sleep(backoff)
                continue
            self._excused, self.progress = True, (0, 0)
            self.state, self.detail, self.device = "ready", "", answer.device
            self.left_out, self.consents = answer.left_out, answer.consents
            self.students = answer.subjects + answer.held_out
            self.labelled = {name: task.records for name, task in answer.tasks.items()}
            if self.left_out:
                log.warning("students left out", students=self.left_out, cells=list(answer.problems))
            self.cut = {name: records for name, records in answer.cut.items() if records}
            for name, records in self.cut.items():
                log.warning("texts are cut: only their beginning is read", modality=name, records=records)
            self._on_ready(answer)
            return

    async def reopen(self, opening: Open) -> None:
        """Restart with another opening request: the running worker is killed, and its work in progress is lost."""
        self._opening, self._excused = opening, True
        process = self._process
        if process is not None:
            self._reopening = True
            self.state, self.detail = "starting", "the data are read again"
            process.kill()
            await process.wait()

    async def _read(self, process: trio.Process, scope: trio.CancelScope) -> None:
        assert process.stdout is not None
        buffer = bytearray()
        while True:
            data = await process.stdout.receive_some(1 << 16)
            if not data:
                status = process.poll()
                how = "" if status is None else f" (status {status})"
                self.detail = f"the worker ended{how}{f': {self._said}' if self._said else ''}"
                scope.cancel()
                return
            buffer += data
            while len(buffer) >= HEADER:
                length = frame_length(bytes(buffer[:HEADER]))
                if len(buffer) < HEADER + length:
                    break
                body = bytes(buffer[HEADER : HEADER + length])
                del buffer[: HEADER + length]
                self._deliver(body)

    def _deliver(self, body: bytes) -> None:
        """Pass a reply to its request. Raises BadReplyError if it names no open request."""
        try:
            number, reply = decode_reply(body)
        except BadReplyError as error:
            if not error.number:
                raise
            if (call := self._waiting.get(error.number)) is not None:
                call.end(LearnerError(error.message, error.advice))
            return
        call = self._waiting.get(number)
        if call is None:
            return
        match reply:
            case Progress():
                self.progress = (reply.done, reply.total)
            case Failed():
                self._said = reply.message
                call.end(LearnerError(reply.message, reply.advice, reply.kind))
            case _:  # an Answer: mypy refuses any other reply without its case
                self._said = ""
                call.end(reply)

    async def request(self, message: Asks[A]) -> A:
        """Send a request and return its answer. Raises LearnerError, with the worker's reason and advice."""
        async with self._sending:
            process = self._process
            if process is None or process.stdin is None:
                raise LearnerError("the learner worker is not running", self.detail)
            self._numbers += 1
            number = self._numbers
            call = self._waiting[number] = _Call()
            training = isinstance(message, Train)
            if training:
                self.state, self.progress = "training", (0, 0)
            try:
                await process.stdin.send_all(frame(encode(number, message)))
                await call.done.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise LearnerError("the learner worker died", str(error)) from error
            finally:
                self._waiting.pop(number, None)
                if training and self.state == "training":
                    self.state, self.progress = "ready", (0, 0)
        outcome = call.outcome
        if isinstance(outcome, LearnerError):
            raise outcome
        assert outcome is not None
        try:
            return expect(message, outcome)
        except BadReplyError as error:
            raise LearnerError(error.message, error.advice) from error


def _failure_text(kind: ErrorKind | None) -> str:
    match kind:
        case "bad-data":
            return "the data folder cannot be used"
        case "bad-request":
            return "the learner cannot do what the charter and the configuration ask for"
        case "internal" | None:
            return "the learner failed to open the data folder"
        case _:
            assert_never(kind)


class _Call:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: Answer | LearnerError | None = None

    def end(self, outcome: Answer | LearnerError) -> None:
        self.outcome = outcome
        self.done.set()


async def _forward(process: trio.Process) -> None:
    """Forward the worker's log lines unchanged."""
    assert process.stderr is not None
    async for data in process.stderr:
        pass_on(data.decode(errors="replace"))
