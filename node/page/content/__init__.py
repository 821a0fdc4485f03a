"""The pages: each a function from a reading of the node to the blocks that are drawn."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..blocks import Page
from ..source import Reading
from . import federation, learning, ledger, node, privacy

Query = Mapping[str, str]


class Place(NamedTuple):
    """A page of the navigation."""

    path: str
    name: str
    make: Callable[[Reading, Query], Page]


PLACES = (
    Place("/", "Overview", node.overview),
    Place("/federation", "Federation", federation.federation),
    Place("/rounds", "Rounds", learning.rounds),
    Place("/quality", "Quality", learning.quality),
    Place("/privacy", "Privacy", privacy.budgets),
    Place("/ledger", "Ledger", ledger.ledger),
    Place("/withdrawals", "Withdrawals", ledger.withdrawals),
    Place("/members", "Members", federation.members),
    Place("/protection", "Data protection", privacy.protection),
    Place("/logs", "Logs", node.logs),
)
"""In the order of the navigation."""

DETAILS: Mapping[str, Callable[[Reading, Query], Page]] = {
    "/rounds/{component:path}/{round:int}": learning.one_round,
    "/ledger/{reference}": ledger.entry,
    "/members/{who}": federation.member,
}
"""Pages of one thing; what their paths name is in the query."""
