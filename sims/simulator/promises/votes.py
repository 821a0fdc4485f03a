"""Who decided what: votes, certificates, seats and motions (G2, G3, G8, G9)."""

from ....consensus.ledger import Ledger
from ....consensus.membership import ended
from ....crypto.identity import verify
from ....node.core import events as ev
from ....node.core.messages import Kind
from ....protocol import schema
from ....protocol.blocks import NIL, PRECOMMIT, PREVOTE, Proposal, Vote, block_id
from ....protocol.signing import open_gossip
from ..cluster import Node
from ..promise import InvariantError
from .observed import Observed

MAX_OPEN = 4  # motions of one member that are open


def defensible(seen: Observed, node: Node, vote: Vote) -> None:
    """A precommit on disk has its block and the prevotes for it on disk: after a crash the lock can be kept."""
    federation = seen.cluster.federation
    stored = [data for height, data in node.store.messages if height == vote.height]
    if vote.height <= node.store.height():
        return
    votes = [open_gossip(Vote, data[1:], federation, trusted=True).value for data in stored if data[0] == Kind.VOTE]
    blocks = {
        block_id(open_gossip(Proposal, data[1:], federation, trusted=True).value.block)
        for data in stored
        if data[0] == Kind.PROPOSAL
    }
    same = {v.author for v in votes if (v.view, v.step, v.block) == (vote.view, PREVOTE, vote.block)}
    assert node.core is not None
    if vote.block not in blocks or len(same) < seen.needed(len(node.core.ledger.members)):
        raise InvariantError("G2", f"a precommit at {vote.height} without its block and prevotes on disk")


def locked(seen: Observed, node: Node, vote: Vote) -> None:
    """Who precommitted a block prevotes another only after a quorum has prevoted that one since (lines 22, 28)."""
    agreement = node.core.agreement if node.core is not None else None
    if agreement is None or agreement.height != vote.height:
        return
    mine = [
        (view, block)
        for (author, height, view, step), block in seen.votes.items()
        if (author, height, step) == (vote.author, vote.height, PRECOMMIT) and block != NIL and view < vote.view
    ]
    locked, block = max(mine, default=(0, vote.block))
    if block == vote.block:
        return
    for view in range(locked, vote.view):
        votes = agreement.votes.by_step.get((view, PREVOTE), {})
        same = {author for author, vote_block in votes if vote_block == vote.block}
        if len(same) >= seen.needed(len(agreement.members)):
            return
    raise InvariantError("G2", f"a prevote at height {vote.height} against the lock of view {locked}")


def certified(seen: Observed, put: ev.PutBlock) -> None:
    """A quorum of different members of the height before signed the block."""
    block, certificate = put.block, put.certificate
    seen.next_members[block.height] = block.members
    before = seen.next_members.get(block.height - 1)
    members = seen.members.get(before) if before else frozenset(m.key for m in seen.cluster.charter.members)
    key = block.id + bytes(str(certificate), "utf-8")
    if members is None or key in seen.verified:
        return
    seen.verified.add(key)
    authors = {entry.author for entry in certificate.signatures} & members
    if len(authors) < seen.needed(len(members)) or len(authors) < len(certificate.signatures):
        raise InvariantError("G2", f"height {block.height} is decided by {len(authors)} of {len(members)} members")
    for entry in certificate.signatures:
        vote = Vote(block.federation, entry.author, block.height, certificate.view, PRECOMMIT, block.id)
        if not verify(entry.author, Vote.DOMAIN, schema.dump(vote), entry.signature):
            raise InvariantError("G2", f"height {block.height} is decided by a false signature")


def seated(now: Ledger) -> None:
    """G2, G9: seats make members, hosts are members, no member votes both ways or has many open motions."""
    seats = {key for key, seat in now.roll.seats.items() if not seat.gone}
    if seats != set(now.members) or any(not seats.issuperset(c.hosts) for c in now.components.values()):
        raise InvariantError("G2", f"at height {now.height} a key is a member or a host without a seat")
    proposed: dict[bytes, int] = {}
    for motion in now.roll.motions:
        proposed[motion.author] = proposed.get(motion.author, 0) + 1
        if motion.yes & motion.no:
            raise InvariantError("G2", f"at height {now.height} a member votes both ways")
    if max(proposed.values(), default=0) > MAX_OPEN:
        raise InvariantError("G9", f"{max(proposed.values())} motions of one member are open")


def voted(seen: Observed, before: Ledger, now: Ledger) -> None:
    """A motion passes by the votes of a quorum of those whom it is not about, or is one's own affair (G2)."""
    passed = [o.motion for o in ended(before.roll, now.roll) if o.result == "passed"]
    if now.height != before.height + 1 or len(passed) != 1:
        return  # several in a block: each is decided by the members that the one before it left
    (motion,) = passed
    subject = set() if motion.action in ("admit", "rewind") else {motion.subject}
    if motion.author in subject or not set(before.members) - set(now.members) <= subject:
        return
    may = set(before.members) - subject
    if len(motion.yes & may) < seen.needed(len(may)):
        raise InvariantError("G2", f"{len(motion.yes & may)} of {len(may)} members {motion.action} somebody")


def suspended(before: Ledger, now: Ledger) -> None:
    """G3: a suspended member hosts nothing, or trains nothing, from that block on until it offers again."""
    if now.height != before.height + 1:
        return
    for motion in (o.motion for o in ended(before.roll, now.roll) if o.result == "passed"):
        offer = now.offers.get(motion.subject)
        if motion.action == "suspend" and (
            offer is not None or any(motion.subject in c.hosts for c in now.components.values())
        ):
            raise InvariantError("G3", "a host that was suspended is one all the same")
        if motion.action == "suspend-training" and offer is not None:
            idle = {entry.component for entry in offer.idle}
            if not idle.issuperset(offer.components):
                raise InvariantError("G3", "a trainer that was suspended is one all the same")
