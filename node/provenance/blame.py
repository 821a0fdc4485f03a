"""The contributors to a component's state now: shares, ε, staleness, and refused, withdrawn or missing updates.

Everything but the shares that need update bytes follows from the ledger alone, so every member finds the same.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import NotRequired, TypedDict

from ...consensus import membership
from ...consensus.components import Entry, Round, rule_of, taken
from ...consensus.ledger import NOT_YET, ComponentLedger, Ledger, Withdrawn
from ...consensus.shares import effects_shares, mean_shares, robust_shares
from ...crypto.errors import UsageError
from ...protocol.claims import NO_EPSILON, Claim
from ...protocol.components import SUM, ComponentSpec
from ...protocol.update import Integers, squared_norm
from ..home.paths import Home
from ..store.database import Store
from ..verify.bytes import Bytes, Disk
from ..verify.home import verify_home_ledger
from ..verify.ledger import Counted, Progress, Report
from ..verify.states import checked
from .tensors import BlamedTensor, Tensors

Notes = Mapping[int, Mapping[str, str]]  # round → key in hex → why this node saw no update of that member


WEIGHTS = {
    "mean": "the integer weight of an update over the sum of its round's, averaged over rounds",
    "random-effects": (
        "the integer weight of an update over the sum of its round's, averaged over the numbers of all tensors and over"
        " rounds"
    ),
    SUM: "an equal share of every counted update: a statistic adds them up",
    "multi_krum": "an equal share of every round in which the rule chose the update, averaged over rounds",
}
ROBUST_WEIGHT = (
    "the weight with which the rule's sum holds an update, averaged over coordinates and over rounds; equal values of"
    " which some are trimmed share their weight"
)


class ClaimedEpsilon(TypedDict):
    """The last claim of a member for a modality; ε and δ are None without a bound."""

    modality: str
    epsilon: float | None
    delta: float | None
    height: int


class Staleness(TypedDict):
    """How many rounds a member's updates were late: the mean, and the number of updates by staleness."""

    mean: float | None
    rounds: dict[str, int]


class BlamedMember(TypedDict):
    """What a member contributed to a state, and what of it was refused, withdrawn or missing."""

    name: str
    key: str
    earlier_keys: list[str]
    state: str
    rounds: int
    rounds_without_effect: int
    weight_share: float | None
    squared_norm: int
    norm_share: float | None
    updates_without_bytes: int
    epsilon: list[ClaimedEpsilon]
    staleness: Staleness
    withdrawn: int
    refused: dict[str, int]
    missing: dict[str, int]
    suspended: int


class Blame(TypedDict):
    """The contributors to a component's state; `plot` is the picture's file, if one was asked for."""

    component: str
    rule: str
    round: int
    generation: int
    height: int
    block: str
    rounds_folded: int
    rounds_without_effect: int
    rounds_weighed: int
    updates_without_bytes: int
    weight_is: str
    tensors: list[BlamedTensor]
    members: list[BlamedMember]
    plot: NotRequired[str]


@dataclass(slots=True)
class _Part:
    """One member's totals."""

    rounds: int = 0
    unused: int = 0
    shares: list[float] = field(default_factory=list)
    norm: int = 0
    without_bytes: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    withdrawn: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    suspended: int = 0
    claims: dict[str, tuple[int, Claim]] = field(default_factory=dict)


def home_blame(home: Home, component: str, *, progress: Progress | None = None) -> Blame:
    """Return `blame` for a node's directory, its ledger verified first. Raises UsageError, VerificationError."""
    report = verify_home_ledger(home, progress=progress)
    with Store.open_readonly(home.database) as store:
        notes = {note.round: _reasons(note.data) for note in store.notes(component=component)}
    return blame(report, component, Disk(home.blobs), notes=notes, progress=progress)


