"""A student's receipt, made of a simulated federation's ledger: what it shows, and what nobody can make it show."""

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest

from collegium.crypto.errors import RefusedError, VerificationError
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.home import Home
from collegium.node.home.students import Manifest, Manifests
from collegium.node.verify import receipt
from collegium.node.verify.outsiders import Source
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.sims.cluster import Cluster, Node

DRAWN, LEFT_OUT = [f"student-{n}" for n in range(30)], "student-99"


def note(node: Node, manifests: Manifests, drawn: Iterable[str]) -> None:
    """From now on this node's learner names these students with each draw."""
    later = node.later

    def named(delay: int, event: ev.Event) -> None:
        later(delay, replace(event, manifest=manifests.put(drawn)) if isinstance(event, ev.Trained) else event)

    node.later = named  # type: ignore[method-assign]


@dataclass
class School:
    """One institution of the simulation, with what it noted of its draws."""

    cluster: Cluster
    node: Node
    manifests: Manifests
    founders: list[Identity]

    def source(self) -> Source:
        signed = SignedCharter(schema.dump(self.cluster.charter), ())
        for founder in self.founders:
            signed = add_signature(self.cluster.charter, signed, founder)
        blocks = self.node.store.snapshot().blocks
        return Source(self.cluster.charter, dump_file(signed), lambda height: blocks[height - 1], len(blocks), "it")

    def make(self, student: str, manifest: Callable[[bytes], Manifest | None] | None = None, **who: bytes) -> bytes:
        """The bytes of a receipt by the node, be it true or not."""
        headers = self.node.store.snapshot().headers
        me = who.get("me", self.node.identity.public_key)
        return b"".join(receipt.make(self.source(), me, student, headers, manifest or self.manifests.get))

    def check(self, content: bytes, student: str) -> receipt.Receipt:
        return receipt.check(io.BytesIO(content), "receipt", student)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> School:
    home = Home(tmp_path_factory.mktemp("school") / "node")
    home.make()
    cluster = Cluster(4, 9, rounds=20)
    node, manifests = cluster.nodes[0], Manifests(home)
    note(node, manifests, DRAWN)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    return School(cluster, node, manifests, [each.identity for each in cluster.nodes])


def test_who_was_not_drawn_gets_a_receipt_and_who_was_does_not(school: School) -> None:
    found = school.check(school.make(LEFT_OUT), LEFT_OUT)
    assert len(found.updates) >= 3
    with pytest.raises(VerificationError, match="does not show"):
        school.check(school.make(LEFT_OUT), DRAWN[3])
    with pytest.raises(RefusedError, match="in force"):
        school.make(DRAWN[3])


class Lie(Manifest):
    """The true tree, hence its true root; under another salt the student's place in it is empty."""

    def has(self, subject: str) -> bool:
        return False


def test_a_salt_of_another_day_is_refused(school: School) -> None:
    def forged(root: bytes) -> Manifest | None:
        true = school.manifests.get(root)
        assert true is not None
        return Lie(os.urandom(32), true.blind, true.tags)

    content = school.make(DRAWN[3], forged)
    with pytest.raises(VerificationError, match="salt and tree"):
        school.check(content, DRAWN[3])
