"""The component fold: from frozen lists and update bytes to bit-identical states (design.md sections 5, 7, 9)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..crypto.hashing import digest
from ..protocol.codec import encode
from ..protocol.components import STATE_LIMIT, ComponentSpec
from ..protocol.learning import AVERAGES
from ..protocol.statistics import numbers, words
from ..protocol.update import Integers
from . import effects, robust, rules

State = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Entry:
    """One counted update: `update` is its header's digest, `variance` its declared noise in squared grid units.

    `seq` is the sequence number of its record in its author's feed: withdrawals cover ranges of feed entries.
    """

    update: bytes
    author: bytes
    blob: bytes
    size: int
    staleness: int
    variance: int
    seq: int = 0


@dataclass(frozen=True)
class Round:
    """A closed round: the list of updates to fold, sorted by author, f at its closing, and its rule.

    `rule` is empty unless an amendment set it: then the component's spec has the rule.

    `chain` is the running digest of the frozen lists up to and including this one. The state after this round is a
    function of them only, so `chain` identifies a stored state under any generation.
    """

    number: int
    height: int
    entries: tuple[Entry, ...]
    faults: int
    chain: bytes
    rule: str = ""

    @cached_property
    def updates(self) -> frozenset[bytes]:
        """The digests of the counted updates' headers."""
        return frozenset(entry.update for entry in self.entries)


def chained(rounds: Iterable[Round], chain: bytes) -> tuple[Round, ...]:
    """Return the rounds with running digests that continue from `chain`."""
    done = []
    for round_ in rounds:
        entries = [[e.update, e.author, e.blob, e.size, e.staleness, str(e.variance), e.seq] for e in round_.entries]
        chain = digest("rounds", chain, encode([round_.number, round_.faults, entries]))
        done.append(replace(round_, chain=chain))
    return tuple(done)


def origin(spec: ComponentSpec) -> State:
    """Return the state before the first round: all zeros, shape [d] (of a statistic [2d]: two words a number)."""
    return np.zeros(spec.words, dtype=np.int32)


def rule_of(spec: ComponentSpec, round_: Round) -> str:
    """Return the rule by which a round closed: no later amendment reaches it (G10)."""
    return round_.rule or spec.rule


def taken(spec: ComponentSpec, round_: Round) -> tuple[list[Entry], int]:
    """Return the entries of a round that the component's rule uses, and f'; none if the round is the identity.

    Robust rules use fresh updates only. A round with fewer than `max(1, 2f'+1)` updates left, `f' = min(f,
    ⌊(n'-1)/3⌋)`, is the identity. A statistic uses all.
    """
    if spec.is_statistic:
        return list(round_.entries), 0
    entries = [entry for entry in round_.entries if rule_of(spec, round_) in AVERAGES or entry.staleness == 0]
    faults = min(round_.faults, rules.faults(len(entries)))
    return (entries, faults) if len(entries) >= max(1, 2 * faults + 1) else ([], 0)


def fold_round(
    state: State, spec: ComponentSpec, round_: Round, values: Callable[[Entry], Integers]
) -> tuple[State, int]:
    """Return the state after a round and how many coordinates saturated.

    The component's rule is applied to the entries that `taken` returns, a robust one with f'. A statistic is the
    int64 sum of all its entries, of any order and round.
    """
    if spec.is_statistic:
        total = numbers(state)
        for entry in round_.entries:
            total += values(entry)
        return words(total), 0
    entries, faults = taken(spec, round_)
    if not entries:
        return state, 0
    updates = [values(entry) for entry in entries]
    variances, staleness = [e.variance for e in entries], [e.staleness for e in entries]
    match rule_of(spec, round_):
        case "mean":
            increment = rules.mean(updates, rules.mean_weights(variances, staleness))
        case "random-effects":
            increment = effects.random_effects(updates, spec, variances, staleness)
        case name:
            increment = robust.RULES[name](updates, faults)
    increment += state
    saturated = 0
    if max(-int(increment.min()), int(increment.max())) > STATE_LIMIT:
        saturated = int(np.count_nonzero(np.abs(increment) > STATE_LIMIT))
        np.clip(increment, -STATE_LIMIT, STATE_LIMIT, out=increment)
    return increment.astype(np.int32), saturated


def replay(
    state: State, spec: ComponentSpec, rounds: Iterable[Round], values: Callable[[Entry], Integers]
) -> tuple[State, int]:
    """Fold rounds one after the other (a refold replays the remaining entries); returns state and saturations."""
    saturations = 0
    for round_ in rounds:
        state, saturated = fold_round(state, spec, round_, values)
        saturations += saturated
    return state, saturations


def tenure_ends(spec: ComponentSpec, rounds: Iterable[Round], owner: Callable[[bytes], bytes]) -> dict[bytes, int]:
    """Return for each member the last round that counts an update of it: the end of its tenure, as yet.

    `owner` maps an author's key to its member's present one. A member that a withdrawal took out has none.
    """
    return {owner(entry.author): round_.number for round_ in rounds for entry in taken(spec, round_)[0]}


def mean_state(states: Sequence[State]) -> State:
    """Return the mean of states, [d] each, by coordinate and half to even: the memory `tenure-mean` of their ends.

    Exact: a sum of n ≤ 2^16 states is under 2^47, and no quotient of it rounds to a tie that it is not.
    """
    total = np.zeros(states[0].shape, dtype=np.int64)
    for state in states:
        total += state
    return np.rint(total / len(states)).astype(np.int32)
