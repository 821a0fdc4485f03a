"""Writing with an adapted model: greedy, or sampled by a seed, in batches, with a cache of keys and values.

What it writes is a draft for a teacher: a small model repeats a student's error as fact.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .placing import type_of
from .writer import Writer

BATCH = 16
TEMPERATURE = 0.7  # of sampling


@torch.no_grad()
def write(
    writer: Writer,
    prompts: Sequence[Sequence[int]],
    most: int,
    end: int,
    *,
    seed: int | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[list[int]]:
    """Continue each prompt by at most `most` tokens, up to the sign `end`, which is left out; of an empty one nothing.

    Without a `seed` the likeliest token is taken each time. With one a record's text depends on the seed and on its
    place among the prompts, and not on the batch.
    """
    written: list[list[int]] = [[] for _ in prompts]
    order = sorted((row for row, prompt in enumerate(prompts) if prompt), key=lambda row: len(prompts[row]))
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH]
        sources = None if seed is None else [_source(seed, row) for row in rows]
        for row, tokens in zip(rows, _batch(writer, [prompts[row] for row in rows], most, end, sources), strict=True):
            written[row] = tokens
        progress(begin + len(rows), len(order))
    return written


def _source(seed: int, row: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + row) % 2**63)


def _batch(
    writer: Writer, prompts: Sequence[Sequence[int]], most: int, end: int, sources: Sequence[torch.Generator] | None
) -> list[list[int]]:
    """Continue prompts together; the shorter ones are padded on the left, and nothing attends to that."""
    from transformers import DynamicCache  # noqa: PLC0415  # takes seconds

    device, longest = writer.to_device(), max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    there = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        there[row, longest - len(prompt) :] = True
    ids, there = ids.to(device), there.to(device)
    places, cache = (there.cumsum(1) - 1).clamp(min=0), DynamicCache()
    written: list[list[int]] = [[] for _ in prompts]
    going = [True] * len(prompts)
    for _ in range(most):
        chosen = _chosen(_last(writer, ids, there, places, cache), sources)
        for row, token in enumerate(chosen.tolist()):
            going[row] = going[row] and token != end
            if going[row]:
                written[row].append(token)
        if not any(going):
            break
        ids, places = chosen[:, None], places[:, -1:] + 1
        there = torch.cat([there, torch.ones(len(prompts), 1, dtype=torch.bool, device=device)], dim=1)
    return written


def _last(writer: Writer, ids: Tensor, there: Tensor, places: Tensor, cache: Any) -> Tensor:
    """Return the logits after the last of these tokens [R, vocabulary]; `there` [R, n]: which of all so far count."""
    model = writer.frozen.model
    hidden, seen = model.embed_tokens(ids), there.shape[1]
    turns = model.rotary_emb(hidden, places)
    before = torch.ones(ids.shape[1], seen, dtype=torch.bool, device=ids.device).tril(seen - ids.shape[1])
    # A padding attends to itself, or its attention were 0/0.
    mask = (before & there[:, None]) | torch.eye(seen, dtype=torch.bool, device=ids.device)[-ids.shape[1] :]
    for layer in (*model.layers[: writer.first], *writer.upper):
        hidden = layer(
            hidden.to(type_of(layer)), attention_mask=mask[:, None], position_ids=places, position_embeddings=turns,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
    return writer.said(hidden[:, -1])


def _chosen(logits: Tensor, sources: Sequence[torch.Generator] | None) -> Tensor:
    if sources is None:
        return logits.argmax(1)
    shares = torch.softmax(logits.float().cpu() / TEMPERATURE, dim=1)
    return torch.cat(
        [torch.multinomial(row, 1, generator=source) for row, source in zip(shares, sources, strict=True)]
    ).to(logits.device)
