"""Agreement on the block of one height: single-shot Tendermint (Buchman, Kwon, Milosevic 2018, Algorithm 1).

The rules, by the paper's line numbers; `v` is a block, `r` a view, quorums as in protocol.blocks.quorum:

    11  a view starts: its proposer proposes its valid block, else a new one; everybody else sets the propose timer
    22  new proposal, step propose, valid(v): prevote v if not locked on another block, else nil
    28  re-proposal from view vr with a quorum of prevotes there: prevote v if locked no later than vr or on v
    34  a quorum of prevotes for anything: prevote timer
    36  proposal and a quorum of prevotes for it: (step prevote) lock and precommit it; in any case it is my valid block
    44  a quorum of prevotes for nil: precommit nil
    47  a quorum of precommits for anything: precommit timer
    49  proposal and a quorum of precommits for it, of any view: decide
    55  messages of a later view from more members than may lie: go there
    57  timers: propose → prevote nil, prevote → precommit nil, precommit → next view

Two additions (design.md section 7). The local clock affects only the first prevote: line 22 waits until the block is
`timely`, at most until the propose timer. And without work there is no height: view 0 starts on work that this node
finds timely, or when more members than may lie have started.

Every statement that this node signs is returned as `Say`; the caller writes it to disk before it sends it (G8).
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from ..crypto.errors import RemoteProtocolError
from ..crypto.identity import Identity
from ..protocol import schema
from ..protocol.blocks import (
    BLOCK_LIMIT,
    NIL,
    PRECOMMIT,
    PREVOTE,
    Block,
    Certificate,
    Proposal,
    Vote,
    VoteSignature,
    block_id,
    quorum,
)
from ..protocol.signing import Signed, sign

VIEWS_AHEAD = 16  # votes of later views are dropped: they could fill the memory


Message: TypeAlias = Signed[Proposal] | Signed[Vote]
Proof: TypeAlias = tuple[Message, ...]


class Step(IntEnum):
    """This node's step in a view."""

    PROPOSE = 0
    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True, slots=True)
class Say:
    """Persist, then send: a proposal or vote of this node. `proof` must be on disk with it."""

    message: Message
    proof: Proof = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """Persist: the messages that prove a block to be this node's valid block."""

    proof: Proof


@dataclass(frozen=True, slots=True)
class Ask:
    """This node is the proposer of this view: call `propose` with a new block, or not at all without work."""

    view: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Call `judged` and `timely` for this block as soon as the answers are known."""

    identifier: bytes
    block: Block


@dataclass(frozen=True, slots=True)
class Wait:
    """Call `timeout(view, step)` after the step's timeout for this view."""

    view: int
    step: Step


