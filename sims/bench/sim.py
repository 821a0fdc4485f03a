"""The simulator: events a second, peak memory, what agreement costs a node and height, and how time grows.

Seconds are of one core's CPU: a run has one thread, and the machine may be busy with other things. Each size runs in a
process of its own, in calm network, with the invariants on: what a scenario costs.
"""

import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import log
from multiprocessing import get_context

from ...node.core.messages import Kind
from ...node.home.config import Timing
from ..simulator.cluster import Cluster, Node
from ..simulator.invariants import Invariants
from ..simulator.network import NetworkConditions
from . import recovery
from .rows import Row, limit

SIZES = ((4, 20), (16, 5), (64, 2))  # nodes, rounds
GROWTH = ((10, 10), (100, 10), (300, 2))
QUICK, QUICK_GROWTH = ((4, 3),), ((4, 2), (16, 1))
MANY = 1000
GRAIN = 10  # ms: how often a node looks at its inbox, as a busy daemon takes what came meanwhile in one batch
HOSTS = 32  # of one component: no node hosts all


@dataclass(frozen=True, slots=True)
class Figures:
    """One size's run."""

    nodes: int
    rounds: int
    seconds: float
    events: int
    heights: int
    votes: int
    vote_bytes: int
    memory: float


class Counting(Cluster):
    """Counts agreement's messages: each once for each receiver."""

    votes = vote_bytes = 0

    def broadcast(
        self, sender: Node, data: bytes, to: bytes | None = None, lies: list[tuple[int, bytes]] | None = None
    ) -> None:
        """Gossip, and count."""
        if data and data[0] in (Kind.PROPOSAL, Kind.VOTE):
            self.votes += len(self.nodes) - 1
            self.vote_bytes += (len(self.nodes) - 1) * len(data)
        super().broadcast(sender, data, to, lies)


def simulate(nodes: int, rounds: int) -> Figures:
    """Run one size here: every node hosts one component, and no component has more than HOSTS hosts."""
    components = -(-nodes // HOSTS)
    cluster = Counting(
        nodes,
        1,
        Invariants,
        rounds=rounds,
        components=components,
        timing=Timing(400, 300, 500 * components),
        network=NetworkConditions(grain=GRAIN),
    )
    names = [spec.name for spec in cluster.charter.components]
    for node in cluster.nodes:
        node.options = replace(node.options, hosted=(names[node.index % components],))
    began = time.process_time()  # the machine may be busy with other things; one process has one thread
    cluster.start()
    closed = cluster.run(lambda: cluster.progressed and cluster.all_closed(rounds))
    seconds = time.process_time() - began
    if not closed:
        raise RuntimeError(f"{nodes} nodes did not close {rounds} rounds")
    heights = max(node.store.height() for node in cluster.nodes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Figures(nodes, rounds, seconds, cluster.steps, heights, cluster.votes, cluster.vote_bytes, peak)


def measure(quick: bool) -> Sequence[Row]:
    """Return the figures of every size, and how the time of a round grows with the number of nodes."""
    rows: list[Row] = []
    for nodes, rounds in QUICK if quick else SIZES:
        result = _run(nodes, rounds)
        what = f"{nodes} nodes, {rounds} rounds"
        share = result.nodes * result.heights
        rows += [
            Row(f"{what}: events a second", result.events / result.seconds, goal="report"),
            Row(f"{what}: peak memory, MB", result.memory, goal="report"),
            Row(f"{what}: agreement messages received a node and height", result.votes / share, goal="report"),
            Row(f"{what}: agreement bytes received a node and height", result.vote_bytes / share, goal="report"),
        ]
    points = []
    for nodes, rounds in QUICK_GROWTH if quick else GROWTH:
        result = _run(nodes, rounds)
        points.append((nodes, result.seconds / rounds))
        rows += [
            Row(f"{nodes} nodes: {rounds} rounds, s", result.seconds, goal="report"),
            Row(f"{nodes} nodes: events a second", result.events / result.seconds, goal="report"),
            Row(f"{nodes} nodes: peak memory, MB", result.memory, goal="report"),
        ]
    (fewer, before), (more, after) = points[-2:]
    power = log(after / before) / log(more / fewer)
    rows.append(Row(f"seconds of a round, from {fewer} to {more} nodes, grow as nodes to the power of", power))
    estimated = 10 * after * (MANY / more) ** power
    rows.append(limit(f"{MANY} nodes: 10 rounds, s, estimated from that growth and not run", estimated, 60.0))
    return [*rows, *recovery.measure(quick)]


def _run(nodes: int, rounds: int) -> Figures:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(simulate, nodes, rounds).result()
