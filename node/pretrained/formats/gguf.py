"""A Llama from a GGUF file: its weights back to half precision, and its tokenizer as tokenizer.json."""

from pathlib import Path
from typing import Any

import numpy as np

from ....crypto.errors import CorruptError, UsageError
from ....crypto.extras import extra
from ..weights import Values
from .tokenizer import tokenizer_json

LAYER = {  # names there and in transformers, within a layer
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PINNED = "Install its package in the pinned version."
CONTROL = 3  # the type of a token that stands for no text
DIGITS = {"smollm"}  # kinds of pre-tokenizers that split numbers into digits, then as GPT-2


def read(path: Path) -> tuple[dict[str, Any], dict[str, Values], bytes, str]:
    """Return config.json, the tensors, tokenizer.json and the template of a conversation.

    Raises UsageError, also without the package gguf, and CorruptError.
    """
    with extra("writer"):
        from gguf import GGUFReader, dequantize  # noqa: PLC0415  # only who imports a writer has it
    try:
        file = GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise CorruptError(f"cannot read {path} ({error})", "Install its package again.") from error

    def value(key: str, default: Any = None) -> Any:
        entry = file.get_field(key)
        return default if entry is None else entry.contents()

    if (value("general.architecture"), value("tokenizer.ggml.model")) != ("llama", "gpt2"):
        raise UsageError(f"{path} holds no Llama with a tokenizer of bytes", PINNED)
    names = {tensor.name: tensor for tensor in file.tensors}
    heads, groups = int(value("llama.attention.head_count")), int(value("llama.attention.head_count_kv"))
    config = {
        "model_type": "llama",
        "hidden_size": value("llama.embedding_length"), "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": heads, "num_key_value_heads": groups,
        "intermediate_size": value("llama.feed_forward_length"), "vocab_size": value("llama.vocab_size"),
        "max_position_embeddings": value("llama.context_length"), "rope_theta": value("llama.rope.freq_base"),
        "rms_norm_eps": float(f"{value('llama.attention.layer_norm_rms_epsilon'):.3g}"),
        "bos_token_id": value("tokenizer.ggml.bos_token_id"), "eos_token_id": value("tokenizer.ggml.eos_token_id"),
        "pad_token_id": value("tokenizer.ggml.padding_token_id"), "tie_word_embeddings": "output.weight" not in names,
    }  # fmt: skip

    def stored(name: str, tensor: Any) -> Values:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        turned = {"attn_q": heads, "attn_k": groups}.get(name.split(".")[-2], 0)

        def parts() -> list[bytes]:
            array = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
            if turned:  # the halves of a head's rotary positions lie between each other there
                array = array.reshape(turned, shape[0] // turned // 2, 2, shape[1]).swapaxes(1, 2).reshape(shape)
            return [np.ascontiguousarray(array, dtype="<f2").tobytes()]

        return Values("F16", shape, parts)

    values = {_name(path, name): stored(name, tensor) for name, tensor in names.items()}
    return config, values, _tokenizer(path, value), str(value("tokenizer.chat_template", ""))


def _name(path: Path, name: str) -> str:
    parts = name.split(".")
    if len(parts) == 2 and parts[0] in OUTSIDE:
        return f"{OUTSIDE[parts[0]]}.{parts[1]}"
    if len(parts) == 4 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in LAYER:
        return f"model.layers.{int(parts[1])}.{LAYER[parts[2]]}.{parts[3]}"
    raise UsageError(f"{path} has a tensor {name} that no Llama has", PINNED)


def _tokenizer(path: Path, value: Any) -> bytes:
    kind = value("tokenizer.ggml.pre")
    if kind not in DIGITS:
        raise UsageError(f"{path}: a tokenizer of kind {kind!r} is not supported")
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return tokenizer_json(
        {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
         "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
         "vocab": {token: number for number, token in enumerate(tokens)},
         "merges": [merge.split(" ") for merge in value("tokenizer.ggml.merges")]},
        {number: tokens[number] for number, of in enumerate(types) if of == CONTROL},
        pre_tokenizer={
            "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, words],
        },
        decoder=words,
    )  # fmt: skip
