"""Compares an institution's declarations with its data: for its operator only; it decides nothing (G6)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...protocol.charter import Charter
from ...protocol.learning import Learning
from ..data.arrays import Dataset
from ..data.entries import Manifest
from ..data.fits import check_fit, declared_misfits, reads_of
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
    rate = learning.drawn
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


def charter_misfits(config: Config, charter: Charter) -> list[str]:
    """Return where the home's dataset.toml does not fit the charter, a sentence each; no table is read.

    Raises OperatorError for a dataset.toml or configuration that cannot be read.
    """
    folder = config.data.path
    if folder is None or config.learning.learner:
        return []
    manifest, parts = read_manifest(folder), parts_here(config, charter)
    learning, names = charter.learning, set(parts.held)
    reads = {modality.name for modality in learning.modalities} - set(parts.withheld)
    shared = {entry.name for entry in manifest.modalities} & {modality.name for modality in learning.modalities}
    if not shared or not {entry.name for entry in manifest.tasks} & {task.name for task in learning.tasks}:
        ours, theirs = _named(manifest), _named(learning)
        return [f"nothing of {folder} is learned from: it has {ours}, the charter {theirs}"]
    return declared_misfits(manifest, learning, names, reads)


def _named(what: Manifest | Learning) -> str:
    modalities, tasks = (", ".join(one.name for one in many) or "none" for many in (what.modalities, what.tasks))
    return f"modalities {modalities} and tasks {tasks}"


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
