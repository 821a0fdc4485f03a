"""The session that `open` prepares: an institution's data, the specs and bases of its components."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind, of_kind, parse_name
from ...protocol.components import ComponentSpec, base_digest, base_vector, weights
from ...protocol.learning import GENERATE, Learning
from ..architectures import check_here
from ..data.arrays import Dataset, load, load_file
from ..data.fits import check_fit, check_shapes, reads_of
from ..data.manifest import read_manifest
from ..pretrained.layers import checked_base
from ..unlearning.students import Excluded
from . import writing
from .answers import BadRequestError
from .dpsgd import Batch
from .embedder import Embedder, Progress, Texts, read_by_models
from .messages import Open, PrivateAdapter, Split
from .model import M3TModel
from .named import embedded_names
from .parallel import ALONE, Team
from .parallel import device as device_of
from .randomness import Randomness, randomness
from .stack import Correction

Vector = npt.NDArray[np.float32]
SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")


@dataclass(frozen=True, slots=True)
class SplitData:
    """The students of one split: their batch, names, and the groups of their records (levels, codes [S, K]).

    `tokens` are the ids [S, K, T, L] of texts that the batch holds as embeddings, where private adapters read them.
    """

    batch: Batch
    subjects: tuple[str, ...]
    groups: Mapping[str, tuple[tuple[str, ...], npt.NDArray[np.int64]]]
    records: npt.NDArray[np.object_]
    tokens: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """An opened institution.

    `reads` are the modalities of the hosted components, `withheld` those that no shared update may see, `adapted` the
    texts that get `private_adapter`. `home_layers` has the last one, by its states (home_layer.py)."""

    specs: dict[str, ComponentSpec]
    bases: dict[str, Vector]
    learning: Learning
    seed: bytes
    parts: dict[str, SplitData]
    class_names: dict[str, tuple[str, ...]]
    ranges: dict[str, tuple[float, float]]
    source: Randomness
    device: torch.device
    texts: Texts
    folder: Path
    reads: frozenset[str]
    withheld: frozenset[str]
    home_layer: bool
    private: Path | None = None
    private_adapter: PrivateAdapter | None = None
    adapted: frozenset[str] = frozenset()
    everybody: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()  # ids without consent: of no use, not even to predict for
    cut: dict[str, int] = field(default_factory=dict)  # by text modality: the number of records that are read in part
    hidden: dict[str, dict[bytes, Tensor]] = field(default_factory=dict)  # by modality to write from (writer.py)
    team: Team = ALONE
    home_layers: dict[bytes, dict[str, Correction]] = field(default_factory=dict)
    named: dict[str, Tensor] = field(default_factory=dict)  # by task: the embeddings of its classes' names

    def within(self, team: Team) -> "Session":
        """Return the session of one process of a team, on a GPU of its own if each process has one."""
        own = device_of(team)
        return replace(self, team=team, device=self.device if own.type == "cpu" else own)

    def embedder(self, progress: Progress | None = None) -> Embedder:
        """Return what reads this session's records by pretrained models."""
        return Embedder(self.learning, self.specs, self.texts, self.live, progress, self.device)

    @property
    def modules(self) -> dict[str, ComponentSpec]:
        """The hosted components that are parts of the model: all but the statistics."""
        return {name: spec for name, spec in self.specs.items() if not spec.is_statistic}

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each hosted task."""
        return {task.name: task.kind for task in self.learning.tasks if task.carrier in self.specs}

    @property
    def live(self) -> frozenset[str]:
        """The text modalities whose encoder is adapted here: they are read as tokens, not as cached embeddings."""
        return frozenset(of_kind(ComponentKind.ADAPTER, self.specs) + of_kind(ComponentKind.PROMPT, self.specs))


def open_session(request: Open, progress: Progress | None = None) -> tuple[Session, list[Dataset]]:
    """Load the data and check that they fit the charter. Raises UsageError or CorruptError, with advice.

    With `purge` the embeddings of students not in the data are deleted from the disk, even if the data do not fit then.
    An excluded student counts as not in the data. `progress` is called while texts are embedded.
    """
    components, learning = request.components, request.learning
    folders_of_models = {name: Path(path) for name, path in request.models.items()}
    specs, bases = specs_of(components, request.base_seed, request.hosted, learning, folders_of_models)
    check_here(specs.values())
    withheld = frozenset(request.withheld)
    for name in sorted(withheld):
        for spec in [spec for spec in specs if parse_name(spec).modality == name]:
            raise BadRequestError(f"{spec} is hosted, but the policy for {name!r} is never")
    folders = [Path(name) for name in request.data]
    manifests = [read_manifest(folder) for folder in folders]
    reads = reads_of(manifests, specs, learning, components, withheld)
    wanted = reads | (withheld if request.home_layer else frozenset())
    kept = read_by_models(learning)
    day = None if request.day is None else date.fromisoformat(request.day)
    sets = [load(folder, only_modalities=wanted, tolerant=True, kept=kept, day=day) for folder in folders]
    everybody = tuple(subject for data in sets for subject in data.everybody)
    if request.excluded is not None:
        excluded = Excluded(request.excluded.salt, frozenset(request.excluded.tags))
        sets = [data.without(excluded.has) for data in sets]
    texts = Texts(
        folders_of_models,
        Path(request.cache) if request.cache is not None else None,
        read_only=request.cache_read_only,
    )
    if request.purge:
        _purge(texts.cache, {subject for data in sets for subject in data.subjects})
    check_fit(sets, manifests, learning, specs, reads)
    private, private_adapter, adapted = request.private, request.private_adapter, frozenset[str]()
    if private is None:
        private_adapter = None
    if private_adapter is not None:
        here = wanted & {name for data in sets for name in data.modalities}
        embedded = [m for m in learning.modalities if m.kind == "text" and m.pretrained]
        adapted = frozenset(m.name for m in embedded if m.name in here and m.name not in learning.writers)
    session = Session(
        specs, bases, learning, request.base_seed, {}, {}, {}, randomness(request.seed), _device(), texts, folders[0],
        reads, withheld, request.home_layer, Path(private) if private is not None else None, private_adapter, adapted,
        everybody, frozenset(subject for data in sets for subject in data.refused),
    )  # fmt: skip
    for data in sets:
        for name, task in data.tasks.items():
            session.class_names[name], session.ranges[name] = task.class_names, (task.low, task.high)
    session.named.update(embedded_names(specs, learning, session.class_names, session.embedder().encoder))
    _read(session, sets, wanted, request.validation, progress)
    if session.parts["train"].batch.size == 0 and not session.refused:  # else others would see that all consents lapsed
        raise UsageError(f"{folders[0]}: every subject is held out", "Lower the share of the split.")
    return session, sets


def _read(
    session: Session, sets: Sequence[Dataset], wanted: Collection[str], validation: float, progress: Progress | None
) -> None:
    """Fill in the session's splits, and the numbers of texts that are cut."""
    embedder = session.embedder(progress)
    for data in sets:
        for name in sorted(wanted):
            text = data.modalities.get(name)
            if text is not None and text.kind == "text" and name not in session.learning.writers:
                session.cut[name] = session.cut.get(name, 0) + embedder.cut(text)
    whole = [_batch(data, session, wanted, embedder) for data in sets]
    tokens = [_tokens(data, session, embedder) for data in sets]
    for split in SPLITS:
        parts = [
            _split(data, batch, ids, split, validation) for data, batch, ids in zip(sets, whole, tokens, strict=True)
        ]
        session.parts[split] = _pooled(parts)


