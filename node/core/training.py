"""When this node trains: which components, at what privacy cost, and how the result is sent.

The order matters (G6): check the budget, write the cost to the disk, train, sign, send.

No ε for nothing: a component is trained only while `min_updates` hosts, this one among them, can send an update for its
open round (`_has_company`). A node that had stopped, and finds too few without it, offers to train before it trains,
and one whose last affordable run is over says so before the round closes
(docs/adr/0024-nobody-trains-a-round-that-cannot-close.md).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ...consensus.ledger import names
from ...consensus.rounds import has_contributed, next_round, possible_authors
from ...protocol.claims import NO_EPSILON
from ...protocol.component_names import parse_name
from ...protocol.records import GENESIS
from ...protocol.signing import sign
from ...protocol.statistics import is_groups
from ..privacy import policy as governing
from . import candidates, offers, updates
from . import contribution as contributing
from . import events as ev
from .in_flight import update_key
from .messages import Kind, message
from .reasons import PASSING, Reason
from .state import NodeState
from .timers import TrainDue

MAX_FAILURES = 3
AHEAD = 0  # the number of a training run that the budget is only asked about


def learn(state: NodeState) -> None:
    """Begin a training run if there is something to train and nothing in the way."""
    ready = state.signing and state.contributing and not state.on_hold and state.run is None
    if not ready or state.me not in state.ledger.members:
        return
    fed = state.fed
    if state.exhausted:
        fed = [name for name in fed if is_groups(state.specs[name]) and state.failures < MAX_FAILURES]  # own budget
    elif state.engaged and not fed and state.withheld:
        state.exhausted = "; ".join(state.withheld.values())
        state.notice("training-forbidden", "warning", reason=state.exhausted)
        return
    names = [name for name in fed if name in state.learner and name not in state.charter.retired]
    sums = [name for name in names if state.specs[name].is_statistic and _is_to_contribute(state, name)]
    sums = [name for name in sums if name not in state.unaffordable]
    heads = [name for name in sums if not is_groups(state.specs[name])]
    due = heads or [name for name in sums if is_groups(state.specs[name]) and _is_due(state, name)]
    if due:  # statistics go first: once, over all students; but those of held-out students are of the model
        state.run = _statistics(state, due)
        _pay(state, state.run)
        return
    names = [name for name in names if not state.specs[name].is_statistic and _goes_on(state, name)]
    trainable = [name for name in names if _is_trainable(state, name)]
    if not trainable:
        return
    if not all(state.is_current(name) and name not in state.halted | state.doubted for name in state.followed):
        return  # every forward pass needs them
    open_ = [name for name in trainable if _has_company(state, name)]
    if not open_:
        _offer_again(state, trainable)
        return
    names = [name for name in names if name in open_ or _has_company(state, name, expected=_not_heard(state))]
    if len(open_) < len(names) and not state.learn_partly:
        if not state.learn_waits:
            state.learn_waits = True
            state.emit(ev.SetTimer(TrainDue(), 2 * state.charter.rules.round_deadline))
        return
    state.learn_partly = state.learn_waits = False
    state.run = _run(state, open_)
    _pay(state, state.run)


def _run(state: NodeState, names: Sequence[str]) -> contributing.TrainingRun:
    number = _next_number(state)
    return contributing.TrainingRun(
        number,
        tuple(_recipe(state, name) for name in names),
        {name: state.folded[name][3] for name in names},
        {name: state.folded[name][1] for name in names},
        governing.used(state.charter, state.held, state.withheld, names),
        shard=contributing.shard_of(number, state.charter.learning),
    )


def _next_number(state: NodeState) -> int:
    return max((put.run for put in state.reservations), default=0) + 1


def _has_company(state: NodeState, name: str, expected: Collection[bytes] = ()) -> bool:
    """Whether enough hosts, this one among them, can send an update for a component's open round.

    By the newest records that this node has, agreed or not: whoever stops, or goes on, says so in its offer. `expected`
    are counted too.
    """
    ledger = candidates.current(state).state
    able = possible_authors(state.charter, ledger, name).union((state.me,), expected)
    return len(able) >= state.specs[name].min_updates


def _not_heard(state: NodeState) -> frozenset[bytes]:
    """Return the members that may still offer to train, before any first round has closed.

    Components that only they could train with are waited for, so that all of them start in one training run.
    """
    if any(component.rounds for component in state.ledger.components.values()):
        return frozenset()
    return frozenset(state.ledger.members) - candidates.current(state).state.offers.keys()


def _offer_again(state: NodeState, names: Sequence[str]) -> None:
    """Too few train these components: offer to train those that this node had stopped training, if it can.

    Otherwise the hosts would wait for each other. As no round closes without it, none waits for it in vain. Its budget
    has to allow a training run: asking is arithmetic on what is spent, and costs nothing.
    """
    stopped = [name for name in names if name in state.stopped and state.stopped[name] not in PASSING]
    if not stopped:
        return
    run = _run(state, stopped)
    if _costs(state, run):
        state.run = run  # until the budget answers
        _ask_budget(state, run)
    else:
        offers.go_on(state, stopped)


def _costs(state: NodeState, run: contributing.TrainingRun) -> bool:
    return any(state.specs[recipe.component].noise_multiplier for recipe in run.recipes)


def _pay(state: NodeState, run: contributing.TrainingRun) -> None:
    if _costs(state, run):
        _ask_budget(state, run)
    else:
        _reserve(state, dict.fromkeys(run.modalities, NO_EPSILON))


def _is_to_contribute(state: NodeState, name: str) -> bool:
    """Whether this node's contribution to a statistic is still to be made: not counted, in flight or being made."""
    component = state.ledger.components[name]
    made = {key: update for key, update in state.acked.items() if key[:2] == (state.me, name)}
    barred = 0
    for withdrawal in (w for w in state.ledger.withdrawn if w.author == state.me):
        if any(names(withdrawal, name, key[2], update) for key, update in made.items()):
            barred = max(barred, dict(withdrawal.rounds).get(name, 0) + 1)
    waits = any(key[2] > barred for key in made)
    starts = not component.rounds and name in state.resting
    return (
        not waits
        and not starts
        and name not in state.halted
        and not has_contributed(state.ledger.roll, component, state.me)
    )


