"""The strictest of charter, jurisdiction and institution, and the presets that are shipped."""

from itertools import pairwise, permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.crypto.errors import UsageError
from collegium.node.home import jurisdiction
from collegium.node.privacy.policy import Bound, in_force, remedy, strictest
from collegium.protocol.claims import NO_EPSILON
from collegium.protocol.learning import MODALITY_KINDS, POLICIES, SENSITIVITIES, PrivacyFloor

BOUNDS = st.builds(Bound, st.sampled_from(POLICIES), st.integers(1, 10_000), st.integers(1, 10**8))


@given(BOUNDS, st.none() | BOUNDS, st.none() | BOUNDS)
def test_g6_nothing_laxer_than_any_source_is_in_force(floor: Bound, preset: Bound | None, own: Bound | None) -> None:
    policy = in_force(PrivacyFloor("m", floor.policy, floor.epsilon, floor.delta), preset, own)
    sources = {"charter": floor, "jurisdiction": preset, "institution": own}
    for bound in sources.values():
        if bound is not None:
            assert POLICIES.index(policy.policy) <= POLICIES.index(bound.policy)
            if bound.policy == "dp" and policy.policy == "dp":
                assert policy.epsilon <= bound.epsilon
                assert policy.delta <= bound.delta
    by = [sources[name] for name in policy.why]
    assert by[0] is not None
    assert by[0].policy == policy.policy
    if policy.policy == "dp":
        assert by[1] is not None
        assert by[2] is not None
        assert (by[1].epsilon, by[2].delta) == (policy.epsilon, policy.delta)
    if policy.policy == "open":
        assert policy.epsilon == NO_EPSILON


@given(st.permutations([Bound("dp", 8000, 10_000), Bound("dp", 3000, 20_000), Bound("open", 1, 1)]))
def test_who_asks_does_not_matter(bounds: list[Bound]) -> None:
    floor, preset, own = bounds
    policy = in_force(PrivacyFloor("m", floor.policy, floor.epsilon, floor.delta), preset, own)
    assert (policy.policy, policy.epsilon, policy.delta) == ("dp", 3000, 10_000)


def test_the_first_of_equals_is_named() -> None:
    same = Bound("dp", 8000, 10_000)
    assert in_force(PrivacyFloor("m", "dp", 8000, 10_000), same, same).why == ("charter",) * 3
    names = ("charter", "jurisdiction", "institution")
    for order in permutations((("never", 0, 0), ("dp", 5, 5), ("open", 0, 0))):
        floor, preset, own = (Bound(*bound) for bound in order)
        policy = in_force(PrivacyFloor("m", floor.policy, floor.epsilon, floor.delta), preset, own)
        assert policy.policy == "never"
        assert policy.why[0] == names[[bound[0] for bound in order].index("never")]


@pytest.mark.parametrize("name", ["ferpa", "gdpr-biometric", "gdpr-general", "open-research"])
def test_shipped_presets_say_what_they_rest_on(name: str) -> None:
    assert name in jurisdiction.shipped()
    preset = jurisdiction.load(name, Path())
    assert preset.name == name
    assert "no legal advice" in preset.caveat
    for kind in MODALITY_KINDS:
        rule = preset.rule(kind)
        assert ("GDPR" if name != "ferpa" else "34 CFR") in rule.reason
        assert rule.lifetime == "federation"
    strict = jurisdiction.load("gdpr-biometric", Path())
    assert strict.rule("image").bound.policy == strict.rule("audio").bound.policy == "never"


@pytest.mark.parametrize("name", jurisdiction.shipped())
def test_what_is_declared_biometric_never_gets_more_than_by_its_kind(name: str) -> None:
    """A declaration of the strictest sensitivity makes nothing laxer, and each is at least as strict as the next."""
    preset = jurisdiction.load(name, Path())
    for kind in MODALITY_KINDS:
        by_kind, biometric = preset.rule(kind).bound, preset.rule(kind, "biometric").bound
        assert strictest([by_kind, biometric]) == biometric, (kind, by_kind, biometric)
    ordered = [preset.rule("series", sensitivity).bound for sensitivity in SENSITIVITIES]
    assert all(strictest(pair) == pair[0] for pair in pairwise(ordered))


