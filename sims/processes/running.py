"""A federation of daemons on this machine while it runs: watched through its stores, never through what it says.

What every demo checks at the end is here as well: equal states, nothing signed twice, ε within the budget.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ...crypto.errors import OperatorError, UsageError
from ...node.control.client import Client
from ...node.core.events import Snapshot
from ...node.core.messages import Kind
from ...node.learner.client import Worker, worker
from ...node.learner.messages import Open
from ...node.runtime.folding import compute
from ...node.store.blobs import Blobs
from ...node.store.states import States
from ...protocol.blocks import Vote
from ...protocol.charter import Charter
from ...protocol.components import state_digest
from ...protocol.signing import open_signed
from ..learn.baseline import States as Trained
from . import report
from .federation import Daemon, Institution
from .observe import View, closed, fold_ledger, look, snapshot
from .result import Checked

STALL_SECONDS = 180.0
HOLD_SECONDS = 20.0


def folder_for(keep: Path | None, stack: ExitStack) -> Path:
    """Return the folder of a demo: `keep`, or one that goes with the stack. Raises UsageError if it is not empty."""
    if keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-demo-")))
    if keep.exists() and any(keep.iterdir()):
        raise UsageError(f"{keep} is not empty", "Name a new folder for --keep.")
    root = keep.absolute()
    root.mkdir(parents=True, exist_ok=True)
    return root


class Running:
    """The daemons of one federation, the last look at each, and what was checked."""

    def __init__(
        self, root: Path, console: Console, charter: Charter, institutions: Sequence[Institution], result: Checked
    ) -> None:
        self.root, self.console, self.charter, self.institutions = root, console, charter, list(institutions)
        self.daemons = [Daemon(institution) for institution in institutions]
        self.views = [View() for _ in institutions]
        self.checked = result
        self.names = {i.identity.public_key: i.name for i in institutions}
        self.started = 0.0

    def start(self) -> None:
        """Start every daemon."""
        self.started = time.time()
        for daemon in self.daemons:
            daemon.start()

    def stop(self) -> None:
        """Stop every daemon."""
        for daemon in self.daemons:
            daemon.stop()

    def table(self, *, whole: bool = False) -> report.Progress:
        """Return the table of rounds as of the last look."""
        return report.Progress(
            self.views, self.institutions, self.charter, self.checked.metric, self.started, self.names, whole
        )

    def until(self, done: Callable[[], bool], live: Live | None, what: str) -> None:
        """Look until `done`. Raises OperatorError if a daemon ends, or if nothing happens for a long time."""
        last, changed = None, time.time()
        while not done():
            time.sleep(0.1)
            self.views = [look(i, v) for i, v in zip(self.institutions, self.views, strict=True)]
            for daemon in self.daemons:
                reason = daemon.dead()
                if reason is not None:
                    raise OperatorError(f"the daemon of {daemon.institution.name} ended: {reason}")
            if live is not None:
                live.update(self.table())
            state = [(v.height, v.draws, len(v.metrics), len(v.notes)) for v in self.views]
            if state != last:
                last, changed = state, time.time()
            elif time.time() - changed > STALL_SECONDS:
                rounds = zip(self.institutions, self.views, strict=True)
                where = ", ".join(f"{i.name} at round {closed(v, self.charter)}" for i, v in rounds)
                raise OperatorError(
                    f"nothing happened for {STALL_SECONDS:g} s while waiting for {what}: {where}",
                    f"Read node.log of the members that are behind, in {self.root}.",
                )

    def until_trained(self, rounds: int, live: Live | None) -> None:
        """Wait until every member closed and evaluated the last round."""
        self.until(lambda: all(closed(v, self.charter) >= rounds for v in self.views), live, "the last round")
        self.until(lambda: all((0, rounds) in v.metrics for v in self.views), live, "the last evaluation")

    def final_states(self) -> Trained:
        """Ask every host which state it holds, and compare with what its own ledger and bytes fold to."""
        states: Trained = {}
        for institution in self.institutions:
            ledger = fold_ledger(institution, self.charter)
            expected = {}
            for spec in self.charter.components:
                component = ledger.components[spec.name]
                with tempfile.TemporaryDirectory() as scratch:
                    state, _ = compute(spec, component.rounds, Blobs(institution.home.blobs), States(Path(scratch)))
                states[spec.name] = state
                expected[spec.name] = state_digest(spec.name, state).hex()
            held = _held_digests(institution, expected)
            for name, digest in expected.items():
                self.checked.state_digests.setdefault(name, {})[institution.name] = held.get(name, "")
                if held.get(name) != digest:
                    self.checked.problems.append(f"{institution.name} holds another state of {name} than it should")
        return states

    def workers(self, requests: Sequence[Open], stack: ExitStack) -> list[Worker]:
        """Open a learner worker for each request."""
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(lambda request: stack.enter_context(worker(request)), requests))

    def audit(self, epsilon: float | None) -> None:
        """G1: equal states. G8: nothing signed twice anywhere. G6: ε within the budget, if there is one."""
        result = self.checked
        for name, digests in result.state_digests.items():
            if len(set(digests.values())) != 1:
                result.problems.append(f"hosts hold different states of {name}")
        if result.state_digests and not any("different states" in p for p in result.problems):
            result.verified.append("every host holds the same bits")
        words: dict[tuple[object, ...], bytes] = {}
        for institution in self.institutions:
            for word, digest in signed(snapshot(institution), None, self.charter):
                if words.setdefault(word, digest) != digest:
                    result.problems.append(f"{self.names.get(word[1], '?')} signed twice: {word[0]} {word[2:]}")  # type: ignore[call-overload]  # the key
        result.verified.append(f"no two different statements under one number among {len(words)} signed ones")
        for institution, view in zip(self.institutions, self.views, strict=True):
            spent = look(institution, view).epsilon / 1000  # the last look
            result.epsilon[institution.name] = spent
            if epsilon is not None and spent > epsilon:
                result.problems.append(f"{institution.name} spent ε = {spent}")
        if epsilon is not None:
            result.verified.append(f"every ε stayed within {epsilon:g}, each training run on disk before it began")


def signed(stored: Snapshot, author: bytes | None, charter: Charter) -> Iterator[tuple[tuple[object, ...], bytes]]:
    """Yield what members signed: ("record", author, seq) and ("vote", author, height, view, step), with a digest."""
    records = [record for block in stored.blocks for record in block.records]
    for record in (*records, *stored.records):
        if author in (None, record.value.author):
            yield ("record", record.value.author, record.value.seq), record.digest
    for _, data in stored.messages:
        if data[0] == Kind.VOTE:
            vote = open_signed(Vote, data[1:], charter.federation, trusted=True).value
            if author in (None, vote.author):
                yield ("vote", vote.author, vote.height, vote.view, vote.step), vote.block


def _held_digests(institution: Institution, expected: dict[str, str]) -> dict[str, str]:
    """Return the digests of the states that a running host holds; one that still folds is waited for."""
    deadline = time.time() + HOLD_SECONDS
    while True:
        components = Client(institution.home).components()
        held = {item["component"]: str(item["digest"]) for item in components}
        if held == expected or time.time() > deadline:
            return held
        time.sleep(0.2)


def wait_for(done: Callable[[], bool], what: str) -> None:
    """Wait. Raises OperatorError after a long time."""
    deadline = time.time() + STALL_SECONDS
    while not done():
        if time.time() > deadline:
            raise OperatorError(f"waited {STALL_SECONDS:g} s for {what}")
        time.sleep(0.3)
