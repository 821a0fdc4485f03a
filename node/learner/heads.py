"""Logits: heads on the representation of a task's modalities, skips on their features themselves."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from ..blueprint.parts import places_of
from .layers import ByName, linear, mean_of_steps
from .pairs import Projected, projection

SCALE = 4.0  # of similarities: features in [-1, 1] give logits up to 4 √h


class Head(nn.Module):
    """`linear z`: logits."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.linear = linear(spec, "linear")

    @property
    def width(self) -> int:
        """The number of features h that it reads."""
        return self.linear.in_features

    def forward(self, z: Tensor) -> Tensor:
        """[S, K, h] → [S, K, outputs]."""
        return self.linear(z)  # type: ignore[no-any-return]  # nn.Module returns Any


class Similarity(nn.Module):
    """Logits are similarities to the names of the classes: `4 (z + shift)·u_c`.

    u_c is the unit vector of a class: its name's frozen embedding, by a seeded projection to h numbers unless it has as
    many (Radford et al. 2021, with frozen texts). All tasks share that space, so what encoders learn from one task
    scores the classes of another one, and classes that nobody was trained on. `shift` leans to the commoner classes.
    """

    def __init__(self, spec: ComponentSpec, seed: bytes) -> None:
        super().__init__()
        self.shift = linear(spec, "shift")
        self._seed = seed
        self.names: Tensor
        self.register_buffer("names", torch.zeros(0), persistent=False)

    @property
    def width(self) -> int:
        """The number of features h that it reads."""
        return self.shift.out_features

    def place(self, embeddings: Tensor) -> None:
        """Take the embeddings of the classes' names, [classes, width of the text model]."""
        if embeddings.shape[1] != self.width:
            embeddings = embeddings @ projection(self._seed, "class names", self.width, embeddings.shape[1]).T
        self.names = normalize(embeddings, dim=1)

    def forward(self, z: Tensor) -> Tensor:
        """[S, K, h] → [S, K, classes]."""
        shift = self.shift(torch.ones_like(z[:, :, :1]))  # a row for each record: gradients of single students
        logits: Tensor = SCALE * (z + shift) @ self.names.T
        return logits


class LinearSkip(nn.Module):
    """Logits straight from the features: for each modality a linear map of the mean of its valid steps.

    Of a series whose map has length · (width + 1) inputs it is of each step's values, and whether it is there.
    """

    def __init__(self, spec: ComponentSpec, seed: bytes, learning: Learning) -> None:
        super().__init__()
        names = [tensor.name.removesuffix(".weight") for tensor in spec.tensors]
        self.maps = ByName({name: linear(spec, name) for name in names})
        modalities = {modality.name: modality for modality in learning.modalities}
        self.pairs, self.places = ByName(), set[str]()
        for name in names:
            read = modalities.get(name)
            width = int(self.maps[name].in_features)  # type: ignore[arg-type]  # the attribute of an nn.Linear
            if read is not None and read.kind == "series" and width == places_of(read):
                self.places.add(name)
            if read is not None and (read.kind == "text" or read.pretrained):
                self.pairs[name] = Projected(seed, spec.name, width, read)

    def forward(self, inputs: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor | float:
        """Return logits [S, K, outputs]; 0 if no modality is present."""
        total: Tensor | float = 0.0
        for name, each in self.maps.items():
            if name in inputs:
                total = total + each(self.features(name, *inputs[name]))
        return total

    def features(self, name: str, values: Tensor, steps: Tensor) -> Tensor:
        """Return the input of a modality's linear map, [S, K, width]."""
        if name in self.pairs:
            return self.pairs[name](values, steps)  # type: ignore[no-any-return]  # nn.Module returns Any
        if name in self.places:
            return torch.cat([(values * steps.unsqueeze(3)).flatten(2), steps.to(values.dtype)], dim=2)
        return mean_of_steps(values, steps)
