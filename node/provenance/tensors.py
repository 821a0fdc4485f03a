"""What `random-effects` weighed by: how much institutions differ by tensor, and each member's weight there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypedDict

from ...consensus.components import Entry
from ...consensus.effects import Block, blocks
from ...protocol.components import ComponentSpec
from ...protocol.update import Integers


class TensorShare(TypedDict):
    """A member's share of a tensor, over the rounds that count it."""

    key: str
    weight_share: float


class BlamedTensor(TypedDict):
    """τ² of a tensor, the variance of a number of an update between institutions, and the declared noise beside it.

    Both are in squared weights and means over rounds; the noise is that of the quietest and of the loudest update.
    """

    tensor: str
    tau2: float
    least_noise: float
    most_noise: float
    members: list[TensorShare]


@dataclass(slots=True)
class Tensors:
    """The rounds of one component that `random-effects` folded; `owner` maps an author's key to its member's."""

    spec: ComponentSpec
    owner: Callable[[bytes], bytes]
    _rounds: list[tuple[list[Block], Sequence[Entry]]] = field(default_factory=list)

    def add(self, used: Sequence[Entry], updates: Sequence[Integers]) -> list[Block]:
        """Return a round's τ² and weights, from its entries and their integers, and keep them."""
        found = blocks(updates, self.spec, [e.variance for e in used], [e.staleness for e in used])
        self._rounds.append((found, used))
        return found

    def shown(self) -> list[BlamedTensor]:
        """Return the means over the rounds, by tensor; none if no round was folded by this rule."""
        if not self._rounds:
            return []
        square = self.spec.grid_step**2
        least, most = (
            square * fmean(side(max(1, e.variance) for e in used) for _, used in self._rounds) for side in (min, max)
        )
        return [
            {
                "tensor": tensor.name,
                "tau2": square * fmean(float(found[place].variance) for found, _ in self._rounds),
                "least_noise": least,
                "most_noise": most,
                "members": self._members(place),
            }
            for place, tensor in enumerate(self.spec.tensors)
        ]

    def _members(self, place: int) -> list[TensorShare]:
        shares: dict[bytes, list[float]] = {}
        for found, used in self._rounds:
            for entry, share in zip(used, found[place].shares, strict=True):
                shares.setdefault(self.owner(entry.author), []).append(share)
        return [{"key": key.hex(), "weight_share": fmean(each)} for key, each in sorted(shares.items())]