def _is_due(state: NodeState, name: str) -> bool:
    """Whether the components of a task have closed the rounds after which its groups are released, and are here."""
    learning, task = state.charter.learning, parse_name(name).task
    parts = [part for part in state.held if not state.specs[part].is_statistic and task in learning.judged_by(part)]
    open_ = [part for part in parts if part not in state.charter.retired]
    return (
        any(parse_name(part).task == task for part in open_)
        and all(state.is_current(part) and part not in state.halted | state.doubted for part in parts)
        and all(state.ledger.components[part].round >= learning.equity[0].after for part in open_)
    )


def _statistics(state: NodeState, names: Sequence[str]) -> contributing.TrainingRun:
    components = {name: state.ledger.components[name] for name in names}
    return contributing.TrainingRun(
        _next_number(state),
        tuple(
            _recipe_of(state, name, next_round(state.specs[name], c, state.ledger.withdrawn, state.me), GENESIS)
            for name, c in components.items()
        ),
        {name: state.specs[name].base for name in names},
        {name: c.generation for name, c in components.items()},
        governing.used(state.charter, state.held, state.withheld, names),
        of_statistics=True,
        shard=ev.EVERY_SHARD if state.charter.learning.shards > 1 else 0,
    )


def _ask_budget(state: NodeState, run: contributing.TrainingRun) -> None:
    rounds = {recipe.component: recipe.round for recipe in run.recipes}
    state.emit(
        contributing.question(
            run,
            state.reservations,
            state.policies,
            state.charter,
            state.movement,
            rounds=_rounds_ahead(state, run),
            recovery=contributing.recovering(state.ledger, rounds),
        )
    )


def _rounds_ahead(state: NodeState, run: contributing.TrainingRun) -> int:
    """The number of rounds still planned, including the training run's own; 0 if it is beyond the plan."""
    if run.of_statistics:
        return 1
    planned = state.options.plan.rounds or state.charter.learning.planned_rounds
    components = state.ledger.components
    return max(0, planned + 1 - min(r.round - components[r.component].empty for r in run.recipes))


