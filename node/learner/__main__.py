"""`python -m collegium.node.learner`: a learner worker (serve.py)."""

import sys

from .serve import main
from .worker import Worker

if __name__ == "__main__":
    status = main(Worker())
    sys.stdout = None
    sys.exit(status)
