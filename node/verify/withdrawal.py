"""Check a withdrawal from the ledger and this node's disk (G7): the state is the fold without the withdrawn updates.

The lists without them are made here from the lists as each round froze them, not taken from the ledger's own refold.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from ...consensus.components import Entry
from ...consensus.ledger import ComponentLedger, Withdrawn
from ...crypto.errors import VerificationError
from ...protocol.records import Mode, Scope
from .bytes import Bytes
from .ledger import Progress, Report
from .states import Label, Stored, anchor, label, refold


@dataclass(frozen=True, slots=True)
class ComponentWithdrawal:
    """One component: how many updates were removed and stayed (too old to refold), and the recomputed and certified
    states.

    `others`: how many updates of other members were removed as well, by a rewind. `digest` is of the state after
    `round`, recomputed here without the withdrawn updates; None at a node that does not host the component. `attested`
    of `needed` hosts signed the digest of the certified state.
    """

    component: str
    generation: int
    round: int
    removed: int
    others: int
    kept: int
    digest: bytes | None
    label: Label
    attested: int
    needed: int


@dataclass(frozen=True, slots=True)
class WithdrawalReport:
    """What was checked. It holds if there are no `problems`, and nothing is `pending`: agreed, and not done yet.

    Pending are certificates that enough hosts can still sign, and bytes that the ledger keeps until they have.
    """

    member: bytes
    through: int
    mode: Mode
    scope: Scope
    height: int
    components: tuple[ComponentWithdrawal, ...]
    erased: int
    problems: tuple[str, ...]
    pending: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether every check passed."""
        return not self.problems and not self.pending

    def require(self) -> None:
        """Raise VerificationError with the first problem or pending item, if there is one."""
        wrong = (*self.problems, *self.pending)
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise VerificationError(
                f"{wrong[0]}{more}",
                "If the refold is still being attested, wait for it (`collegium unlearn status`) and verify again.",
            )

    def as_map(self) -> dict[str, object]:
        """Return the report as JSON."""
        return {
            "member": self.member.hex(),
            "through": self.through,
            "mode": self.mode,
            "scope": self.scope,
            "height": self.height,
            "verified": self.verified,
            "problems": list(self.problems),
            "pending": list(self.pending),
            "erased_blobs": self.erased,
            "components": [
                {
                    "component": c.component,
                    "generation": c.generation,
                    "round": c.round,
                    "removed_updates": c.removed,
                    "rewound_updates_of_others": c.others,
                    "updates_beyond_refold_horizon": c.kept,
                    "digest": None if c.digest is None else c.digest.hex(),
                    "label": c.label,
                    "attested": c.attested,
                    "needed": c.needed,
                }
                for c in self.components
            ],
        }


@dataclass(frozen=True, slots=True)
class _Said:
    """Problems, and the hosts' pending work."""

    problems: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)


def verify_withdrawal(
    report: Report,
    member: bytes,
    data: Bytes,
    *,
    components: Collection[str] | None = None,
    checkpoints: Collection[bytes] = (),
    stored: Stored | None = None,
    progress: Progress | None = None,
) -> WithdrawalReport:
    """Check the withdrawals of a member against a verified ledger and this node's bytes.

    `components` are those whose bytes this node holds (all by default); for the others only the lists and certificates
    are checked. `checkpoints` are the chains of states on this disk (`verify.checkpoints`). Where bytes of old rounds
    were pruned, it is recomputed from the `stored` state after them, as `verify_states` does.

    Raises VerificationError if the ledger holds no withdrawal of this member; whatever else is wrong is a problem in
    the report, named by component and round.
    """
    withdrawals = [w for w in report.withdrawn if w.author == member]
    if not withdrawals:
        raise VerificationError(
            f"no-withdrawal: the ledger up to height {report.ledger.height} holds none of {member.hex()[:16]}",
            "Wait until it is agreed on (`collegium unlearn status`).",
        )
    last = withdrawals[-1]
    remarks = _Said()
    problems, pending = remarks.problems, remarks.pending
    verdicts = []
    for name in sorted(report.ledger.components):
        hosted = components is None or name in components
        c = report.ledger.components[name]
        verdicts.append(_component(report, withdrawals, c, data, hosted, stored, remarks, progress))
    gone = _withdrawn_blobs(report, withdrawals)
    left = sorted(blob for blob in gone if data.has(blob))
    waiting = _waiting(report)
    for blob in left:
        target = pending if blob in waiting else problems
        target.append(f"blob-not-erased: the withdrawn bytes {blob.hex()} are still on this disk")
    chains = {round_.chain for c in report.ledger.components.values() for round_ in c.rounds}
    old = sorted(chain for chain in checkpoints if chain not in chains)
    target = pending if waiting else problems
    target += [f"checkpoint-not-erased: a state of earlier lists is on this disk: {chain.hex()}" for chain in old]
    return WithdrawalReport(
        member,
        last.through,
        last.mode,
        last.scope,
        last.height,
        tuple(verdicts),
        len(gone) - len(left),
        tuple(problems),
        tuple(pending),
    )


