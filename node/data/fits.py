"""Whether data match the charter: the learner checks when it opens them, and `data check` before that."""

from collections.abc import Collection, Mapping, Sequence

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind as Kind
from ...protocol.component_names import of_kind, parse_name
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning, Modality
from .arrays import Dataset, ModalityArray
from .entries import Manifest
from .layout import Layout, described, difference, guess, layout_digest, modality_layout, task_layout

MEND = (
    "Compare this dataset.toml with the founder's: declare the same columns, levels, bounds, times and classes, in the"
    " same order, as the other members do."
)


def reads_of(
    manifests: Sequence[Manifest],
    specs: Mapping[str, ComponentSpec],
    learning: Learning,
    components: Sequence[ComponentSpec],
    withheld: frozenset[str],
) -> frozenset[str]:
    """Return the modalities that the hosted components `specs` read of these folders. Raises UsageError if none.

    `components` are all that the charter has, `withheld` the modalities that no shared update may see.
    """
    declared = {entry.name for manifest in manifests for entry in manifest.modalities}
    reads = read_by(specs, learning, [spec.name for spec in components], declared) - withheld
    if not any(task.carrier in specs for task in learning.tasks) or not reads:
        if withheld:
            out = ", ".join(sorted(withheld))
            raise UsageError(
                f"no modality is left: the policy in force here keeps {out} out of training, so this node holds none of"
                " the components that read them, to train or to predict with",
                "`collegium doctor` says whose policy, and what to do.",
            )
        raise UsageError("nothing to train: no head or no encoder is hosted", "Host one of each at least.")
    return reads


def read_by(
    specs: Mapping[str, ComponentSpec], learning: Learning, charter: Collection[str], declared: Collection[str]
) -> frozenset[str]:
    """Return the modalities that the hosted components `specs` read, of those that a hosted task reads.

    These are the modalities with a hosted encoder. One to which the whole `charter` (names of components) gives no
    encoder is read by skips alone, where the data have it (`declared`). One that has an encoder, but not here, is not
    at this node or kept out of its training: no skip brings it back.
    """
    encoders = set(of_kind(Kind.ENCODER, specs))
    tasks = [task for task in learning.tasks if task.carrier in specs]
    tensors = [tensor for spec in specs.values() if parse_name(spec.name).kind is Kind.SKIP for tensor in spec.tensors]
    skips = {tensor.name.removesuffix(".weight") for tensor in tensors}
    bare = {name for name in skips & set(declared) if Kind.ENCODER.named(name) not in charter}
    seen = {modality for task in tasks for modality in task.modalities}
    written_from = {name for name in learning.writers if Kind.ADAPTER.named(name) in specs}
    return frozenset((encoders | bare | written_from) & seen)


def check_fit(
    sets: Sequence[Dataset],
    manifests: Sequence[Manifest],
    learning: Learning,
    specs: Mapping[str, ComponentSpec],
    reads: Collection[str],
) -> None:
    """Compare data and what their dataset.toml declare with the charter. Raises UsageError."""
    check_shapes(sets, learning, specs, reads)
    for manifest in manifests:
        misfits = layout_misfits(manifest, learning, specs, reads)
        if misfits:
            raise UsageError("; ".join(misfits), MEND)


def check_shapes(
    sets: Sequence[Dataset],
    learning: Learning,
    specs: Mapping[str, ComponentSpec],
    wanted: Collection[str],
    *,
    labelled: bool = True,
) -> None:
    """Compare kinds, widths, lengths and classes with the charter; unless `labelled`, data may lack a task.

    Raises UsageError.
    """
    modalities = {modality.name: modality for modality in learning.modalities}
    for name in sorted(wanted):
        charter, here = modalities.get(name), [data.modalities[name] for data in sets if name in data.modalities]
        if charter is None:
            raise UsageError(f"{Kind.ENCODER.named(name)}: the charter has no modality {name!r}")
        if not here and labelled:
            advice = f"Add the modality to dataset.toml, or do not host {Kind.ENCODER.named(name)}."
            raise UsageError(f"the data have no modality {name!r}", advice)
        for array in here:
            _fits(charter, array)
        _check_width(charter, specs)
    tasks = {task.name: task for task in learning.tasks}
    hosted = [*of_kind(Kind.HEAD, specs), *(task.name for task in learning.writers.values() if task.carrier in specs)]
    for name in hosted:
        if name not in tasks:
            raise UsageError(f"{Kind.HEAD.named(name)}: the charter has no task {name!r}")
        head = tasks[name].carrier
        if not any(name in data.tasks for data in sets) and labelled:
            advice = f"Add the task to dataset.toml, or do not host {head}."
            raise UsageError(f"the data have no task {name!r}", advice)
        task = tasks[name]
        for data in sets:
            here_task = data.tasks.get(name)
            if here_task is not None and (here_task.kind, here_task.classes) != (task.kind, task.classes):
                raise UsageError(
                    f"task {name!r}: the data have {here_task.kind} with {here_task.classes} classes,"
                    f" the charter {task.kind} with {task.classes}",
                    "Declare the same classes in dataset.toml as the other members do.",
                )
        outputs = {t.name: t.shape[0] for t in specs[head].tensors}.get("linear.weight", task.outputs)
        if outputs != task.outputs:
            raise UsageError(f"{head} has {outputs} outputs, a {task.kind} task of {task.classes} {task.outputs}")


