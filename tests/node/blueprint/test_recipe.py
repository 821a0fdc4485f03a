"""Noise that keeps every modality's floor, whichever components an institution engages."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.parts import backbone, encoder, head, skip, statistic
from collegium.node.blueprint.recipe import MAX_TIMES, Budget, Privacy, Recipe, charter_parts, needed
from collegium.node.privacy.accountant import MILLION, effective_noise, epsilon
from collegium.protocol.components import ComponentSpec
from collegium.protocol.learning import Learning, Modality, Task

MODALITIES = (Modality("a", "tabular", 5, 1), Modality("b", "series", 3, 4), Modality("c", "image", 9, 1))
STEPS, RATE, ROUNDS, SHARE = 4, 200_000, 5, 250_000
OWN = (Privacy("dp", 1.0), Privacy("dp", 4.0, 1e-6), Privacy("open"), Privacy("never"), None)
TASKS = (("a",), ("a", "b"), ("b", "c"), ("a", "b", "c"), ("c",))


def recipe(privacy: dict[str, Privacy], reads: Sequence[tuple[str, ...]], middle: int = 0) -> Recipe:
    tasks = [Task(f"t{number}", "binary", 2, names) for number, names in enumerate(reads)]
    read = {name for names in reads for name in names}
    shared = [m for m in MODALITIES if m.name in read and privacy.get(m.name, Privacy("dp")).policy != "never"]
    parts = [encoder(m, 4, "attention-pool" if m.kind == "series" else "linear-tanh") for m in shared]
    parts += [head(task, 4) for task in tasks]
    for task in tasks:
        widths = {m.name: m.width for m in shared if m.name in task.modalities and m.name != "c"}
        parts += [skip(task, widths)] if widths else []
    parts += [backbone(4, middle)] if middle else []
    return Recipe(
        MODALITIES, tuple(tasks), tuple(parts), 100, STEPS, RATE, MILLION, MILLION, 2 * MILLION, 16, privacy=privacy
    )


def cost(specs: list[ComponentSpec], delta: int) -> float:
    sigma = effective_noise([spec.noise_multiplier / MILLION for spec in specs])
    return epsilon([(RATE / MILLION, sigma, STEPS * ROUNDS)], delta / 1e9)


def test_g6_shards_cost_less_noise_and_no_floor() -> None:
    """With five rounds and three shards a student is in two runs, at most: these are what the floor has to pay."""
    plain = recipe({}, [("a",)])
    whole, _ = charter_parts(plain, Budget(2.0, 1e-5, ROUNDS), min_updates=1)
    specs, learning = charter_parts(replace(plain, shards=3), Budget(2.0, 1e-5, ROUNDS), min_updates=1)
    assert learning.shards == 3
    sigma, before = (effective_noise([s.noise_multiplier / MILLION for s in some]) for some in (specs, whole))
    limit = 2.0 * (MILLION - SHARE) / MILLION
    assert (
        epsilon([(RATE / MILLION, sigma, STEPS * 2)], 1e-5)
        <= limit
        < epsilon([(RATE / MILLION, sigma, STEPS * 3)], 1e-5)
    )
    assert sigma < before
    assert specs[0].step_log2 < whole[0].step_log2, "a lot of a third: the noise of a step is larger"


def reached(specs: tuple[ComponentSpec, ...], learning: Learning, modalities: set[str]) -> list[ComponentSpec]:
    return [spec for spec in specs if learning.upstream(spec.name) & modalities]


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries({m.name: st.sampled_from(OWN) for m in MODALITIES}),
    st.lists(st.sampled_from(TASKS), min_size=1, max_size=3, unique=True),
    st.sampled_from([0, 6]),
)
def test_g6_no_modality_costs_more_than_its_floor_leaves(
    asked: dict[str, Privacy | None], reads: list[tuple[str, ...]], middle: int
) -> None:
    privacy = {name: level for name, level in asked.items() if level is not None}
    specs, learning = charter_parts(recipe(privacy, reads, middle), Budget(8.0, 1e-5, ROUNDS), min_updates=1)
    floors = {floor.modality: floor for floor in learning.floors if floor.policy == "dp"}
    limits = {name: floor.epsilon * (MILLION - SHARE) / MILLION / 1000 for name, floor in floors.items()}
    for name, floor in floors.items():
        if noise := reached(specs, learning, {name}):  # whatever else the institution has
            assert cost(noise, floor.delta) <= limits[name] + 1e-9
    for task in learning.tasks:
        private = [name for name in task.modalities if name in floors]
        # An institution with this task's modalities: all that it engages, of them and of what it shares.
        if private:
            loosest = max(private, key=lambda name: (limits[name], floors[name].delta))
            noise = reached(specs, learning, set(private))
            assert cost(noise, floors[loosest].delta) <= limits[loosest] + 1e-9
            hosted = needed(learning, [s.name for s in specs], set(task.modalities), {t.name for t in learning.tasks})
            for name in private:
                engaged = [spec for spec in specs if spec.name in hosted and name in learning.upstream(spec.name)]
                assert cost(engaged, floors[name].delta) <= limits[name] + 1e-9
    for spec in specs:
        assert (spec.noise_multiplier > 0) == bool(learning.upstream(spec.name) & set(floors))


def test_a_budget_is_spent_and_not_left_over() -> None:
    specs, _ = charter_parts(recipe({}, [("a", "b", "c")]), Budget(8.0, 1e-5, ROUNDS), min_updates=1)
    assert 5.99 < cost(list(specs), 10_000) <= 6.0


def test_a_stricter_modality_burdens_only_what_it_reaches() -> None:
    reads = [("a",), ("b",)]
    equal, learning = charter_parts(recipe({}, reads), Budget(8.0, 1e-5, ROUNDS), min_updates=1)
    strict, _ = charter_parts(recipe({"a": Privacy("dp", 1.0)}, reads), Budget(8.0, 1e-5, ROUNDS), min_updates=1)
    for before, after in zip(equal, strict, strict=True):
        touched = "a" in learning.upstream(before.name)
        assert (after.noise_multiplier > before.noise_multiplier) == touched
        assert touched or after == before


def test_components_that_only_open_data_reach_have_no_noise_and_the_free_rate() -> None:
    """G6: an open modality's encoder that is read beside data under DP is noised like them."""
    for reads, free in (([("c",), ("a", "b")], {"encoder/c", "head/t0"}), ([("c",), ("a", "c")], {"head/t0"})):
        specs, _ = charter_parts(recipe({"c": Privacy("open")}, reads), Budget(8.0, 1e-5, 5), min_updates=1)
        assert {spec.name for spec in specs if spec.noise_multiplier == 0} == free
        assert all((spec.learning_rate == 2 * MILLION) == (spec.name in free) for spec in specs)


