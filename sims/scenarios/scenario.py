"""The types of a scenario: events in a simulated federation, and the expected results. loading.py reads its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..simulator.network import Disk, NetworkConditions

GROUPS = ("all", "any", "half", "minority")
Who = tuple[int | str, ...]  # numbers, roles, or one of GROUPS
NOBODY: Who = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long training takes and how patient nodes are, in milliseconds (core.Options)."""

    training: tuple[int, int] = (5, 200)
    propose: int = 400
    idle: int = 300
    sync: int = 500


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is done to `node`, at a time or when a round has closed, and perhaps undone again."""

    do: str
    node: Who = ()
    at: tuple[int, int] | None = None
    after: int = 0
    delay: tuple[int, int] = (0, 0)
    lasts: tuple[int, int] | None = None
    until: int = 0
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expect:
    """The expected results, beside the invariants."""

    rounds: int
    within: int = 600_000
    expelled: Who = ()
    refused: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    counted: Who = ()
    everybody: bool = False
    stale: bool = False
    stopped: bool = False
    idle: bool = False
    used: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as read from its file."""

    name: str
    about: str
    nodes: int
    rounds: int
    expect: Expect
    absent: Who = ()
    charter: Mapping[str, object] = field(default_factory=dict)
    network: Mapping[str, object] = field(default_factory=dict)
    disk: Disk = field(default_factory=Disk)
    pace: Pace = field(default_factory=Pace)
    events: tuple[Event, ...] = ()

    @property
    def conditions(self) -> NetworkConditions:
        """The network as it is at first."""
        return NetworkConditions(**self.network)  # type: ignore[arg-type]  # checked when the scenario was read
