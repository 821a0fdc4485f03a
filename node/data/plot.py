"""Each tabular column by label, as a picture for the machine that holds the data."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError
from ...crypto.extras import extra
from .arrays import Dataset, TaskArray
from .entries import CategoricalColumn, Column, ModalityEntry
from .leaks import columns_of

PANELS, WIDE, BINS, CLASSES = 120, 4, 20, 8  # panels in all and in a row, bars of numbers, classes plotted separately
Mask = npt.NDArray[np.bool_]
Part = tuple[str, Mask]


def draw(data: Dataset, entries: Sequence[ModalityEntry]) -> bytes:
    """Return a PNG: for each task and column the share of each value among the records of each class.

    Raises UsageError: no column to plot, or too many; or matplotlib is not installed.
    """
    with extra("plots"):  # a second that a table need not wait
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    panels = [
        (task, column, values)
        for task in data.tasks.values()
        for entry in entries
        if entry.kind == "tabular"
        for column, values in columns_of(data.modalities[entry.name], entry.columns)
    ]
    if not 0 < len(panels) <= PANELS:
        what = f"there are {len(panels)} pairs of a tabular column and a task to plot"
        raise UsageError(what, f"--plot shows from 1 to {PANELS}.")
    rows = -(-len(panels) // WIDE)
    figure = Figure(figsize=(4 * WIDE, 2.8 * rows))
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, WIDE, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, (task, column, values) in zip(grid, panels, strict=False):
        axes.set_axis_on()
        _panel(axes, column, values, _parts(task, data.weights > 0))
        axes.set_title(f"{column.name} by {task.name}", fontsize=9, parse_math=False)
    figure.tight_layout()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return out.getvalue()


def _parts(task: TaskArray, there: Mask) -> list[Part]:
    """Return the records of each class; for numbers those of the lower and of the upper half of their bounds."""
    if task.kind == "multilabel":
        return [(name, there & (task.labels[:, :, n] == 1)) for n, name in enumerate(task.class_names[:CLASSES])]
    labels = task.labels[:, :, 0]
    if task.kind == "regression":
        middle = f"{(task.low + task.high) / 2:g}"
        return [(f"below {middle}", there & (labels < 0)), (f"from {middle}", there & (labels >= 0))]
    return [(name, there & (labels == n)) for n, name in enumerate(task.class_names[:CLASSES])]


def _panel(axes: Any, column: Column, values: npt.NDArray[np.float64], parts: Sequence[Part]) -> None:
    if isinstance(column, CategoricalColumn):
        names = [*column.levels, "other"]
        edges, width = np.arange(len(names) + 1) - 0.5, 0.8 / max(1, len(parts))
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7, parse_math=False)
    else:
        values = (values + 1.0) / 2.0 * (column.high - column.low) + column.low
        edges, width = np.linspace(column.low, column.high, BINS + 1), 0.0
        axes.tick_params(labelsize=7)
    for number, (name, here) in enumerate(parts):
        chosen = values[here & ~np.isnan(values)]
        if not chosen.size:
            continue
        shares = np.histogram(chosen, edges)[0] / chosen.size
        if width:
            axes.bar(np.arange(len(shares)) - 0.4 + width * (number + 0.5), shares, width, label=name)
        else:
            axes.stairs(shares, edges, label=name, fill=True, alpha=0.45)
    legend = axes.legend(fontsize=7)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_ylabel("share of the class", fontsize=7)
