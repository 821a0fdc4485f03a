"""chrF2 of texts against what a person wrote: how many runs of one to six characters they share (Popović 2015, 2017).

    chrF = 100 · 5·P·R / (4·P + R)

P and R are the means of precision and recall over n = 1 … 6, each over all texts together; white space does not count.
An n for which one side has no run is left out. These are sacrebleu's defaults (nc:6, nw:0, β = 2).
"""

from collections import Counter
from collections.abc import Sequence

LONGEST = 6
WEIGHT = 4.0  # β²: recall counts twice as much


def chrf(texts: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the score of texts for the texts that were wanted, 0 to 100; 0 for none. Raises ValueError."""
    pairs = [("".join(a.split()), "".join(b.split())) for a, b in zip(texts, wanted, strict=True)]
    precisions, recalls = [], []
    for n in range(1, LONGEST + 1):
        runs = [(_runs(a, n), _runs(b, n)) for a, b in pairs]
        written, asked = (sum(pair[side].total() for pair in runs) for side in (0, 1))
        if written and asked:
            shared = sum((a & b).total() for a, b in runs)
            precisions.append(shared / written)
            recalls.append(shared / asked)
    if not any(precisions):
        return 0.0
    precision, recall = (sum(values) / len(values) for values in (precisions, recalls))
    return 100.0 * (1.0 + WEIGHT) * precision * recall / (WEIGHT * precision + recall)


def _runs(text: str, n: int) -> Counter[str]:
    return Counter(text[start : start + n] for start in range(len(text) - n + 1))