@pytest.mark.parametrize("privacy", [Privacy("dp", 0.0), Privacy("dp", 1.0, 0.0), Privacy("dp", 1.0, 1.0)])
def test_no_budget_is_refused_by_name(privacy: Privacy) -> None:
    with pytest.raises(UsageError, match=r"'b'.*is not (between|from)"):
        charter_parts(recipe({"b": privacy}, [("b",)]), Budget(8.0, 1e-5, ROUNDS), min_updates=1)


def test_dp_without_a_budget_is_refused() -> None:
    with pytest.raises(UsageError, match="'b' is under dp"):
        charter_parts(recipe({"b": Privacy("dp")}, [("b",)]), None, min_updates=1)


@pytest.mark.parametrize("modalities", [set(names) for n in range(4) for names in combinations("abc", n)])
def test_a_node_needs_only_what_its_modalities_and_tasks_use(modalities: set[str]) -> None:
    specs, learning = charter_parts(recipe({}, [("a", "b"), ("c",)], 6), None, min_updates=1)
    names = set(needed(learning, [spec.name for spec in specs], modalities, {"t0", "t1"}))
    expected = {f"encoder/{name}" for name in modalities} | ({"backbone"} if modalities else set())
    expected |= {"head/t0", "skip/t0"} if modalities & {"a", "b"} else set()
    expected |= {"head/t1"} if "c" in modalities else set()
    assert names == expected


def test_g6_rounds_and_statistics_together_cost_what_the_floors_leave() -> None:
    """Modalities with different floors, a statistic of each task: composed, none is over; the planned rounds fit."""
    privacy = {"a": Privacy("dp", 4.0), "b": Privacy("dp", 8.0)}
    plain = recipe(privacy, [("a",), ("a", "b")])
    sums = tuple(statistic(task, MODALITIES, "ridge") for task in plain.tasks)
    specs, learning = charter_parts(
        replace(plain, parts=(*plain.parts, *sums)), Budget(8.0, 1e-5, ROUNDS), min_updates=1
    )
    bare, _ = charter_parts(plain, Budget(8.0, 1e-5, ROUNDS), min_updates=1)
    for name, limit in (("a", 3.0), ("b", 6.0)):
        seen = reached(specs, learning, {name})
        released = effective_noise([s.noise_multiplier / MILLION for s in seen if s.is_statistic])
        trained = effective_noise([s.noise_multiplier / MILLION for s in seen if not s.is_statistic])
        alone = epsilon([(1.0, released, 1)], 1e-5)
        assert alone <= 0.3 * limit
        whole = epsilon([(1.0, released, 1), (RATE / MILLION, trained, STEPS * ROUNDS)], 1e-5)
        assert (0.9 * limit if name == "a" else 0.0) < whole <= limit
    more = [
        next(s for s in specs if s.name == spec.name).noise_multiplier / spec.noise_multiplier
        for spec in bare
        if spec.noise_multiplier
    ]
    assert all(1.0 < ratio < 1.1 for ratio in more), "a share of 30 % costs the rounds some percent of noise"
    most = 1 << (30 - next(s for s in specs if s.is_statistic).step_log2)
    assert MAX_TIMES * plain.students <= most < 2 * MAX_TIMES * plain.students
