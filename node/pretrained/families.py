"""The families of pretrained models: one table, by the `model_type` of a config.json.

A family says what its models read, which keys of config.json decide what they compute, and which tensors they have.
Whatever is not here is left out of an imported model: so its bytes do not depend on the library that saved it. Where
transformers renamed a model's tensors the names are those of the published files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "image", "audio", "writer"]  # what it embeds; a writer continues a text
Config = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]
# As transformers calls them, in every version that is supported.
ACTIVATIONS = frozenset(
    {
        "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_10", "quick_gelu", "relu", "relu2",
        "relu6", "leaky_relu", "silu", "swish", "sigmoid", "tanh", "mish", "linear", "hardswish", "laplace",
    }
)  # fmt: skip
NEEDED = object()  # in place of a default: the key has to be there


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of a `model_type` are built. `{}` in a name is the number of the layer.

    `keys` are those of config.json that count, with transformers' default (NEEDED: none; None: may be nothing), `only`
    those of which one value is supported. `derived` computes a key that says nothing. `shapes` gives the tensors of a
    configuration with all `keys`. `prefixes` may stand before the names of tensors in other people's files. `words` is
    the table of embeddings.
    """

    kind: Kind
    keys: Mapping[str, Any]
    shapes: Callable[[Config], Shapes]
    prefixes: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    words: str = ""
    projections: Mapping[str, str] = field(default_factory=dict)  # "query", "key", "value" -> name of the module
    derived: Mapping[str, Callable[[Config], int]] = field(default_factory=dict)
    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    activation: str = "hidden_act"
    positions: str = "max_position_embeddings"
    shifted: bool = False  # positions start after the padding id: that many fewer can be used


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs)}
    return weight | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _bert_embeddings(c: Config, h: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (c["vocab_size"], h),
        "embeddings.position_embeddings.weight": (c["max_position_embeddings"], h),
        **_norm("embeddings.LayerNorm", h),
    }


def _bert(c: Config) -> Shapes:
    h, wide = c["hidden_size"], c["intermediate_size"]
    shapes = _bert_embeddings(c, h) | {"embeddings.token_type_embeddings.weight": (c["type_vocab_size"], h)}
    for layer in range(c["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{at}.attention.self.{name}", h, h)
        shapes |= _linear(f"{at}.attention.output.dense", h, h) | _norm(f"{at}.attention.output.LayerNorm", h)
        shapes |= _linear(f"{at}.intermediate.dense", wide, h) | _linear(f"{at}.output.dense", h, wide)
        shapes |= _norm(f"{at}.output.LayerNorm", h)
    return shapes


def _mpnet(c: Config) -> Shapes:
    h, wide = c["hidden_size"], c["intermediate_size"]
    buckets = (c["relative_attention_num_buckets"], c["num_attention_heads"])
    shapes = _bert_embeddings(c, h) | {"encoder.relative_attention_bias.weight": buckets}
    for layer in range(c["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in ("q", "k", "v", "o"):
            shapes |= _linear(f"{at}.attention.attn.{name}", h, h)
        shapes |= _norm(f"{at}.attention.LayerNorm", h)
        shapes |= _linear(f"{at}.intermediate.dense", wide, h) | _linear(f"{at}.output.dense", h, wide)
        shapes |= _norm(f"{at}.output.LayerNorm", h)
    return shapes


def _distilbert(c: Config) -> Shapes:
    h, wide = c["dim"], c["hidden_dim"]
    shapes = _bert_embeddings(c, h)
    for layer in range(c["n_layers"]):
        at = f"transformer.layer.{layer}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= _linear(f"{at}.attention.{name}", h, h)
        shapes |= _norm(f"{at}.sa_layer_norm", h) | _norm(f"{at}.output_layer_norm", h)
        shapes |= _linear(f"{at}.ffn.lin1", wide, h) | _linear(f"{at}.ffn.lin2", h, wide)
    return shapes


def _llama(c: Config) -> Shapes:
    h, wide, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    size = c["head_dim"]
    keys = size * c["num_key_value_heads"]
    shapes: Shapes = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], h)
    for layer in range(c["num_hidden_layers"]):
        at, bias = f"model.layers.{layer}", c["attention_bias"]
        shapes |= _linear(f"{at}.self_attn.q_proj", size * heads, h, bias=bias)
        shapes |= _linear(f"{at}.self_attn.k_proj", keys, h, bias=bias)
        shapes |= _linear(f"{at}.self_attn.v_proj", keys, h, bias=bias)
        shapes |= _linear(f"{at}.self_attn.o_proj", h, size * heads, bias=bias)
        for name in ("gate_proj", "up_proj"):
            shapes |= _linear(f"{at}.mlp.{name}", wide, h, bias=c["mlp_bias"])
        shapes |= _linear(f"{at}.mlp.down_proj", h, wide, bias=c["mlp_bias"])
        shapes |= {f"{at}.input_layernorm.weight": (h,), f"{at}.post_attention_layernorm.weight": (h,)}
    return shapes


def _gpt2(c: Config) -> Shapes:
    h, wide = c["n_embd"], c["n_inner"]
    shapes: Shapes = {"transformer.wte.weight": (c["vocab_size"], h), "transformer.wpe.weight": (c["n_positions"], h)}
    shapes |= _norm("transformer.ln_f", h)
    for layer in range(c["n_layer"]):
        at = f"transformer.h.{layer}"
        shapes |= _norm(f"{at}.ln_1", h) | _norm(f"{at}.ln_2", h)
        # Its linear maps are stored as [inputs, outputs].
        for name, rows, columns in (
            ("attn.c_attn", h, 3 * h), ("attn.c_proj", h, h), ("mlp.c_fc", h, wide), ("mlp.c_proj", wide, h),
        ):  # fmt: skip
            shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (columns,)}
    return shapes


