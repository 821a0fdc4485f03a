"""Amendments of a simulated federation: what they change, how one is proposed until it is in force."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from ...node.core import events as ev
from ...node.core.motions import undecided
from ...protocol import schema
from ...protocol.amendment import Amendment, Changes, Closing, Limits, Opening, Recipe
from ...protocol.charter import Charter
from ...protocol.components import ComponentSpec, TensorSpec, base_digest, base_vector
from ...protocol.learning import Modality, PrivacyFloor, Task
from ..simulator.cluster import Node
from .stage import Stage

HEIGHTS = 1000
LOOK_MS = 400  # between two looks at what is still to be proposed or voted on
FIRST = "head/task0"


def _head(charter: Charter, name: str, noise: int) -> ComponentSpec:
    """Return a head like the first one, of another task, with this noise (millionths)."""
    tensors = (TensorSpec("weight", (8,), 1000),)
    base = base_digest(base_vector(charter.seed, name, tensors))
    return replace(charter.specs[FIRST], name=name, tensors=tensors, noise_multiplier=noise, base=base)


def _voice(charter: Charter) -> Changes:
    head = _head(charter, "head/digit", charter.specs[FIRST].noise_multiplier)
    floor = replace(charter.learning.floors[0], modality="voice")
    return _opening(head, Task("digit", "binary", 2, ("voice",)), Modality("voice", "audio", 4, 8), floor)


def _bare(charter: Charter) -> Changes:
    return _opening(_head(charter, "head/bare", 0), Task("bare", "binary", 2, ("made-up",)))


def _opening(
    head: ComponentSpec, task: Task, modality: Modality | None = None, floor: PrivacyFloor | None = None
) -> Changes:
    modalities = () if modality is None else (modality,)
    return Changes(opening=(Opening(modalities, (task,), () if floor is None else (floor,), (head,)),))


def _retire(_charter: Charter) -> Changes:
    return Changes(retire=(FIRST,))


def _fewer_steps(charter: Charter) -> Changes:
    has = charter.learning
    return Changes(recipe=(Recipe(2, has.sample_rate, has.recovery_share, has.planned_rounds, has.min_students),))


def _median(charter: Charter) -> Changes:
    return Changes(closing=(Closing(FIRST, "median", charter.specs[FIRST].min_updates),))


def _all_of_them(charter: Charter) -> Changes:
    return Changes(closing=(Closing(FIRST, charter.rule(FIRST), len(charter.members)),))


def _no_staleness(charter: Charter) -> Changes:
    rules = charter.rules
    quotas = rules.records_per_height, rules.bytes_per_height
    return Changes(limits=(Limits(rules.round_deadline // 2, 0, *quotas, rules.refold_horizon + 8, rules.pace),))


KINDS: Mapping[str, Callable[[Charter], Changes]] = {
    "a voice": _voice,  # a modality, its task and its head open
    "a bare head": _bare,  # without noise, over the modality that is there
    "retire": _retire,
    "fewer steps": _fewer_steps,
    "median": _median,
    "all of them": _all_of_them,  # no round without every founder
    "no staleness": _no_staleness,
}


def statement(charter: Charter, what: str) -> bytes:
    """Return the statement of an amendment to this charter."""
    return schema.dump(Amendment(charter.federation, charter.number + 1, KINDS[what](charter)))


def insist(stage: Stage, proposer: Node, what: str) -> None:
    """Propose it, by the charter as it then is, and vote for it, until one of this kind is in force."""

    def terms(node: Node) -> tuple[bytes, bytes] | None:
        if node.core is None or not node.core.signing:
            return None
        return node.core.federation, statement(node.core.charter, what)

    def nudge() -> bool:
        latest = stage.cluster.latest()
        if latest is not None and what in passed(stage, latest.charter):
            return True
        nodes = [node for node in stage.members() if node.core is not None]
        proposed = terms(proposer)
        if proposed is not None:
            proposer.deliver(ev.ProposeMotion("amend", *proposed, "", HEIGHTS))
        for node in nodes:
            said = terms(node)
            for motion in undecided(node.core.ledger, node.core.me) if node.core is not None else ():
                if said is not None and motion.statement == said[1]:
                    node.deliver(ev.Cast(motion.digest, True))
        return False

    stage.until(nudge, LOOK_MS)


def passed(stage: Stage, charter: Charter) -> set[str]:
    """Return the kinds of amendments that a charter in force has already: what they change is as they want it."""
    founding = stage.cluster.charter
    first, then = charter.specs[FIRST], founding.specs[FIRST]
    return {
        what
        for what, done in (
            ("a voice", "head/digit" in charter.specs),
            ("a bare head", "head/bare" in charter.specs),
            ("retire", FIRST in charter.retired),
            ("fewer steps", charter.learning.steps != founding.learning.steps),
            ("median", charter.rule(FIRST) == "median"),
            ("all of them", first.min_updates != then.min_updates),
            ("no staleness", charter.rules.max_staleness == 0),
        )
        if done
    }