def _is_trainable(state: NodeState, name: str) -> bool:
    if not state.is_current(name) or name in state.doubted or name in state.resting:
        return False
    component = state.ledger.components[name]
    target = component.round + 1
    if component.round and component.hosts and state.me not in component.hosts:
        return False  # a member that came since the last close is a host from the next one on: ε would be wasted
    if updates.is_barred(state, name, state.me, target):
        return False  # withdrawn contributions stay out, of this round too
    return (state.me, name, target) not in state.acked


def _goes_on(state: NodeState, name: str) -> bool:
    """Whether this node trains the component at all; otherwise the others do not wait for it."""
    return name not in state.halted and not offers.plan_done(state, name)


def _recipe(state: NodeState, name: str) -> ev.Recipe:
    done = state.folded[name]
    return _recipe_of(state, name, done[0] + 1, done[2])


def _recipe_of(state: NodeState, name: str, round_: int, chain: bytes) -> ev.Recipe:
    spec = state.specs[name]
    return ev.Recipe(name, round_, chain, spec.noise_multiplier, spec.clip_norm, spec.learning_rate)


def on_budget(state: NodeState, event: ev.BudgetAnswer) -> None:
    """Continue with the training run that the budget allows, or stop for good."""
    if event.run == AHEAD:
        state.last_run = not event.allowed
        if state.last_run and state.run is None:
            offers.stop(state, Reason.BUDGET_SPENT)  # the operator is notified when the next round opens
        return
    run = state.run
    if run is None or run.number != event.run or any(put.run == run.number for put in state.reservations):
        return
    if not event.allowed:
        state.run = None
        if run.of_statistics:
            names = [recipe.component for recipe in run.recipes]
            state.unaffordable.update(names)
            offers.stop_some(state, Reason.BUDGET_SPENT, names)
        else:
            state.exhausted = event.reason
            offers.stop(state, Reason.BUDGET_SPENT)
        state.notice("budget-spent", "warning", reason=event.reason, epsilon=contributing.logged_epsilon(event.epsilon))
        return
    names = [] if run.of_statistics else [recipe.component for recipe in run.recipes]
    alone = [name for name in names if not _has_company(state, name)]
    if alone:
        state.run = None  # the others stopped meanwhile, or it asked in order to offer
        offers.go_on(state, alone)
        return
    state.run = replace(
        run,
        recipes=tuple(
            # For any answer of the worker: no less noise than the charter's.
            replace(
                recipe,
                noise_multiplier=max(recipe.noise_multiplier, event.noises.get(recipe.component, 0)),
            )
            for recipe in run.recipes
        ),
    )
    if not run.of_statistics:
        shards = state.charter.learning.shards
        # The accountant counts runs of this shard; the shards take turns, and have as much left each.
        _foresee(state, state.run, {name: (left - 1) * shards + 1 for name, left in event.rounds_left.items()})
    _reserve(state, {name: event.epsilon.get(name, NO_EPSILON) for name in run.modalities})


def _foresee(state: NodeState, run: contributing.TrainingRun, rounds_left: Mapping[str, int]) -> None:
    """Notify the operator once, and on change, of the round after which a budget ends before the plan does."""
    learning, ahead = state.charter.learning, _rounds_ahead(state, run)
    rounds = {recipe.component: recipe.round for recipe in run.recipes}
    for name, left in sorted(rounds_left.items()):
        last = {part: rounds[part] + left - 1 for part in learning.downstream(name, rounds)}
        forecast = state.forecast.get(name)
        state.forecast[name] = (left, last)
        if left < ahead and (forecast is None or forecast[1] != last):
            state.notice("budget-runs-out", "warning", modality=name, rounds_left=left, last_rounds=last)


def _reserve(state: NodeState, epsilon: Mapping[str, int]) -> None:
    """G6: the cost is on disk before anything is computed from the students' data."""
    run, learning = state.run, state.charter.learning
    assert run is not None
    put = contributing.reservation(run, epsilon, learning)
    state.reservations.append(put)
    state.emit(ev.Persist(put))
    lot = contributing.lot(run, state.options.plan, state.charter)
    steps, rate = contributing.event(run, learning)
    state.train_began = state.now
    state.emit(ev.Train(run.number, run.recipes, steps, rate, lot, _context(state, run), run.shard))
    _look_ahead(state, run)
    rounds = {recipe.component: recipe.round for recipe in run.recipes}
    state.notice("training", run=run.number, rounds=rounds, epsilon=contributing.logged_epsilon(dict(put.claims)))


