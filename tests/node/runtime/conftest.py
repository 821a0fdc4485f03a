"""Real daemons as separate processes, with a learner that makes its updates up."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.home.config import Privacy, Timing
from collegium.node.home.lock import hold
from collegium.node.runtime.runtime import Runtime
from collegium.node.runtime.serve import load
from collegium.node.store.database import Store
from collegium.protocol.charter import Charter
from collegium.sims.processes.federation import SYNTHETIC, Agreed, Daemon, Places, Settings, found
from collegium.sims.processes.observe import View, closed, look
from collegium.sims.simulator.small import small_charter

from ...waiting import source, wait_for


class Federation:
    """A running federation of a test."""

    def __init__(
        self, root: Path, count: int, rounds: int, deadline_ms: int, dimension: int, pace_ms: int, **where: Any
    ) -> None:
        members = [Identity.from_seed(sha256(bytes([n]))) for n in range(count)]
        template = small_charter(members, dimension=dimension, clip_norm=20_000_000)
        self.charter: Charter
        self.charter, self.institutions = found(
            root,
            [(f"node-{n}", root, 1.0) for n in range(count)],
            Agreed("test", template.components, template.learning, template.seed, deadline_ms, pace_ms=pace_ms),
            Settings(
                rounds,
                Privacy(policy="open"),
                learner=SYNTHETIC,
                timing=Timing(propose_ms=700, idle_ms=300, sync_ms=700),
            ),
            Places(**where),
        )
        self.daemons = [Daemon(institution) for institution in self.institutions]
        self.views = [View() for _ in self.institutions]

    def start(self) -> None:
        for daemon in self.daemons:
            daemon.start()

    def look(self) -> list[View]:
        self.views = [look(i, v) for i, v in zip(self.institutions, self.views, strict=True)]
        return self.views

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until it is so, while every daemon that was started lives."""

        def seen() -> bool:
            for daemon in self.daemons:
                reason = daemon.dead()
                assert reason is None, f"{daemon.institution.name} ended: {reason}"
            self.look()
            return done()

        wait_for(seen, lambda: f"{source(done)}\n{self.tail()}")

    def wait_rounds(self, round_: int, nodes: list[int] | None = None) -> None:
        chosen = range(len(self.views)) if nodes is None else nodes
        self.wait(lambda: all(closed(self.views[n], self.charter) >= round_ for n in chosen))

    def last(self) -> int:
        """The last round that anybody has a note of."""
        return max((round_ for view in self.look() for _, round_ in view.notes), default=0)

    def folded_by_all(self, since: int) -> list[list[str]]:
        """The digests that the members noted of each round that all of them folded."""
        noted = [{r: str(note["digest"]) for (_, r), note in v.notes.items() if "digest" in note} for v in self.views]
        common = sorted(r for r in set(noted[0]).intersection(*noted) if r >= since)
        return [[facts[r] for facts in noted] for r in common]

    def tail(self) -> str:
        logs = [(i.name, i.home.log.read_text(errors="replace")[-3000:]) for i in self.institutions]
        return "\n".join(f"--- {name}\n{text}" for name, text in logs)


@contextmanager
def _federations(root: Path) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(
        count: int = 4,
        rounds: int = 4,
        deadline_ms: int = 60_000,
        dimension: int = 2000,
        pace_ms: int | None = None,
        **where: Any,
    ) -> Federation:
        """Found one; without a pace of its own, many rounds leave the machine most of its time."""
        pace_ms = (0 if 0 < rounds <= 40 else 1000) if pace_ms is None else pace_ms
        folder = root / f"federation-{len(made)}"
        folder.mkdir()
        made.append(Federation(folder, count, rounds, deadline_ms, dimension, pace_ms, **where))
        return made[-1]

    os.environ.pop("COLLEGIUM_HOME", None)
    try:
        yield make
    finally:
        for institution in made:
            for daemon in institution.daemons:
                daemon.kill()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    with _federations(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Federation]]:
    """Federations for several tests of a file: four daemons take ten seconds of CPU to start, a round takes one."""
    with _federations(tmp_path_factory.mktemp("lasting")) as make:
        yield make


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime of a one-member federation, not running."""
    template = small_charter([Identity.from_seed(bytes(32))], dimension=100, min_updates=1)
    _, (one,) = found(
        tmp_path,
        [("one", None, 1.0)],
        Agreed("t", template.components, template.learning, template.seed),
        Settings(rounds=0),
    )
    config, charter, signed, identity = load(one.home, None)
    with hold(one.home), Store.open(one.home.database, charter.federation) as store:
        yield Runtime(one.home, config, charter, signed, identity, store)
