"""Make byzfl.json with byzfl 0.0.11: its aggregators on integer updates, and its attacks.

byzfl is no dependency. In an environment of its own, with stand-ins for two packages that it imports and that no
aggregator or attack uses:

    python3 -m venv oracle
    oracle/bin/pip install torch==2.13.0 numpy scipy matplotlib
    oracle/bin/pip install --no-deps byzfl==0.0.11
    mkdir stub && touch stub/seaborn.py
    echo 'from unittest.mock import MagicMock; datasets = transforms = MagicMock()' > stub/torchvision.py
    PYTHONPATH=stub oracle/bin/python tests/vectors/byzfl/make_vectors.py tests/vectors/byzfl/byzfl.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import byzfl  # type: ignore[import-not-found]
import numpy as np
import numpy.typing as npt
from byzfl.attacks.attacks import (  # type: ignore[import-not-found]
    ALittleIsEnough,
    Gaussian,
    InnerProductManipulation,
    Mimic,
    Optimal_ALittleIsEnough,
    Optimal_InnerProductManipulation,
    SignFlipping,
)

Vectors = npt.NDArray[np.float64]
DIGITS = 12  # significant, of the floats written
D = 9
SIZES = ((4, 1), (5, 1), (7, 2), (10, 3), (13, 4))


def clipped(vectors: Vectors) -> Vectors:
    """Cap every norm at the lower median of the norms."""
    norms = sorted(float(np.linalg.norm(vector)) for vector in vectors)
    result: Vectors = byzfl.Clipping(c=norms[(len(norms) - 1) // 2])(vectors.copy())
    return result


def centred(vectors: Vectors) -> Vectors:
    """Three steps of centered clipping from the median, each with the lower median of the distances as radius."""
    centre: Vectors = byzfl.Median()(vectors.copy())
    for _ in range(3):
        distances = sorted(float(np.linalg.norm(vector - centre)) for vector in vectors)
        step = byzfl.CenteredClipping(L=1, tau=distances[(len(distances) - 1) // 2])
        step.m = centre
        centre = step(vectors.copy())
    return centre


def aggregated(vectors: Vectors, f: int) -> dict[str, list[float]]:
    """Return what every rule makes of the vectors."""
    trimmed, mixed = byzfl.TrMean(f=f), byzfl.NNM(f=f)
    results = {
        "trimmed_mean": trimmed(vectors.copy()),
        "median": byzfl.Median()(vectors.copy()),
        "multi_krum": byzfl.MultiKrum(f=f)(vectors.copy()),
        "nnm+trimmed_mean": trimmed(mixed(vectors.copy())),
        "clip+nnm+trimmed_mean": trimmed(mixed(clipped(vectors))),
        "centered_clipping": centred(vectors),
    }
    return {name: rounded(vector) for name, vector in results.items()}


def rounded(vector: Vectors) -> list[float]:
    """Return a vector as numbers for JSON."""
    return [float(f"{value:.{DIGITS}g}") for value in vector.tolist()]


def attacks(f: int) -> dict[str, Any]:
    """Return byzfl's attacks; the optimal ones against nearest-neighbour mixing with the trimmed mean."""
    against = {"agg": byzfl.TrMean(f=f), "pre_agg_list": [byzfl.NNM(f=f)], "f": f}
    return {
        "sign_flip": SignFlipping(),
        "inner_product": InnerProductManipulation(tau=2.0),
        "inner_product_optimal": Optimal_InnerProductManipulation(**against),
        "alie": ALittleIsEnough(tau=1.5),
        "alie_optimal": Optimal_ALittleIsEnough(**against),
        "mimic": Mimic(epsilon=1),
        "gaussian": Gaussian(mu=0.0, sigma=20.0),
    }


def main(path: Path) -> None:
    """Write the vectors."""
    source = np.random.Generator(np.random.PCG64(20))
    rules, made = [], []
    for width in (8, 16):
        spread, limit = (14.0, 127) if width == 8 else (3000.0, 2**15 - 1)
        for n, f in SIZES:
            honest = np.rint(source.normal(spread / 3, spread, (n - f, D)))
            honest = np.clip(honest, -limit, limit)
            for name, attack in {"none": None, **attacks(f)}.items():
                np.random.seed(7)  # byzfl's Gaussian draws from it
                if attack is None:
                    lies = np.rint(source.normal(spread / 3, spread, (f, D)))
                else:
                    lie = attack(honest.copy())
                    if width == 8:
                        made.append({"attack": name, "n": n, "f": f, "honest": honest.astype(int).tolist(),
                                     "lie": rounded(lie)})  # fmt: skip
                    lies = np.rint(np.stack([lie] * f))
                updates = np.clip(np.concatenate([honest, lies]), -limit, limit)
                updates = updates[source.permutation(n)]
                rules.append({"attack": name, "width": width, "f": f, "updates": updates.astype(int).tolist(),
                              "aggregates": aggregated(updates, f)})  # fmt: skip
    text = json.dumps({"byzfl": "0.0.11", "rules": rules, "attacks": made})
    path.write_text(text.replace('{"attack"', '\n{"attack"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
