"""A federation's rounds kept as they were folded: the lists, the updates' integers and the states before each round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from ...consensus.components import Entry, Round, fold_round, origin, replay
from ...consensus.rules import faults
from ...node.learner.client import Ask
from ...node.learner.messages import Respec
from ...protocol.update import Integers
from ..learn.federate import Learner, Setting, States, update


@dataclass(slots=True)
class History:
    """A federation's history. `states[r]` are those after round r, `states[0]` the first ones."""

    setting: Setting
    base_seed: bytes
    states: list[States]
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    values: dict[bytes, Integers] = field(default_factory=dict)

    @property
    def last(self) -> States:
        """The states after the last round."""
        return self.states[-1]

    def refold(self, gone: str) -> States:
        """Return the states of the frozen lists without a member's entries: the product's own refold, bit for bit."""
        states = {}
        for name, rounds in self.rounds.items():
            spec = self.setting.specs[name]
            kept = [replace(r, entries=tuple(e for e in r.entries if e.author != gone.encode())) for r in rounds]
            states[name], _ = replay(origin(spec), spec, kept, lambda entry: self.values[entry.update])
        return states

    def first_of(self, member: str) -> int:
        """Return the first round, of whatever component, that counted an update of this member."""
        counted = (r.number for rounds in self.rounds.values() for r in rounds for e in r.entries
                   if e.author == member.encode())  # fmt: skip
        return min(counted)

    def until(self, round_: int) -> "History":
        """Return the history up to and with a round, on which others can follow."""
        rounds = {name: own[:round_] for name, own in self.rounds.items()}
        return History(self.setting, self.base_seed, self.states[: round_ + 1], rounds, dict(self.values))

    def after(self, states: States) -> "History":
        """Return a history that goes on from other states (a refold's) after the last round."""
        return History(self.setting, self.base_seed, [*self.states[:-1], states], dict(self.rounds), dict(self.values))


def begin(setting: Setting, base_seed: bytes) -> History:
    """Return the history before the first round."""
    start = {name: origin(spec) for name, spec in setting.specs.items()}
    return History(setting, base_seed, [start], {name: [] for name in setting.specs})


def follow(
    history: History,
    ask: Ask,
    learners: Callable[[int], Sequence[Learner]],
    rounds: int,
    seed: str,
    tick: Callable[[], None] = lambda: None,
) -> History:
    """Train so many rounds more, in place; `learners` returns the learners of a round.

    Sampling and noise of a learner in a round are a function of `seed`, its name and the round alone: training
    it again from the same states, beside any other learner, gives the same update.
    """
    for number in range(len(history.states), len(history.states) + rounds):
        updates: dict[str, dict[str, tuple[Integers, int]]] = {}
        for learner in learners(number):
            ask(_seeded(history, learner, f"{seed} {learner.name} {number}"))
            updates[learner.name] = update(ask, learner, history.setting, history.last, number)
        states = {}
        for name in history.setting.specs:
            round_ = _round(history, name, number, {who: own[name] for who, own in updates.items() if name in own})
            spec = history.setting.specs[name]
            states[name], _ = fold_round(history.last[name], spec, round_, lambda entry: history.values[entry.update])
            history.rounds[name].append(round_)
        history.states.append(states)
        tick()
    return history


def _round(history: History, name: str, number: int, updates: Mapping[str, tuple[Integers, int]]) -> Round:
    """Freeze a round's list, and keep its updates."""
    entries = []
    for who, (values, variance) in sorted(updates.items()):
        digest = sha256(f"{who} {name} {number}".encode() + values.tobytes()).digest()
        history.values[digest] = values
        entries.append(Entry(digest, who.encode(), digest, values.nbytes, 0, variance))
    return Round(number, number, tuple(entries), faults(len(entries)), b"")


def _seeded(history: History, learner: Learner, words: str) -> Respec:
    seed = int.from_bytes(sha256(words.encode()).digest()[:7])
    specs = tuple(history.setting.specs.values())
    return Respec(specs, history.setting.learning, history.base_seed, seed, learner.session)