def test_clicks_and_eeg_are_both_series_and_have_rules_of_their_own() -> None:
    preset = jurisdiction.load("gdpr-general", Path())
    assert preset.rule("series").bound == preset.rule("series", "mild").bound == Bound("dp", 8000, 10_000)
    assert preset.rule("series", "biometric").bound == Bound("dp", 1000, 1000)
    assert jurisdiction.load("gdpr-biometric", Path()).rule("series", "biometric").bound.policy == "never"
    assert jurisdiction.load("open-research", Path()).rule("series", "mild").bound.policy == "open", "by kind: no rule"


def test_a_printed_and_edited_preset_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(jurisdiction.text("gdpr-general").replace("epsilon = 8.0", "epsilon = 2.5"))
    assert jurisdiction.load("mine.toml", tmp_path).default.bound == Bound("dp", 2500, 10_000)


GOOD = jurisdiction.text("gdpr-general")
BROKEN: dict[str, tuple[str, str]] = {
    "no TOML": ("[", "not TOML"),
    "no default": ('name = "n"\ntitle = "t"\ncaveat = "c"', "default is missing"),
    "an unknown key": (GOOD.replace("delta =", "detla ="), "delta is missing Is it misspelt as 'detla'"),
    "an unknown kind": (GOOD.replace("kinds.text", "kinds.txet"), r"\[kinds\]: unknown key 'txet'"),
    "an unknown sensitivity": (GOOD.replace("sensitivity.mild", "sensitivity.low"), "unknown key 'low'"),
    "no reason": (GOOD.replace("reason = ", "lifetime2 = "), "reason is missing"),
    "an empty reason": (GOOD[: GOOD.index("reason")] + 'reason = ""', r"\[default\]: reason"),
    "no ε": (GOOD.replace("epsilon = 8.0\n", ""), r"\[default\]: epsilon"),
    "ε of 0": (GOOD.replace("epsilon = 8.0", "epsilon = 0"), r"\[default\]: epsilon"),
    "a truth for an ε": (GOOD.replace("epsilon = 8.0", "epsilon = true"), r"\[default\]: epsilon"),
    "a bound under open": (GOOD.replace('"dp"', '"open"'), "only|Only"),
    "a policy that is none": (GOOD.replace('"dp"', '"maybe"'), r"\[default\]: policy"),
    "a lifetime that nobody keeps": (GOOD.replace('"federation"', '"yearly"'), r"\[default\]: lifetime"),
    "kinds that are no table": (GOOD[: GOOD.index("[kinds")].replace("[default]", "kinds = 1\n[default]"), "kinds"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_preset_is_a_usage_error(name: str, tmp_path: Path) -> None:
    text, message = BROKEN[name]
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        jurisdiction.load("x.toml", tmp_path)
    assert __import__("re").search(message, f"{caught.value.message} {caught.value.advice}")


@pytest.mark.parametrize("reference", ["none-such", "none-such.toml", "../gdpr-general", ""])
def test_a_preset_that_is_not_there(reference: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        jurisdiction.load(reference, tmp_path)


def test_what_helps_is_told_by_whose_policy_keeps_data_out() -> None:
    """To open one's own policy helps nobody whose jurisdiction says never."""
    charter = PrivacyFloor("m", "dp", 8000, 10_000)
    by_law = in_force(charter, Bound("never", 0, 0), Bound("dp", 8000, 10_000))
    own = in_force(charter, None, Bound("never", 0, 0))
    assert "jurisdiction" in remedy([by_law], ["m"])
    assert "open" not in remedy([by_law], ["m"])
    assert "own policy says never" in remedy([own], ["m"])
    assert "own policy" not in remedy([own], ["other"])