def _waiting(report: Report) -> set[bytes]:
    """Return the withdrawn bytes that every node keeps until enough hosts have signed the state without them."""
    open_ = [c for c in report.ledger.components.values() if report.ledger.certifiable(c)]
    return {blob for c in open_ for erasure in c.erasures for blob in erasure.blobs}


def _component(
    report: Report,
    withdrawals: Sequence[Withdrawn],
    c: ComponentLedger,
    data: Bytes,
    hosted: bool,
    stored: Stored | None,
    remarks: _Said,
    progress: Progress | None,
) -> ComponentWithdrawal:
    """Check one component, adding to the `remarks`."""
    problems, pending = remarks.problems, remarks.pending
    expected, removed, others, kept = [], 0, 0, 0
    member = withdrawals[0].author
    for number in range(1, c.round + 1):
        frozen = report.frozen[c.name, number]
        survivors = tuple(e for e in frozen.entries if not _is_gone(report.withdrawn, c.name, number, e))
        gone = [e for e in frozen.entries if _is_gone(withdrawals, c.name, number, e)]
        removed += sum(e.author == member for e in gone)
        others += sum(e.author != member for e in gone)
        kept += sum(any(_is_named(w, c.name, number, e) for w in withdrawals) for e in survivors)
        expected.append(replace(frozen, entries=survivors))
        now = c.rounds[number - 1]
        if now.entries != survivors:
            problems.append(f"{c.name} round {number}: list-differs: it is not the frozen list without the withdrawn")
    certified = c.certified if c.certified is not None and c.certified.generation == c.generation else None
    proof = None
    if certified is not None:
        key = (c.name, certified.round, c.generation)
        proof = next(p for p in report.certifications if (p.component, p.round, p.generation) == key)
    attested = sum((r, e) == (c.round, c.generation) for r, e, _, _ in c.attests)
    needed = report.ledger.host_quorum(c)
    if (removed or others) and (proof is None or len(proof.hosts) < proof.needed):
        target = pending if proof is None and report.ledger.certifiable(c) else problems
        target.append(
            f"{c.name} generation {c.generation}: not-certified: {attested} of the needed {needed} hosts attested the"
            " refold"
        )
    digest = None
    if hosted:
        spec = report.charter.component(c.name)
        assert spec is not None

        def step(count: int) -> None:
            if progress is not None:
                progress(c.name, count, sum(len(round_.entries) for round_ in expected))

        since, first = anchor(report, c, data, stored)
        try:
            digests, _, _ = refold(report, spec, expected, data, step, since=since, first=first)
        except VerificationError as error:
            problems.append(error.message)
        else:
            digest = digests[c.round]
            if certified is not None and digests.get(certified.round, certified.digest) != certified.digest:
                problems.append(
                    f"{c.name} round {certified.round}, generation {c.generation}: state-differs: the fold without"
                    f" the withdrawn updates is {digests[certified.round].hex()}, certified is {certified.digest.hex()}"
                )
    return ComponentWithdrawal(
        c.name,
        c.generation,
        c.round,
        removed,
        others,
        kept,
        digest,
        label(certified is not None, report.ledger.certifiable(c)),
        attested if proof is None else len(proof.hosts),
        needed if proof is None else proof.needed,
    )


def _is_gone(withdrawals: Iterable[Withdrawn], component: str, number: int, entry: Entry) -> bool:
    """Whether one of these withdrawals takes this entry out of this round (design.md section 9)."""
    for withdrawal in withdrawals:
        since, last = dict(withdrawal.since).get(component), dict(withdrawal.rounds)[component]
        if (
            since is not None
            and since <= number <= last
            and (withdrawal.mode == "rewind" or _is_named(withdrawal, component, number, entry))
        ):
            return True
    return False


def _is_named(withdrawal: Withdrawn, component: str, number: int, entry: Entry) -> bool:
    """Whether a withdrawal is about this entry, in force or too old to be taken out."""
    if entry.author != withdrawal.author or entry.seq > withdrawal.through:
        return False
    match withdrawal.scope:
        case "all":
            return True
        case "updates":
            return entry.update in withdrawal.updates
        case "rounds":
            return component in withdrawal.components and withdrawal.first <= number <= withdrawal.last
        case "components":
            return component in withdrawal.components
        case _:
            assert_never(withdrawal.scope)


def _withdrawn_blobs(report: Report, withdrawals: Sequence[Withdrawn]) -> set[bytes]:
    """Return the bytes of the updates that were withdrawn, in flight ones included, and that no list names."""
    named = {e.blob for c in report.ledger.components.values() for r in c.rounds for e in r.entries}
    named |= {p.blob for c in report.ledger.components.values() for p in c.pending}
    gone = {
        entry.blob
        for (component, number), round_ in report.frozen.items()
        for entry in round_.entries
        if _is_gone(withdrawals, component, number, entry)
    }
    gone |= {
        update.header.blob
        for name, update in report.updates.items()
        for w in withdrawals
        if update.height <= w.height
        and w.bars(update.header.component, update.header.author, update.seq, update.header.round, name)
    }
    return gone - named
