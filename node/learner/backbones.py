"""Backbones: how the embeddings of a record's modalities become the one vector that heads read.

Each maps tokens [S, K, M, h] of the modalities `names`, present [S, K, M] bool → [S, K, h]. Without a backbone it is
their sum. All but `transformer` are that sum and an addition whose last map starts at zero, so they start as no
backbone at all. A modality that is absent from a record changes nothing there, as if no node had it. Every record is
computed by itself: nothing has a capacity or a statistic that records of several students share.

| architecture | what is added to the sum z |
|---|---|
| `mlp` | `out(tanh(hidden z))` |
| `concat` | `out(tanh(W [x_1, p_1, …, x_M, p_M]))`: the embeddings beside each other, and the mask of what is there |
| `cross-attention` | `out(Σ_m a_m value(x_m))`, a = softmax(query(z)·key(x_m) / √h) over what is there |
| `experts-topN` | `Σ_e r_e out_e(tanh(hidden_e z))` over the N largest r_e, with r = softmax(router z) |
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from ...protocol.components import ComponentSpec
from .layers import linear, mean_of_steps

BALANCE = 0.01  # the weight of a mixture's imbalance in a student's loss (Fedus et al. 2022, section 2.2)
ABSENT = -1e9  # a score: a large finite number, since -inf alone would give NaN, even when masked afterwards


class Backbone(nn.Module, ABC):
    """Base of backbones. `routed` has the probabilities of experts [S, K, E] of each pass since it was cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.routed: list[Tensor] = []

    @abstractmethod
    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:
        """Embeddings of M modalities [S, K, M, h], present [S, K, M] → [S, K, h]."""

    def imbalance(self, weights: Tensor) -> Tensor | float:  # noqa: ARG002
        """Return what is added to each student's loss, [S]."""
        return 0.0


class ResidualMlp(Backbone):
    """`z + out(tanh(hidden z))` with z the sum over modalities."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.hidden = linear(spec, "hidden")
        self.out = linear(spec, "out")

    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:  # noqa: ARG002
        """See Backbone; missing modalities are zero."""
        z = tokens.sum(2)
        return z + self.out(torch.tanh(self.hidden(z)))  # type: ignore[no-any-return]  # nn.Module returns Any


class TransformerBackbone(Backbone):
    """Layers of transformers' BERT with the modalities as tokens, then the mean of those present."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        from .text import scratch_layers  # noqa: PLC0415  # transformers takes seconds to import

        self.layers = scratch_layers(spec)

    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:  # noqa: ARG002
        """See Backbone; zero where none is present."""
        x, there = tokens.reshape(-1, *tokens.shape[2:]), present.reshape(-1, present.shape[2])
        mask = torch.zeros(there.shape, device=x.device).masked_fill(~there, ABSENT)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        return mean_of_steps(x.reshape(tokens.shape), present)


class Concat(Backbone):
    """The embeddings beside each other, with the mask of what is there, through one hidden layer.

    A modality that opened after the component has no place in it: it is in the sum alone.
    """

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        for tensor in spec.tensors:
            if tensor.name.startswith("modality/"):
                place = tensor.name.removesuffix(".weight")
                self.add_module(place, linear(spec, place))
        self.out = linear(spec, "out")

    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:
        """See Backbone."""
        there = present.unsqueeze(3).to(tokens.dtype)
        rows = torch.cat([tokens * there, there], dim=3)
        places, hidden = dict(self.named_children()), torch.zeros(1, device=tokens.device)
        for index, name in enumerate(names):
            place = places.get(f"modality/{name}")
            if place is not None:
                hidden = hidden + place(rows[:, :, index])
        z = tokens.sum(2)
        if hidden.dim() == 1:  # nothing here has a place in it
            hidden = z.new_zeros(*z.shape[:2], self.out.in_features)
        return z + self.out(torch.tanh(hidden))  # type: ignore[no-any-return]  # nn.Module returns Any


class CrossAttention(Backbone):
    """The sum asks, the modalities that are there answer: one head of attention."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.query, self.key = linear(spec, "query"), linear(spec, "key")
        self.value, self.out = linear(spec, "value"), linear(spec, "out")

    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:  # noqa: ARG002
        """See Backbone; a record with nothing gets no answer."""
        z = tokens.sum(2)
        scores = (self.query(z).unsqueeze(2) * self.key(tokens)).sum(3) / sqrt(z.shape[2])
        shares = torch.softmax(scores.masked_fill(~present, ABSENT), dim=2) * present
        answer = (shares.unsqueeze(3) * self.value(tokens)).sum(2)
        return z + self.out(answer)  # type: ignore[no-any-return]  # nn.Module returns Any


class Experts(Backbone):
    """A mixture of small networks; each record is sent to the N that the router prefers (Shazeer et al. 2017).

    All are computed, and those not chosen have the factor zero: no record waits for another one's place. A term keeps
    them in use: E Σ_e f_e p_e, with f_e the share of *one student's* records that e gets and p_e their mean probability
    (the loss of Fedus et al. 2022; within a sequence in DeepSeek-V3, 2024; here within a student). It is in that
    student's own gradient, which DP-SGD clips. The usual term over all students of a batch would be in everybody's
    gradient, and no clip of one student would bound what that student changes.
    """

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.router = linear(spec, "router")
        self.hidden, self.out = linear(spec, "hidden"), linear(spec, "out")
        self.chosen = int(spec.architecture.removeprefix("experts-top"))
        self.held: Tensor | None = None

    def forward(self, tokens: Tensor, present: Tensor, names: Sequence[str]) -> Tensor:  # noqa: ARG002
        """See Backbone; missing modalities are zero."""
        z = tokens.sum(2)
        probabilities = torch.softmax(self.router(z), dim=2)
        self.routed.append(probabilities)
        share = (probabilities * self.picked(probabilities)).unsqueeze(3)
        inner = torch.tanh(self.hidden(z)).reshape(*probabilities.shape, -1) * share
        return z + self.out(inner.flatten(2))  # type: ignore[no-any-return]  # nn.Module returns Any

    def imbalance(self, weights: Tensor) -> Tensor | float:
        """See Backbone: for the records' `weights` [S, K], which add up to 1 for a student; padding has 0."""
        total: Tensor | float = 0.0
        for probabilities in self.routed:
            mean = (probabilities * weights.unsqueeze(2)).sum(1)
            picked = (self.picked(probabilities) * weights.unsqueeze(2)).sum(1) / self.chosen
            total = total + BALANCE * mean.shape[1] * (mean * picked).sum(1)
        return total

    def picked(self, probabilities: Tensor) -> Tensor:
        """Return 1 for the chosen experts of each record, else 0, [S, K, E]; of equal ones the first.

        If some are `held`, [1, 1, E], they are those of all records.
        """
        if self.held is not None:
            return self.held.expand_as(probabilities)
        order = probabilities.detach().sort(dim=2, descending=True, stable=True).indices[:, :, : self.chosen]
        return torch.zeros_like(probabilities).scatter(2, order, 1.0)
