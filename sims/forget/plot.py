"""The figures of an audit as a picture."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from ...crypto.extras import extra


def draw(report: Mapping[str, Any]) -> bytes:
    """Return a PNG: guesses and canaries with their intervals, distances to the retrained model, and wall time."""
    with extra("plots"):  # a second that a table need not wait
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    rows = report["models"]
    names = [row["model"] for row in rows]
    figure = Figure(figsize=(13, 4.2))
    FigureCanvasAgg(figure)
    guesses, apart, time = figure.subplots(1, 3)
    for number, (key, label) in enumerate((("rmia", "RMIA"), ("lira", "LiRA"), ("canaries", "planted canaries"))):
        if rows[0][key] is None:
            continue
        values = [row[key]["auc"] for row in rows]
        errors = [
            [row[key]["auc"] - row[key]["low"] for row in rows],
            [row[key]["high"] - row[key]["auc"] for row in rows],
        ]
        places = [row + 0.2 * (number - 1) for row in range(len(rows))]
        guesses.errorbar(places, values, yerr=errors, fmt="o", capsize=3, label=label)
    guesses.axhline(0.5, color="grey", linewidth=0.8)
    guesses.set_ylabel("AUC, 95 % interval; 0.5 reveals nothing")
    guesses.legend(fontsize=8)
    places = list(range(len(rows)))
    apart.bar([x - 0.2 for x in places], [row["weights_apart"] for row in rows], 0.4, label="weights, L2")
    apart.bar(
        [x + 0.2 for x in places],
        [row["probabilities_apart"] for row in rows],
        0.4,
        label="probabilities, largest",
    )
    apart.set_ylabel("distance to the retrained model")
    apart.legend(fontsize=8)
    time.bar(places, [max(1e-4, row["seconds"]) for row in rows])
    time.set_yscale("log")
    time.set_ylabel("seconds")
    for axes in (guesses, apart, time):
        axes.set_xticks(places, names, rotation=30, ha="right", fontsize=8, parse_math=False)
    epsilon = "∞" if report["epsilon"] is None else f"{report['epsilon']:g}"
    withdrawn = f"{report['member']} withdrawn after {report['rounds']} rounds"
    title = f"{report['dataset']}, {withdrawn}, ε = {epsilon}: a simulation"
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.tight_layout()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
