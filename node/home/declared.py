"""Compares an institution's declarations with its data: for its operator only; it decides nothing (G6)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...protocol.charter import Charter
from ..data.arrays import Dataset
from ..data.fits import check_fit, reads_of
from ..data.manifest import read_manifest
from .config import Config
from .policies import declared_students, parts_here

FAR = 2  # times more or fewer


def data_warnings(config: Config, charter: Charter, subjects: int, labels: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return (problem, advice) where data and declarations are far apart.

    `subjects` is the number in the data, `labels` for each task of the data the number with a label.
    """
    warnings = []
    learning, declared = charter.learning, declared_students(config, charter)
    rate = learning.sample_rate / 1_000_000
    if config.learning.contribute and not learning.enough(round(config.learning.lot_size * 1000)):
        warnings.append(
            (
                f"{declared or 'no'} students are declared, and the charter asks for {learning.min_students}:"
                " this node hosts and does not train",
                f"Set [learning] lot_size to {rate:g} times the number of students that you expect, if it is enough.",
            )
        )
    elif declared and not declared <= FAR * subjects <= FAR * FAR * declared:
        warnings.append(
            (
                f"lot_size declares {declared} students, and the data have {subjects}",
                f"Set [learning] lot_size near {rate:g} times the number that you expect, not counted from the data.",
            )
        )
    wanted = {task.name for task in learning.tasks}
    warnings += [
        (
            f"nobody has a label of task {name!r}: what is trained of it is noise, and spends the budget",
            "Check the task's column in dataset.toml, or take the task out of it.",
        )
        for name, count in sorted(labels.items())
        if not count and name in wanted
    ]
    return warnings


def check_folder(config: Config, charter: Charter, folder: Path, data: Dataset) -> None:
    """Compare a data folder with the charter, as the built-in learner does on opening it. Raises UsageError.

    The requirements of an operator's own learner are unknown here.
    """
    if config.learning.learner:
        return
    parts = parts_here(replace(config, data=replace(config.data, path=folder)), charter)
    specs = {spec.name: spec for spec in charter.components if spec.name in parts.held}
    manifests, withheld = [read_manifest(folder)], frozenset(parts.withheld)
    reads = reads_of(manifests, specs, charter.learning, charter.components, withheld)
    check_fit([data], manifests, charter.learning, specs, reads)
