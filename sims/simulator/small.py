"""A small charter, and what its members would have learned: for the simulator, tests and benchmarks."""

from typing import TypedDict, Unpack

import numpy as np

from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...protocol import statistics as sums
from ...protocol.charter import Charter, Member, Rules
from ...protocol.component_names import ComponentKind
from ...protocol.components import MILLION, SUM, ComponentSpec, TensorSpec, base_digest, base_vector
from ...protocol.equity import ARCHITECTURE, Attribute, Decision, Equity
from ...protocol.learning import Learning, Modality, PrivacyFloor, Task
from ...protocol.update import Integers


class CharterOptions(TypedDict, total=False):
    """What a small charter may have otherwise than DEFAULTS."""

    components: int
    statistics: int
    groups: int  # of tasks whose groups are released, after the second round
    dimension: int
    width: int
    rule: str
    fault_model: str
    noise: int
    shards: int
    clip_norm: int
    deadline: int
    min_updates: int
    horizon: int
    records_per_height: int
    pace: int
    start: int


DEFAULTS = CharterOptions(
    components=1,
    statistics=0,
    groups=0,
    dimension=16,
    width=8,
    rule="mean",
    fault_model="byzantine",
    noise=0,
    shards=1,
    clip_norm=1_000_000,
    deadline=3000,
    min_updates=2,
    horizon=1000,
    records_per_height=64,
    pace=0,
    start=0,
)


def small_charter(identities: list[Identity], **options: Unpack[CharterOptions]) -> Charter:
    """Return a charter for tests and benchmarks: linear components over one made-up modality, and statistics of tasks.

    There are at least as many components as statistics.
    """
    has: CharterOptions = {**DEFAULTS, **options}
    seed = sha256(b"small charter")
    dimension, noise = has["dimension"], has["noise"]
    tensors = (TensorSpec("weight", (dimension,), 1000),)
    specs = []
    for index in range(has["components"]):
        name = ComponentKind.HEAD.named(f"task{index}")
        specs.append(
            ComponentSpec(
                name=name,
                architecture="linear",
                tensors=tensors,
                step_log2=6,
                width=has["width"],
                rule=has["rule"],
                min_updates=has["min_updates"],
                clip_norm=has["clip_norm"],
                noise_multiplier=noise,
                learning_rate=1_000_000,
                base=base_digest(base_vector(seed, name, tensors)),
            )
        )
    for index in range(has["statistics"]):
        name, parts = ComponentKind.STATISTIC.named(f"task{index}"), sums.tensors("ridge", 3, 2)
        base = base_digest(base_vector(seed, name, parts))
        sensitivity = sums.SENSITIVITY["ridge"]
        specs.append(ComponentSpec(name, "ridge", parts, 16, sums.WIDTH, SUM, 1, sensitivity, noise, 1_000_000, base))
    decisions = tuple(Decision(f"task{index}", MILLION // 2, "below") for index in range(has["groups"]))
    equity = Equity((Attribute("gender", ("F", "M")),), decisions, 2, 0, 0) if decisions else None
    for decision in decisions:
        assert equity is not None
        name, parts = ComponentKind.GROUPS.named(decision.task), sums.tensors_of_groups(equity)
        base = base_digest(base_vector(seed, name, parts))
        specs.append(
            ComponentSpec(name, ARCHITECTURE, parts, 16, sums.WIDTH, SUM, 1, equity.sensitivity, noise, MILLION, base)
        )
    return Charter(
        version=1,
        name="simulated",
        created=0,
        seed=seed,
        members=tuple(
            sorted((Member(i.public_key, f"member {n}", ()) for n, i in enumerate(identities)), key=lambda m: m.key)
        ),
        rules=Rules(
            has["fault_model"],
            has["deadline"],
            1,
            has["records_per_height"],
            1 << 20,
            has["horizon"],
            has["pace"],
            has["start"],
        ),
        components=tuple(sorted(specs, key=lambda spec: spec.name)),
        learning=Learning(
            modalities=(Modality("made-up", "tabular", dimension, 1),),
            tasks=tuple(Task(f"task{index}", "binary", 2, ("made-up",)) for index in range(has["components"])),
            floors=(PrivacyFloor("made-up", "open", 0, 0),),
            steps=4,
            sample_rate=100_000,
            recovery_share=0,
            planned_rounds=100,
            shards=has["shards"],
            equity=() if equity is None else (equity,),
        ),
    )


def values_of(author: bytes, component: str, round_: int, spec: ComponentSpec) -> Integers:
    """Return the made-up update of an author: small integers that depend on nothing else, shape [d]."""
    generator = np.random.Generator(np.random.PCG64(list(sha256(author + component.encode() + bytes([round_ % 256])))))
    return generator.integers(-2, 3, spec.dimension).astype(spec.integer_type)
