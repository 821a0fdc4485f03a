"""Weights that torch saved, to safetensors: `python -m collegium.node.learner.unpickle FILE.pth OUT.safetensors`.

A process of its own, for a file of an installed package (node/pretrained/imports.py). `weights_only` builds tensors and
containers of them, and refuses whatever else a pickle asks for.
"""

import pickle
import sys

import torch
from safetensors.torch import save_file


def main(source: str, target: str) -> None:
    """Convert one file; ends with a line on standard error where it cannot."""
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        sys.exit(str(error).partition("\n")[0])
    if type(loaded).__name__ not in {"dict", "OrderedDict"}:
        sys.exit("it holds no table of tensors")
    save_file({str(name): value.contiguous() for name, value in loaded.items() if torch.is_tensor(value)}, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
