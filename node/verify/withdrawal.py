"""Check a withdrawal from the ledger and this node's disk (G7): the state is the fold without the withdrawn updates.

The lists without them are made here from the lists as each round froze them, not taken from the ledger's own refold.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ...consensus.components import Entry
from ...consensus.ledger import ComponentLedger, Withdrawn
from ...crypto.errors import VerificationError
from .bytes import Bytes
from .ledger import Progress, Report
from .states import label, refold


@dataclass(frozen=True, slots=True)
class ComponentWithdrawal:
    """One component: how many updates went and stayed (too old to refold), and what was recomputed and certified.

    `digest` is of the state after `round`, recomputed here without what was withdrawn; None at a node that does not
    host the component. `attested` of `needed` hosts signed the digest of the certified state.
    """

    component: str
    epoch: int
    round: int
    removed: int
    kept: int
    digest: bytes | None
    label: str
    attested: int
    needed: int


@dataclass(frozen=True, slots=True)
class WithdrawalReport:
    """What was checked. It holds if there are no `problems`."""

    member: bytes
    through: int
    mode: str
    height: int
    components: tuple[ComponentWithdrawal, ...]
    erased: int
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether every check passed."""
        return not self.problems

    def require(self) -> None:
        """Raise VerificationError with the first problem, if there is one."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise VerificationError(
                f"{self.problems[0]}{more}",
                "If the refold is still being attested, wait for it (`collegium unlearn status`) and verify again.",
            )

    def as_map(self) -> dict[str, object]:
        """Return the report as JSON."""
        return {
            "member": self.member.hex(),
            "through": self.through,
            "mode": self.mode,
            "height": self.height,
            "verified": self.verified,
            "problems": list(self.problems),
            "erased_blobs": self.erased,
            "components": [
                {
                    "component": c.component,
                    "epoch": c.epoch,
                    "round": c.round,
                    "removed_updates": c.removed,
                    "updates_beyond_refold_horizon": c.kept,
                    "digest": None if c.digest is None else c.digest.hex(),
                    "label": c.label,
                    "attested": c.attested,
                    "needed": c.needed,
                }
                for c in self.components
            ],
        }


def verify_withdrawal(
    report: Report,
    member: bytes,
    data: Bytes,
    *,
    components: Collection[str] | None = None,
    checkpoints: Collection[bytes] = (),
    progress: Progress | None = None,
) -> WithdrawalReport:
    """Check the withdrawals of a member against a verified ledger and this node's bytes.

    `components` are those whose bytes this node holds (all by default); for the others only the lists and certificates
    are checked. `checkpoints` are the chains of states on this disk (`verify.checkpoints`).

    Raises VerificationError if the ledger holds no withdrawal of this member; whatever else is wrong is a problem in
    the report, named by component and round.
    """
    withdrawals = [w for w in report.ledger.withdrawn if w.author == member]
    if not withdrawals:
        raise VerificationError(
            f"no-withdrawal: the ledger up to height {report.ledger.height} holds none of {member.hex()[:16]}",
            "Wait until it is agreed on (`collegium unlearn status`).",
        )
    last = withdrawals[-1]
    problems: list[str] = []
    found = []
    for name in sorted(report.ledger.components):
        hosted = components is None or name in components
        found.append(_component(report, member, report.ledger.components[name], data, hosted, problems, progress))
    gone = _withdrawn_blobs(report, withdrawals)
    left = sorted(blob for blob in gone if data.has(blob))
    problems += [f"blob-not-erased: the withdrawn bytes {blob.hex()} are still on this disk" for blob in left]
    chains = {round_.chain for c in report.ledger.components.values() for round_ in c.rounds}
    old = sorted(chain for chain in checkpoints if chain not in chains)
    problems += [f"checkpoint-not-erased: a state of earlier lists is on this disk: {chain.hex()}" for chain in old]
    return WithdrawalReport(
        member, last.through, last.mode, last.height, tuple(found), len(gone) - len(left), tuple(problems)
    )


def _component(
    report: Report,
    member: bytes,
    c: ComponentLedger,
    data: Bytes,
    hosted: bool,
    problems: list[str],
    progress: Progress | None,
) -> ComponentWithdrawal:
    """Check one component, adding what is wrong to `problems`."""
    expected, removed, kept = [], 0, 0
    through = max(w.through for w in report.ledger.withdrawn if w.author == member)
    for number in range(1, c.round + 1):
        frozen = report.frozen[c.name, number]
        survivors = tuple(e for e in frozen.entries if not _is_gone(report, c.name, number, e))
        removed += sum(e.author == member for e in frozen.entries) - sum(e.author == member for e in survivors)
        kept += sum(e.author == member and e.seq <= through for e in survivors)
        expected.append(replace(frozen, entries=survivors))
        now = c.rounds[number - 1]
        if now.entries != survivors:
            problems.append(f"{c.name} round {number}: list-differs: it is not the frozen list without the withdrawn")
    certified = c.certified if c.certified is not None and c.certified.epoch == c.epoch else None
    proof = None
    if certified is not None:
        key = (c.name, certified.round, c.epoch)
        proof = next(p for p in report.certifications if (p.component, p.round, p.epoch) == key)
    attested = sum((r, e) == (c.round, c.epoch) for r, e, _, _ in c.attests)
    needed = report.ledger.host_quorum(c)
    if removed and (proof is None or len(proof.hosts) < proof.needed):
        problems.append(
            f"{c.name} epoch {c.epoch}: not-certified: {attested} of the needed {needed} hosts attested the refold"
        )
    digest = None
    if hosted:
        spec = report.charter.component(c.name)
        assert spec is not None

        def step(count: int) -> None:
            if progress is not None:
                progress(c.name, count, sum(len(round_.entries) for round_ in expected))

        try:
            digests, _, _ = refold(report, spec, expected, data, step)
        except VerificationError as error:
            problems.append(error.message)
        else:
            digest = digests[c.round]
            if certified is not None and digests[certified.round] != certified.digest:
                problems.append(
                    f"{c.name} round {certified.round}, epoch {c.epoch}: state-differs: the fold without the withdrawn"
                    f" updates is {digests[certified.round].hex()}, certified is {certified.digest.hex()}"
                )
    return ComponentWithdrawal(
        c.name,
        c.epoch,
        c.round,
        removed,
        kept,
        digest,
        label(certified is not None, report.ledger.certifiable(c)),
        attested if proof is None else len(proof.hosts),
        needed if proof is None else proof.needed,
    )


def _is_gone(report: Report, component: str, number: int, entry: Entry) -> bool:
    """Whether a withdrawal in force covers this entry of this round (DESIGN.md section 9)."""
    return any(
        w.author == entry.author
        and entry.seq <= w.through
        and _oldest(report, w, component) < number <= dict(w.rounds)[component]
        for w in report.ledger.withdrawn
    )


def _oldest(report: Report, withdrawal: Withdrawn, component: str) -> int:
    """Rounds up to this one were beyond the refold horizon when the withdrawal took effect."""
    return dict(withdrawal.rounds)[component] - report.charter.rules.refold_horizon


def _withdrawn_blobs(report: Report, withdrawals: Sequence[Withdrawn]) -> set[bytes]:
    """Return the bytes of the member's updates that were withdrawn, in flight ones included, and that no list names."""
    named = {e.blob for c in report.ledger.components.values() for r in c.rounds for e in r.entries}
    named |= {p.blob for c in report.ledger.components.values() for p in c.pending}
    return {
        update.header.blob
        for update in report.updates.values()
        if any(
            w.author == update.header.author and (update.seq <= w.through or update.height <= w.height)
            for w in withdrawals
        )
    } - named
