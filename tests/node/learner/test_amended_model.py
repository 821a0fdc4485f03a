"""G10: what an amendment opens moves no old logit, to the bit, whatever a record has of the new modality."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.cli.amending import opening_of
from collegium.cli.recipes import components
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.learner.model import Inputs, M3TModel
from collegium.protocol import schema
from collegium.protocol.amendment import Amendment, Changes, amended
from collegium.protocol.charter import Charter, check
from collegium.protocol.components import base_vector
from collegium.sims.simulator.small import small_charter

BEFORE = """
[model]
hidden = 16
{backbone}
[[modality]]
name = "person"
kind = "tabular"
width = 3
[[modality]]
name = "clicks"
kind = "series"
width = 2
length = 4
[[task]]
name = "passed"
kind = "binary"
skip = true
"""
AFTER = (
    BEFORE.replace('kind = "binary"\n', 'kind = "binary"\nmodalities = ["person", "clicks"]\n')
    + """
[[modality]]
name = "voice"
kind = "audio"
width = 4
length = 5
[[task]]
name = "digit"
kind = "multiclass"
classes = ["a", "b", "c"]
modalities = ["person", "voice"]
"""
)


def charter_of(model: Path) -> Charter:
    small = small_charter([Identity.from_seed(sha256(b"one"))])
    specs, learning, _ = components(
        None, model, (8.0, 1e-5, 5), dp=False, institutions=4, rule=None, usual="mean", seed=small.seed
    )
    charter = replace(small, components=specs, learning=learning)
    check(charter)
    return charter


def logits(charter: Charter, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Of states that are trained: only what opened begins with its first weights."""
    specs = [spec for spec in charter.components if not spec.is_statistic]
    model = M3TModel(specs, charter.learning, charter.seed)
    for spec in specs:
        base = base_vector(charter.seed, spec.name, spec.tensors)
        if "voice" not in spec.name and "digit" not in spec.name:
            base = base + 0.3 * np.sin(np.arange(base.size) + len(spec.name)).astype(np.float32)
        model.load(spec, base)
    with torch.no_grad():
        found: dict[str, torch.Tensor] = model(
            {name: pair for name, pair in inputs.items() if name in {m.name for m in charter.learning.modalities}}
        )
    return found


def inputs_of(missing: frozenset[str]) -> Inputs:
    torch.manual_seed(3)
    made = {}
    for name, length, width in (("person", 1, 3), ("clicks", 4, 2), ("voice", 5, 4)):
        steps = torch.ones(6, 2, length, dtype=torch.bool)
        steps[::2] = name not in missing  # every other student lacks it
        made[name] = (torch.randn(6, 2, length, width), steps)
    return made


BACKBONES = {
    "sum": "",
    "mlp": "backbone = 4",
    "transformer": "backbone = 4\nlayers = 1",
    "concat": 'backbone = { architecture = "concat", width = 4, modalities = ["clicks", "person"] }',
    "cross-attention": 'backbone = "cross-attention"',
    "experts": 'backbone = { architecture = "experts", width = 4 }',
}


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("missing", [frozenset(), frozenset({"voice"}), frozenset({"person"})], ids=str)
def test_the_old_tasks_have_equal_logits_before_and_after(
    tmp_path: Path, backbone: str, missing: frozenset[str]
) -> None:
    old, new = tmp_path / "before.toml", tmp_path / "after.toml"
    old.write_text(BEFORE.format(backbone=backbone))
    new.write_text(AFTER.format(backbone=backbone))
    charter = charter_of(old)
    changes = Changes(opening=opening_of(charter, 4, new, (None, None, 5)))
    after = amended(charter, schema.dump(Amendment(charter.federation, 1, changes)))
    assert {"encoder/voice", "head/digit"} <= after.specs.keys() - charter.specs.keys()
    inputs = inputs_of(missing)
    before, now = logits(charter, inputs), logits(after, inputs)
    assert torch.equal(before["passed"], now["passed"])
    assert before["passed"].abs().sum() > 0
    assert now["digit"].shape == (6, 2, 3)
