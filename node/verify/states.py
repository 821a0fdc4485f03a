"""Recompute component states from update bytes, and compare them with the certified ones (G1, G4, G5)."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ...consensus.components import Entry, Round, State, fold_round, origin
from ...consensus.ledger import ComponentLedger
from ...crypto.errors import RemoteProtocolError, VerificationError
from ...protocol.components import ComponentSpec, state_digest
from ...protocol.update import Integers, check_norm, read_payload
from .bytes import Bytes
from .ledger import Progress, Report

Label: TypeAlias = Literal["certified", "not certified yet", "uncertified"]  # of a state's certificate
Stored = Callable[[str, bytes], State | None]  # (component, chain) to the state on disk


@dataclass(frozen=True, slots=True)
class StateReport:
    """One component, recomputed. `digest` is of the state after `round`; certified says what the hosts agreed on.

    `certified_round` is the last round of this generation whose digest a quorum of hosts attested, or None;
    `enough_hosts` whether such a certificate means anything under the federation's fault model (design.md section 7). A
    node that joined late has no bytes of the rounds up to `since`: it goes on from the state that the hosts certified
    then.
    """

    component: str
    round: int
    generation: int
    digest: bytes
    certified_round: int | None
    enough_hosts: bool
    updates: int
    saturated: int
    stored: bool
    since: int = 0

    def as_map(self) -> dict[str, object]:
        """Return the report as JSON."""
        return {
            "component": self.component,
            "round": self.round,
            "generation": self.generation,
            "digest": self.digest.hex(),
            "certified_round": self.certified_round,
            "label": label(self.certified_round is not None, self.enough_hosts) if self.round else "no round yet",
            "updates": self.updates,
            "saturated": self.saturated,
            "equals_stored_state": self.stored,
            "recomputed_since_round": self.since,
        }


def label(certified: bool, enough_hosts: bool) -> Label:
    """Label a certificate: with too few hosts it is "uncertified", whatever they signed."""
    return "uncertified" if not enough_hosts else "certified" if certified else "not certified yet"


def verify_states(
    report: Report,
    data: Bytes,
    *,
    components: Collection[str] | None = None,
    stored: Stored | None = None,
    progress: Progress | None = None,
) -> tuple[StateReport, ...]:
    """Recompute the states of these components (all by default) of a verified ledger.

    Every update is read from `data` and checked as a host checks it before it acknowledges; `stored` gives the states
    that a daemon keeps, which must be the same. Raises VerificationError naming the component, round and author.
    """
    names = sorted(report.ledger.components if components is None else components)
    total = sum(len(r.entries) for name in names for r in report.ledger.components[name].rounds)
    done = 0
    verified = []
    for name in names:
        component = report.ledger.components[name]

        def step(count: int, base: int = done) -> None:
            if progress is not None:
                progress("updates", base + count, total)

        verified.append(_verify_state(report, component, data, stored, step))
        done += sum(len(r.entries) for r in component.rounds)
    return tuple(verified)


def _verify_state(
    report: Report, c: ComponentLedger, data: Bytes, stored: Stored | None, step: Callable[[int], None]
) -> StateReport:
    spec = report.charter.component(c.name)
    assert spec is not None  # the ledger's components are the charter's
    since, first = anchor(report, c, data, stored)
    digests, state, saturated = refold(report, spec, c.rounds, data, step, since=since, first=first)
    certified = c.certified if c.certified is not None and c.certified.generation == c.generation else None
    if certified is not None and digests.get(certified.round, certified.digest) != certified.digest:
        raise VerificationError(
            f"{c.name} round {certified.round}, generation {c.generation}: state-differs: the frozen updates fold to"
            f" {digests[certified.round].hex()}, certified is {certified.digest.hex()}",
            "Do not use this state. Compare `ledger verify --states` at other hosts.",
        )
    attested = {d for r, e, _, d in c.attests if (r, e) == (c.round, c.generation)}
    if attested and digests[c.round] not in attested:
        raise VerificationError(
            f"{c.name} round {c.round}, generation {c.generation}: state-differs: no host attests"
            f" {digests[c.round].hex()}",
            "Do not use this state. Compare `ledger verify --states` at other hosts.",
        )
    kept = stored(c.name, c.chain) if stored is not None and c.rounds else None
    if kept is not None and not np.array_equal(kept, state):
        raise VerificationError(
            f"{c.name} round {c.round}, generation {c.generation}: stored-state-differs: the state on this disk is"
            " not the fold",
            "Stop the daemon and move the states folder away: it folds them again from the updates.",
        )
    return StateReport(
        component=c.name,
        round=c.round,
        generation=c.generation,
        digest=digests[c.round],
        certified_round=None if certified is None else certified.round,
        enough_hosts=report.ledger.certifiable(c),
        updates=sum(len(round_.entries) for round_ in c.rounds),
        saturated=saturated,
        stored=kept is not None,
        since=since,
    )


def anchor(report: Report, c: ComponentLedger, data: Bytes, stored: Stored | None) -> tuple[int, State | None]:
    """Return the round, and the state after it, from which a state can be recomputed here: 0 and None for the start.

    Where bytes are missing (pruned, or this node joined late), it is the first stored state after them that a quorum of
    enough hosts certified, or from which certified states follow: a fold adds to what it starts from, so a false start
    would end in a false state.
    """
    missing = [r.number for r in c.rounds if not all(data.has(entry.blob) for entry in r.entries)]
    if not missing or stored is None or not report.ledger.certifiable(c):
        return 0, None
    certified = {(x.chain, x.digest) for x in report.certifications if x.component == c.name}
    later = c.certified.round if c.certified is not None and c.certified.generation == c.generation else 0
    for round_ in c.rounds[max(missing) - 1 :]:
        state = stored(c.name, round_.chain)
        if state is not None and (round_.number <= later or (round_.chain, state_digest(c.name, state)) in certified):
            return round_.number, state
    return 0, None


def refold(
    report: Report,
    spec: ComponentSpec,
    rounds: Iterable[Round],
    data: Bytes,
    step: Callable[[int], None],
    *,
    since: int = 0,
    first: State | None = None,
) -> tuple[dict[int, bytes], State, int]:
    """Fold rounds from checked bytes: the digest after each round (0: before the first), the last state, saturations.

    `first` is the state after round `since`, if that is where it starts (`anchor`). Raises VerificationError naming the
    component, round and author.
    """
    state, saturated, done = origin(spec) if first is None else first, 0, 0
    digests = {since: state_digest(spec.name, state)}
    for round_ in rounds:
        if round_.number <= since:
            continue

        def values(entry: Entry, number: int = round_.number) -> Integers:
            nonlocal done
            done += 1
            step(done)
            return checked(report, spec, number, entry, data)

        state, more = fold_round(state, spec, round_, values)
        saturated += more
        digests[round_.number] = state_digest(spec.name, state)
    return digests, state, saturated


def checked(
    report: Report, spec: ComponentSpec, number: int, entry: Entry, data: Bytes, fetched: bytes | None = None
) -> Integers:
    """Return the integers of an entry of a round, [d], checked as a host checks them. Raises VerificationError.

    `fetched` is what `data` has of it, if the caller has read it.
    """
    where = f"{spec.name} round {number}, update of {entry.author.hex()[:16]}"
    counted = report.updates.get(entry.update)
    if counted is None or (counted.header.author, counted.header.blob) != (entry.author, entry.blob):
        raise VerificationError(f"{where}: not-in-ledger: no record of its author carries it", "Do not use this state.")
    frame = data.get(entry.blob) if fetched is None else fetched
    if frame is None:
        raise VerificationError(
            f"{where}: blob-missing: {entry.blob.hex()} is not on this disk",
            "Verify at a host that was there in that round, or let the daemon run until it has fetched the bytes.",
        )
    try:
        values = read_payload(frame, counted.header, spec)
        check_norm(values, counted.header, spec, report.least_lot)
    except RemoteProtocolError as error:
        raise VerificationError(
            f"{where}: {error.reason}: {error.detail} (blob {entry.blob.hex()})",
            "Delete this blob: the daemon fetches it again. If it comes back the same, do not use this state.",
        ) from error
    return values
