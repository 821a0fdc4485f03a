"""The frozen encoder of a pretrained model, of whatever its family reads."""

from pathlib import Path
from typing import assert_never

from ...crypto.errors import UsageError
from ..pretrained.folder import configuration
from .media import FrozenEncoder, media_encoder
from .text import MAX_TOKENS, TextEncoder, pretrained_encoder


def frozen_encoder(folder: Path, max_tokens: int = MAX_TOKENS) -> TextEncoder | FrozenEncoder:
    """Load and try a model. `max_tokens` are read of each text. Raises UsageError, CorruptError."""
    _, family, _ = configuration(folder)
    match family.kind:
        case "text":
            return pretrained_encoder(folder, max_tokens)
        case "image" | "audio":
            return media_encoder(folder)
        case "writer":
            raise UsageError(f"the model in {folder} writes, and embeds nothing", "Name an encoder for a modality.")
        case _:
            assert_never(family.kind)
