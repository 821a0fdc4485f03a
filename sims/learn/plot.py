"""The figures of a study as a picture."""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

from ...crypto.extras import extra


def draw(name: str, results: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: the metric against ε for each mode with every seed, or by institution if there is one ε."""
    with extra("plots"):  # a second that other benchmarks need not wait
        import matplotlib as mpl  # noqa: PLC0415

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 4.5))
    rows = results["rows"]
    if len({row["epsilon"] for row in rows}) > 1:
        order = sorted({row["epsilon"] or inf for row in rows})
        for mode in dict.fromkeys(row["mode"] for row in rows):
            own = {row["epsilon"] or inf: row["values"] for row in rows if row["mode"] == mode}
            axes.plot(range(len(order)), [mean(own[e]) for e in order], marker="o", label=mode)
            for place, e in enumerate(order):
                axes.scatter([place] * len(own[e]), own[e], s=8, alpha=0.5)
        axes.set_xticks(range(len(order)), ["∞" if e == inf else f"{e:g}" for e in order])
        axes.set_xlabel("ε")
    else:
        names = list(rows[0]["institutions"])
        width = 0.8 / len(rows)
        for number, row in enumerate(rows):
            values = [row["institutions"].get(each, 0.0) for each in names]
            axes.bar([place + number * width for place in range(len(names))], values, width, label=row["mode"])
        axes.set_xticks([place + 0.4 for place in range(len(names))], names, rotation=30, ha="right")
    axes.set_ylabel(results["metric"])
    axes.set_title(f"{name}: {results['title']}", fontsize=9)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