def blame(
    report: Report, component: str, data: Bytes, *, notes: Notes | None = None, progress: Progress | None = None
) -> Blame:
    """Return the contributors to a component's state of a verified ledger, by present member, the heaviest first.

    Shares are of the present fold: of rounds without withdrawn updates. Shares by squared norm, and those by weight
    but for the mean, need the updates' bytes; updates whose bytes are not in `data` are counted and left out.
    Raises UsageError for an unknown component, VerificationError for damaged bytes.
    """
    ledger = report.ledger
    c, spec = ledger.components.get(component), report.charter.component(component)
    if c is None or spec is None:
        names = ", ".join(sorted(ledger.components))
        raise UsageError(f"There is no component {component!r}", f"Components are {names}.")
    parts: dict[bytes, _Part] = {membership.present(ledger.roll, key): _Part() for key in ledger.roll.seats}

    def part(key: bytes) -> _Part:
        return parts[membership.present(ledger.roll, key)]

    folded, weighed, shared = 0, 0, 0
    tensors = Tensors(spec, lambda key: membership.present(ledger.roll, key))
    for done, round_ in enumerate(c.rounds, start=1):
        used, faults = taken(spec, round_)
        values = {entry.update: _values(report, spec, round_, entry, data) for entry in round_.entries}
        _count(round_, used, values, part)
        shares = _shares(tensors, rule_of(spec, round_), used, [values[entry.update] for entry in used], faults)
        folded += bool(used)
        if shares is not None:
            weighed += 1
            shared += len(used) if spec.is_statistic else 1
            for entry, share in zip(used, shares, strict=True):
                part(entry.author).shares.append(share)
        if progress is not None:
            progress("rounds", done, len(c.rounds))
    _from_ledger(report, c, notes or {}, parts)
    total = sum(p.norm for p in parts.values())
    lacking = sum(p.without_bytes for p in parts.values())
    shown = [_member(report, key, p, shared, total) for key, p in parts.items()]
    shown.sort(key=lambda m: (-(m["weight_share"] or 0.0), -m["rounds"], str(m["name"]), str(m["key"])))
    return {
        "component": component,
        "rule": report.charter.rule(spec.name),
        "round": c.round,
        "generation": c.generation,
        "height": ledger.height,
        "block": ledger.block.hex(),
        "rounds_folded": folded,
        "rounds_without_effect": c.round - folded,
        "rounds_weighed": weighed,
        "updates_without_bytes": lacking,
        "weight_is": WEIGHTS.get(report.charter.rule(spec.name), ROBUST_WEIGHT),
        "tensors": tensors.shown(),
        "members": shown,
    }


def standing(report: Report, key: bytes) -> str:
    """Return what a member is now: member, withdrew, left or expelled."""
    gone = report.ledger.roll.seats[key].gone
    if gone:
        return {"evidence": "expelled"}.get(gone, gone)
    return "withdrew" if _has_withdrawn(report, key, report.ledger.height) else "member"


def _has_withdrawn(report: Report, key: bytes, height: int) -> bool:
    """Whether a member had withdrawn everything by this height, and contributed nothing since."""
    keys = {key, *membership.earlier(report.ledger.roll, key)}
    last = max((w.height for w in _own_withdrawals(report, keys, height) if w.scope == "all"), default=None)
    sent = (update.height for update in report.updates.values() if update.header.author in keys)
    return last is not None and not any(last < at <= height for at in sent)


def _own_withdrawals(report: Report, keys: Collection[bytes], height: int) -> Iterator[Withdrawn]:
    """Yield the withdrawals of these keys' own until this height, without those of a rewind."""
    for w in report.ledger.withdrawn:
        if w.mode == "refold" and w.author in keys and w.height <= height:
            yield w


def _reasons(data: Mapping[str, object]) -> Mapping[str, str]:
    missing = data.get("missing")
    return {str(key): str(why) for key, why in missing.items()} if isinstance(missing, dict) else {}


def _values(report: Report, spec: ComponentSpec, round_: Round, entry: Entry, data: Bytes) -> Integers | None:
    """Return the integers of an update, [d]; None if their bytes are not here."""
    frame = data.get(entry.blob)
    return None if frame is None else checked(report, spec, round_.number, entry, data, frame)


def _count(
    round_: Round, used: list[Entry], values: Mapping[bytes, Integers | None], part: Callable[[bytes], _Part]
) -> None:
    names = {entry.update for entry in used}
    for entry in round_.entries:
        counted, integers = part(entry.author), values[entry.update]
        if entry.update not in names:
            counted.unused += 1
            continue
        counted.rounds += 1
        counted.staleness[entry.staleness] += 1
        if integers is None:
            counted.without_bytes += 1
        else:
            counted.norm += squared_norm(integers)


def _shares(
    tensors: Tensors, rule: str, used: list[Entry], values: list[Integers | None], faults: int
) -> list[float] | None:
    """Return the shares of a round's updates; None if there are none, or bytes that they depend on are missing."""
    if not used:
        return None
    if tensors.spec.is_statistic:
        return [1.0] * len(used)
    if rule == "mean":
        return [float(share) for share in mean_shares(used)]
    here = [value for value in values if value is not None]
    if len(here) < len(values):
        return None
    return effects_shares(tensors.add(used, here)) if rule == "random-effects" else robust_shares(rule, here, faults)