def _context(state: NodeState, run: contributing.TrainingRun) -> tuple[tuple[str, bytes], ...]:
    """Return (component, chain) of the components that forward passes need beside the trained ones."""
    trained, states = {recipe.component for recipe in run.recipes}, []
    needs = not run.of_statistics or any(is_groups(state.specs[name]) for name in trained)
    for name in state.held if needs else ():
        if state.specs[name].is_statistic:
            continue
        done = state.folded.get(name)
        # A state of an earlier round will do; one of another generation would bring a withdrawn update back.
        if name not in trained and done is not None and done[1] == state.ledger.components[name].generation:
            states.append((name, done[2]))
    return tuple(states)


def on_trained(state: NodeState, event: ev.Trained) -> None:
    """Sign and send the learner's updates if they are still in time."""
    run = state.run
    if run is None or run.number != event.run:
        return
    state.run, state.failures = None, 0
    if not state.signing or not state.contributing or state.me not in state.ledger.members:
        return
    offers.trained(state, sorted(event.blobs), state.now - state.train_began)
    if state.last_run:
        offers.stop(state, Reason.BUDGET_SPENT)
    put = next(put for put in state.reservations if put.run == run.number)
    claims = contributing.claims(state.reservations, put, state.policies, state.charter.learning)
    state.emit(ev.Persist(ev.PutPublished(run.number)))
    for name, blob in sorted(event.blobs.items()):
        value = replace(
            contributing.header(state.charter, state.me, run, state.options.plan, name, blob, claims),
            manifest=event.manifest,
        )
        component = state.ledger.components[name]
        key = update_key(value)
        if key in state.acked or updates.is_void(state, value, b""):
            state.notice("too-late", "warning", component=name, round=value.round, closed=component.round)
            continue
        header = sign(state.identity, value)
        state.acked[key] = header.digest
        state.in_flight[header.digest] = updates.own_update(state, header)
        state.emit(ev.Persist(ev.PutHeader(header)), ev.Publish(message(Kind.HEADER, header.wire)))


def _look_ahead(state: NodeState, run: contributing.TrainingRun) -> None:
    """Ask whether the budget allows the next round too, where it may not: the others are told before they train it."""
    state.last_run = False
    if run.of_statistics or not _costs(state, run):
        return
    rounds = {recipe.component: recipe.round for recipe in run.recipes}
    after = {name: number + 1 for name, number in rounds.items()}
    recovers = contributing.recovering(state.ledger, rounds) and not contributing.recovering(state.ledger, after)
    if recovers or any(left < 2 for left, _ in state.forecast.values()):
        recipes = tuple(replace(recipe, round=recipe.round + 1) for recipe in run.recipes)
        shard = contributing.shard_of(run.number + 1, state.charter.learning)
        _ask_budget(state, replace(run, number=AHEAD, recipes=recipes, shard=shard))


def on_training_failed(state: NodeState, event: ev.TrainingFailed) -> None:
    """Count a failed training run; after MAX_FAILURES the operator has to act."""
    if state.run is None or state.run.number != event.run:
        return
    state.run = None
    state.failures += event.counts
    state.notice("training-failed", "error" if event.counts else "warning", reason=event.reason, attempt=state.failures)
    if state.failures >= MAX_FAILURES:  # each attempt costs ε: the operator has to act
        state.exhausted = f"training failed {state.failures} times ({event.reason}); mend it and start the node again"
        offers.stop(state, Reason.FAILING)


def evaluate(state: NodeState) -> None:
    """Ask for an evaluation of the current states, once for each."""
    if not state.learner:
        return
    states = []
    for name in state.held:
        if not state.is_current(name):
            return
        states.append((name, *state.folded[name][:3]))
    if tuple(states) != state.evaluated:
        state.evaluated = tuple(states)
        state.emit(ev.Evaluate(state.evaluated))
