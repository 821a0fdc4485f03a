"""How many tokens texts have, by a model's own tokenizer: without torch, for `data check`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...crypto.errors import UsageError
from .folder import configuration, dimensions
from .normal import TextInput
from .weights import AGAIN

TOKENIZER = "tokenizer.json"


def read_tokenizer(path: Path, data: bytes) -> Any:
    """Return the tokenizer that the bytes of a tokenizer.json, `path`, declare. Raises UsageError."""
    from tokenizers import Tokenizer  # noqa: PLC0415  # only who has texts needs it

    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises nothing narrower
        raise UsageError(f"cannot read {path} ({error})", AGAIN) from error


def cut(folder: Path, texts: Sequence[str], max_tokens: int) -> list[bool] | None:
    """Return for each text whether its end is not read, as the learner does it; None without a tokenizer.json.

    Raises UsageError, CorruptError for a folder that is no model's.
    """
    if not (folder / TOKENIZER).is_file():
        return None
    tokenizer = read_tokenizer(folder / TOKENIZER, (folder / TOKENIZER).read_bytes())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _, _, model = configuration(folder)
    before = model.reads.before if model is not None and isinstance(model.reads, TextInput) else ""
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    room = max(1, min(max_tokens, dimensions(folder).positions) - special)
    counts = [len(encoded.ids) - special for encoded in tokenizer.encode_batch([before + text for text in texts])]
    # Every window has special tokens of its own.
    return [count + special * max(1, -(-count // room)) > max_tokens for count in counts]
