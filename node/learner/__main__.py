"""`python -m collegium.node.learner`: a learner worker (serve.py), or the helper of one (crew.py)."""

import argparse
import os
import sys
from pathlib import Path

from .serve import main
from .worker import Worker


def _main() -> int:
    options = argparse.ArgumentParser(allow_abbrev=False)
    options.add_argument("--rank", type=int, default=0)
    options.add_argument("--of", type=int, default=1)
    options.add_argument("--meeting", type=Path)
    asked = options.parse_args()
    if asked.of == 1:
        return main(Worker())
    parent = os.getppid()
    from .parallel import Team, end_with, join  # noqa: PLC0415  # torch

    end_with(parent)
    return main(Worker(join(Team(asked.rank, asked.of), asked.meeting)))


if __name__ == "__main__":
    status = _main()
    sys.stdout = None
    sys.exit(status)