def specs_of(
    components: tuple[ComponentSpec, ...],
    base_seed: bytes,
    hosted: Collection[str],
    learning: Learning,
    models: Mapping[str, Path],
) -> tuple[dict[str, ComponentSpec], dict[str, Vector]]:
    """Return the hosted specs and their bases, each checked against its digest.

    `models` are this machine's folders of pretrained models. Raises BadRequestError, UsageError.
    """
    by_name = {spec.name: spec for spec in components}
    for name in hosted:
        if name not in by_name:
            raise BadRequestError(f"component {name!r} is not in the charter", f"The charter has {', '.join(by_name)}.")
    specs = {spec.name: spec for spec in components if spec.name in hosted}
    bases = {}
    for name, spec in specs.items():
        if spec.starts_pretrained:
            bases[name] = checked_base(spec, learning, models)
            continue
        bases[name] = base_vector(base_seed, name, spec.tensors)
        if base_digest(bases[name]) != spec.base:
            advice = "The charter's seed and its specs do not belong together, or this build expands seeds otherwise."
            raise BadRequestError(f"component {name!r}: initial weights differ from the charter's", advice)
    return specs, bases


def load_states(session: Session, states: Mapping[str, bytes]) -> dict[str, Vector]:
    """Return the weights [d] of `states` (int32 little-endian bytes; a component not named: its base).

    Statistics have none.
    """
    for name in states:
        if name not in session.specs:
            raise BadRequestError(f"a state for {name!r}, which is not hosted here")
    loaded = {}
    for name, spec in session.modules.items():
        raw = states.get(name, bytes(4 * spec.dimension))
        if len(raw) != 4 * spec.dimension:
            raise BadRequestError(f"the state of {name!r} has {len(raw)} bytes, not {4 * spec.dimension}")
        loaded[name] = weights(session.bases[name], np.frombuffer(raw, dtype="<i4").astype(np.int32), spec)
    return loaded


