"""Which columns of a house's tables feed a federation's modalities and tasks, for whoever answers for the data."""

from typing import TypedDict

from ...protocol.learning import Learning
from .entries import Manifest, ModalityEntry


class Feed(TypedDict):
    """A modality or a task of the charter, the file that it is read from, and the columns.

    `columns` are names as dataset.toml has them; of an image's pixels one that ends in "…", for all that begin so.
    """

    what: str
    name: str
    file: str
    columns: list[str]


class HouseColumns(TypedDict):
    """Columns that feed the training (`feeds`), those that only tell students apart, and those for figures here."""

    feeds: list[Feed]
    keys: list[str]
    groups: list[str]


def house_columns(manifest: Manifest, learning: Learning) -> HouseColumns:
    """Return the columns of a data folder that are read under a charter, in the order of dataset.toml."""
    modalities, tasks = {m.name for m in learning.modalities}, {task.name for task in learning.tasks}
    feeds: list[Feed] = [
        {"what": "modality", "name": m.name, "file": manifest.tables[m.table].path.name, "columns": _columns(m)}
        for m in manifest.modalities
        if m.name in modalities
    ]
    feeds += [
        {"what": "task", "name": t.name, "file": manifest.tables[t.table].path.name, "columns": [t.column]}
        for t in manifest.tasks
        if t.name in tasks
    ]
    keys = [table.key for table in manifest.tables.values()] + ([manifest.subject] if manifest.subject else [])
    return {"feeds": feeds, "keys": list(dict.fromkeys(keys)), "groups": [group.name for group in manifest.groups]}


def _columns(entry: ModalityEntry) -> list[str]:
    names = [column.name for column in entry.columns] or list(entry.segments)
    names += [f"{entry.prefix}…"] if entry.prefix else []
    names += [entry.file] if entry.file else []
    return names + [column for column in (entry.time, entry.order) if column]
