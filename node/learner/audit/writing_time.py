"""The time of a step of a model that writes: under DP, without, and without the cache of hidden states.

`collegium bench dp` runs this as `python -m collegium.node.learner.audit.writing_time [REPEATS]`. It prints one line of
JSON, {"plain": seconds, "dp": …, "uncached": …}: medians of one step, on the CPU.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

from ....protocol.components import base_vector
from ....protocol.learning import Learning, Modality, Pretrained, PrivacyFloor, Task
from ...blueprint.parts import adapter
from ...pretrained.imports import imported
from ..dpsgd import Batch
from ..model import M3TModel
from ..writer import Hidden, Writer, key_of
from ..writing import answer_lengths
from .timing import REPEATS, SEED, WARM, Case, dp_step, plain_step, specs_of

STUDENTS, PROMPT, ANSWER = 16, 96, 32  # tokens of a student's one record
LAYERS, ADAPTED, WIDTH, WORDS = 12, 2, 128, 400
STEPS = 2  # of one measurement: they share the setup of `train`


def small_writer(folder: Path) -> Path:
    """Write a Llama with random weights, of 12 layers and 128 features, 4 heads of which 2 have keys and values."""
    import tokenizers  # noqa: PLC0415
    import transformers  # noqa: PLC0415  # takes seconds

    published, out = folder / "published", folder / "imported"
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    words = {f"w{number}": number for number in range(WORDS)}
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(published)  # fmt: skip
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "w0")).save(str(published / "tokenizer.json"))
    out.mkdir()
    for name, parts in imported(str(published), lambda path: path).files():
        with (out / name).open("wb") as file:
            file.writelines(parts)
    return out


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Return the median seconds of one step of each kind; they take turns, on models of their own."""
    model = small_writer(folder)
    work = Modality("work", "text", WIDTH, 1, (Pretrained("small", bytes(32)),))
    task = Task("feedback", "generate", ANSWER, ("work",), template="{1}")
    case = Case((work,), (task,), (adapter(work, model, "lora-ffa", 8, ("query", "value"), ADAPTED),), STUDENTS)
    specs = specs_of(case)
    learning = Learning(case.modalities, case.tasks, (PrivacyFloor("work", "dp", 8000, 10),), 1, 100_000, 0, 1)
    ids = np.random.default_rng(1).integers(2, WORDS, (STUDENTS, PROMPT + ANSWER)).tolist()
    values = torch.full((STUDENTS, 1, 2, PROMPT), -1, dtype=torch.int64)
    for row, tokens in enumerate(ids):
        values[row, 0, 0, :PROMPT] = torch.tensor(tokens[:PROMPT])
        values[row, 0, 1, :ANSWER] = torch.tensor(tokens[PROMPT:])
    steps = values[:, :, :, 0] >= 0
    batch = Batch(torch.ones(STUDENTS, 1), {"work": (values, steps)}, {"feedback": answer_lengths(values, steps)})
    states = Writer(model, LAYERS - ADAPTED).states(ids)
    kept: Hidden = {key_of(tokens): state for tokens, state in zip(ids, states, strict=True)}

    def made(hidden: Hidden) -> M3TModel:
        built = M3TModel(specs, learning, SEED, {"work": Writer(model, LAYERS - ADAPTED, hidden)})
        for spec in specs:
            built.load(spec, base_vector(SEED, spec.name, spec.tensors))
        return built

    models = {"plain": made(kept), "dp": made(kept), "uncached": made({})}
    jobs: dict[str, Callable[[], None]] = {
        "plain": lambda: plain_step(models["plain"], specs, batch, STEPS),
        "dp": lambda: dp_step(models["dp"], specs, batch, STEPS),
        "uncached": lambda: dp_step(models["uncached"], specs, batch, STEPS),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(WARM + repeats):
        for name, job in jobs.items():
            before = perf_counter()
            job()
            if repeat >= WARM:
                times[name].append((perf_counter() - before) / STEPS)
    return {name: median(seconds) for name, seconds in times.items()}


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    torch.set_num_threads(1)  # as in the worker
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), int(arguments[0]) if arguments else REPEATS)))  # noqa: T201  # the answer


if __name__ == "__main__":
    main(sys.argv[1:])