def build(session: Session, states: Mapping[str, bytes]) -> M3TModel:
    """Return the model with the weights of `states`."""
    vectors = load_states(session, states)
    embedder = session.embedder()
    texts = {
        name: writing.writer(session, name) if name in session.learning.writers else embedder.encoder(name, fresh=True)
        for name in session.live
    }
    model = M3TModel(list(session.modules.values()), session.learning, session.seed, texts, session.named)
    for name, spec in session.modules.items():
        model.load(spec, vectors[name])
    return model.to(session.device)


def records_of(session: Session, file: Path) -> tuple[Dataset, SplitData]:
    """Read records to predict: a CSV or Parquet file, or a folder. Raises UsageError or CorruptError."""
    # Withheld modalities are read for the home layer only.
    wanted = session.reads | (session.withheld if session.home_layer else frozenset())
    data = load_file(session.folder, file, only_modalities=wanted, kept=read_by_models(session.learning))
    refused = tuple(sorted({*data.refused, *session.refused.intersection(data.subjects)}))
    data = replace(data.without(session.refused.__contains__), refused=refused)
    if not data.subjects:
        raise UsageError(f"{file}: nobody in it consents", "Predictions are for students who consent: docs/data.md.")
    check_shapes([data], session.learning, session.specs, wanted, labelled=False)
    embedder = session.embedder()
    batch = _batch(data, session, wanted, embedder)
    return data, _split(data, batch, _tokens(data, session, embedder), "held_out", 0.0)


def _purge(path: Path | None, subjects: Collection[str]) -> None:
    """Delete the cache's rows of subjects that are no longer in the data."""
    if path is None or not path.exists():
        return
    from .cache import EmbeddingCache  # noqa: PLC0415  # only who has text needs it

    with EmbeddingCache(path) as cache:
        cache.keep_only(subjects)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _batch(data: Dataset, session: Session, wanted: Collection[str], embedder: Embedder) -> Batch:
    """Return the batch of an institution's students; modalities that it lacks are missing in every record."""
    students, records = data.weights.shape
    inputs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in sorted(wanted):
        modality, array = embedder.modality(name), data.modalities.get(name)
        if name in session.learning.writers:
            inputs[name] = (
                writing.nothing_to_write(students, records)
                if array is None
                else writing.to_write(session, array, data, embedder.progress)
            )
        elif array is None:
            inputs[name] = (torch.zeros(students, records, 1, modality.width), torch.zeros(students, records, 1) > 0)
        elif modality.pretrained and name not in session.live:
            inputs[name] = (embedder.embeddings(array, data), torch.from_numpy(array.steps))
        elif array.kind == "text":
            inputs[name] = (embedder.tokens(array), torch.from_numpy(array.steps))
        else:
            inputs[name] = (torch.from_numpy(array.values), torch.from_numpy(array.steps))
    labels = {}
    for task in session.learning.tasks:
        if task.carrier in session.specs and task.kind == GENERATE:
            labels[task.name] = writing.answer_lengths(*inputs[task.modalities[0]])
        elif task.carrier in session.specs:
            size = task.classes if task.kind == "multilabel" else 1
            task_array = data.tasks.get(task.name)
            labels[task.name] = (
                torch.full((students, records, size), torch.nan)
                if task_array is None
                else torch.from_numpy(task_array.labels)
            )
    return Batch(torch.from_numpy(data.weights), inputs, labels)