def _from_ledger(report: Report, c: ComponentLedger, notes: Notes, parts: Mapping[bytes, _Part]) -> None:
    """Add withdrawn, refused and missing updates, and claims."""
    ledger = report.ledger

    def present(key: bytes) -> bytes:
        return membership.present(ledger.roll, key)

    for inert in report.inert:
        if inert.component == c.name:
            parts[present(inert.author)].refused[inert.reason] += 1
    reached = _modalities(report, c.name)
    arrived: dict[tuple[bytes, int], tuple[bytes, Counted]] = {}
    for name, update in sorted(report.updates.items(), key=lambda item: (item[1].height, item[1].seq)):
        author = present(update.header.author)
        for claim in update.header.claims:
            if claim.modality in reached:
                parts[author].claims[claim.modality] = (update.height, claim)
        if update.header.component == c.name:
            arrived[author, update.header.round] = name, update
    suspensions = [
        (present(outcome.motion.subject), outcome.height)
        for outcome in ledger.roll.outcomes
        if outcome.result == "passed" and outcome.motion.action == "suspend"
    ]
    last_active: dict[bytes, int] = {}
    done: set[bytes] = set()  # a contributor to a statistic: no later round waits for it
    spec = report.charter.component(c.name)
    for number in range(1, c.round + 1):
        frozen, now = report.frozen[c.name, number], c.rounds[number - 1]
        counted = {present(entry.author) for entry in frozen.entries}
        for entry in frozen.entries:
            if entry.update not in now.updates:
                parts[present(entry.author)].withdrawn += 1
        active = {present(key) for key in report.active[c.name, number]}
        if spec is not None and spec.is_statistic:
            done |= counted
        for key in active:
            last_active[key] = frozen.height
            if key not in counted | done:
                why = _reason_missing(report, c.name, frozen, key, notes.get(number, {}), arrived.get((key, number)))
                parts[key].missing[why] += 1
        for key in {key for key, height in suspensions if last_active.get(key, 0) <= height <= frozen.height} - active:
            parts[key].suspended += not _was_gone(ledger, key, frozen.height)


def _modalities(report: Report, component: str) -> frozenset[str]:
    """Return the modalities that updates of this component have claimed for."""
    named = (u.header.claims for u in report.updates.values() if u.header.component == component)
    return frozenset(claim.modality for claims in named for claim in claims)


def _was_gone(ledger: Ledger, key: bytes, height: int) -> bool:
    seat = ledger.roll.seats[key]
    return bool(seat.gone) and seat.until <= height


def _reason_missing(
    report: Report,
    component: str,
    round_: Round,
    key: bytes,
    noted: Mapping[str, str],
    sent: tuple[bytes, Counted] | None,
) -> str:
    """Say why a host is not in a round: as this node saw it close or, if it did not, as far as the ledger shows.

    `sent`: the digest of its update for this round and what the ledger has of it.
    """
    ledger, number = report.ledger, round_.number
    keys = (key, *membership.earlier(ledger.roll, key))
    update, author, seq = (b"", b"", NOT_YET) if sent is None else (sent[0], sent[1].header.author, sent[1].seq)
    voided = (
        w.bars(component, author or w.author, seq, number, update)
        for w in _own_withdrawals(report, keys, round_.height)
    )
    if any(voided) or _has_withdrawn(report, key, round_.height):
        return "withdrew"
    rewinds = (w for w in ledger.withdrawn if w.mode == "rewind" and w.height <= round_.height)
    if any(w.bars(component, author, seq, number, update) for w in rewinds):
        return "rewound"
    for former in keys:
        if former.hex() in noted:
            return noted[former.hex()]
    if _was_gone(ledger, key, round_.height):
        return standing(report, key)
    if sent is None:
        return "no update in the ledger"
    return "too late" if sent[1].height > round_.height else "acknowledged by too few active hosts"


def _member(report: Report, key: bytes, part: _Part, shared: int, total: int) -> BlamedMember:
    ledger, counted = report.ledger, part.rounds
    return {
        "name": ledger.roll.seats[key].name,
        "key": key.hex(),
        "earlier_keys": [former.hex() for former in membership.earlier(ledger.roll, key)],
        "state": standing(report, key),
        "rounds": counted,
        "rounds_without_effect": part.unused,
        "weight_share": fsum(part.shares) / shared if shared else None,
        "squared_norm": part.norm,
        "norm_share": part.norm / total if total and part.without_bytes < max(1, counted) else None,
        "updates_without_bytes": part.without_bytes,
        "epsilon": [
            {
                "modality": modality,
                "epsilon": None if claim.epsilon == NO_EPSILON else claim.epsilon / 1000,
                "delta": None if claim.epsilon == NO_EPSILON else claim.delta / 1e9,
                "height": height,
            }
            for modality, (height, claim) in sorted(part.claims.items())
        ],
        "staleness": {
            "mean": sum(s * n for s, n in part.staleness.items()) / counted if counted else None,
            "rounds": {str(s): n for s, n in sorted(part.staleness.items())},
        },
        "withdrawn": part.withdrawn,
        "refused": dict(sorted(part.refused.items())),
        "missing": dict(sorted(part.missing.items())),
        "suspended": part.suspended,
    }
