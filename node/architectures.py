"""Architectures that a federation brings itself: packages with an entry point `collegium.architectures`.

A charter names one by the text `NAME@DISTRIBUTION==VERSION#DIGEST`, in the place of an architecture's name. The digest
is of the files that the distribution installed, so that all members run the same code. Nothing is downloaded, and no
code comes from another member: an institution installs what it trusts, as it installs Collegium. What a package depends
on is not in the digest.

The entry point is an `Architecture`. docs/models.md shows how to write one; node/learner/own.py runs it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ..crypto.errors import UsageError
from ..crypto.hashing import digest
from ..protocol.components import ComponentSpec, TensorSpec

GROUP = "collegium.architectures"
MAX_TEXT = 128  # bytes of an architecture's name in a charter
_TEXT = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)@([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)#([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a component is made for: the `hidden` features h that encoders end in, its modality's width and length.

    For a backbone the last two are 0.
    """

    hidden: int
    width: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """What an entry point gives.

    `tensors` returns a component's tensors, from sizes and the whole numbers that the model file's table has beside the
    name; it raises ValueError for numbers that it does not take. `module` returns a torch module with parameters of
    these names and shapes, and no other state. It is called for one student at a time (torch.func.vmap):

        encoder   values [K, T, width] float32, steps [K, T] bool → [K, h]
        backbone  tokens [K, M, h] of M modalities, present [K, M] bool → [K, h]

    for K records of the student. What is not there (steps, present) is zero. Records with nothing fill the batch up:
    they must not change others.

    Without `student_gradients` torch.func computes the gradients of single students. With it they are its answer to
    (module, inputs with the students first, gradient of the output [S, K, h]): by parameter, [S, *shape].
    """

    kind: Literal["encoder", "backbone"]
    tensors: Callable[[Sizes, Mapping[str, int]], Sequence[TensorSpec]]
    module: Callable[[Sequence[TensorSpec]], Any]
    student_gradients: Callable[[Any, tuple[Any, ...], Any], Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an architecture in its distribution, and the distribution's version and digest (hex)."""

    name: str
    distribution: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@{self.distribution}=={self.version}#{self.digest}"

    @property
    def words(self) -> str:
        """The reference for people: "gated (collegium-gated 1.0)"."""
        return f"{self.name} ({self.distribution} {self.version})"


def reference(architecture: str) -> Reference | None:
    """Return what an architecture's text in a charter refers to; None for one of Collegium's own."""
    match = _TEXT.fullmatch(architecture)
    return None if match is None else Reference(*match.groups())


def words(architecture: str) -> str:
    """Return an architecture's text in a charter as people read it."""
    own = reference(architecture)
    return architecture if own is None else own.words


def installed(name: str) -> Reference | None:
    """Return the installed architecture of this name, or None. Raises UsageError if two packages have one."""
    found = {point.dist.name: point.dist for point in metadata.entry_points(group=GROUP, name=name) if point.dist}
    if len(found) > 1:
        raise UsageError(f"{' and '.join(sorted(found))} both have an architecture {name!r}", "Remove one of them.")
    for distribution in found.values():
        made = Reference(name, distribution.name, distribution.version, files_digest(distribution))
        if len(str(made).encode()) > MAX_TEXT or reference(str(made)) != made:
            raise UsageError(
                f"{made.words}: a charter cannot name it",
                f"Its name, distribution and version have {MAX_TEXT - 68} letters, digits, - and . at most.",
            )
        return made
    return None


def load(own: Reference) -> Architecture:
    """Return the architecture that a charter refers to, if this machine has those very files. Raises UsageError."""
    problem = _problem(own)
    if problem:
        raise UsageError(problem, advice(own))
    distribution = metadata.distribution(own.distribution)
    (point,) = distribution.entry_points.select(group=GROUP, name=own.name)
    try:
        architecture = point.load()
    except Exception as error:  # whatever a package does when it is imported
        raise UsageError(f"{own.words} cannot be imported: {error!r}", "Ask who wrote the package.") from error
    if not isinstance(architecture, Architecture):
        raise UsageError(f"{own.words}: {point.value} is no Architecture", "Ask who wrote the package.")
    return architecture


def advice(own: Reference) -> str:
    """Say what a member does that lacks an architecture."""
    return (
        f"Get the wheel of {own.distribution} {own.version} from its author or the founder, read it, and install it"
        " beside Collegium. Under that name a public index may have another one. No code comes from other members."
    )


def missing(components: Iterable[ComponentSpec]) -> dict[str, str]:
    """Return for each component whose architecture this machine lacks what is wrong; nothing is imported."""
    problems = {}
    for spec in components:
        own = reference(spec.architecture)
        problem = "" if own is None else _problem(own)
        if problem:
            problems[spec.name] = problem
    return problems


def check_here(components: Iterable[ComponentSpec]) -> None:
    """Raise UsageError, with what to install, for a component whose architecture this machine lacks."""
    components = list(components)
    for name, problem in missing(components).items():
        own = next(reference(spec.architecture) for spec in components if spec.name == name)
        raise UsageError(f"component {name}: {problem}", "" if own is None else advice(own))


def _problem(own: Reference) -> str:
    try:
        distribution = metadata.distribution(own.distribution)
    except metadata.PackageNotFoundError:
        return f"the charter's architecture {own.words} is not installed here"
    if distribution.version != own.version:
        return f"the charter's architecture is {own.words}, and {distribution.version} is installed here"
    if files_digest(distribution) != own.digest:
        return f"the files of {own.words} are others than the charter names by digest {own.digest[:16]}"
    if not distribution.entry_points.select(group=GROUP, name=own.name):
        return f"{own.distribution} {own.version} has no architecture {own.name!r}"
    return ""


def files_digest(distribution: metadata.Distribution) -> str:
    """Return the digest of all that a distribution installed but its metadata and compiled files, in hex.

    Raises UsageError for one whose modules are not among its files, as after an editable install.
    """
    parts: list[bytes] = []
    files = sorted(distribution.files or [], key=lambda file: file.as_posix())
    kept = [f for f in files if not f.parts[0].endswith(".dist-info") and "__pycache__" not in f.parts]
    for file in kept:
        try:
            parts += [file.as_posix().encode(), Path(str(file.locate())).read_bytes()]
        except OSError as error:
            raise UsageError(
                f"Cannot read {file.as_posix()} of {distribution.name}: {error.strerror}", "Install it again."
            ) from error
    tops = {file.parts[0].removesuffix(".py") for file in kept}
    for point in distribution.entry_points.select(group=GROUP):
        if point.module.partition(".")[0] not in tops:
            raise UsageError(
                f"{distribution.name}: the module {point.module} is not among its files",
                "Install it as a package, not editable: members have to have the same files.",
            )
    return digest("architecture", *parts).hex()