def _whisper(c: Config) -> Shapes:
    h, wide = c["d_model"], c["encoder_ffn_dim"]
    shapes: Shapes = {"embed_positions.weight": (c["max_source_positions"], h)}
    for number, before in ((1, c["num_mel_bins"]), (2, h)):
        shapes |= {f"conv{number}.weight": (h, before, 3), f"conv{number}.bias": (h,)}
    for layer in range(c["encoder_layers"]):
        at = f"layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{at}.self_attn.{name}", h, h, bias=name != "k_proj")
        shapes |= _norm(f"{at}.self_attn_layer_norm", h) | _norm(f"{at}.final_layer_norm", h)
        shapes |= _linear(f"{at}.fc1", wide, h) | _linear(f"{at}.fc2", h, wide)
    return shapes | _norm("layer_norm", h)


def _vit(c: Config) -> Shapes:
    h, wide, patch = c["hidden_size"], c["intermediate_size"], c["patch_size"]
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, h),
        "embeddings.position_embeddings": (1, (c["image_size"] // patch) ** 2 + 1, h),
        "embeddings.patch_embeddings.projection.weight": (h, c["num_channels"], patch, patch),
        "embeddings.patch_embeddings.projection.bias": (h,),
    }
    for layer in range(c["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{at}.attention.attention.{name}", h, h, bias=c["qkv_bias"])
        shapes |= _linear(f"{at}.attention.output.dense", h, h)
        shapes |= _norm(f"{at}.layernorm_before", h) | _norm(f"{at}.layernorm_after", h)
        shapes |= _linear(f"{at}.intermediate.dense", wide, h) | _linear(f"{at}.output.dense", h, wide)
    return shapes | _norm("layernorm", h)


@dataclass(frozen=True, slots=True)
class LiteBlock:
    """One block of EfficientNet-Lite: expand, convolve every channel by itself, project (Tan and Le 2019)."""

    expand: int
    kernel: int
    stride: int
    inputs: int
    outputs: int

    @property
    def inner(self) -> int:
        """The channels that are convolved."""
        return self.expand * self.inputs


# Rows of the paper's table 1: repeats, then the first block; the repeated ones keep size and channels.
_LITE0 = (
    (1, LiteBlock(1, 3, 1, 32, 16)),
    (2, LiteBlock(6, 3, 2, 16, 24)),
    (2, LiteBlock(6, 5, 2, 24, 40)),
    (3, LiteBlock(6, 3, 2, 40, 80)),
    (3, LiteBlock(6, 5, 1, 80, 112)),
    (4, LiteBlock(6, 5, 2, 112, 192)),
    (1, LiteBlock(6, 3, 1, 192, 320)),
)
LITE0_BLOCKS = tuple(
    first if number == 0 else LiteBlock(first.expand, first.kernel, 1, first.outputs, first.outputs)
    for repeats, first in _LITE0
    for number in range(repeats)
)
LITE0_STEM, LITE0_FEATURES = 32, 1280


def _lite0(c: Config) -> Shapes:
    def batch_norm(name: str, width: int) -> Shapes:
        return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}

    shapes: Shapes = {"_conv_stem.weight": (LITE0_STEM, 3, 3, 3)} | batch_norm("_bn0", LITE0_STEM)
    for number, block in enumerate(LITE0_BLOCKS):
        at = f"_blocks.{number}"
        if block.expand != 1:
            shapes |= {f"{at}._expand_conv.weight": (block.inner, block.inputs, 1, 1)}
            shapes |= batch_norm(f"{at}._bn0", block.inner)
        shapes |= {f"{at}._depthwise_conv.weight": (block.inner, 1, block.kernel, block.kernel)}
        shapes |= {f"{at}._project_conv.weight": (block.outputs, block.inner, 1, 1)}
        shapes |= batch_norm(f"{at}._bn1", block.inner) | batch_norm(f"{at}._bn2", block.outputs)
    head = (c["hidden_size"], LITE0_BLOCKS[-1].outputs, 1, 1)
    return shapes | {"_conv_head.weight": head} | batch_norm("_bn1", c["hidden_size"])


_TEXT: Mapping[str, Any] = {"vocab_size": NEEDED, "max_position_embeddings": NEEDED, "pad_token_id": 0}
_LAYERS: Mapping[str, Any] = {
    "hidden_size": NEEDED, "num_hidden_layers": NEEDED, "num_attention_heads": NEEDED, "intermediate_size": NEEDED,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
_WRITER: Mapping[str, Any] = {"vocab_size": NEEDED, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_ABSOLUTE = {"position_embedding_type": ("absolute",), "is_decoder": (False,)}
_WORDS = "embeddings.word_embeddings.weight"


def _projections(at: str, query: str, key: str, value: str) -> Mapping[str, str]:
    return {"query": f"{at}.{query}", "key": f"{at}.{key}", "value": f"{at}.{value}"}


def _like_bert(prefix: str, *, shifted: bool = False) -> Family:
    return Family(
        "text",
        {**_TEXT, **_LAYERS, "type_vocab_size": 2} | ({"pad_token_id": 1} if shifted else {}),
        _bert,
        (f"{prefix}.",),
        _ABSOLUTE,
        _WORDS,
        _projections("encoder.layer.{}.attention.self", "query", "key", "value"),
        shifted=shifted,
    )


_ROBERTA = _like_bert("roberta", shifted=True)
LITE0 = "efficientnet-lite0"
FAMILIES: Mapping[str, Family] = {
    "bert": _like_bert("bert"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": Family(
        "text",
        {**_TEXT, **_LAYERS, "pad_token_id": 1, "relative_attention_num_buckets": 32},
        _mpnet,
        ("mpnet.",),
        words=_WORDS,
        projections=_projections("encoder.layer.{}.attention.attn", "q", "k", "v"),
        shifted=True,
    ),
    "distilbert": Family(
        "text",
        {
            **_TEXT, "dim": NEEDED, "n_layers": NEEDED, "n_heads": NEEDED, "hidden_dim": NEEDED, "activation": "gelu",
        },
        _distilbert,
        ("distilbert.",),
        words=_WORDS,
        projections=_projections("transformer.layer.{}.attention", "q_lin", "k_lin", "v_lin"),
        hidden="dim",
        layers="n_layers",
        heads="n_heads",
        activation="activation",
    ),
    "llama": Family(
        "writer",
        {
            **_WRITER, "hidden_size": NEEDED, "num_hidden_layers": NEEDED, "num_attention_heads": NEEDED,
            "intermediate_size": NEEDED, "max_position_embeddings": NEEDED, "num_key_value_heads": None,
            "head_dim": None, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
        },
        _llama,
        words="model.embed_tokens.weight",
        derived={
            "num_key_value_heads": lambda c: c["num_attention_heads"],
            "head_dim": lambda c: c["hidden_size"] // c["num_attention_heads"],
        },
        projections=_projections("model.layers.{}.self_attn", "q_proj", "k_proj", "v_proj"),
    ),
    "gpt2": Family(
        "writer",
        {
            **_WRITER, "n_embd": NEEDED, "n_layer": NEEDED, "n_head": NEEDED, "n_positions": NEEDED, "n_inner": None,
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
        },
        _gpt2,
        only={
            "tie_word_embeddings": (True,), "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)
        },
        words="transformer.wte.weight",
        derived={"n_inner": lambda c: 4 * c["n_embd"]},
        projections=dict.fromkeys(("query", "key", "value"), "transformer.h.{}.attn.c_attn"),  # one module for all
        hidden="n_embd",
        layers="n_layer",
        heads="n_head",
        activation="activation_function",
        positions="n_positions",
    ),
    "whisper": Family(
        "audio",
        {
            "d_model": NEEDED, "encoder_layers": NEEDED, "encoder_attention_heads": NEEDED, "encoder_ffn_dim": NEEDED,
            "num_mel_bins": 80, "max_source_positions": 1500, "activation_function": "gelu", "scale_embedding": False,
        },
        _whisper,
        ("model.encoder.", "encoder."),
        hidden="d_model",
        layers="encoder_layers",
        heads="encoder_attention_heads",
        activation="activation_function",
        positions="max_source_positions",
    ),
    "vit": Family(
        "image",
        {**_LAYERS, "image_size": 224, "patch_size": 16, "num_channels": 3, "qkv_bias": True},
        _vit,
        ("vit.",),
        {"num_channels": (3,)},
        positions="image_size",
    ),
    LITE0: Family("image", {"hidden_size": LITE0_FEATURES}, _lite0, only={"hidden_size": (LITE0_FEATURES,)}, layers=""),
}  # fmt: skip
