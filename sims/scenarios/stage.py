"""The object of actions: the cluster of a running scenario, and the record of past actions."""

from collections.abc import Callable

from ...node.core import events as ev
from ...node.core.motions import undecided
from ..simulator.cluster import Cluster, Node
from ..simulator.memory import MemoryStore

NUDGE_MS = 2000  # between two attempts at what members have to decide


class Stage:
    """A simulated federation to which a scenario is done."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.seed = cluster, seed
        self.backups: dict[int, MemoryStore] = {}
        self.cuts: list[set[frozenset[int]]] = []  # of the partitions that last
        self.withdrawn: set[int] = set()
        self.stopped = 0  # sides without a quorum that decided nothing
        self.running = 0  # actions in progress

    def insist(self, proposal: ev.ProposeMotion, *, proposer: Node | None = None) -> None:
        """Have a member propose it and the others vote for it, again until it is done: crashes lose ballots."""
        there = proposal.action == "admit"
        terms = (proposal.action, proposal.subject, proposal.statement)

        def nudge() -> bool:
            members = self.members()
            if (proposal.subject in self.cluster.members()) is there:
                return True
            proposers = [node for node in members if node.core is not None and node.core.me != proposal.subject]
            for node in [proposer] if proposer is not None else proposers[:1]:
                node.deliver(proposal)
            for node in members:
                for motion in undecided(node.core.ledger, node.core.me) if node.core is not None else ():
                    if (motion.action, motion.subject, motion.statement) == terms:
                        node.deliver(ev.Cast(motion.digest, True))
            return False

        self.until(nudge, NUDGE_MS)

    def until(self, done: Callable[[], bool], every: int) -> None:
        """Try this again and again until it returns True; the scenario is not over before."""
        self.running += 1

        def attempt() -> None:
            if done():
                self.running -= 1
                self.cluster.progressed = True
            else:
                self.cluster.at(every, attempt)

        attempt()

    def members(self) -> list[Node]:
        """Return the honest nodes that are members, by the ledger that is furthest."""
        keys = self.cluster.members()
        return [node for node in self.honest() if node.identity.public_key in keys]

    def honest(self) -> list[Node]:
        """Return the nodes that never lied."""
        return [node for node in self.cluster.nodes if not node.lied]
