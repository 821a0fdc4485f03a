"""The node, its peers and its components."""

import time

from ...consensus.ledger import ComponentLedger, Ledger
from ...consensus.membership import earlier
from ...consensus.rounds import eligible, has_contributed
from ...crypto.errors import UsageError
from ...protocol.blocks import tolerated
from ..home.addresses import peer_id
from .context import Context, Live, moment
from .notes import notes
from .quiet import quiet_hours
from .shapes import ComponentGlance, ComponentShown, LearnerGlance, LiveShown, NodeStatus, OpenRound, Peers, PeerShown
from .training import not_trained_by, offered, trained_by, training


def status(context: Context) -> NodeStatus:
    """Return the node at a glance. Without a daemon `running` is false and live facts are null."""
    charter, ledger, live = context.charter, context.ledger, context.live
    seat = None if context.me is None else ledger.roll.seats.get(context.me)
    lines = notes(context)
    return {
        "running": live is not None,
        "member": None if context.me is None else context.member(context.me),
        "is_member": context.me in ledger.members,
        "gone": seat.gone or None if seat is not None else None,
        "gone_since_height": seat.until if seat is not None and seat.gone else None,
        "federation": {
            "id": ledger.federation.hex(),
            "name": charter.name,
            "fault_model": ledger.fault_model,
            "members": len(ledger.members),
            "quorum": ledger.quorum,
            "pace_seconds": charter.rules.pace / 1000,
            "tolerated_losses": tolerated(len(ledger.members), ledger.fault_model),
            "expelled": context.members(ledger.expelled),
            "open_motions": len(ledger.roll.motions),
        },
        "height": ledger.height,
        "block": ledger.block.hex(),
        "tree_size": ledger.tree.size,
        "last_block_at": moment(context.store.decided(ledger.height)) if ledger.height else None,
        "components": [_glance(context, component) for _, component in sorted(ledger.components.items())],
        "training": training(context),
        "paused": context.paused,
        "quiet_hours": quiet_hours(context),
        "notes": [str(note) for note in lines],
        "findings": [
            {"kind": note.kind, "level": note.level, "found": note.found, "advice": note.advice} for note in lines
        ],
        "live": None if live is None else _live_shown(context, live),
    }


def under_way(learner: LearnerGlance) -> str:
    """Return how far a learner is with a training run, or with what pretrained models read; "" if neither is known."""
    done, of = learner["progress"]
    match learner["state"]:
        case "training" if of:
            return f"step {done} of {of}"
        case "starting" if of:
            return f"reading {done} of {of} records"
        case _:
            return ""


def _live_shown(context: Context, live: Live) -> LiveShown:
    others = set(context.ledger.members) - live.neighbours - {context.me}
    return {
        "started_at": moment(live.started),
        "addresses": list(live.addresses),
        "connected": context.members(live.neighbours),
        "not_connected": [
            {**member, "why": live.unreached.get(bytes.fromhex(member["key"]), "")}
            for member in context.members(others)
        ],
        "bytes_received": live.received,
        "bytes_sent": live.sent,
        "signing": live.signing,
        "contributing": live.contributing,
        "learner": {
            "state": live.learner,
            "detail": live.learner_detail,
            "device": live.learner_device or None,
            "left_out": live.learner_left_out,
            "consents": None if live.learner_consents is None else dict(live.learner_consents),
            "progress": list(live.learner_progress),
            "cut_texts": dict(live.learner_cut),
            "warnings": list(map(str, live.learner_warnings)),
            "run": live.training,
        },
        "view": live.view,
        "catching_up": None
        if not live.goal
        else {"of": live.goal, "source": context.member(live.source), "states": list(live.taking)},
        "refused": dict(live.refused),
        "returned": dict(live.returned),
        "removals_unknown": live.removals_unknown,
        "budget_runs_out": {
            name: {"rounds_left": left, "last_rounds": dict(last)} for name, (left, last) in live.forecast.items()
        },
    }


def peers(context: Context) -> Peers:
    """Return all present and former members and their connection with this node, and the operator's own addresses."""
    return {"peers": _members(context), "added": list(context.added)}


def _members(context: Context) -> list[PeerShown]:
    ledger, live = context.ledger, context.live
    shown: list[PeerShown] = []
    for member in sorted(ledger.roll.seats.values(), key=lambda seat: (seat.name, seat.since)):
        seq, head = ledger.heads.get(member.key, (0, b""))
        offer = ledger.offers.get(member.key)
        mine = member.key == context.me
        shown.append(
            {
                **context.member(member.key),
                "me": mine,
                "state": _standing_of(context, member.key),
                "connected": None if live is None or mine else member.key in live.neighbours,
                "why": None if live is None else live.unreached.get(member.key),
                "peer_id": peer_id(member.key),
                "addresses": list(dict.fromkeys([*(offer.addresses if offer else ()), *member.addresses])),
                "components": list(offer.components) if offer is not None else [],
                "idle": offered(context, offer, mine),
                "records": seq,
                "last_record_at": moment(context.store.received(head)) if seq else None,
            }
        )
    return shown


