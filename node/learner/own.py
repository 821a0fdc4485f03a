"""Modules of architectures that a package brings, with exact gradients of single students.

A module is called by torch.func.vmap over students, each with parameters of its own: views of the same numbers. So a
module cannot mix students, whatever it computes, and the gradient at a student's view is that student's gradient. Where
the architecture has `student_gradients`, its answer is taken instead. Before a module is used it is tried on made-up
students: against the same students one by one, for their outputs and their gradients.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind, parse_name
from ...protocol.components import ComponentSpec, TensorSpec
from ...protocol.learning import Modality
from ..architectures import Architecture, Reference, load, reference
from ..pretrained.tensors import SIMILARITY
from .backbones import Backbone

STUDENTS, RECORDS, STEPS = 3, 2, 4  # of the trial
TOLERANCE = 1e-4


class OneByOne(nn.Module):
    """A module that sees one student at a time: inputs [S, …] → [S, …]."""

    def __init__(self, architecture: Architecture, tensors: Sequence[TensorSpec]) -> None:
        super().__init__()
        self.module: nn.Module = architecture.module(tensors)
        self.order = [tensor.name for tensor in tensors]
        self._answer = architecture.student_gradients
        self._uses: list[tuple[dict[str, Tensor], tuple[Tensor, ...], Tensor]] = []
        self._gradients: dict[str, Tensor] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the module for each student, and keep what gradients need."""
        students = inputs[0].shape[0]
        own = {n: p.unsqueeze(0).expand(students, *p.shape) for n, p in self.module.named_parameters()}

        def one(parameters: dict[str, Tensor], *arguments: Tensor) -> Tensor:
            result: Tensor = functional_call(self.module, parameters, arguments)
            return result

        output: Tensor = vmap(one)(own, *inputs)
        if output.requires_grad:
            self._uses.append((own, inputs, output))
        return output

    def forget(self) -> None:
        """Drop what was kept."""
        self._uses.clear()
        self._gradients.clear()

    def asked(self) -> list[Tensor]:
        """Return the tensors whose gradients `take` needs, of all calls since `forget`."""
        if self._answer is not None:
            return [output for _, _, output in self._uses]
        return [own[name] for own, _, _ in self._uses for name in self.order if own[name].requires_grad]

    def take(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients of the students' losses at what was `asked`, in order."""
        self._gradients.clear()
        left = iter(gradients)
        for own, inputs, _ in self._uses:
            for name, gradient in self._of_one_use(own, inputs, left):
                if gradient is not None:
                    flat = gradient.detach().flatten(1)
                    self._gradients[name] = self._gradients[name] + flat if name in self._gradients else flat

    def _of_one_use(self, own: Mapping[str, Tensor], inputs: tuple[Tensor, ...], left: Any) -> list[tuple[str, Any]]:
        if self._answer is None:
            return [(name, next(left)) for name in self.order if own[name].requires_grad]
        gradient = next(left)
        if gradient is None:
            return []
        with torch.no_grad():
            return list(self._answer(self.module, tuple(x.detach() for x in inputs), gradient).items())

    def gradient(self, name: str) -> Tensor | None:
        """Return the students' gradients of a parameter, [S, numbers]; None where no loss depends on it."""
        return self._gradients.get(name)

    def parameters_of(self, spec: ComponentSpec) -> list[nn.Parameter]:
        """Return the parameters in the order of a spec. Raises UsageError if they are not its tensors."""
        held = dict(self.module.named_parameters())
        if {n: tuple(p.shape) for n, p in held.items()} != {t.name: t.shape for t in spec.tensors}:
            raise UsageError(f"component {spec.name!r}: its tensors are not the module's parameters")
        return [held[tensor.name] for tensor in spec.tensors]


class OwnEncoder(nn.Module):
    """An encoder of a package; zero where a record lacks the modality."""

    def __init__(self, inner: OneByOne) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Values [S, K, T, width], steps [S, K, T] → [S, K, h]."""
        embedding = self.inner(values * steps.unsqueeze(3), steps)
        return embedding * steps.any(2, keepdim=True)  # type: ignore[no-any-return]  # nn.Module returns Any


class OwnBackbone(Backbone):
    """A backbone of a package."""

    def __init__(self, inner: OneByOne) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:  # noqa: ARG002
        """See Backbone."""
        return self.inner(tokens * present.unsqueeze(3), present)  # type: ignore[no-any-return]


def hidden_of(specs: Sequence[ComponentSpec]) -> int | None:
    """Return the number of features h that heads read; None without a head."""
    for spec in specs:
        if parse_name(spec.name).kind is ComponentKind.HEAD:
            tensor = spec.tensors[0]
            return tensor.shape[0 if spec.architecture == SIMILARITY else 1]
    return None


def own_part(
    spec: ComponentSpec, kind: ComponentKind, modality: Modality | None, hidden: int | None
) -> OwnEncoder | OwnBackbone | None:
    """Return the module of a component whose architecture a package brings; None for any other.

    `hidden` is the number of features h that heads read. Raises UsageError: the package is not here, or its module
    failed the trial.
    """
    own = reference(spec.architecture)
    if own is None:
        return None
    architecture = load(own)
    if architecture.kind != kind:
        raise UsageError(f"component {spec.name!r}: {own.words} is for a {architecture.kind}")
    if hidden is not None:  # without a head no pass reaches it
        shape = (STEPS, hidden) if modality is None else (min(STEPS, modality.length), modality.width)
        _try(own, spec.tensors, shape, hidden)
    inner = OneByOne(architecture, spec.tensors)
    return OwnEncoder(inner) if kind is ComponentKind.ENCODER else OwnBackbone(inner)


@lru_cache(maxsize=64)
def _try(own: Reference, tensors: tuple[TensorSpec, ...], shape: tuple[int, int], hidden: int) -> None:
    """Hold a module against a loop over students; on made-up numbers alone. Raises UsageError."""
    source = torch.Generator().manual_seed(1)
    module = OneByOne(load(own), tensors)
    held = list(module.module.named_parameters())
    if list(module.module.buffers()):
        raise _refused(own, "it has state beside its parameters")
    with torch.no_grad():
        for _, parameter in held:
            parameter.copy_(torch.rand(parameter.shape, generator=source) - 0.5)
    there = torch.ones(STUDENTS, RECORDS, shape[0], dtype=torch.bool)
    there[0, 0, 1:], there[1, 1] = False, False
    values = torch.randn(*there.shape, shape[1], generator=source) * there.unsqueeze(3)
    together = _run(own, module, values, there)
    if together.shape != (STUDENTS, RECORDS, hidden):
        raise _refused(own, f"a student's {RECORDS} records give {tuple(together.shape[1:])}, not {(RECORDS, hidden)}")
    if not together.requires_grad:
        raise _refused(own, "its output depends on no parameter")
    weights = torch.randn(together.shape, generator=source)
    module.take(torch.autograd.grad((together * weights).sum(), module.asked(), allow_unused=True))
    for student in range(STUDENTS):
        alone = _run(own, module.module, values[student], there[student])
        if not torch.allclose(alone, together[student], atol=TOLERANCE):
            raise _refused(own, "a student's output is another one beside others")
        loop = torch.autograd.grad((alone * weights[student]).sum(), [p for _, p in held], allow_unused=True)
        for (name, parameter), wanted in zip(held, loop, strict=True):
            given = module.gradient(name)
            row = torch.zeros(parameter.numel()) if given is None else given[student]
            exact = torch.zeros(parameter.numel()) if wanted is None else wanted.reshape(-1)
            if row.shape != exact.shape or not torch.allclose(row, exact, atol=TOLERANCE, rtol=TOLERANCE):
                raise _refused(own, f"the gradient of {name} is not that of a loop over students")
    longer = _run(own, module, torch.cat([values, values[:, :1] * 0], 1), torch.cat([there, there[:, :1] & False], 1))
    if not torch.allclose(longer[:, :RECORDS], together, atol=TOLERANCE):
        raise _refused(own, "an empty record beside the others changes them")


def _run(own: Reference, module: nn.Module, *inputs: Tensor) -> Tensor:
    try:
        output = module(*inputs)
    except Exception as error:  # whatever a package's module does
        raise _refused(own, f"it fails on made-up records ({error})") from error
    if not isinstance(output, Tensor) or not bool(output.isfinite().all()):
        raise _refused(own, "it gives no finite numbers")
    return output


def _refused(own: Reference, what: str) -> UsageError:
    return UsageError(f"{own.words} cannot be trained: {what}", "Ask who wrote the package.")
