"""Component specs: the shape, grid and rules of one named part of the model (design.md section 5).

The shared part of a component is a flat vector of d parameters, its tensors end to end in order. Its state is
`X ∈ Z^d` (int32, 8 fractional bits below the grid); the weights in use are `θ_base + Δ·X/256` with `Δ = 2^-step_log2`.
A statistic (statistics.py) is added up instead: its state is `X ∈ Z^d` in int64, on the grid, and stands for `Δ·X`.
"""

import hashlib
from dataclasses import dataclass, field
from math import prod
from typing import Annotated

import numpy as np
import numpy.typing as npt

from ..crypto.hashing import digest
from .schema import LATER, U32, Between, Bytes32, Name, Size

MILLION = 1_000_000
FRACTION_BITS = 8
STATE_LIMIT = 2**31 - 1  # states saturate symmetrically at ±STATE_LIMIT
RIDGE = 1_000  # millionths of the mean eigenvalue: what the solution of a ridge statistic adds, if nothing is said
SUM = "sum"  # the rule of statistics, and of them alone
LAST_LAYERS = "last-layers"  # the architecture of a component that starts from the weights of a pretrained model


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its shape, and the bound of its uniform initial values in millionths (0: starts at zero)."""

    name: Name
    shape: Annotated[tuple[Annotated[int, Between(1, 2**24)], ...], Size(1, 4)]
    bound: U32


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """One component of the charter. Scaled integers: `clip_norm`, `noise_multiplier`, `learning_rate` in millionths.

    These three are the recipe and also bound an update's header: clip norm and learning rate from above, the noise
    multiplier from below. `architecture` names how the learner uses the tensors. `ridge` is a ridge statistic's.
    """

    name: Name
    architecture: Name
    tensors: Annotated[tuple[TensorSpec, ...], Size(1, 64)]
    step_log2: Annotated[int, Between(0, 30)]
    width: Annotated[int, Between(8, 32)]
    rule: Name
    min_updates: Annotated[int, Between(1, 2**16)]
    clip_norm: Annotated[int, Between(1, 2**40)]
    noise_multiplier: Annotated[int, Between(0, 2**40)]
    learning_rate: Annotated[int, Between(1, 2**40)]
    base: Bytes32
    ridge: Annotated[int, Between(0, 2**40)] = field(default=RIDGE, metadata=LATER)

    @property
    def dimension(self) -> int:
        """The number of parameters d."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def is_statistic(self) -> bool:
        """Whether it is a statistic: a sum of one contribution from each member (statistics.py)."""
        return self.rule == SUM

    @property
    def starts_pretrained(self) -> bool:
        """Whether θ_base is what a pretrained model has in these tensors, and not expanded from the charter's seed."""
        return self.architecture == LAST_LAYERS

    @property
    def words(self) -> int:
        """The number of 32-bit words of a state: a statistic's int64 take two each, the lower one first."""
        return self.dimension * (2 if self.is_statistic else 1)

    @property
    def grid_step(self) -> float:
        """The grid step Δ."""
        return float(2.0**-self.step_log2)

    @property
    def integer_type(self) -> np.dtype[np.signedinteger]:
        """The little-endian integer type of an update's values."""
        return np.dtype(f"<i{self.width // 8}")


def base_vector(seed: bytes, name: str, tensors: tuple[TensorSpec, ...]) -> npt.NDArray[np.float32]:
    """Return θ_base, shape [d], float32: uniform in ±bound for each tensor, expanded from the charter's seed.

    SHAKE-256 and exact scaling, so that every machine and every version of numpy and torch gets the same bits.
    """
    parts = []
    for tensor in tensors:
        size = prod(tensor.shape)
        stream = hashlib.shake_256(digest("base", seed, name.encode(), tensor.name.encode())).digest(2 * size)
        integers = np.frombuffer(stream, dtype="<i2").astype(np.float64)
        parts.append((integers * (tensor.bound / MILLION / 2**15)).astype(np.float32))
    return np.concatenate(parts)


def base_digest(base: npt.NDArray[np.float32]) -> bytes:
    """Return the digest by which a charter names θ_base."""
    return digest("base-vector", base.astype("<f4").tobytes())


def weights(
    base: npt.NDArray[np.float32], state: npt.NDArray[np.int32], spec: ComponentSpec
) -> npt.NDArray[np.float32]:
    """Return the weights in use, `θ_base + Δ·X/256`, shape [d], float32."""
    scale = 2.0 ** -(spec.step_log2 + FRACTION_BITS)
    return (base.astype(np.float64) + state.astype(np.float64) * scale).astype(np.float32)


def state_digest(name: str, state: npt.NDArray[np.int32]) -> bytes:
    """Return the digest of a component state (G1): equal exactly when the bits are equal."""
    return digest("state", name.encode(), state.astype("<i4", copy=False).tobytes())
