"""From config.toml to what is in force: the default, overrides, jurisdictions, and slips of the pen."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.crypto.identity import Identity
from collegium.node.home import config as settings
from collegium.node.home.config import Config, Data, Learning, ModalityPrivacy, Privacy, default_text, parse
from collegium.node.home.policies import HostedComponents, hosted_components, parts_here, policies
from collegium.protocol.charter import Charter
from collegium.protocol.learning import Modality, PrivacyFloor
from collegium.sims.simulator.small import small_charter

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
    in_force = config(
        'epsilon = 6\n[privacy.modalities.face]\npolicy = "never"\n[privacy.modalities.marks]\nepsilon = 2'
    )
    face, marks = policies(in_force, charter("dp"))
    assert (face.policy, face.why[0]) == ("never", "institution")
    assert (marks.policy, marks.epsilon, marks.delta) == ("dp", 2000, 10_000)
    assert marks.why == ("charter", "institution", "charter")
    assert hosted_components(in_force, charter("dp")) == ("encoder/marks", "head/task0")


def test_a_jurisdiction_is_by_the_kind_of_modality() -> None:
    face, marks = policies(config('policy = "open"\njurisdiction = "gdpr-biometric"'), charter())
    assert (face.policy, face.why[0]) == ("never", "jurisdiction")
    assert (marks.policy, marks.epsilon, marks.delta) == ("dp", 3000, 1000)


@pytest.mark.parametrize(
    ("voted", "own", "epsilon", "shown"),
    [
        ("", "", 8000, ""),  # by kind
        ("mild", "", 8000, "mild"),
        ("mild", "biometric", 1000, "biometric"),
        ("biometric", "mild", 1000, "biometric"),
        ("", "personal", 4000, "personal"),
        ("personal", "mild", 4000, "personal"),
    ],
)
def test_the_stricter_sensitivity_of_charter_and_dataset_is_in_force(
    tmp_path: Path, voted: str, own: str, epsilon: int, shown: str
) -> None:
    configured = with_data(tmp_path, 'jurisdiction = "gdpr-general"')
    path = tmp_path / "dataset.toml"
    line = f'\nsensitivity = "{own}"' if own else ""
    path.write_text(path.read_text().replace('kind = "tabular"', f'kind = "tabular"{line}'))
    agreed = charter()
    face, marks = agreed.learning.modalities
    learning = replace(agreed.learning, modalities=(face, replace(marks, sensitivity=voted)))
    in_force = policies(configured, replace(agreed, learning=learning))[1]
    assert (in_force.epsilon, in_force.sensitivity) == (epsilon, shown)
    (tmp_path / "dataset.toml").unlink()
    assert policies(configured, agreed)[1].epsilon == 8000, "a share that is not mounted declares nothing"


def test_ones_own_mild_makes_no_rule_by_kind_laxer(tmp_path: Path) -> None:
    configured = with_data(tmp_path, 'jurisdiction = "ferpa"')
    path = tmp_path / "dataset.toml"
    mild = path.read_text().replace('"marks"', '"face"').replace('"tabular"', '"tabular"\nsensitivity = "mild"')
    path.write_text(mild)
    assert policies(configured, charter())[0].epsilon == 3000, "the charter has it as an image, and says no more"


def test_without_noise_dp_keeps_a_modality_out() -> None:
    assert hosted_components(config('policy = "dp"'), charter(noise=0)) == ("head/task0",)
    assert len(hosted_components(config('policy = "open"'), charter(noise=0))) == 3


def test_a_path_is_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[privacy]\njurisdiction = "mine.toml"\n')
    loaded = settings.load(path)
    assert loaded.privacy.jurisdiction == str(tmp_path / "mine.toml")
    with pytest.raises(UsageError, match=r"mine\.toml"):
        policies(loaded, charter())
    path.write_text('[privacy]\njurisdiction = "ferpa"\n')
    assert settings.load(path).privacy.jurisdiction == "ferpa"


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


DATASET = """
format = 1
[unit]
kind = "record"
[tables.t]
path = "t.csv"
key = "id"
[[modality]]
name = "marks"
kind = "tabular"
columns = [{ name = "a", low = 0, high = 1 }]
[[task]]
name = "task0"
kind = "binary"
column = "b"
positive = ["yes"]
[split]
share = 0.2
salt = "s"
"""
NAMES = ("backbone", "encoder/face", "encoder/marks", "head/other", "head/task0")


def many(policy: str = "open") -> Charter:
    """Two tasks over two modalities; the data of `DATASET` have one of each."""
    small = charter(policy)
    other = replace(small.learning.tasks[0], name="other", modalities=("face",))
    return replace(
        small,
        components=tuple(replace(small.components[0], name=name) for name in NAMES),
        learning=replace(small.learning, tasks=(other, *small.learning.tasks)),
    )


def with_data(folder: Path, text: str = "", **learning: tuple[str, ...]) -> Config:
    (folder / "dataset.toml").write_text(DATASET)
    configured = config('policy = "open"\n' + text)
    return replace(configured, data=Data(folder), learning=Learning(**learning))  # type: ignore[arg-type]  # by name


def test_what_no_modality_or_task_of_the_data_needs_does_not_exist_here(tmp_path: Path) -> None:
    parts = parts_here(with_data(tmp_path), many())
    assert parts == HostedComponents(("backbone", "encoder/marks", "head/task0"), (), {})
    assert parts_here(config('policy = "open"'), many()).hosted == NAMES, "a node without data hosts all"


def test_what_is_needed_and_not_engaged_is_followed(tmp_path: Path) -> None:
    parts = parts_here(with_data(tmp_path, engage=("head/*",)), many())
    assert (parts.hosted, parts.followed) == (("head/task0",), ("backbone", "encoder/marks"))
    assert parts.held == ("backbone", "encoder/marks", "head/task0")
    assert parts_here(replace(config(""), learning=Learning(engage=("head/*",))), many("open")).followed == ()


def test_a_withheld_modalitys_components_are_neither_hosted_nor_followed(tmp_path: Path) -> None:
    never = '[privacy.modalities.marks]\npolicy = "never"'
    for engage in (("*",), ("head/*",)):
        parts = parts_here(with_data(tmp_path, never, engage=engage), many())
        assert "encoder/marks" not in parts.held
        assert list(parts.withheld) == ["marks"]


def test_a_data_folder_that_cannot_be_read_is_an_error_but_for_a_learner_of_ones_own(tmp_path: Path) -> None:
    loaded = with_data(tmp_path)
    (tmp_path / "dataset.toml").unlink()
    with pytest.raises(UsageError, match=r"dataset\.toml"):
        parts_here(loaded, many())
    assert parts_here(replace(loaded, learning=Learning(learner=("mine",))), many()).hosted == NAMES


def test_paths_of_models_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[models]\n"all/mini" = "here"\n')
    assert settings.load(path).models.folders == (("all/mini", tmp_path / "here"),)
