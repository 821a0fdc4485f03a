"""The updates of a study's faulty institutions, by component: attacks.py, within the protocol's bounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...consensus.components import Entry, Round, fold_round, origin
from ...consensus.rules import faults
from ...protocol.components import FRACTION_BITS, ComponentSpec
from ...protocol.update import Integers
from . import attacks
from .attacks import Vectors

LOUD = 3.0  # × an honest update, for lies without a search of their own


@dataclass(frozen=True, slots=True)
class Stage:
    """The liars' knowledge of one component in one round: the honest updates, shape [honest, d], and the rule.

    `variances` are those declared by the honest and then by the liars; `bounds` are each liar's least and greatest
    squared norm (protocol/update.py), in grid units; `seed` is for random lies.
    """

    spec: ComponentSpec
    honest: Vectors
    variances: Sequence[int]
    bounds: Sequence[tuple[int, int]]
    seed: Sequence[int]

    def sent(self, lie: Vectors, liar: int) -> Integers:
        """Return a lie as an update that the protocol accepts."""
        low, high = self.bounds[liar]
        integers: Integers = attacks.within(lie, low, high, 2 ** (self.spec.width - 1) - 1).astype(
            self.spec.integer_type
        )
        return integers

    def harm(self, attack: attacks.Attack) -> Vectors:
        """Return the attack at the strength that shifts this rule's result farthest, as it would be sent."""

        def bounded(honest: Vectors, strength: float) -> Vectors:
            return self.sent(attack(honest, strength), 0).astype(np.float64)

        liars = len(self.bounds)
        return bounded(self.honest, attacks.strongest(bounded, self.honest, liars, self._aggregate))

    def _aggregate(self, updates: Sequence[Vectors]) -> Vectors:
        integers: list[Integers] = [update.astype(self.spec.integer_type) for update in updates]
        entries = tuple(Entry(bytes([n]), bytes([n]), b"", 0, 0, v) for n, v in enumerate(self.variances))
        round_ = Round(1, 1, entries, faults(len(integers)), b"")
        state, _ = fold_round(origin(self.spec), self.spec, round_, lambda entry: integers[entry.update[0]])
        return state / (1 << FRACTION_BITS)

    def noise(self) -> Vectors:
        """Return Gaussian noise LOUD times as strong as the honest coordinates are."""
        source = np.random.Generator(np.random.PCG64(list(self.seed)))
        return attacks.gaussian(self.honest, source, LOUD * float(self.honest.std()))


LIES: Mapping[str, Callable[[Stage], Vectors]] = {
    "sign flip × 3": lambda stage: attacks.sign_flip(stage.honest, LOUD),
    "ALIE": lambda stage: attacks.little_is_enough(stage.honest),
    "optimal ALIE": lambda stage: stage.harm(attacks.little_is_enough),
    "optimal inner product": lambda stage: stage.harm(attacks.inner_product),
    "mimic": lambda stage: attacks.mimic(stage.honest),
    "noise × 3": Stage.noise,
    "loud sign flip": lambda stage: attacks.sign_flip(stage.honest, 1e9),  # until the norm bound stops it
}
LOUDLY = frozenset({"loud sign flip"})  # sent with the most noise and the smallest lot that a charter allows


def tell(attack: str, stage: Stage) -> list[Integers]:
    """Return what each liar sends: the same lie, within its own bounds."""
    lie = LIES[attack](stage)
    return [stage.sent(lie, liar) for liar in range(len(stage.bounds))]
