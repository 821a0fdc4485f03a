"""What was seen of every node so far: the checks read and note it."""

from collections.abc import Hashable
from typing import TypeVar, assert_never

from ....consensus.components import Entry
from ....consensus.ledger import Ledger, Withdrawn
from ....crypto.errors import RemoteProtocolError
from ....crypto.hashing import digest
from ....protocol.charter import Charter
from ....protocol.records import Record, Update, body_of
from ....protocol.update import UpdateHeader
from ..cluster import Cluster, Node
from ..promise import InvariantError

K = TypeVar("K", bound=Hashable)


class Observed:
    """What was seen of a cluster. Liars' nodes are never looked at."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.blocks: dict[int, bytes] = {}
        self.ledgers: dict[int, bytes] = {}
        self.states: dict[tuple[str, bytes], bytes] = {}
        self.records: dict[tuple[bytes, int], bytes] = {}
        self.votes: dict[tuple[bytes, int, int, int], bytes] = {}
        self.acks: dict[tuple[int, bytes, str, int], bytes] = {}
        self.before: dict[int, Ledger] = {}
        self.lost: set[int] = set()  # nodes whose disks were lost or set back: their acknowledgements are void
        self.members: dict[bytes, frozenset[bytes]] = {}  # by the digest that headers name them by
        self.next_members: dict[int, bytes] = {0: b""}
        self.verified: set[bytes] = set()
        self.feeds: dict[bytes, tuple[int, bytes]] = {}
        # Component and round → node → when the node decided the close, by its own clock.
        self.closed: dict[tuple[str, int], dict[int, int]] = {}
        self.agreed = 0  # heights whose records were looked at
        self.updates: dict[bytes, UpdateHeader] = {}  # agreed, by the header's digest
        self.agreed_acks: dict[bytes, set[bytes]] = {}  # hosts whose true acknowledgements are agreed
        self.claims: dict[tuple[int, str, str], dict[int, int]] = {}  # steps by round: of a node, whatever its key
        self.rounds: dict[str, int] = {}  # closed rounds that were looked at
        self.counted: dict[bytes, int] = {}
        self.charters: dict[tuple[bytes, bytes], Charter] = {}  # by the charter before and the amendment

    def set_back(self, node: Node) -> None:
        """A disk went back in time or is lost: what it acknowledged may be forgotten with it, what it signed not."""
        self.lost.add(node.index)
        self.before.pop(node.index, None)
        self.acks = {key: value for key, value in self.acks.items() if key[0] != node.index}

    def once(self, promise: str, seen: dict[K, bytes], key: K, value: bytes, what: str) -> None:
        """Note a value under a key; raise InvariantError if another one was noted."""
        if seen.setdefault(key, value) != value:
            raise InvariantError(promise, f"{what} {key[1:] if isinstance(key, tuple) else key}")

    def needed(self, count: int) -> int:
        """How many of so many decide: written down again here, so that a wrong quorum is seen."""
        return 2 * count // 3 + 1 if self.cluster.charter.rules.fault_model == "byzantine" else count // 2 + 1

    def note_members(self, members: frozenset[bytes]) -> None:
        """Note members by the digest that headers name them by."""
        self.members[digest("members", *sorted(members))] = members


def is_taken(withdrawal: Withdrawn, name: str, number: int, entry: Entry) -> bool:
    """Whether a withdrawal is about this entry, by the words of design.md section 9; a rewind takes everybody's."""
    if withdrawal.mode == "rewind":
        return True
    if entry.author != withdrawal.author or entry.seq > withdrawal.through:
        return False
    match withdrawal.scope:
        case "all":
            return True
        case "components":
            return name in withdrawal.components
        case "rounds":
            return name in withdrawal.components and withdrawal.first <= number <= withdrawal.last
        case "updates":
            return entry.update in withdrawal.updates
        case _:
            assert_never(withdrawal.scope)


def update_in(record: Record) -> Update | None:
    """Return the update that a record publishes, if it does."""
    try:
        body = body_of(record)
    except RemoteProtocolError:
        return None
    return body if isinstance(body, Update) else None
