"""A federation on paper: every key in one hand, every block decided at once, no network and no training.

For ledgers that are long, and for what only a quorum that colludes could sign.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Unpack

from ...consensus.cut import order
from ...consensus.fold import next_state
from ...consensus.ledger import Ledger, genesis
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.core.events import StoredBlock
from ...protocol import schema
from ...protocol.blocks import PRECOMMIT, Block, Certificate, Close, Vote, VoteSignature
from ...protocol.charter import SignedCharter, add_signature, dump_file
from ...protocol.claims import NO_EPSILON, Claim
from ...protocol.records import GENESIS, Ack, Attest, Body, Offer, Record, Update, ack_message, kind_of
from ...protocol.signing import Signed, sign
from ...protocol.update import Engaged, UpdateHeader
from ..simulator.small import CharterOptions, small_charter

BASE = sha256(b"base")


class PaperFederation:
    """The members' keys, and the ledger as far as it is written."""

    def __init__(self, count: int = 4, **charter: Unpack[CharterOptions]) -> None:
        seeds = (sha256(b"book %d" % n) for n in range(count))
        self.ids = sorted(map(Identity.from_seed, seeds), key=lambda identity: identity.public_key)
        self.charter = small_charter(self.ids, **charter)
        self.ledger: Ledger = genesis(self.charter)
        self.heads: dict[bytes, tuple[int, bytes]] = {}
        self.names = [spec.name for spec in self.charter.components]
        self._engaged = tuple(Engaged(name, BASE, 0, 1_000_000, 1_000_000) for name in self.names)

    @property
    def charter_file(self) -> bytes:
        """The charter file, signed by all."""
        signed = SignedCharter(schema.dump(self.charter), ())
        for who in self.ids:
            signed = add_signature(self.charter, signed, who)
        return dump_file(signed)

    def record(self, who: Identity, body: Body) -> Signed[Record]:
        """Write the next entry of a member's feed."""
        seq, prev = self.heads.get(who.public_key, (0, GENESIS))
        value = Record(self.charter.federation, who.public_key, seq + 1, prev, kind_of(body), schema.dump(body))
        record = sign(who, value)
        self.heads[who.public_key] = (seq + 1, record.digest)
        return record

    def update(self, who: Identity, component: str, round_: int) -> Signed[Record]:
        """Write an update by a training run over all components; the other members acknowledge it."""
        federation = self.charter.federation
        header = sign(
            who,
            UpdateHeader(
                federation=federation,
                author=who.public_key,
                component=component,
                round=round_,
                generation=0,
                base=BASE,
                blob=sha256(who.public_key + round_.to_bytes(8, "big") + component.encode()),
                size=100,
                steps=4,
                sample_rate=100_000,
                lot=1000,
                engaged=self._engaged,
                claims=(Claim("made-up", (), NO_EPSILON, 0),),
            ),
        )
        text = ack_message(federation, header.digest)
        acks = tuple(Ack(host.public_key, host.sign("ack", text)) for host in self.ids if host is not who)
        return self.record(who, Update(header.wire, acks))

    def certificate(self, block: Block, signers: int | None = None) -> Certificate:
        """Sign a block, as so many members: as a quorum of those there are."""
        members = [who for who in self.ids if who.public_key in self.ledger.members]
        entries = []
        for who in members[: self.ledger.quorum if signers is None else signers]:
            vote = Vote(block.federation, who.public_key, block.height, 0, PRECOMMIT, block.id)
            entries.append(VoteSignature(who.public_key, sign(who, vote).signature))
        return Certificate(0, tuple(entries))

    def decide(self, records: Iterable[Signed[Record]], closes: Sequence[Close] = ()) -> StoredBlock:
        """Agree on the next block."""
        ordered = order(records)
        state, block = next_state(self.ledger, ordered, closes, trusted=True)
        stored = StoredBlock(block, self.certificate(block), tuple(ordered))
        self.ledger = state
        return stored

    def forge(self, stored: StoredBlock, change: Callable[[Block], Block]) -> StoredBlock:
        """Let a quorum sign something else in place of a block that was just decided. Call it before the next."""
        block = change(stored.block)
        return StoredBlock(block, self.certificate(block), stored.records)

    def rounds(self, records: int) -> Iterator[StoredBlock]:
        """Yield blocks until so many records are agreed on: each closes a round of all, and attests the one before."""
        yield self.decide(self.record(who, Offer(tuple(self.names), ())) for who in self.ids)
        number = 0
        while self.ledger.tree.size < records:
            number += 1
            sent = [self.update(who, name, number) for name in self.names for who in self.ids]
            if number > 1:
                state = sha256(b"state %d" % number)
                sent += [
                    self.record(who, Attest(name, number - 1, 0, state)) for name in self.names for who in self.ids
                ]
            yield self.decide(sent, [Close(name, number) for name in self.names])


def without(stored: StoredBlock, index: int) -> StoredBlock:
    """Return a block less one of its records."""
    return replace(stored, records=stored.records[:index] + stored.records[index + 1 :])
