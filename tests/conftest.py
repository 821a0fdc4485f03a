"""The order of the tests, how many threads they use, and that none has a stopwatch.

What takes longest begins first, so that no worker is left alone with it at the end.
`--no-loadscope-reorder` keeps this order: else pytest-xdist begins with the files that have the most tests, which are
the quick ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path

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