@dataclass(frozen=True, slots=True)
class Decided:
    """The block of this height."""

    block: Block
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two votes of one member for one step: proof of a lie."""

    a: Signed[Vote]
    b: Signed[Vote]


Action: TypeAlias = Say | Keep | Ask | Judge | Wait | Decided | Equivocation


class Votes:
    """The members' votes of one height.

    A quorum that another member saw may contain a liar's other vote, so every vote for a proposed block or for nothing
    counts, and an author counts once for each block.
    """

    def __init__(self) -> None:
        self.by_step: dict[tuple[int, int], dict[tuple[bytes, bytes], Signed[Vote]]] = {}  # then by (author, block)
        # Voters by (view, step, block), and for anything by (view, step, None): added as votes come.
        self.voters: dict[tuple[int, int, bytes | None], set[bytes]] = {}
        self.first: dict[tuple[int, int, bytes], Signed[Vote]] = {}  # by (view, step, author)
        self.convicted: set[bytes] = set()  # one proof is enough for each author

    def count(self, view: int, step: int, identifier: bytes | None) -> int:
        """Return how many members voted for a block in a view and step; None: for anything."""
        return len(self.voters.get((view, step, identifier), ()))

    def of(self, view: int, step: int, identifier: bytes) -> list[Signed[Vote]]:
        """Return the votes for a block in a view and step."""
        votes = self.by_step.get((view, step), {})
        return [vote for vote in votes.values() if vote.value.block == identifier]

    def take(self, message: Signed[Vote], blocks: Container[bytes]) -> tuple[bool, Equivocation | None]:
        """Take a vote; return whether it counts for the first time, and the proof of a first lie of its author."""
        vote = message.value
        votes = self.by_step.setdefault((vote.view, vote.step), {})
        if (vote.author, vote.block) in votes:
            return False, None
        other = self.first.setdefault((vote.view, vote.step, vote.author), message)
        counts = other is message or vote.block == NIL or vote.block in blocks
        if counts:
            votes[vote.author, vote.block] = message
            for identifier in (vote.block, None):
                self.voters.setdefault((vote.view, vote.step, identifier), set()).add(vote.author)
        if other is message or vote.author in self.convicted:
            return counts, None
        self.convicted.add(vote.author)
        return counts, Equivocation(other, message)


class Agreement:
    """One height's agreement. Inputs are methods; each returns the actions that follow, in order.

    The caller checks signatures, federation and height, and passes messages of members only.
    """

    def __init__(
        self, identity: Identity, federation: bytes, height: int, members: Sequence[bytes], model: str
    ) -> None:
        self.identity = identity
        self.federation = federation
        self.height = height
        self.members = tuple(sorted(members))
        self.quorum = quorum(len(self.members), model)
        self.others_that_start = (len(self.members) - 1) // 3 + 1 if model == "byzantine" else 1
        self.view = 0
        self.step = Step.PROPOSE
        self.started = False
        self.decided = False
        self.mute = False  # a restored backup never votes at a height at which it may have voted before (G8)
        self.locked: tuple[bytes, int] | None = None
        self.valid: tuple[bytes, int] | None = None
        self.blocks: dict[bytes, Block] = {}
        self.verdicts: dict[bytes, bool] = {}
        self.punctual: set[bytes] = set()
        self.proposals: dict[int, Signed[Proposal]] = {}
        self.votes = Votes()
        self.seen: dict[bytes, Message] = {}
        self.latest = 0  # the last view that any member is in
        self.views_of: dict[bytes, int] = {}
        self._done: set[tuple[str, int]] = set()
        self._actions: list[Action] = []

    def proposer(self, view: int) -> bytes:
        """Return the proposer of a view: `(height + view) mod n`."""
        return self.members[(self.height + view) % len(self.members)]

    # ---- inputs

    def start(self) -> list[Action]:
        """There is work that this node finds timely."""
        if not self.started and not self.decided:
            self._enter(0)
        return self._settle()

    def propose(self, view: int, block: Block) -> list[Action]:
        """Propose a new block, in answer to `Ask`."""
        if view == self.view and view not in self.proposals and not self.mute and not self.decided:
            self._propose(block, 0)
        return self._settle()

    def receive(self, message: Message) -> list[Action]:
        """Take a member's proposal or vote. Raises RemoteProtocolError("not-the-proposer" | "malformed" | ...)."""
        self._take(message)
        return self._settle()

    def is_news(self, value: Proposal | Vote) -> bool:
        """Whether a member's unseen message changes anything. Its signature need not be checked for that."""
        if value.view > self.view + VIEWS_AHEAD:
            return value.view > self.views_of.get(value.author, 0)
        if isinstance(value, Proposal):
            return value.view not in self.proposals or value.view > self.views_of.get(value.author, 0)
        voted = (value.view, value.step, value.author) in self.votes.first  # a second proves a lie, a third only counts
        proved = voted and value.author in self.votes.convicted
        return not (proved and value.block != NIL and value.block not in self.blocks)

    def judged(self, identifier: bytes, valid: bool) -> list[Action]:
        """Answer to `Judge`: whether the block is valid (deterministic)."""
        self.verdicts[identifier] = valid
        return self._settle()

    def timely(self, identifier: bytes) -> list[Action]:
        """Answer to `Judge`: by this node's clock this block leaves no member out."""
        self.punctual.add(identifier)
        if not self.started and self.verdicts.get(identifier) and not self.decided:
            self._enter(0)
        return self._settle()

    def timeout(self, view: int, step: Step) -> list[Action]:
        """A timer set by `Wait` ended (line 57)."""
        if not self.decided and view == self.view:
            if step is Step.PROPOSE and self.step is Step.PROPOSE:
                self._vote(PREVOTE, NIL)
                self.step = Step.PREVOTE
            elif step is Step.PREVOTE and self.step is Step.PREVOTE:
                self._vote(PRECOMMIT, NIL)
                self.step = Step.PRECOMMIT
            elif step is Step.PRECOMMIT:
                self._enter(view + 1)
        return self._settle()

    def fall_silent(self) -> list[Action]:
        """Never vote at this height again: a peer has a vote of this node that its own disk lacks (G8)."""
        self.mute = True
        return self._settle()

    def restore(self, messages: Iterable[Message]) -> list[Action]:
        """Restore from disk: own messages and the proofs of locked and valid blocks. Call once, first."""
        me = self.identity.public_key
        messages = list(messages)
        views = [message.value.view for message in messages if message.value.author == me]
        self.view = max(views, default=0)
        for message in messages:
            self._take(message)
        mine = [vote for votes in self.votes.by_step.values() for vote in votes.values() if vote.value.author == me]
        if views:
            self.started = True
            steps = [vote.value.step for vote in mine if vote.value.view == self.view]
            self.step = Step(max(steps, default=Step.PROPOSE))
            # Its timers did not survive: set the one of the step it is in again.
            self._actions.append(Wait(self.view, self.step))
        for vote in mine:
            locks = vote.value.step == PRECOMMIT and vote.value.block != NIL
            if locks and (self.locked is None or vote.value.view > self.locked[1]):
                self.locked = (vote.value.block, vote.value.view)
        for (view, step), votes in self.votes.by_step.items():
            for identifier in {vote.value.block for vote in votes.values()} - {NIL}:
                polka = step == PREVOTE and self.votes.count(view, PREVOTE, identifier) >= self.quorum
                if polka and identifier in self.blocks and (self.valid is None or view > self.valid[1]):
                    self.valid = (identifier, view)
        return self._settle()

    def messages(self) -> list[Message]:
        """Return messages that a peer at this height may lack: proposals and votes of the current and the valid view.

        Also the last votes of every member, of any view: a restored backup must learn of its own (G8).
        """
        views = {self.view} | ({self.valid[1]} if self.valid else set()) | ({self.locked[1]} if self.locked else set())
        messages: list[Message] = [p for view, p in self.proposals.items() if view in views]
        last: dict[bytes, int] = {}
        for (view, _), votes in self.votes.by_step.items():
            for author, _ in votes:
                last[author] = max(last.get(author, 0), view)
        for (view, step), votes in self.votes.by_step.items():
            everything = view in views or step == PRECOMMIT
            messages += [vote for (author, _), vote in votes.items() if everything or last[author] == view]
        return messages

    # ---- rules

    def _settle(self) -> list[Action]:
        """Apply the rules until nothing changes; return and clear the actions gathered."""
        while not self.decided and (
            self._start_with_others() or self._line_49() or self._line_55() or (self.started and self._lines_22_to_47())
        ):
            pass
        actions, self._actions = self._actions, []
        return actions

    def _start_with_others(self) -> bool:
        others = len(self.views_of) - (self.identity.public_key in self.views_of)
        if self.started or others < self.others_that_start:
            return False
        self._enter(0)
        return True

    def _enter(self, view: int) -> None:
        """Line 11."""
        self.started = True
        self.view, self.step = view, Step.PROPOSE
        self._actions.append(Wait(view, Step.PROPOSE))
        if self.proposer(view) != self.identity.public_key or self.mute or view in self.proposals:
            return
        if self.valid is not None:
            self._propose(self.blocks[self.valid[0]], self.valid[1] + 1)
        else:
            self._actions.append(Ask(view))

    def _lines_22_to_47(self) -> bool:
        view = self.view
        proposal = self.proposals.get(view)
        if proposal is not None:
            identifier = block_id(proposal.value.block)
            verdict = self.verdicts.get(identifier)
            if self.step is Step.PROPOSE and self._prevote(proposal.value, identifier, verdict):
                return True
            if verdict and self.step is not Step.PROPOSE and self._quorum_once("36", view, PREVOTE, identifier):
                return self._polka(view, identifier)
        if self.step is Step.PREVOTE:
            if self.votes.count(view, PREVOTE, NIL) >= self.quorum:  # line 44
                self._vote(PRECOMMIT, NIL)
                self.step = Step.PRECOMMIT
                return True
            if self._quorum_once("34", view, PREVOTE):
                self._actions.append(Wait(view, Step.PREVOTE))
                return True
        if self._quorum_once("47", view, PRECOMMIT):
            self._actions.append(Wait(view, Step.PRECOMMIT))
            return True
        return False

    def _prevote(self, proposal: Proposal, identifier: bytes, verdict: bool | None) -> bool:
        """Lines 22 and 28."""
        if verdict is None:
            return False
        if proposal.valid_view == 0:
            if verdict and identifier not in self.punctual:
                return False  # untimely: wait, the propose timer ends it
            accept = verdict and (self.locked is None or self.locked[0] == identifier)
        else:
            before = proposal.valid_view - 1
            if before >= proposal.view or self.votes.count(before, PREVOTE, identifier) < self.quorum:
                return False
            accept = verdict and (self.locked is None or self.locked[1] <= before or self.locked[0] == identifier)
        self._vote(PREVOTE, identifier if accept else NIL)
        self.step = Step.PREVOTE
        return True

    def _polka(self, view: int, identifier: bytes) -> bool:
        """Line 36."""
        proof: Proof = (self.proposals[view], *self.votes.of(view, PREVOTE, identifier))
        self.valid = (identifier, view)
        if self.step is Step.PREVOTE:
            self.locked = (identifier, view)
            self._vote(PRECOMMIT, identifier, proof)
            self.step = Step.PRECOMMIT
        else:
            self._actions.append(Keep(proof))
        return True

    def _line_49(self) -> bool:
        for (view, step, identifier), voters in self.votes.voters.items():
            if step != PRECOMMIT or len(voters) < self.quorum or identifier is None or identifier == NIL:
                continue
            if self.verdicts.get(identifier):
                signatures = [VoteSignature(v.value.author, v.signature) for v in self.votes.of(view, step, identifier)]
                certificate = Certificate(view, tuple(sorted(signatures, key=lambda entry: entry.author)))
                self.decided = True
                self._actions.append(Decided(self.blocks[identifier], certificate))
                return False
        return False

    def _line_55(self) -> bool:
        if self.latest <= self.view:
            return False
        later = sorted((view for author, view in self.views_of.items() if view > self.view), reverse=True)
        if len(later) < self.others_that_start:
            return False
        self._enter(later[self.others_that_start - 1])
        return True

    # ---- parts

    def _quorum_once(self, rule: str, view: int, step: int, identifier: bytes | None = None) -> bool:
        if (rule, view) in self._done or self.votes.count(view, step, identifier) < self.quorum:
            return False
        self._done.add((rule, view))
        return True

    def _take(self, message: Message) -> None:
        value = message.value
        if value.view > self.view + VIEWS_AHEAD:
            self._note_view(value.author, value.view)
            return
        if isinstance(value, Proposal):
            if value.author != self.proposer(value.view):
                raise RemoteProtocolError("not-the-proposer", f"height {value.height} view {value.view}", value.author)
            if value.view in self.proposals:
                return  # a second, different proposal of the same view is ignored: the first one counts
            block = schema.load(Block, value.block, BLOCK_LIMIT)
            if block.federation != self.federation or block.height != self.height:
                raise RemoteProtocolError("height", f"proposal for height {block.height}", value.author)
            self.proposals[value.view] = message  # type: ignore[assignment]  # narrowed by the value's type
            self.seen[message.digest] = message
            identifier = block_id(value.block)
            if identifier not in self.blocks:
                self.blocks[identifier] = block
                self._actions.append(Judge(identifier, block))
        else:
            self._take_vote(message)  # type: ignore[arg-type]  # narrowed by the value's type
        self._note_view(value.author, value.view)

    def _note_view(self, author: bytes, view: int) -> None:
        self.views_of[author] = max(self.views_of.get(author, 0), view)
        self.latest = max(self.latest, view)

    def _take_vote(self, vote: Signed[Vote]) -> None:
        counted, lie = self.votes.take(vote, self.blocks)
        if counted:
            self.seen[vote.digest] = vote
        if lie is not None:
            self._actions.append(lie)

    def _propose(self, block: Block, valid_view: int) -> None:
        value = Proposal(
            self.federation, self.identity.public_key, self.height, self.view, valid_view, schema.dump(block)
        )
        message = sign(self.identity, value)
        self._actions.append(Say(message))
        self._take(message)

    def _vote(self, step: int, identifier: bytes, proof: Proof = ()) -> None:
        me = self.identity.public_key
        if self.mute or me not in self.members or (self.view, step, me) in self.votes.first:
            return
        message = sign(self.identity, Vote(self.federation, me, self.height, self.view, step, identifier))
        self._actions.append(Say(message, proof))
        self._take(message)
