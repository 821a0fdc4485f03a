"""The source of noise and sampling: the operating system's CSPRNG or, in simulations only, a seed."""

import os
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Randomness(Protocol):
    """A source of uniform bytes."""

    def bytes(self, length: int, /) -> bytes:
        """Return `length` random bytes."""


class SystemRandomness:
    """The kernel's CSPRNG. torch's and numpy's own generators could be reconstructed from their outputs."""

    def bytes(self, length: int, /) -> bytes:
        """Return `length` random bytes."""
        return os.urandom(length)


def randomness(seed: int | None) -> Randomness:
    """Return the system's randomness, or a reproducible one for a seed: such a run has no privacy; it is marked."""
    return SystemRandomness() if seed is None else np.random.default_rng(seed)


def uniform(source: Randomness, size: int) -> Floats:
    """Return `size` numbers uniform in [0, 1), multiples of 2^-53, float64."""
    integers = np.frombuffer(source.bytes(8 * size), dtype="<u8")
    return (integers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def gaussian(source: Randomness, size: int) -> Floats:
    """Return `size` standard normal numbers, float64, shape [size] (Box and Muller 1958).

    Low-order bits of a floating-point sample can reveal it (Mironov 2012). Updates are rounded to a grid of about an
    eighth of the noise, which drops these bits.
    """
    pairs = (size + 1) // 2
    first, second = uniform(source, 2 * pairs).reshape(2, pairs)
    radius, angle = np.sqrt(-2.0 * np.log(1.0 - first)), 2.0 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
