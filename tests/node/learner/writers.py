"""A tiny model that writes, imported as any other: random weights, a token a byte."""

from pathlib import Path
from typing import Any

from collegium.cli.main import main

START, END = "<|im_start|>", "<|im_end|>"


def tiny_writer(folder: Path) -> Path:
    """Make a Llama of 2 layers and width 32 with 4 heads of which 2 have keys and values of their own; import it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made, out = folder / "published", folder / "tiny-writer"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate([START, END, *letters])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START, END])
    fast: Any = transformers.PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(made)
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, initializer_range=0.3,
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformers.LlamaForCausalLM(config).save_pretrained(made)
    assert main(["model", "import", str(made), str(out), "--json"]) == 0
    return out
