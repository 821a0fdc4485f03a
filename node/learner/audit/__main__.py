"""`python -m collegium.node.learner.audit`: as `python -m collegium.node.learner`, and it audits (worker.py)."""

import sys

from ..serve import main
from .worker import AuditWorker

if __name__ == "__main__":
    status = main(AuditWorker())
    sys.stdout = None
    sys.exit(status)