def _standing_of(context: Context, key: bytes) -> str:
    ledger = context.ledger
    gone = ledger.roll.seats[key].gone
    if gone:
        return {"evidence": "expelled", "rekeyed": "changed its key"}.get(gone, gone)
    keys = {key, *earlier(ledger.roll, key)}
    everything = {w.height for w in ledger.withdrawn if w.author in keys and (w.mode, w.scope) == ("refold", "all")}
    since = max(
        (r.height for c in ledger.components.values() for r in c.rounds for e in r.entries if e.author in keys),
        default=0,
    )
    if everything and since <= max(everything):
        return "withdrew"
    return "member" if key in ledger.heads else "never heard of"


def find_member(context: Context, who: str) -> bytes:
    """Return the key of the member with this name or key prefix. Raises UsageError."""
    return member_named(context.ledger, context.charter.name, who)


def member_named(ledger: Ledger, federation: str, who: str) -> bytes:
    """Return the same from a ledger; `federation` is its name. Raises UsageError."""
    seats = ledger.roll.seats
    keys = set(seats)
    named = [key for key, seat in seats.items() if seat.name == who]
    named = [key for key in named if not seats[key].gone] or named  # a name stays when its key changes
    plain = who.replace("-", "").lower()
    matches = named or [key for key in sorted(keys) if len(plain) >= 4 and key.hex().startswith(plain)]
    if len(matches) != 1:
        problem = "more than one member" if matches else "no member"
        raise UsageError(f"{who!r} names {problem} of {federation!r}", "`collegium peer list` names them.")
    return matches[0]


def components(context: Context) -> list[ComponentShown]:
    """Return every component: shape and rule, rounds, hosts, certified state, and the open round."""
    shown: list[ComponentShown] = []
    for spec in context.charter.components:
        component = context.ledger.components[spec.name]
        shown.append(
            {
                **_glance(context, component),
                "parameters": spec.dimension,
                "width_bits": spec.width,
                "rule": context.charter.rule(spec.name),
                "min_updates": spec.min_updates,
                "noise_multiplier": spec.noise_multiplier / 1_000_000,
                "clip_norm": spec.clip_norm / 1_000_000,
                "learning_rate": spec.learning_rate / 1_000_000,
                "hosts": context.members(component.hosts),
                "not_training": not_trained_by(context, component),
                "host_quorum": context.ledger.host_quorum(component),
                "chain": component.chain.hex(),
                "open_round": _open(context, component),
                "erasing_blobs": sum(len(erasure.blobs) for erasure in component.erasures),
            }
        )
    return shown


def _glance(context: Context, c: ComponentLedger) -> ComponentGlance:
    live, certified = context.live, c.certified
    done = live.folded.get(c.name) if live is not None else None
    return {
        "component": c.name,
        "round": c.round,
        "generation": c.generation,
        "label": state_label(context, c),
        "certified_round": certified.round if certified is not None and certified.generation == c.generation else None,
        "certified_digest": certified.digest.hex()
        if certified is not None and certified.generation == c.generation
        else None,
        "counted_last": len(c.rounds[-1].entries) if c.rounds else 0,
        "active_hosts": len(c.hosts),
        "trainers": len(trained_by(context, c)),
        "closes_after": _closes_after(context, c),
        "hosted_here": None if context.hosted is None else c.name in context.hosted,
        "followed_here": None if context.followed is None else c.name in context.followed,
        "folded_round": None if done is None else done[0],
        "digest": None if done is None else done[3].hex(),
    }


def _closes_after(context: Context, c: ComponentLedger) -> str | None:
    """Return when the charter's start and pace let the next round close, by this node's clock; None if they do now."""
    rules, until = context.charter.rules, 0.0
    if not c.rounds:
        until = float(rules.start)
    elif rules.pace:
        until = (context.store.decided(c.rounds[-1].height) or 0.0) + rules.pace / 1000
    return moment(until) if until > time.time() else None


def state_label(context: Context, c: ComponentLedger) -> str:
    """Return "certified", "uncertified" (too few hosts), or the progress of the last round's attestation."""
    if c.round == 0:
        return "no round yet"
    if not context.ledger.certifiable(c):
        return "uncertified"
    if c.certified is not None and (c.certified.round, c.certified.generation) == (c.round, c.generation):
        return "certified"
    attested = sum((r, e) == (c.round, c.generation) for r, e, _, _ in c.attests)
    return f"attested by {attested} of {context.ledger.host_quorum(c)}"


def _open(context: Context, c: ComponentLedger) -> OpenRound:
    """Return the open round: the authors of pending updates, and of those in flight that this node knows."""
    ready = {entry.author for entry in eligible(context.charter, context.ledger, c.name)}
    in_flight = [f for f in (context.live.in_flight if context.live else ()) if f.component == c.name]
    spec = context.charter.component(c.name)
    is_statistic = spec is not None and spec.is_statistic
    seen = ready | {f.author for f in in_flight if (f.round == c.round + 1 or is_statistic) and not f.refused}
    if is_statistic:
        seen |= {host for host in c.hosts if has_contributed(context.ledger.roll, c, host)}
    return {
        "round": c.round + 1,
        "ready": context.members(ready),
        "on_the_way": [
            {**context.member(f.author), "round": f.round, "acks": f.acks, "bytes_here": f.stored, "refused": f.refused}
            for f in sorted(in_flight, key=lambda f: (f.round, f.author))
            if f.author not in ready
        ],
        "waiting_for": context.members(set(trained_by(context, c)) - seen),
    }
