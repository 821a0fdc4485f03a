"""`equity show` as a picture: missed and falsely flagged by group, with their intervals."""

from collections.abc import Sequence
from io import BytesIO

from ...crypto.extras import extra
from .equity import EquityShown

COLOURS = {"missed": "#3b6ea5", "falsely flagged": "#d98c3f"}


def png(tasks: Sequence[EquityShown]) -> bytes:
    """Return a panel for each task as a PNG; a group under 50 students has no bar."""
    with extra("plots"):  # a second that a table need not wait
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    rows = [max(1, len(task["groups"])) for task in tasks]
    figure = Figure(figsize=(8, sum(1.4 + 0.5 * count for count in rows)))
    FigureCanvasAgg(figure)
    for axes, task in zip(figure.subplots(len(tasks), squeeze=False)[:, 0], tasks, strict=True):
        for offset, (name, colour) in zip((0.0, 0.4), COLOURS.items(), strict=True):
            bars = [
                (line + offset, found)
                for line, group in enumerate(task["groups"])
                if (found := group["missed"] if name == "missed" else group["falsely_flagged"]) is not None
            ]
            axes.barh(
                [place for place, _ in bars],
                [found["value"] for _, found in bars],
                0.38,
                xerr=[(found["high"] - found["low"]) / 2.0 for _, found in bars],
                label=name,
                color=colour,
            )
        labels = [f"{group['attribute']} {group['level']}" for group in task["groups"]]
        axes.set_yticks([line + 0.2 for line in range(len(labels))], labels, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.set_title(f"{task['task']}: share of students, with 95 % intervals", fontsize=9, parse_math=False)
        axes.legend(loc="lower right")
    figure.tight_layout()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
