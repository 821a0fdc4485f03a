"""The segments of a text compared with each other: features of their frozen embeddings."""

import hashlib
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from ...crypto.errors import UsageError
from ...crypto.hashing import digest
from ...protocol.learning import Modality


def pair_width(width: int, length: int) -> int:
    """Return the number of `pair_features` for `length` segments of embeddings of `width`, with their similarities."""
    return width * (1 + 2 * (length - 1)) + length - 1


def pair_features(values: Tensor, steps: Tensor) -> Tensor:
    """Compare the last segment v of a text with every other one u: `v, u∘v·√width, |u - v|`, [S, K, pair_width].

    A missing segment is zero, and so are its comparisons.
    """
    clean = values * steps.unsqueeze(3)
    last = clean[:, :, -1]
    parts = [last]
    for index in range(values.shape[2] - 1):
        both = (steps[:, :, index] & steps[:, :, -1]).unsqueeze(2)
        other = clean[:, :, index]
        parts += [other * last * sqrt(values.shape[3]) * both, (other - last).abs() * both]
    return torch.cat(parts, dim=2)


def similarities(values: Tensor, steps: Tensor) -> Tensor:
    """Return each segment's similarity to the last one, `4 (u·v - ½)`, [S, K, T - 1]; 0 if one is missing."""
    clean = values * steps.unsqueeze(3)
    both = (steps[:, :, :-1] & steps[:, :, -1:]).to(values.dtype)
    return 4.0 * ((clean[:, :, :-1] * clean[:, :, -1:]).sum(3) - 0.5) * both


def projection(seed: bytes, name: str, rows: int, columns: int) -> Tensor:
    """Return a matrix [rows, columns] of uniform entries with variance 1/rows, expanded from the charter's seed."""
    stream = hashlib.shake_256(digest("projection", seed, name.encode())).digest(2 * rows * columns)
    integers = np.frombuffer(stream, dtype="<i2").astype(np.float64).reshape(rows, columns)
    return torch.from_numpy((integers * (sqrt(3.0 / rows) / 2**15)).astype(np.float32))


class Projected(nn.Module):
    """Pair features and similarities: `width` numbers, the former projected by a seeded matrix if they are too many."""

    def __init__(self, seed: bytes, name: str, width: int, modality: Modality) -> None:
        super().__init__()
        alike = modality.length - 1
        features = pair_width(modality.width, modality.length) - alike
        if width <= alike:
            raise UsageError(f"{name}: {width} features of {modality.length} segments; at least {alike + 1} are needed")
        matrix = None if width == features + alike else projection(seed, name, width - alike, features)
        self.matrix: Tensor | None
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Values [S, K, T, w], steps [S, K, T] → [S, K, width]."""
        features = pair_features(values, steps)
        if self.matrix is not None:
            features = features @ self.matrix.T
        return torch.cat([features, similarities(values, steps)], dim=2)
