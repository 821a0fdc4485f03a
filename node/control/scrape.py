"""`/metrics`: the node's state at this moment in the text format of Prometheus. docs/operations.md lists the names.

Nothing here depends on the students' data: no figure of quality, no count of students, no finding about the data. What
was spent on privacy follows from the charter, the configuration and the number of training runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from .. import views
from ..home.config import Config
from ..privacy.policy import InForce
from ..views.context import Context
from ..views.note import OF_THE_DATA
from ..views.shapes import ComponentShown, LiveShown, NodeStatus

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LEARNER = ("starting", "ready", "training", "failed", "waiting", "off")


class _Scrape(Collector):
    """The families of one scrape."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Return them."""
        yield from self._families


def text(context: Context, policies: Sequence[InForce], config: Config) -> bytes:
    """Return the metrics of a running node, as seen by the same views as the commands'."""
    registry = CollectorRegistry()
    registry.register(_Scrape(list(_families(context, policies, config))))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _families(context: Context, policies: Sequence[InForce], config: Config) -> Iterator[Metric]:
    status = views.status(context)
    yield from _node(context, status)
    if status["live"] is not None:
        yield from _live(status["live"])
    yield from _components(context, views.components(context))
    yield from _privacy(replace(context, published=frozenset()), policies, config)


def _node(context: Context, status: NodeStatus) -> Iterator[Metric]:
    federation = status["federation"]
    try:
        release = version("collegium")
    except PackageNotFoundError:
        release = "unknown"
    member = status["member"]
    info = {
        "version": release,
        "federation": federation["name"],
        "member": member["name"] if member else "",
        "fault_model": federation["fault_model"],
    }
    yield _labelled("collegium_info", "This node: always 1.", list(info), [(tuple(info.values()), 1)])
    yield _one("collegium_member", "Whether this node is a member.", status["is_member"])
    yield _one("collegium_members", "Members of the federation.", federation["members"])
    yield _one("collegium_quorum", "Members that must agree.", federation["quorum"])
    yield _one("collegium_height", "Height of the ledger here.", status["height"])
    decided = context.store.decided(status["height"]) if status["height"] else None
    if decided is not None:
        yield _one("collegium_last_block_timestamp_seconds", "When this node decided the last block.", decided)
    yield _one("collegium_paused", "Whether its operator has paused this node.", status["paused"])
    quiet = status["quiet_hours"]
    yield _one("collegium_quiet", "Whether this node is in its quiet hours.", quiet is not None and quiet["now"])
    yield _one("collegium_open_motions", "Motions that are open.", federation["open_motions"])
    counts: dict[tuple[str, ...], float] = {}
    for note in status["findings"]:
        if note["kind"] not in OF_THE_DATA:
            key = (str(note["kind"]), str(note["level"]))
            counts[key] = counts.get(key, 0) + 1
    names = ["kind", "level"]
    yield _labelled("collegium_findings", "Notes of `collegium node status`.", names, list(counts.items()))
    withdrawals = views.unlearn(context)["withdrawals"]
    unsettled = sum(
        not (part["settled"] and not part["blobs_to_erase"]) for w in withdrawals for part in w["components"]
    )
    yield _one("collegium_withdrawals", "Withdrawals in the ledger.", len(withdrawals))
    yield _one("collegium_withdrawals_unsettled", "Of them, by component: not yet certified or erased.", unsettled)


def _live(live: LiveShown) -> Iterator[Metric]:
    yield _one("collegium_neighbours", "Members that a connection is held with.", len(live["connected"]))
    yield _one("collegium_members_unconnected", "Members without a connection.", len(live["not_connected"]))
    yield _one("collegium_signing", "Whether this node signs.", live["signing"])
    yield _one("collegium_contributing", "Whether this node publishes updates.", live["contributing"])
    behind = live["catching_up"]
    yield _one(
        "collegium_catching_up_to_height", "Height that a catch-up aims at; 0 for none.", behind["of"] if behind else 0
    )
    states = [((state,), float(state == live["learner"]["state"])) for state in LEARNER]
    yield _labelled("collegium_learner_state", "1 for the learner's state.", ["state"], states)
    yield _count("collegium_network_received_bytes", "Bytes received since the start.", [((), live["bytes_received"])])
    yield _count("collegium_network_sent_bytes", "Bytes sent since the start.", [((), live["bytes_sent"])])
    refused = [((reason,), float(count)) for reason, count in sorted(live["refused"].items())]
    yield _count("collegium_refused_records", "Records refused since the start.", refused, ["reason"])


def _components(context: Context, shown: Sequence[ComponentShown]) -> Iterator[Metric]:
    def by_name(name: str, what: str, values: list[float | None]) -> Metric:
        pairs = zip(shown, values, strict=True)
        return _labelled(name, what, ["component"], [((c["component"],), v) for c, v in pairs if v is not None])

    ledger = [context.ledger.components[c["component"]] for c in shown]
    yield by_name("collegium_component_round", "The last closed round.", [c["round"] for c in shown])
    yield by_name("collegium_component_generation", "Refolds so far.", [c["generation"] for c in shown])
    yield by_name(
        "collegium_component_certified_round", "The last certified round.", [c["certified_round"] for c in shown]
    )
    yield by_name("collegium_component_folded_round", "The last round folded here.", [c["folded_round"] for c in shown])
    yield by_name("collegium_component_counted", "Updates in the last round.", [c["counted_last"] for c in shown])
    yield by_name("collegium_component_hosts", "Active hosts.", [c["active_hosts"] for c in shown])
    yield by_name("collegium_component_trainers", "Hosts that train it.", [c["trainers"] for c in shown])
    waiting: list[float | None] = [len(c["open_round"]["waiting_for"]) for c in shown]
    yield by_name("collegium_component_awaited", "Members that the open round waits for.", waiting)
    closed = [context.store.decided(c.rounds[-1].height) if c.rounds else None for c in ledger]
    yield by_name("collegium_component_last_close_timestamp_seconds", "When the last round closed here.", closed)


def _privacy(context: Context, policies: Sequence[InForce], config: Config) -> Iterator[Metric]:
    lines = views.privacy(context, policies, config.privacy.jurisdiction)["modalities"]
    spent = [((line["modality"],), line["epsilon_spent"]) for line in lines]
    limits = [((line["modality"],), line["epsilon_budget"]) for line in lines]
    names = ["modality"]
    yield _labelled(
        "collegium_privacy_epsilon_spent", "ε spent; +Inf without a bound.", names,
        [(key, float("inf") if value is None else value) for key, value in spent],
    )  # fmt: skip
    yield _labelled(
        "collegium_privacy_epsilon_budget", "ε allowed, of modalities under a bound.", names,
        [(key, value) for key, value in limits if value is not None],
    )  # fmt: skip
    left = context.live.forecast if context.live is not None else {}
    rounds = [((name,), float(count)) for name, (count, _) in sorted(left.items())]
    yield _labelled("collegium_privacy_rounds_left", "Rounds until the budget is used up.", names, rounds)


def _one(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value))


def _labelled(name: str, what: str, names: list[str], values: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=names)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _count(name: str, what: str, values: Sequence[tuple[tuple[str, ...], float]], names: Sequence[str] = ()) -> Metric:
    family = CounterMetricFamily(name, what, labels=list(names))
    for labels, value in values:
        family.add_metric(labels, value)
    return family