def _tokens(data: Dataset, session: Session, embedder: Embedder) -> dict[str, Tensor]:
    """Return the token ids of the texts that get a private adapter and are read as embeddings otherwise."""
    arrays = {name: data.modalities.get(name) for name in sorted(session.adapted - session.live)}
    missing = torch.full((*data.weights.shape, 1, 1), -1, dtype=torch.int64)
    return {name: missing if texts is None else embedder.tokens(texts) for name, texts in arrays.items()}


def _split(data: Dataset, batch: Batch, tokens: Mapping[str, Tensor], split: str, validation: float) -> SplitData:
    aside = np.array([_fraction(name) < validation for name in data.subjects], dtype=np.bool_)
    chosen = {
        "train": ~data.held_out & ~aside,
        "validation": ~data.held_out & aside,
        "held_out": data.held_out,
    }[split]
    index = np.flatnonzero(chosen)
    groups = {name: (group.levels, group.codes[index]) for name, group in data.groups.items()}
    subjects = tuple(data.subjects[row] for row in index.tolist())
    rows = torch.from_numpy(index)
    ids = {name: rows_of[rows] for name, rows_of in tokens.items()}
    return SplitData(_take(batch, rows), subjects, groups, data.records[index], ids)


def _take(batch: Batch, rows: Tensor) -> Batch:
    inputs = {name: (values[rows], steps[rows]) for name, (values, steps) in batch.inputs.items()}
    return Batch(batch.weights[rows], inputs, {name: labels[rows] for name, labels in batch.labels.items()})


def _fraction(subject: str) -> float:
    return int.from_bytes(sha256(b"validation" + subject.encode()).digest()[:8], "big") / 2.0**64


def _pooled(parts: Sequence[SplitData]) -> SplitData:
    """Put the students of several institutions into one batch; smaller ones are padded with nothing."""
    if len(parts) == 1:
        return parts[0]
    batches = [part.batch for part in parts]
    records = max(int(batch.weights.shape[1]) for batch in batches)
    inputs = {}
    for name in batches[0].inputs:
        pairs = [batch.inputs[name] for batch in batches]
        length = max(int(steps.shape[2]) for _, steps in pairs)
        width = max(int(values.shape[3]) for values, _ in pairs)
        fill = 0 if pairs[0][0].is_floating_point() else -1
        inputs[name] = (
            torch.cat([_padded(values, (records, length, width), fill) for values, _ in pairs]),
            torch.cat([_padded(steps, (records, length), 0) for _, steps in pairs]),
        )
    labels = {
        name: torch.cat([_padded(b.labels[name], (records, b.labels[name].shape[2]), torch.nan) for b in batches])
        for name in batches[0].labels
    }
    weights = torch.cat([_padded(batch.weights, (records,), 0) for batch in batches])
    names = tuple(f"{number}:{name}" for number, part in enumerate(parts) for name in part.subjects)
    held = [np.pad(p.records, ((0, 0), (0, records - p.records.shape[1])), constant_values="") for p in parts]
    tokens = {}
    for name in parts[0].tokens:
        blocks = [part.tokens[name] for part in parts]
        sizes = (records, max(int(ids.shape[2]) for ids in blocks), max(int(ids.shape[3]) for ids in blocks))
        tokens[name] = torch.cat([_padded(ids, sizes, -1) for ids in blocks])
    return SplitData(Batch(weights, inputs, labels), names, {}, np.concatenate(held), tokens)


def _padded(tensor: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    missing = [
        n for size, have in zip(reversed(shape), reversed(tensor.shape[1:]), strict=True) for n in (0, size - have)
    ]
    return pad(tensor, missing, value=fill) if any(missing) else tensor
