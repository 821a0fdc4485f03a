"""Closed rounds: counted and missing hosts, with reasons, and the state's certificate."""

from ...consensus import rules, trainers
from ...consensus.components import Round, rule_of
from ...consensus.fold import fold_block
from ...consensus.ledger import ComponentLedger, Ledger, genesis
from ...consensus.rounds import active_hosts
from ...crypto.errors import RemoteProtocolError, UsageError
from ...crypto.hashing import digest
from ...protocol import schema
from ...protocol.records import IDLE, Update, body_of
from ...protocol.signing import SIGNATURE_SIZE
from ...protocol.update import UpdateHeader
from ..store.observations import RoundNote
from .context import Context, moment
from .shapes import (
    CountedUpdate,
    Measured,
    MemberName,
    Missing,
    NearlyCertain,
    NoBetter,
    RoundDetail,
    RoundFacts,
    RoundSummary,
    StateLabel,
)
from .training import waiting
from .worth import no_better, too_certain

LIMIT = 200
UNITS = {  # of a mean absolute error, by the kind of the task
    "regression": "halves of the declared range (0.5 is a quarter of it)",
    "ordinal": "levels",
}


def rounds(context: Context, component: str | None = None, *, since: int = 1, limit: int = LIMIT) -> list[RoundSummary]:
    """Return closed rounds from `since` on, the last `limit`, by height and component. Raises UsageError."""
    names = [component] if component is not None else sorted(context.ledger.components)
    shown = []
    for name in names:
        c = _component(context, name)
        notes = {note.round: note for note in context.store.notes(component=name, since=max(0, since - 1))}
        picked = [round_ for round_ in c.rounds if round_.number >= since][-limit:]
        shown += [(r.height, name, _summary(context, c, r, notes)) for r in picked]
    return [summary for _, _, summary in sorted(shown, key=lambda item: item[:2])[-limit:]]


def round_detail(context: Context, component: str, number: int, *, local: bool = False) -> RoundDetail:
    """Return one closed round with weights and missing members, which every member can know. Raises UsageError.

    If `local`, also this node's evaluation on its own held-out subjects, which never leaves the node.
    """
    c = _component(context, component)
    if not 1 <= number <= c.round:
        closed = f"Closed are 1 to {c.round}." if c.round else "None is closed."
        waits = waiting(context, component) if number == c.round + 1 else None
        more = f" Round {number} waits: {waits['why']}." if waits is not None else ""
        raise UsageError(f"{component} has no closed round {number}", closed + more)
    round_ = c.rounds[number - 1]
    notes = {n.round: n for n in context.store.notes(component=component, since=number - 1) if n.round <= number}
    missing = _noted_missing(context, round_, notes)
    weights = _weights(context, component, round_)
    counted: list[CountedUpdate] = [
        {
            **context.member(entry.author),
            "staleness": entry.staleness,
            "weight": weight,
            "bytes": entry.size,
            "noise_variance": entry.variance,
            "update": entry.update.hex(),
            "blob": entry.blob.hex(),
        }
        for entry, weight in zip(round_.entries, weights, strict=True)
    ]
    block = context.store.block(round_.height)
    detail: RoundDetail = {
        **_facts(context, c, round_, notes),  # type: ignore[typeddict-item]  # has no figures
        "counted": counted,
        "missing": _missing_by_ledger(context, component, round_) if missing is None else missing,
        "attested": [
            {**context.member(host), "digest": state.hex()}
            for r, e, host, state in c.attests
            if (r, e) == (number, c.generation)
        ],
        "block": None if block is None else block.block.id.hex(),
        "deciding_members": [] if block is None else context.members([s.author for s in block.certificate.signatures]),
    }
    if local:
        detail["evaluation"] = _evaluation(context, component, number)
        detail["no_better"] = _no_better(detail["evaluation"])
        detail["nearly_certain"] = _nearly_certain(detail["evaluation"])
    return detail


def _evaluation(context: Context, component: str, number: int) -> list[Measured]:
    """Return the figures of a component's tasks; groups under MIN_CELL are marked as too small."""
    tasks = context.charter.learning.judged_by(component)
    units = {task.name: UNITS[task.kind] for task in context.charter.learning.tasks if task.kind in UNITS}
    return [
        {
            "task": metric.task,
            "metric": metric.metric,
            "group": metric.cell or None,
            "home_layer": metric.home_layer,
            "value": None if metric.value != metric.value else metric.value,
            "unit": units.get(metric.task) if metric.metric == "mae" else None,
            "count": metric.count,
            "too_few": metric.count is None,
            "generation": metric.generation,
            "in_force": metric.generation == _generation(context, metric.task),
        }
        for metric in context.store.metrics(round_=number)
        if metric.task in tasks
    ]


