"""`python -m collegium.node.learner`: a learner worker (serve.py), or the helper of one (crew.py)."""

import argparse
import sys
from pathlib import Path
from shutil import rmtree

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
    from .parallel import Team, join  # noqa: PLC0415  # torch

    try:
        return main(Worker(join(Team(asked.rank, asked.of), asked.meeting)))
    finally:
        rmtree(asked.meeting.parent, ignore_errors=True)  # a leader that is killed, as daemons do, leaves it behind


if __name__ == "__main__":
    status = _main()
    sys.stdout = None
    sys.exit(status)
