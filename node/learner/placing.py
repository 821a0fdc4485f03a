"""Where a frozen model lies, and in which precision: bfloat16 on a GPU that has it and room for it, else as it is.

Bfloat16 has the range of float32 with 8 bits of mantissa, half the memory, and on such a GPU several times the speed
(Kalamkar et al. 2019). Only what is never trained is rounded so; what is trained stays in float32. A model that a GPU
has no room for stays with the processor: it computes there what the cache then holds, once a record.
"""

from typing import TypeVar

import torch
from torch import nn

ROOM = 0.5  # of a GPU's free memory that frozen weights may take; the rest is for training
FREQUENCIES = "inv_freq"  # of rotary positions: times hundreds of positions, their rounding would be turns
M = TypeVar("M", bound=nn.Module)


def precision(device: torch.device) -> torch.dtype:
    """Return the type of frozen weights on a device."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def has_room(device: torch.device, numbers: int) -> bool:
    """Whether a device takes a frozen model of so many numbers. What a processor needs, `doctor` compares."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return numbers * precision(device).itemsize <= ROOM * free


def placed(model: M, device: torch.device) -> M:
    """Move a frozen model to a device in its precision there, if it has room; return it."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return moved(model, device) if has_room(device, numbers) else model


def moved(model: M, device: torch.device) -> M:
    """Move a frozen model to a device in its precision there; return it. The frequencies of positions stay exact."""
    exact = {name: buffer for name, buffer in model.named_buffers() if name.endswith(FREQUENCIES)}
    model.to(device, precision(device))
    for name, buffer in exact.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, buffer.to(device))
    return model


def type_of(model: nn.Module) -> torch.dtype:
    """Return the type of a model's weights: what it reads is brought to it."""
    return next(model.parameters()).dtype