def _generation(context: Context, task: str) -> int:
    """Return the present generation for figures of a task or a statistic."""
    carriers = {one.name: one.carrier for one in context.charter.learning.tasks}
    c = context.ledger.components.get(carriers.get(task, task))
    return max(other.generation for other in context.ledger.components.values()) if c is None else c.generation


def _no_better(evaluation: list[Measured]) -> list[NoBetter]:
    """Return the tasks that are no better than a constant on all own held-out records, with the metric."""
    by_metric: dict[tuple[int, str, bool], dict[str, float | None]] = {}
    for figure in evaluation:
        if figure["group"] is None:
            key = (figure["generation"], figure["task"], figure["home_layer"])
            by_metric.setdefault(key, {})[figure["metric"]] = figure["value"]
    return [
        {"generation": generation, "task": task, "home_layer": home_layer, "reasons": reasons}
        for (generation, task, home_layer), metrics in by_metric.items()
        if (reasons := no_better(metrics))
    ]


def _nearly_certain(evaluation: list[Measured]) -> list[NearlyCertain]:
    """Return the tasks of many of whose own held-out records the model is nearly certain."""
    return [
        {
            "generation": figure["generation"],
            "task": figure["task"],
            "home_layer": figure["home_layer"],
            "share": figure["value"],
            "warning": warning,
        }
        for figure in evaluation
        if figure["metric"] == "nearly_certain" and figure["group"] is None and figure["value"] is not None
        if (warning := too_certain(figure["value"], 1.0, figure["task"], "held-out records"))
    ]


def _component(context: Context, name: str) -> ComponentLedger:
    component = context.ledger.components.get(name)
    if component is None:
        names = ", ".join(sorted(context.ledger.components))
        raise UsageError(f"There is no component {name!r}", f"Components are {names}.")
    return component


def _summary(context: Context, c: ComponentLedger, round_: Round, notes: dict[int, RoundNote]) -> RoundSummary:
    return {
        **_facts(context, c, round_, notes),
        "counted": context.members([entry.author for entry in round_.entries]),
        "missing": _noted_missing(context, round_, notes),
    }


def _noted_missing(context: Context, round_: Round, notes: dict[int, RoundNote]) -> list[Missing] | None:
    """Return the hosts that were not counted, with reasons noted at the close; None if this node did not see it."""
    missing = notes[round_.number].data.get("missing") if round_.number in notes else None
    if not isinstance(missing, dict):
        return None
    return [{**_member_of_hex(context, key), "why": str(why)} for key, why in sorted(missing.items())]


def _facts(context: Context, c: ComponentLedger, round_: Round, notes: dict[int, RoundNote]) -> RoundFacts:
    note = notes.get(round_.number)
    data = note.data if note is not None else {}
    present = {entry.author.hex() for entry in round_.entries}
    counted = data.get("counted")
    closed = context.store.decided(round_.height)
    before = context.store.decided(c.rounds[round_.number - 2].height) if round_.number > 1 else None
    return {
        "component": c.name,
        "round": round_.number,
        "generation": c.generation,
        "height": round_.height,
        "closed_at": moment(closed),
        "seconds": None if closed is None or before is None else round(max(0.0, closed - before), 3),
        "stale": context.members([entry.author for entry in round_.entries if entry.staleness]),
        "deadline_passed": None if data.get("deadline_passed") is None else bool(data["deadline_passed"]),
        "withdrawn": []
        if not isinstance(counted, list)
        else [_member_of_hex(context, key) for key in counted if key not in present],
        "quorum": context.ledger.host_quorum(c),
        "tolerated_liars": round_.faults,
        "bytes_of_updates": sum(entry.size for entry in round_.entries),
        "bytes_received": _grown(notes, round_.number, "received"),
        "bytes_sent": _grown(notes, round_.number, "sent"),
        "chain": round_.chain.hex(),
        **_certificate(context, c, round_, data),
    }


def _member_of_hex(context: Context, key: object) -> MemberName:
    try:
        return context.member(bytes.fromhex(str(key)))
    except ValueError:
        return {"name": str(key), "key": str(key)}


