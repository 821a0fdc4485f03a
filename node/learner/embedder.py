"""What pretrained models make of a session's records: each model loaded once, on demand, and asked once a record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning, Modality
from ..data.arrays import Dataset, ModalityArray
from ..pretrained.find import find
from ..pretrained.folder import check as check_pretrained
from .placing import placed

Progress = Callable[[int, int], None]
PROCESSOR = torch.device("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """The folders of frozen text models on this machine, and the cache of their embeddings (None: no cache).

    `read_only`: the cache is used, but never changed.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    cache: Path | None = None
    read_only: bool = False


def read_by_models(learning: Learning) -> frozenset[str]:
    """Return the modalities that a pretrained model embeds."""
    return frozenset(modality.name for modality in learning.modalities if modality.pretrained)


class Embedder:
    """The frozen models of a session's modalities, loaded on demand."""

    def __init__(
        self,
        learning: Learning,
        specs: Mapping[str, ComponentSpec],
        texts: Texts,
        live: frozenset[str],
        progress: Progress | None = None,
        device: torch.device = PROCESSOR,
    ) -> None:
        self._device = device
        self._learning, self._specs, self._texts, self._live = learning, specs, texts, live
        self.progress = progress
        self._encoders: dict[str, Any] = {}

    def modality(self, name: str) -> Modality:
        """Return a modality of the charter."""
        return next(modality for modality in self._learning.modalities if modality.name == name)

    def encoder(self, name: str, *, fresh: bool = False) -> Any:
        """Return the frozen encoder of a modality; a `fresh` one, of texts, may be adapted."""
        from .frozen import frozen_encoder  # noqa: PLC0415  # only who has a pretrained model needs it

        modality = self.modality(name)
        if not modality.pretrained:
            raise UsageError(f"modality {name!r}: the charter names no pretrained model")
        if fresh or name not in self._encoders:
            (wanted,) = modality.pretrained
            folder = find(wanted.model, self._texts.folders)
            check_pretrained(folder, wanted.digest)
            encoder = frozen_encoder(folder, wanted.max_tokens)
            if fresh:
                return encoder
            self._encoders[name] = placed(encoder, self._device)
        return self._encoders[name]

    def cut(self, array: ModalityArray) -> int:
        """Return the number of records with more tokens than are read."""
        assert array.texts is not None
        once = array.name in self._live
        long = np.zeros(array.texts.shape, dtype=np.bool_)
        long[array.steps] = self._reader(array.name).cut(array.texts[array.steps].tolist(), once=once)
        return int(long.any(axis=2).sum())

    def _reader(self, name: str) -> Any:
        """Return a text modality's tokenizer."""
        if self.modality(name).pretrained:
            return self.encoder(name)
        from .text import scratch_encoder  # noqa: PLC0415

        return scratch_encoder(self._specs[ComponentKind.ENCODER.named(name)])

    def tokens(self, array: ModalityArray) -> Tensor:
        """Return a text modality's token ids [S, K, T, L] int64, -1 where there is none."""
        assert array.texts is not None
        ids, mask = self._reader(array.name).tokenise(array.texts.reshape(-1).tolist())
        return torch.where(mask, ids, torch.full_like(ids, -1)).reshape(*array.texts.shape, -1)

    def embeddings(self, array: ModalityArray, data: Dataset) -> Tensor:
        """Return a modality's frozen embeddings [S, K, T, width], from the cache where it has them."""
        from .cache import EmbeddingCache, embed_cached  # noqa: PLC0415

        (wanted,) = self.modality(array.name).pretrained
        owners = np.broadcast_to(np.array(data.subjects, dtype=object)[:, None, None], array.steps.shape)
        index = np.nonzero(array.steps)
        path = self._texts.cache
        held = array.texts if array.texts is not None else array.files
        records = list(array.values[index]) if held is None else held[index].tolist()
        if path is None:
            rows = self.encoder(array.name).embed(records)
        else:
            with EmbeddingCache(path, read_only=self._texts.read_only) as cache:
                encoder, subjects = self.encoder(array.name), owners[index].tolist()
                rows = embed_cached(encoder, wanted.digest, records, subjects, cache, self.progress)
        values = np.zeros((*array.steps.shape, self.modality(array.name).width), dtype=np.float32)
        values[index] = rows
        return torch.from_numpy(values)
