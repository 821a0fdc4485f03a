"""tokenizer.json, the file of the library tokenizers, written without it."""

import json
from typing import Any


def tokenizer_json(model: dict[str, Any], special: dict[int, str], **parts: Any) -> bytes:
    """Return a tokenizer.json as the library tokenizers reads it; its bytes do not depend on that library."""
    added = [
        {"id": at, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for at, name in sorted(special.items())
    ]  # fmt: skip
    whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    whole |= {name: parts.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    return json.dumps(whole | {"model": model}, ensure_ascii=False, separators=(",", ":")).encode()