def _grown(notes: dict[int, RoundNote], number: int, what: str) -> int | None:
    """Return a byte counter's growth since the round before; None across a restart, which resets it."""
    if number not in notes or number - 1 not in notes:
        return None
    after, before = notes[number].data.get(what), notes[number - 1].data.get(what)
    if type(after) is not int or type(before) is not int or after < before:
        return None
    return after - before


def _certificate(context: Context, c: ComponentLedger, round_: Round, note: object) -> StateLabel:
    """Return digest and label. A later round's certificate covers this one: its state was folded from this one's."""
    attests = {(host, attested) for r, e, host, attested in c.attests if (r, e) == (round_.number, c.generation)}
    digests = {attested for _, attested in attests}
    certified = c.certified if c.certified is not None and c.certified.generation == c.generation else None
    if certified is not None and certified.round == round_.number:
        state: str | None = certified.digest.hex()
    elif len(digests) == 1:
        state = digests.pop().hex()
    else:
        # A digest that this node noted holds for the lists of that time: a refold since then made another state.
        seen = note.get("digest") if isinstance(note, dict) and c.generation == 0 else None
        state = str(seen) if seen is not None else None
    if not context.ledger.certifiable(c):
        label = "uncertified"
    elif certified is not None and certified.round >= round_.number:
        label = "certified"
    else:
        label = f"attested by {len(attests)} of {context.ledger.host_quorum(c)}"
    return {"digest": state, "label": label}


def _weights(context: Context, component: str, round_: Round) -> list[float | None]:
    """Return each counted update's share of the mean; None under a robust rule, which weights coordinates apart, and
    for a statistic, where each counts whole."""
    spec = context.charter.component(component)
    if spec is None or rule_of(spec, round_) != "mean" or not round_.entries:
        return [None] * len(round_.entries)
    weights = rules.mean_weights([e.variance for e in round_.entries], [e.staleness for e in round_.entries])
    return [round(weight / max(1, sum(weights)), 6) for weight in weights]


def _missing_by_ledger(context: Context, component: str, round_: Round) -> list[Missing]:
    """Return the active hosts that a round did not count, from the ledger, if this node did not see it close."""
    before, after = _ledgers_around(context, round_.height)
    hosts = active_hosts(before.charter, before, after, component)
    frozen = after.components[component].rounds[round_.number - 1]
    spec = context.charter.component(component)
    earlier = before.components[component].rounds if spec is not None and spec.is_statistic else ()
    missing = sorted(set(hosts) - {entry.author for r in (*earlier, frozen) for entry in r.entries})
    idle = {author: trainers.idle(after.offers, author, component) for author in missing}
    came = {
        author: f"it does not train: {IDLE[idle[author]]}"
        if idle[author]
        else _arrival(context, component, round_.number, author, round_.height)
        for author in missing
    }
    return [{**context.member(author), "why": came[author]} for author in missing]


def _ledgers_around(context: Context, height: int) -> tuple[Ledger, Ledger]:
    before = ledger = genesis(context.founding)
    for number in range(1, height + 1):
        stored = context.store.block(number)
        if stored is None:
            raise UsageError(f"There is no block {number} here", "Let the node catch up first.")
        before, ledger = ledger, fold_block(ledger, stored.block, stored.records, trusted=True)
    return before, ledger


def _arrival(context: Context, component: str, number: int, author: bytes, height: int) -> str:
    seat = context.ledger.roll.seats.get(author)
    if seat is not None and seat.gone:
        return {"evidence": "expelled", "rekeyed": "changed its key"}.get(seat.gone, seat.gone)
    for later in range(1, context.ledger.height + 1):
        stored = context.store.block(later)
        for record in stored.records if stored is not None else ():
            if record.value.author != author or record.value.kind != "update":
                continue
            try:
                body = body_of(record.value)
                header = update_header(body) if isinstance(body, Update) else None
            except RemoteProtocolError:
                continue
            if header is not None and (header.component, header.round) == (component, number):
                when = "too late" if later > height else "with acknowledgements of too few active hosts"
                return f"its update reached the ledger at height {later}, {when}"
    return "no update in the ledger"


def update_header(body: Update) -> UpdateHeader:
    """Decode an update record's header; its signature was checked when the block was decided."""
    return schema.load(UpdateHeader, body.header[SIGNATURE_SIZE:], UpdateHeader.LIMIT)


def update_digest(body: Update) -> bytes:
    """Return the digest of an update record's header."""
    return digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:])