def declared_misfits(
    manifest: Manifest, learning: Learning, specs: Collection[str], reads: Collection[str]
) -> list[str]:
    """Return where a dataset.toml does not fit the charter, a sentence each: all of `check_fit` that needs no data."""
    kinds = {m.name: m.kind for m in learning.modalities if m.name in reads}
    texts = [
        f"modality {entry.name!r} is {entry.kind} in {manifest.folder}, in the charter {kinds[entry.name]}"
        for entry in manifest.modalities
        if kinds.get(entry.name, entry.kind) != entry.kind
    ]
    bare = {m.name: m.width for m in learning.modalities if m.name in reads and not m.layout}
    for entry in manifest.modalities:
        width, wanted = sum(column.width for column in entry.columns), bare.get(entry.name)
        if wanted is not None and entry.kind == kinds[entry.name] == "tabular" and width != wanted:
            where = f"of {width} features in {manifest.folder}, in the charter of {wanted}"
            texts.append(f"modality {entry.name!r} is {where}: columns or levels differ")
    tasks = {task.name: task for task in learning.tasks if task.carrier in specs}
    for own in manifest.tasks:
        task = tasks.get(own.name)
        classes = len(own.classes)
        if task is not None and (own.kind != task.kind or (classes and classes != task.classes)):
            here = f"{own.kind}{f' of {classes} classes' if classes else ''} in {manifest.folder}"
            texts.append(f"task {own.name!r} is {here}, in the charter {task.kind} of {task.classes}")
    told = {text.partition(" is ")[0] for text in texts}
    return texts + [
        text for text in layout_misfits(manifest, learning, specs, reads) if text.partition(" is ")[0] not in told
    ]


def layout_misfits(manifest: Manifest, learning: Learning, specs: Collection[str], reads: Collection[str]) -> list[str]:
    """Return where what dataset.toml declares has another layout than the charter states, a sentence each."""
    stated = {f"modality {m.name!r}": m.layout for m in learning.modalities if m.name in reads}
    stated |= {f"task {task.name!r}": task.layout for task in learning.tasks if task.carrier in specs}
    here = {f"modality {entry.name!r}": modality_layout(entry) for entry in manifest.modalities}
    here |= {f"task {task.name!r}": task_layout(task) for task in manifest.tasks}
    widths = {f"modality {m.name!r}": m.width for m in learning.modalities if m.kind in {"tabular", "series"}}
    own_widths = {f"modality {e.name!r}": sum(c.width for c in e.columns) for e in manifest.modalities}
    return [
        f"{what} is declared otherwise in {manifest.folder} than in the charter:"
        f" {_differences(own, wanted, own_widths.get(what, 0), widths.get(what))}"
        for what, wanted in sorted(stated.items())
        if wanted and (own := here.get(what)) is not None and layout_digest(own) != wanted
    ]


def _differences(own: Layout, wanted: bytes, width: int, charter_width: int | None) -> str:
    expected = guess(own, wanted)
    if expected is not None:
        return f"here and in the charter {difference(own, expected)}"
    text = f"here {described(own)}; the charter has only a digest of its own, which is another"
    if charter_width is None or not width:
        return text
    if charter_width == width:
        return f"{text}, of as many features ({width}): so a name, a bound or a level's spelling differs"
    more = "fewer" if charter_width < width else "more"
    return f"{text}, of {charter_width} features, {more} than the {width} here: so a column or a level is {more}"


def _fits(charter: Modality, array: ModalityArray) -> None:
    width = charter.width if array.kind == "text" or charter.pretrained else array.width
    segments = array.kind != "text" or array.length == charter.length
    if array.kind == charter.kind == "audio" and charter.pretrained:
        return  # of any number of frames: the model makes its own
    if (array.kind, width) != (charter.kind, charter.width) or array.length > charter.length or not segments:
        raise UsageError(
            f"modality {charter.name!r}: the data have {array.kind} of {width} features and {array.length} steps,"
            f" the charter {charter.kind} of {charter.width} and at most {charter.length}",
            "Declare the same columns, levels and max_len in dataset.toml as the other members do.",
        )


def _check_width(charter: Modality, specs: Mapping[str, ComponentSpec]) -> None:
    spec = specs.get(Kind.ENCODER.named(charter.name))
    if spec is None or spec.architecture not in {"linear-tanh", "attention-pool"}:
        return
    width = next(tensor.shape[1] for tensor in spec.tensors if tensor.name == "project.weight")
    if width != charter.width:
        raise UsageError(f"{spec.name} reads {width} features, the charter's modality has {charter.width}")
