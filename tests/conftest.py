"""The order of the tests, how many threads they use, and that none has a stopwatch.

What takes longest begins first, so that no worker is left alone with it at the end.
`--no-loadscope-reorder` keeps this order: else pytest-xdist begins with the files that have the most tests, which are
the quick ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

# By default hypothesis fails an example that takes over 200 ms, and a test whose examples take long to make.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# The tests run side by side already: threads of torch and numpy that wait for each other cost a third more CPU.
os.environ.setdefault("OMP_NUM_THREADS", "1")
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# Files by their measured length, longest first: after tests/firstweek, and before the others of tests/node/runtime.
LONGEST = (
    "runtime/test_membership.py",
    "processes/test_demo.py",
    "runtime/test_federation.py",
    "runtime/test_crash_points.py",
    "runtime/test_hosts.py",
    "runtime/test_private.py",
    "runtime/test_student.py",
    "blueprint/test_mixed.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = "/".join(item.path.parts[-2:])
        if "firstweek" in item.path.parts:
            return -1
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + ("runtime" not in item.path.parts)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def log_settings() -> Iterator[None]:
    """Put back what a test's own command set for the logs of its process: `peer join` shows errors only."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights in a folder, as `save_pretrained` leaves it."""
    import torch
    import transformers

    torch.set_num_threads(1)  # as in the worker; the models are small
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "fraction", "why", "hello"]
    (folder / "vocab.txt").write_text("\n".join([*words, *LETTERS, *(f"##{letter}" for letter in LETTERS)]) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words) + 2 * len(LETTERS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        initializer_range=0.3,  # so that texts differ
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with random weights, saved by transformers and imported by the command: vit/ and whisper/."""
    import torch
    import transformers

    from collegium.cli.main import main

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("media")
    small: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    made: dict[str, Any] = {
        "vit": (transformers.ViTModel, transformers.ViTConfig(hidden_size=16, image_size=16, patch_size=4,
                                                              initializer_range=0.3, **small)),
        "whisper": (transformers.WhisperModel, transformers.WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=24, decoder_ffn_dim=8, vocab_size=60, max_source_positions=50, init_std=0.3,
            pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0)),
    }  # fmt: skip
    for name, (build, config) in made.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            build(config).save_pretrained(root / "published" / name)
        assert main(["model", "import", str(root / "published" / name), str(root / name), "--json"]) == 0
    return root
