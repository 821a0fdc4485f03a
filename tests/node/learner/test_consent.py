"""Who does not consent is in nothing that the learner computes, and a lapse of all does not stop it."""

from pathlib import Path

import numpy as np
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.learner.answers import Opened
from collegium.node.learner.messages import Engagement, Evaluate, Open, Predict, Train
from collegium.node.learner.worker import Worker
from collegium.protocol.components import ComponentSpec, TensorSpec, base_digest, base_vector
from collegium.protocol.learning import Learning, Modality, PrivacyFloor, Task

from .asking import ask
from .test_dpsgd import SEED

STUDENTS = 24
TOML = """
[unit]
kind = "record"
consent = "consent"
consent_yes = ["yes"]
consent_until = "until"
[tables.rows]
path = "rows.csv"
key = "student"
[[modality]]
name = "table"
kind = "tabular"
columns = [COLUMNS]
[[task]]
name = "pass"
kind = "binary"
column = "passed"
positive = "1"
[split]
share = 0.25
salt = "s"
"""


class House:
    """Students with a feature of their own each and a linear map of it: an update shows who was in. The consent of the
    first three lapses after July, those of all others in December; `no` never gave one."""

    def __init__(self, folder: Path, no: int = 5) -> None:
        self.folder, self.worker = folder, Worker()
        names = ",".join(f"f{n}" for n in range(STUDENTS))
        rows = []
        for n in range(STUDENTS):
            features = ",".join("1" if n == m else "0" for m in range(STUDENTS))
            until = "2026-07-31" if n < 3 else "2026-12-31"
            rows.append(f"s{n},{features},{n % 2},{'no' if n == no else 'yes'},{until}")
        (folder / "rows.csv").write_text("\n".join([f"student,{names},passed,consent,until", *rows]))
        columns = ", ".join(f'{{ name = "f{n}", low = -1, high = 1 }}' for n in range(STUDENTS))
        (folder / "dataset.toml").write_text(TOML.replace("COLUMNS", columns))

    def opened(self, day: str) -> Opened:
        shapes: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
            "head/pass": ("linear", {"linear.weight": (2, 1), "linear.bias": (2,)}),
            "skip/pass": ("linear-skip", {"table.weight": (2, STUDENTS)}),
        }
        specs = []
        for name, (architecture, tensors) in shapes.items():
            own = tuple(TensorSpec(tensor, shape, 500_000) for tensor, shape in tensors.items())
            base = base_digest(base_vector(SEED, name, own))
            rest = (14, 16, "mean", 1, 1_000_000, 1_000_000, 1_000_000, base)
            specs.append(ComponentSpec(name, architecture, own, *rest))
        learning = Learning(
            (Modality("table", "tabular", STUDENTS, 1),), (Task("pass", "binary", 2, ("table",)),),
            (PrivacyFloor("table", "dp", 1000, 10),), 4, 1_000_000, 0, 1,
        )  # fmt: skip
        private = str(self.folder / "private")
        return ask(
            self.worker,
            Open((str(self.folder),), tuple(specs), learning, SEED, tuple(shapes), private=private, day=day),
        )

    def drawn(self) -> set[str]:
        """The students in an update without noise for which everybody is drawn."""
        rules = dict.fromkeys(("head/pass", "skip/pass"), Engagement(1.0, 0.0, 1.0))
        answer = ask(self.worker, Train({}, rules, 1, sample_rate=1.0, lot=8.0))
        values = np.frombuffer(answer.updates["skip/pass"], "<i2").reshape(2, STUDENTS)
        inside = {f"s{n}" for n in np.flatnonzero(np.abs(values).sum(0))}
        assert set(answer.subjects or ()) == inside
        return inside

    def evaluated(self) -> int:
        return ask(self.worker, Evaluate({})).tasks["pass"].n


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_g6_who_does_not_consent_on_the_day_is_in_no_draw_no_evaluation_and_no_prediction(house: House) -> None:
    before = house.opened("2026-07-31")
    assert before.refused == ("s5",)
    trained = house.drawn()
    assert before.subjects + before.held_out == len(trained) + house.evaluated() == STUDENTS - 1
    after = house.opened("2026-08-01")
    assert after.refused == ("s0", "s1", "s2", "s5")
    assert after.consents == {"yes": STUDENTS - 4, "no": 1, "lapsed": 3, "unreadable": 0}
    assert house.drawn() == trained - {"s0", "s1", "s2", "s5"}
    assert len(house.drawn()) + house.evaluated() == STUDENTS - 4
    parts = house.worker.session("").parts.values()  # the home layer and private adapters learn from these as well
    assert {name for part in parts for name in part.subjects} == {f"s{n}" for n in range(3, STUDENTS) if n != 5}
    assert set(after.everybody or ()) == {f"s{n}" for n in range(STUDENTS)}, "and all are still known by their ids"
    file = house.folder / "new.csv"
    rows = [line.rsplit(",", 3)[0] for line in (house.folder / "rows.csv").read_text().splitlines()]
    file.write_text("\n".join(rows))
    predicted = ask(house.worker, Predict({}, str(file)))
    assert set(predicted.records) == {f"s{n}" for n in range(3, STUDENTS) if n != 5}
    assert predicted.without_consent == 4
    file.write_text("\n".join(rows[:4]))
    with pytest.raises(UsageError, match="nobody in it consents"):
        ask(house.worker, Predict({}, str(file)))


def test_g6_a_lapse_of_all_does_not_stop_a_learner_so_that_nobody_sees_it(house: House) -> None:
    house.opened("2027-01-01")
    assert house.drawn() == set()
    noise = dict.fromkeys(("head/pass", "skip/pass"), Engagement(1.0, 1.0, 1.0))
    answer = ask(house.worker, Train({}, noise, 2, sample_rate=0.5, lot=8.0))
    assert any(np.frombuffer(answer.updates["skip/pass"], "<i2")), "an update of noise alone, as always"
    assert answer.subjects == ()
    assert house.evaluated() == 0
