"""The results of the demos."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Checked:
    """What was seen of a federation: the states at its hosts, what was spent, what held and what did not."""

    metric: str
    state_digests: dict[str, dict[str, str]] = field(default_factory=dict)
    epsilon: dict[str, float] = field(default_factory=dict)
    verified: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of it held."""
        return not self.problems


@dataclass(slots=True)
class Result(Checked):
    """The result of the demo; `report.as_json` turns it into the one JSON object."""

    task: str
    rounds: int
    nodes: list[str]
    dp: bool
    rule: str = "mean"
    liars: list[str] = field(default_factory=list)
    first_round_seconds: float = math.nan
    round_seconds: list[float] = field(default_factory=list)
    bytes_per_node_round: float = math.nan
    bytes_lower_bound: float = math.nan
    local: dict[str, float] = field(default_factory=dict)
    federated: dict[str, float] = field(default_factory=dict)
    own_local: dict[str, float] = field(default_factory=dict)
    own_federated: dict[str, float] = field(default_factory=dict)
    statistic: str = ""  # the component that is a sum; its head's quality on all members' held-out data
    statistic_local: dict[str, float] = field(default_factory=dict)
    statistic_federated: float = math.nan
    statistic_after_withdrawal: float = math.nan
    after_withdrawal: float = math.nan
    killed: str = ""
    recovered: bool = False
    withdrawn: str = ""
    withdrawal_digest: str = ""
    withdrawal_verified: bool = False

    def honest(self, figures: Mapping[str, float]) -> float:
        """Return the mean of a figure over the institutions that do not lie; NaN if one is missing."""
        values = [figures.get(name, math.nan) for name in self.nodes if name not in self.liars]
        return sum(values) / len(values)
