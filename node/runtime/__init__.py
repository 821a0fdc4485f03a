"""The daemon's shell: trio, the network, the store and the learner around the pure core."""

from .runtime import Runtime
from .serve import serve

__all__ = ["Runtime", "serve"]
