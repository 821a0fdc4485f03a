"""From config.toml to what is in force: the default, overrides, jurisdictions, and slips of the pen."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.crypto.identity import Identity
from collegium.node.home import config as settings
from collegium.node.home.config import Config, ModalityPrivacy, Privacy, default_text, parse
from collegium.node.home.policies import hosted_components, policies
from collegium.protocol.charter import Charter
from collegium.protocol.learning import Modality, PrivacyFloor
from collegium.sims.cluster import small_charter

ME = Identity.from_seed(bytes(32))


def charter(policy: str = "open", noise: int = 1_000_000) -> Charter:
    small = small_charter([ME], noise=noise)
    spec, task = small.components[0], small.learning.tasks[0]
    return replace(
        small,
        components=tuple(replace(spec, name=name) for name in ("encoder/face", "encoder/marks", "head/task0")),
        learning=replace(
            small.learning,
            modalities=(Modality("face", "image", 64, 1), Modality("marks", "tabular", 4, 1)),
            tasks=(replace(task, modalities=("face", "marks")),),
            floors=(PrivacyFloor("face", policy, 9000, 10_000), PrivacyFloor("marks", policy, 9000, 10_000)),
        ),
    )


def config(text: str) -> Config:
    return parse(f"[privacy]\n{text}", "config.toml")


def test_the_default_is_for_all_and_an_override_for_one() -> None:
    found = config('epsilon = 6\n[privacy.modalities.face]\npolicy = "never"\n[privacy.modalities.marks]\nepsilon = 2')
    face, marks = policies(found, charter("dp"))
    assert (face.policy, face.why[0]) == ("never", "institution")
    assert (marks.policy, marks.epsilon, marks.delta) == ("dp", 2000, 10_000)
    assert marks.why == ("charter", "institution", "charter")
    assert hosted_components(found, charter("dp")) == ("encoder/marks", "head/task0")


def test_a_jurisdiction_is_by_the_kind_of_modality() -> None:
    face, marks = policies(config('policy = "open"\njurisdiction = "gdpr-biometric"'), charter())
    assert (face.policy, face.why[0]) == ("never", "jurisdiction")
    assert (marks.policy, marks.epsilon, marks.delta) == ("dp", 3000, 1000)


def test_without_noise_dp_keeps_a_modality_out() -> None:
    assert hosted_components(config('policy = "dp"'), charter(noise=0)) == ("head/task0",)
    assert len(hosted_components(config('policy = "open"'), charter(noise=0))) == 3


def test_a_path_is_relative_to_the_file(tmp_path: Path) -> None:
    place = tmp_path / "config.toml"
    place.write_text('[privacy]\njurisdiction = "mine.toml"\n')
    found = settings.load(place)
    assert found.privacy.jurisdiction == str(tmp_path / "mine.toml")
    with pytest.raises(UsageError, match=r"mine\.toml"):
        policies(found, charter())
    place.write_text('[privacy]\njurisdiction = "ferpa"\n')
    assert settings.load(place).privacy.jurisdiction == "ferpa"


@pytest.mark.parametrize(
    "text",
    [
        "[privacy.modalities.faces]",
        'jurisdiction = "gdpr"',
    ],
)
def test_a_slip_of_the_pen_is_not_ignored(text: str) -> None:
    with pytest.raises(UsageError):
        policies(config(text), charter())


@pytest.mark.parametrize(
    "text",
    [
        "modalities = 1",
        "[privacy.modalities]\nface = 1",
        "[privacy.modalities.face]\npolicy = 'some'",
        "[privacy.modalities.face]\nepsilon = 0",
        "[privacy.modalities.face]\ndelta = 1e-10",
        "[privacy.modalities.face]\njurisdiction = 'ferpa'",
        "[[privacy.modalities.face]]\nepsilon = 1",
        "jurisdiction = 1",
    ],
)
def test_what_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="privacy"):
        config(text)


def test_overrides_are_written_as_they_are_read() -> None:
    overrides = (ModalityPrivacy('a.b "c"', "never"), ModalityPrivacy("marks", "", 2.5, 1e-7))
    made = Config(privacy=Privacy(epsilon=3.0, jurisdiction="ferpa", modalities=overrides))
    assert parse(default_text(made), "config.toml") == made
