"""The value of a component's state without a member: exact leave-one-out, and Shapley values by sampling.

A coalition's state is the refold of the frozen lists with its members' entries alone, f' as after a withdrawal. The
caller supplies a state's value: it is measured in the learner's worker, on this institution's own data.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import numpy.typing as npt

from ...consensus import membership
from ...consensus.components import Entry, Round, State, origin, replay
from ...consensus.ledger import ComponentLedger
from ...crypto.errors import VerificationError
from ...protocol.components import FRACTION_BITS, ComponentSpec
from ...protocol.statistics import numbers
from ...protocol.update import Integers
from ..verify.bytes import Bytes
from ..verify.ledger import Progress, Report
from ..verify.states import checked

MAX_AT_ONCE = 64  # states that are evaluated in one call
BYTES_AT_ONCE = 32 << 20  # of them

Players = frozenset[bytes]
Figures = npt.NDArray[np.float64]  # [tasks]
Worth = Callable[[Sequence[State]], list[Figures]]  # of each state, all tasks' figures


@dataclass(slots=True)
class Coalitions:
    """A component's frozen lists with their updates' integers in memory, and the states of coalitions of its members.

    `players` are the present keys of the counted members, sorted; `owner` maps an author's key to its member's.
    """

    spec: ComponentSpec
    rounds: Sequence[Round]
    values: Mapping[bytes, Integers]
    owner: Mapping[bytes, bytes]
    players: tuple[bytes, ...]
    refolds: int = 0
    _known: dict[Players, Figures] = field(default_factory=dict)

    def state(self, members: Collection[bytes]) -> State:
        """Return the state of the refold with these players' entries alone, [d] int32 (of a statistic [2d])."""
        self.refolds += 1
        rounds = (
            replace(round_, entries=tuple(e for e in round_.entries if self.owner[e.author] in members))
            for round_ in self.rounds
        )
        return replay(origin(self.spec), self.spec, rounds, self._values_of)[0]

    def state_without(self, updates: Collection[bytes]) -> State:
        """Return the state of the refold without these updates: what a withdrawal of just them would leave."""
        rounds = (
            replace(round_, entries=tuple(e for e in round_.entries if e.update not in updates))
            for round_ in self.rounds
        )
        return replay(origin(self.spec), self.spec, rounds, self._values_of)[0]

    def figures(
        self, coalitions: Sequence[Players], worth: Worth, seen: Callable[[Players, State], None] | None = None
    ) -> list[Figures]:
        """Return the values of coalitions' states. Each is folded and evaluated once; `seen` is called with them."""
        new = [players for players in dict.fromkeys(coalitions) if players not in self._known]
        at_once = max(1, min(MAX_AT_ONCE, BYTES_AT_ONCE // (4 * self.spec.words)))
        for start in range(0, len(new), at_once):
            part = new[start : start + at_once]
            states = [self.state(players) for players in part]
            if seen is not None:
                for players, state in zip(part, states, strict=True):
                    seen(players, state)
            self._known.update(zip(part, worth(states), strict=True))
        return [self._known[players] for players in coalitions]

    def _values_of(self, entry: Entry) -> Integers:
        return self.values[entry.update]


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """Leave-one-out: how many updates go, how far the weights move (L2), the figures with and without the member."""

    member: bytes
    updates: int
    distance: float
    with_it: Figures
    without: Figures


@dataclass(frozen=True, slots=True, eq=False)
class Shapley:
    """Shapley values by `samples` permutations, [players, tasks], and their standard errors.

    `truncated` counts the steps that were taken for nothing because the coalition was within the tolerance of all.
    """

    members: tuple[bytes, ...]
    samples: int
    values: Figures
    errors: Figures
    truncated: int


def coalitions_of(
    report: Report,
    spec: ComponentSpec,
    c: ComponentLedger,
    rounds: Sequence[Round],
    data: Bytes,
    *,
    progress: Progress | None = None,
) -> Coalitions:
    """Read and check the bytes of all updates of `rounds`, the first ones of `c`.

    Raises VerificationError naming the round and the author where bytes are missing: a late joiner took a
    certified state in their place, and cannot take a member out of it.
    """
    roll = report.ledger.roll
    owner = {key: membership.present(roll, key) for key in roll.seats}
    total, done = sum(len(round_.entries) for round_ in rounds), 0
    values = {}
    for round_ in rounds:
        for entry in round_.entries:
            frame = data.get(entry.blob)
            if frame is None:
                raise VerificationError(
                    f"{c.name} round {round_.number}, update of {entry.author.hex()[:16]}: blob-missing:"
                    f" {entry.blob.hex()} is not on this disk, so the state cannot be folded without a member",
                    "Ask at a member that hosted the component in that round; a late joiner has no earlier bytes.",
                )
            values[entry.update] = checked(report, spec, round_.number, entry, data, frame)
            done += 1
            if progress is not None:
                progress("updates", done, total)
    players = sorted({owner[entry.author] for round_ in rounds for entry in round_.entries})
    return Coalitions(spec, rounds, values, owner, tuple(players))


def leave_one_out(coalitions: Coalitions, members: Sequence[bytes], worth: Worth) -> list[Removal]:
    """Return what taking out each of `members` alone changes. A member that is not counted changes nothing."""
    everybody = frozenset(coalitions.players)
    full = _weights(coalitions.spec, coalitions.state(everybody))
    distances = {everybody: 0.0}

    def seen(coalition: Players, state: State) -> None:
        distances[coalition] = float(np.linalg.norm(full - _weights(coalitions.spec, state)))

    whole, *without = coalitions.figures([everybody, *(everybody - {member} for member in members)], worth, seen)
    removals = []
    for member, figures in zip(members, without, strict=True):
        updates = sum(coalitions.owner[e.author] == member for round_ in coalitions.rounds for e in round_.entries)
        removals.append(Removal(member, updates, distances[everybody - {member}], whole, figures))
    return removals


def _weights(spec: ComponentSpec, state: State) -> Figures:
    """Return a state's increment of the weights, or the sum of a statistic's, [d]."""
    if spec.is_statistic:
        return numbers(state).astype(np.float64) * spec.grid_step
    return state.astype(np.float64) * 2.0 ** -(spec.step_log2 + FRACTION_BITS)


def shapley(
    coalitions: Coalitions,
    worth: Worth,
    *,
    samples: int,
    seed: int,
    tolerance: float = 0.0,
    progress: Progress | None = None,
) -> Shapley:
    """Estimate Shapley values from `samples` ≥ 2 random permutations (Ghorbani and Zou 2019, Data Shapley).

    Members join one by one in the order of a permutation, and a member's value is the mean of what its joining changes.
    With a `tolerance`, a permutation ends where no task's figure is farther from that of all members (truncated Monte
    Carlo): what is left there counts as nothing, which is cheaper and biased by as much. Permutations go step by step
    together, so that a step is one call of `worth`; equal coalitions are evaluated once. `seed` fixes the permutations.
    """
    players, source = coalitions.players, Random(seed)  # noqa: S311 - no secret: a seeded sample
    orders = [source.sample(range(len(players)), len(players)) for _ in range(samples)]
    everybody = frozenset(players)
    empty, whole = coalitions.figures([frozenset(), everybody], worth)
    changes = np.zeros((samples, len(players), whole.size))
    reached = [empty] * samples
    truncated = 0
    for step in range(len(players)):
        alive = []
        for number in range(samples):
            if tolerance > 0.0 and bool(np.all(np.abs(whole - reached[number]) <= tolerance)):
                truncated += 1
            else:
                alive.append(number)
        joined = [frozenset(players[index] for index in orders[number][: step + 1]) for number in alive]
        for number, figures in zip(alive, coalitions.figures(joined, worth), strict=True):
            changes[number, orders[number][step]] = figures - reached[number]
            reached[number] = figures
        if progress is not None:
            progress("Shapley", step + 1, len(players))
    errors = changes.std(axis=0, ddof=1) / np.sqrt(samples)
    return Shapley(players, samples, changes.mean(axis=0), errors, truncated)


def most_coalitions(players: int, samples: int) -> int:
    """Return how many states `shapley` folds and evaluates at most."""
    return min(1 << players, 2 + samples * max(0, players - 1))
