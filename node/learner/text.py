"""Text encoders from `transformers`: pretrained and frozen, or a small BERT from scratch.

Both map token ids [n, L] to unit vectors [n, width], each text by itself: no dropout, no running statistics, every
trainable parameter in an `nn.Linear`, `nn.LayerNorm` or `nn.Embedding` whose input has the text as its first axis. So
the gradients of single texts are exact, and no padding changes them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from ...crypto.errors import UsageError
from ...crypto.hashing import digest
from ...protocol.components import ComponentSpec
from ..data.pieces import pieces
from ..pretrained.folder import Dimensions, configuration, dimensions
from ..pretrained.normal import TextInput
from ..pretrained.sound import check_sound
from ..pretrained.tensors import BERT, HEAD_SIZE, backbone_tensors, scratch_tensors

MAX_TOKENS = 128  # read of one text, special tokens included, if nothing else is declared
EMBED_BATCH = 32
WORDS = 512  # of a model's vocabulary, in even steps: what all texts have in common is the mean of their vectors
# Two texts of equal length: a tokenizer that knows the language's words gives them different ids.
TRIALS = (("the cat sat here", "why do plants grow"), ("一二三四", "水火木金"), ("12 34 56", "98 76 51"))
Texts = Sequence[Any] | npt.NDArray[np.object_]  # each a str, or None
Tokeniser = Callable[[list[str], int], list[list[list[int]]]]  # texts, tokens of a window -> windows of ids


class TextEncoder(nn.Module):
    """Texts to unit vectors: the mean of the last hidden states of a text's tokens, over its norm.

    A text of more tokens than the model takes at once is read in windows, up to `max_tokens`: the mean of their vectors
    by their tokens, over its norm. A missing text (None) has no tokens and becomes zero. `prompt`, if an nn.Embedding
    is set, stands before every text. `centre` [width], if set, is taken away from the unit vectors of windows, and what
    is left has length 1.
    """

    def __init__(self, model: nn.Module, tokeniser: Tokeniser, width: int, positions: int, max_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.prompt: nn.Embedding | None = None
        self.centre: Tensor | None
        self.register_buffer("centre", None, persistent=False)
        self.dimensions: Dimensions | None = None  # of a pretrained model: where adapters go
        self.width = width
        self._tokeniser = tokeniser
        self._positions = positions
        self.max_tokens = max_tokens
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.train()  # computes the same as evaluation mode, in which Opacus would skip modules

    @property
    def window(self) -> int:
        """The most tokens of one pass, without the prompt's."""
        return min(self.max_tokens, self._positions - (0 if self.prompt is None else self.prompt.num_embeddings))

    @property
    def adapted(self) -> bool:
        """Whether the model has a prompt or an adapter, which change its embeddings."""
        return self.prompt is not None or any(hasattr(module, "lora_A") for module in self.model.modules())

    def tokenise(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Return ids [n, L] int64, padded on the right to the longest text, and mask [n, L] bool; L is at least 1.

        Of a text only the first window: what is adapted passes through the model in every step.
        """
        return _padded([windows[0] if windows else [] for windows in self._windows(texts)])

    def cut(self, texts: Sequence[str], *, once: bool = False) -> list[bool]:
        """Return for each text whether its end is not read: after `max_tokens`, or after one window if read `once`."""
        most = self.window if once else self.max_tokens
        read = self._tokeniser(list(texts), self.window) if texts else []
        return [sum(map(len, windows)) > most for windows in read]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids [n, L] int64, mask [n, L] bool → [n, width] float32; zero where a mask is empty."""
        count = ids.shape[0]
        # A text without tokens attends to its first position: otherwise its attention were 0/0, which fails in some
        # kernels. It is zeroed below.
        first = torch.zeros_like(mask)
        first[:, 0] = ~mask.any(1)
        attended, skipped = mask | first, 0
        arguments: dict[str, Tensor]
        if self.prompt is None:
            arguments = {"input_ids": ids}
        else:
            skipped = self.prompt.num_embeddings
            # One row of ids for each text: a shared row would merge the gradients of all texts.
            places = torch.arange(skipped, device=ids.device).expand(count, skipped)
            words: Any = self.model.get_input_embeddings()  # type: ignore[operator]  # a method of the model
            arguments = {"inputs_embeds": torch.cat([self.prompt(places), words(ids)], dim=1)}
            attended = torch.cat([torch.ones_like(places, dtype=torch.bool), attended], dim=1)
        if self.dimensions is None:  # from scratch: no broadcasting, for the same reason
            arguments["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(count, -1)
            arguments["token_type_ids"] = torch.zeros_like(ids)
        hidden = self.model(attention_mask=attended.long(), **arguments).last_hidden_state[:, skipped:].float()
        # The prompt's own positions stay out of the mean: they are common to all texts, and would outweigh a short one.
        vectors = normalize((hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1), dim=1)
        if self.centre is not None:
            vectors = normalize((vectors - self.centre) * mask.any(1, keepdim=True), dim=1)
        return vectors

    def embed(self, texts: Texts, progress: Callable[[int, int], None] | None = None) -> npt.NDArray[np.float32]:
        """Return the embeddings of texts, [n, width] float32, in batches of texts of about the same length."""
        parts = [(row, ids) for row, windows in enumerate(self._windows(texts)) for ids in windows]
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        device = next(self.model.parameters()).device
        parts.sort(key=lambda part: len(part[1]))
        with torch.no_grad():
            for begin in range(0, len(parts), EMBED_BATCH):
                some = parts[begin : begin + EMBED_BATCH]
                batch, mask = _padded([ids for _, ids in some])
                for (row, ids), vector in zip(some, self(batch.to(device), mask.to(device)).cpu().numpy(), strict=True):
                    vectors[row] += len(ids) * vector
                if progress is not None:
                    progress(begin + len(some), len(parts))
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _windows(self, texts: Texts) -> list[list[list[int]]]:
        """Return the windows of each text, none where there is no token; together they have at most `max_tokens`."""
        read: list[list[list[int]]] = [[] for _ in texts]
        present = [(row, text) for row, text in enumerate(texts) if text is not None]
        if present:
            for (row, _), windows in zip(
                present, self._tokeniser([text for _, text in present], self.window), strict=True
            ):
                left = self.max_tokens
                for ids in windows:
                    if ids[:left]:
                        read[row].append(ids[:left])
                    left = max(0, left - len(ids))
        return read


class OffsetNorm(nn.Module):
    """Layer norm `x̂·(1 + w) + b`: a component starts at zero or random, so its tensors are offsets from identity.

    w and b belong to an `nn.LayerNorm`: Opacus can compute its gradients of single texts.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.offset = nn.LayerNorm(width, epsilon)
        nn.init.zeros_(self.offset.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[…, width] → […, width]."""
        offset: Tensor = self.offset(x)
        return layer_norm(x, self.offset.normalized_shape, eps=self.offset.eps) + offset


def pretrained_encoder(folder: Path, max_tokens: int = MAX_TOKENS) -> TextEncoder:
    """Load a pretrained model and its tokenizer from a folder, all frozen. Nothing is downloaded, no code of it runs.

    Raises UsageError, also for an incomplete folder or a model that embeds different texts alike.
    `pretrained.folder.check` compares the folder with the charter.
    """
    check_sound(folder)
    import transformers  # noqa: PLC0415  # takes seconds, and only texts need it
    from safetensors import SafetensorError  # noqa: PLC0415

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    sizes = dimensions(folder)
    _, _, imported = configuration(folder)
    # trust_remote_code left out would ask at the terminal.
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = (
            transformers.AutoTokenizer.from_pretrained(folder, **options)
            if imported is None
            else transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))  # type: ignore[no-untyped-call]
        )
        config: Any = transformers.AutoConfig.from_pretrained(folder, **options)
        # The attention setting of config.json can name code on the hub, to be fetched and run (G9).
        config._attn_implementation = "eager"
        model, loaded = transformers.AutoModel.from_pretrained(
            folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"cannot load the model in {folder} ({error})", "Install the model again.") from error
    # Missing weights would be random, and embeddings differ in every process. The pooler is not used.
    lacking = sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler."))
    if lacking:
        raise UsageError(f"the weights in {folder} lack {', '.join(lacking[:3])}", "Install the model again.")
    model.requires_grad_(False)

    reads = imported.reads if imported is not None and isinstance(imported.reads, TextInput) else TextInput()
    if max_tokens > sizes.positions and not tokenizer.is_fast:
        raise UsageError(
            f"the model in {folder} reads {sizes.positions} tokens at once, and its tokenizer makes no windows",
            f"Lower max_tokens to {sizes.positions}, or save the tokenizer again as a fast one (tokenizer.json).",
        )

    def tokens(texts: list[str], window: int) -> list[list[list[int]]]:
        texts = [reads.before + text for text in texts]
        if not tokenizer.is_fast:
            whole = tokenizer(texts)["input_ids"]
            first = tokenizer(texts, truncation=True, max_length=window)["input_ids"]
            return [[ids, rest[window:]] for ids, rest in zip(first, whole, strict=True)]  # the rest is only counted
        made = tokenizer(texts, truncation=True, max_length=window, return_overflowing_tokens=True)
        windows: list[list[list[int]]] = [[] for _ in texts]
        for row, ids in zip(made["overflow_to_sample_mapping"], made["input_ids"], strict=True):
            windows[row].append(ids)
        return windows

    encoder = TextEncoder(model, tokens, sizes.hidden, sizes.positions, max_tokens)
    encoder.dimensions = sizes
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UsageError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, its model embeddings of {rows} only",
            "Take both from the same release of the model.",
        )
    if reads.centred:  # a constant: of no record
        words = [
            tokenizer.decode([n * len(tokenizer) // WORDS], clean_up_tokenization_spaces=False) for n in range(WORDS)
        ]
        encoder.centre = torch.from_numpy(encoder.embed(words).mean(axis=0))
    _try(encoder, folder)
    return encoder


def _try(encoder: TextEncoder, folder: Path) -> None:
    """Embed a few texts. Raises UsageError if the embeddings are not finite, zero or all alike."""
    vectors = encoder.embed([text for pair in TRIALS for text in pair])
    if not np.isfinite(vectors).all() or not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
        raise UsageError(
            f"the model in {folder} embeds a text as nothing, or as numbers that are not finite",
            "Fetch the model again.",
        )
    if not (np.abs(vectors[::2] - vectors[1::2]).max(axis=1) > 1e-4).any():
        raise UsageError(
            f"the model in {folder} embeds different texts alike: nothing could be learned from them",
            "Are its tokenizer and weights those that belong to it? Fetch the model again.",
        )


def scratch_encoder(spec: ComponentSpec) -> TextEncoder:
    """Build the BERT of an `encoder/MODALITY` of architecture `bert`, with the size of its tensors.

    Raises UsageError for tensors that are no BERT's.
    """
    import transformers  # noqa: PLC0415  # takes seconds, and only texts need it

    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
    try:
        vocabulary, hidden = shapes["embeddings.word_embeddings.weight"]
        positions, _ = shapes["embeddings.position_embeddings.weight"]
        wide, _ = shapes["encoder.layer.0.intermediate.dense.weight"]
        layers = sum(name.endswith("intermediate.dense.weight") for name in shapes)
        expected = scratch_tensors(hidden, layers, vocabulary, positions, wide)
    except (KeyError, ValueError) as error:
        raise UsageError(f"component {spec.name!r}: tensors of no {BERT!r} ({error})") from error
    if shapes != {tensor.name: tensor.shape for tensor in expected}:
        raise UsageError(f"component {spec.name!r}: tensors of no {BERT!r} of {layers} layers and {hidden} features")
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=wide,
        max_position_embeddings=positions,
        type_vocab_size=1,
        pad_token_id=None,
    )
    model: Any = transformers.BertModel(config, add_pooling_layer=False)
    for parent in list(model.modules()):
        if isinstance(getattr(parent, "LayerNorm", None), nn.LayerNorm):
            parent.LayerNorm = OffsetNorm(hidden, parent.LayerNorm.eps)

    def tokens(texts: list[str], window: int) -> list[list[list[int]]]:
        words = [hashed_pieces(text, vocabulary) for text in texts]
        return [[ids[:window], ids[window:]] for ids in words]  # the rest is only counted

    return TextEncoder(model, tokens, hidden, positions, positions)


def scratch_layers(spec: ComponentSpec) -> nn.ModuleList:
    """Build the layers of a `backbone` of architecture `transformer` (pretrained/tensors.py), of its tensors' size.

    Raises UsageError for tensors that are no such layers'.
    """
    import transformers  # noqa: PLC0415  # as above
    from transformers.models.bert.modeling_bert import BertLayer  # noqa: PLC0415

    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
    try:
        wide, hidden = shapes["layers.0.intermediate.dense.weight"]
        layers = sum(name.endswith("intermediate.dense.weight") for name in shapes)
        expected = backbone_tensors(hidden, layers, wide)
    except (KeyError, ValueError) as error:
        raise UsageError(f"component {spec.name!r}: tensors of no transformer ({error})") from error
    if shapes != {tensor.name: tensor.shape for tensor in expected}:
        raise UsageError(f"component {spec.name!r}: tensors of no transformer of {layers} layers, {hidden} features")
    config = transformers.BertConfig(
        hidden_size=hidden, num_attention_heads=hidden // HEAD_SIZE, intermediate_size=wide,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"  # a few tokens: another kernel gains nothing
    stack: Any = nn.ModuleList(BertLayer(config) for _ in range(layers))  # type: ignore[no-untyped-call]  # as above
    for parent in list(stack.modules()):
        if isinstance(getattr(parent, "LayerNorm", None), nn.LayerNorm):
            parent.LayerNorm = OffsetNorm(hidden, parent.LayerNorm.eps)
    return stack  # type: ignore[no-any-return]  # transformers is untyped


def hashed_pieces(text: str, buckets: int) -> list[int]:
    """Return the bucket of each piece of a text (data/pieces.py) by SHA-256: a vocabulary made from no texts."""
    return [int.from_bytes(digest("word", piece.encode())[:8], "big") % buckets for piece in pieces(text)]


def _padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    length = max([1, *map(len, ids)])
    padded = torch.zeros((len(ids), length), dtype=torch.int64)
    mask = torch.zeros((len(ids), length), dtype=torch.bool)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        mask[row, : len(tokens)] = True
    return padded, mask
