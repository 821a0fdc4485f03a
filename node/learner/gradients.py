"""Gradients of single students: their norms by component, and clipped sums, from one backward pass.

For a linear layer with inputs a [S, P, in] and output gradients g [S, P, out] (P: records × steps of a student), the
squared norm of a student's gradient is `Σ_pq (a_p·a_q)(g_p·g_q)`, so it need not be formed (ghost norms: Goodfellow
2015; Li et al. 2022), and the clipped sum over students is one product `(f g)ᵀ a` with the factors f (book-keeping: Bu
et al. 2023). Opacus has ghost norms for the whole model only; here each component has its own clip. Parameters may be
in `nn.Linear`, `nn.LayerNorm` and `nn.Embedding` only, or in a module that sees one student at a time (own.py): other
layers are refused before training.

Where a student's records nearly cancel, their sum is much smaller than its terms, and rounding errors dominate. Two
rules still keep ‖contribution‖ ≤ C: the ghost norm is computed in float64, and the largest rounding error of a float32
sum, `u Σ_p |g_p||a_p|`, counts as part of the norm (Higham 2002, section 3.1).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vecdot, vector_norm
from torch.nn.functional import layer_norm

from .own import OneByOne

KINDS = (nn.Linear, nn.LayerNorm, nn.Embedding)
KEPT = 2**22  # numbers of one parameter's gradients by student that are kept from the norms to the sums
ROUNDING = 1e-5  # clip to a little less: the last factors and products are rounded as well
UNIT = 2.0**-23  # twice the unit roundoff of float32, for each term of a sum


@dataclass(slots=True)
class _Use:
    """One pass through a layer: its input, its output, and the gradient of the loss at the output."""

    layer: nn.Module
    entered: Tensor
    left: Tensor
    gradient: Tensor | None = None


class StudentGradients:
    """Watches the layers of trained parameters; `components` names the parameters of each component, in order."""

    def __init__(self, model: nn.Module, components: Mapping[str, Sequence[Tensor]]) -> None:
        """Raises AssertionError if a parameter is not the own weight or bias of one watched layer."""
        self.components = {name: list(parameters) for name, parameters in components.items()}
        places: dict[int, tuple[nn.Module, str]] = {}
        self._own = [module for module in model.modules() if isinstance(module, OneByOne)]
        inside = {id(part) for single in self._own for part in single.module.modules()}
        for single in self._own:
            places |= {id(parameter): (single, name) for name, parameter in single.module.named_parameters()}
        for layer in model.modules():
            if id(layer) in inside:
                continue
            for name, own in layer.named_parameters(recurse=False):
                if id(own) in places:
                    raise AssertionError(f"{name} of {type(layer).__name__} belongs to two layers")
                places[id(own)] = (layer, name)
        self._owner: dict[int, tuple[nn.Module, str]] = {}
        for name, parameters in self.components.items():
            for parameter in parameters:
                layer, role = places[id(parameter)]
                if not isinstance(layer, (*KINDS, OneByOne)):
                    raise AssertionError(f"{name}: no gradients of students for {type(layer).__name__}")
                self._owner[id(parameter)] = (layer, role)
        layers = {id(layer): layer for layer, _ in self._owner.values() if not isinstance(layer, OneByOne)}
        # Linear layers whose weight and bias are of one component: with one row a student's norm is |g|²(|a|² + 1).
        both = [{id(layer.weight), id(layer.bias)} for layer in layers.values() if isinstance(layer, nn.Linear)]
        parts = [{id(parameter) for parameter in parameters} for parameters in self.components.values()]
        whole = [pair for pair in both if any(pair <= part for part in parts)]
        self._whole = {id(self._owner[min(pair)][0]) for pair in whole}
        self._uses: dict[int, list[_Use]] = {key: [] for key in layers}
        self._handles = [layer.register_forward_hook(self._note_use) for layer in layers.values()]
        self._students = 0
        self._seen: dict[int, list[tuple[Tensor, Tensor]]] = {}  # layer -> its one pair, by student
        self._formed: dict[int, Tensor] = {}  # parameter -> the students' gradients [S, …], where they had to be formed
        self._all_count = False  # whether no student's factor is zero

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> "StudentGradients":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self.close()

    def forget(self) -> None:
        """Drop the recorded passes; to be called before each forward pass."""
        for uses in self._uses.values():
            uses.clear()
        for whole in self._own:
            whole.forget()
        self._seen.clear()
        self._formed.clear()

    def _note_use(self, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad:
            self._uses[id(layer)].append(_Use(layer, arguments[0].detach(), output))

    def backward(self, losses: Tensor, rows: Collection[int]) -> None:
        """Take the gradients of the students' `losses` [S] at every layer.

        `rows` are the leading dimensions that a layer's input may have, multiples of S with a student's rows together.
        Raises AssertionError for others: in a layer that mixes students no single one could be clipped.
        """
        self._students = int(losses.shape[0])
        self._seen.clear()
        self._formed.clear()
        uses = [use for layer_uses in self._uses.values() for use in layer_uses]
        for use in uses:
            if int(use.entered.shape[0]) not in rows:
                raise AssertionError(
                    f"{type(use.layer).__name__} saw {use.entered.shape[0]} rows for {self._students} students"
                )
        asked = [whole.asked() for whole in self._own]
        outputs = [use.left for use in uses] + [tensor for tensors in asked for tensor in tensors]
        gradients = iter(torch.autograd.grad(losses.sum(), outputs, allow_unused=True) if outputs else ())
        for use in uses:
            use.gradient = next(gradients)
        for whole, tensors in zip(self._own, asked, strict=True):
            whole.take([next(gradients) for _ in tensors])

    def norms(self) -> dict[str, Tensor]:
        """Return for each component the norm of every student's gradient, [S] float64."""
        return {name: squares.sqrt().double().expand(self._students) for name, (squares, _) in self._measured().items()}

    def _measured(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return for each component the students' squared norms, and what rounding can add to the norms (None: 0)."""
        norms = {}
        for name, parameters in self.components.items():
            measured = [pair for pair in map(self._squared_norm, parameters) if pair is not None]
            squares, errors = [square for square, _ in measured], [error for _, error in measured if error is not None]
            norms[name] = (sum(squares[1:], squares[0]), sum(errors[1:], errors[0]) if errors else None)
        return norms

    def clipped_sums(self, clips: Mapping[str, float]) -> dict[str, Tensor]:
        """Return for each component `Σ_s g_s·min(1, C/‖g_s‖)`, [d] float32. A gradient that is not finite is zero."""
        norms = torch.stack(
            [
                (squares.sqrt().double() + (0.0 if error is None else error)).expand(self._students)
                for squares, error in self._measured().values()
            ]
        )
        bounds = torch.tensor(
            [[clips[name] * (1.0 - ROUNDING)] for name in self.components], dtype=norms.dtype, device=norms.device
        )
        # C/0 is ∞ and becomes 1; C/∞ is 0, and C/NaN is made 0.
        factors = (bounds / norms).clamp(max=1.0).nan_to_num(nan=0.0).float()
        self._all_count = bool(factors.all())  # one check for all: on a GPU every check waits for the result
        sums = {}
        for (name, parameters), own in zip(self.components.items(), factors, strict=True):
            total = torch.cat([self._weighted(parameter, own).reshape(-1) for parameter in parameters])
            sums[name] = _limit_norm(total, self._students * clips[name])
        self._all_count = False
        return sums

    def each(self) -> dict[str, Tensor]:
        """Return for each component the students' gradients themselves, [S, d]: for tests and audits."""
        eye = torch.eye(self._students, device=self._device())
        return {
            name: torch.stack(
                [torch.cat([self._weighted(parameter, row).reshape(-1) for parameter in parameters]) for row in eye]
            )
            for name, parameters in self.components.items()
        }

    def _device(self) -> torch.device:
        return next(parameter.device for parameters in self.components.values() for parameter in parameters)

    def _pairs(self, parameter: Tensor) -> tuple[nn.Module, str, list[tuple[Tensor, Tensor]]]:
        layer, role = self._owner[id(parameter)]
        kept = self._seen.get(id(layer))
        if kept is not None:
            return layer, role, kept
        pairs = []
        for use in self._uses[id(layer)]:
            if use.gradient is not None:
                a, g = self._by_student(use.entered, layer), self._by_student(use.gradient, layer)
                if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                    g = g * (a != layer.padding_idx).unsqueeze(2)  # torch, too, never trains the padding's row
                pairs.append((a, g))
        if len(pairs) > 1:  # one layer used several times: its uses are more rows of the same student
            pairs = [(torch.cat([a for a, _ in pairs], 1), torch.cat([g for _, g in pairs], 1))]
        self._seen[id(layer)] = pairs
        return layer, role, pairs

    def _by_student(self, rows: Tensor, layer: nn.Module) -> Tensor:
        """[S·k, ..., width] → [S, P, width]; indices of an embedding [S·k, ...] → [S, P]."""
        if not rows.is_floating_point():
            return rows.reshape(self._students, -1)
        last = prod(layer.normalized_shape) if isinstance(layer, nn.LayerNorm) else int(rows.shape[-1])
        return rows.reshape(self._students, -1, last)

    def _squared_norm(self, parameter: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Return the squared norm of every student's gradient and what rounding can add to that norm (None: nothing).

        [S] or [1] each, float32 where no terms can have cancelled, else float64. None for a bias that its weight's norm
        includes.
        """
        own, name = self._owner[id(parameter)]
        if isinstance(own, OneByOne):
            rows = own.gradient(name)
            return (torch.zeros(1, device=parameter.device) if rows is None else _squared(rows.double())), None
        layer, role, pairs = self._pairs(parameter)
        if not pairs:
            return torch.zeros(1, device=parameter.device), None
        ((a, g),) = pairs
        if isinstance(layer, nn.Linear) and g.shape[1] == 1:  # one row: its norm is a product, without a sum
            together = id(layer) in self._whole
            if role == "bias" and together:
                return None
            square = _squared(g[:, 0])
            return (square if role == "bias" else square * (_squared(a[:, 0]) + float(together))), None
        formed = _form(layer, role, a, g)
        if formed is not None:
            if formed.numel() <= KEPT:  # then this gradient itself is added up, not another sum of the same terms
                self._formed[id(parameter)] = formed
                return _squared(formed), None
            return _squared(formed), _rounding(_lengths(layer, role, a, g))
        wide = g.double()
        alike = wide @ wide.transpose(1, 2)
        if isinstance(layer, nn.Embedding):
            alike *= a.unsqueeze(1) == a.unsqueeze(2)
        else:
            wide = a.double()
            alike *= wide @ wide.transpose(1, 2)
        terms = alike.diagonal(dim1=1, dim2=2).sqrt()  # |g_p||a_p|
        return alike.sum((1, 2)).clamp(min=0.0), _rounding(terms)

    def _weighted(self, parameter: Tensor, factors: Tensor) -> Tensor:
        own, name = self._owner[id(parameter)]
        if isinstance(own, OneByOne):
            rows = own.gradient(name)
            # zero times NaN is NaN: students who do not count must not reach the product
            return torch.zeros_like(parameter) if rows is None else factors @ rows.where(factors[:, None] != 0, 0.0)
        layer, role, pairs = self._pairs(parameter)
        if not pairs:
            return torch.zeros_like(parameter)
        ((a, g),) = pairs
        formed = self._formed.get(id(parameter))
        if not self._all_count:  # zero times NaN is NaN: students who do not count must not reach the product
            dropped = factors == 0
            if formed is None:
                g = torch.where(dropped.view(-1, 1, 1), torch.zeros_like(g), g)
                a = torch.where(dropped.view(-1, *[1] * (a.dim() - 1)), torch.zeros_like(a), a)
            else:
                formed = torch.where(dropped.view(-1, 1), torch.zeros_like(formed), formed)
        if formed is None and (isinstance(layer, nn.LayerNorm) or role == "bias"):
            formed = _form(layer, role, a, g)
            assert formed is not None
        if formed is not None:
            return factors @ formed
        g = g * factors.view(-1, 1, 1)
        if isinstance(layer, nn.Embedding):
            return torch.zeros_like(parameter).index_add_(0, a.reshape(-1), g.reshape(-1, g.shape[2]))
        return g.reshape(-1, g.shape[2]).T @ a.reshape(-1, a.shape[2])


def _squared(rows: Tensor) -> Tensor:
    squares: Tensor = vecdot(rows, rows)
    return squares


def _lengths(layer: nn.Module, role: str, a: Tensor, g: Tensor) -> Tensor:
    """Return upper bounds of the norms of a student's terms, [S, P] float64."""
    terms: Tensor = vector_norm(g, dim=2, dtype=torch.float64)
    if isinstance(layer, nn.LayerNorm) and role != "bias":
        terms = terms * prod(layer.normalized_shape) ** 0.5  # the norm of a normalised vector
    elif isinstance(layer, nn.Linear) and role != "bias":
        terms = terms * vector_norm(a, dim=2, dtype=torch.float64)
    return terms


def _rounding(terms: Tensor) -> Tensor:
    """Return the largest float32 error, as a norm [S], of sums of terms with these norms [S, P]."""
    return terms.sum(1) * (UNIT * terms.shape[1])


def _limit_norm(total: Tensor, bound: float) -> Tensor:
    """Return `total` [d] with a norm of at most `bound`, zero where it is not finite: the last guard of the bound."""
    norm = vector_norm(total, dtype=torch.float64)
    return torch.where(norm.isfinite(), total * (bound / norm).clamp(max=1.0).float(), torch.zeros_like(total))


def _form(layer: nn.Module, role: str, a: Tensor, g: Tensor) -> Tensor | None:
    """Return the students' gradients themselves, [S, numbers], where they are small beside their factors."""
    if role == "bias":
        return g.squeeze(1) if g.shape[1] == 1 else g.sum(1)
    if isinstance(layer, nn.LayerNorm):
        return (g * layer_norm(a, layer.normalized_shape, eps=layer.eps)).sum(1)
    steps = g.shape[1]
    if isinstance(layer, nn.Embedding) or steps * (a.shape[2] + g.shape[2] + 2) < a.shape[2] * g.shape[2]:
        return None
    return (g.transpose(1, 2) @ a).flatten(1)
