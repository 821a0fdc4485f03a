"""chrF equals what sacrebleu 2 gives for the same texts."""

import pytest

from collegium.sims.learn.chrf import chrf


@pytest.mark.parametrize(
    ("texts", "wanted", "score"),
    [
        (["The cat sat.", "Gut!"], ["The cat sits here.", "Sehr gut!"], 33.37823751488222),
        (["ab"], ["abc"], 63.636363636363626),
        (["", "x"], ["abc", "y"], 0.0),
        (["Grüße aus Köln"], ["Grüsse aus Köln"], 60.329338545767854),
        (["same text"], ["same  text"], 100.0),
        ([], [], 0.0),
    ],
)
def test_chrf_is_that_of_sacrebleu(texts: list[str], wanted: list[str], score: float) -> None:
    assert chrf(texts, wanted) == pytest.approx(score, abs=1e-9)
