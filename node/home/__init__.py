"""A node's directory: paths, key, configuration, added peers, and the lock that admits one daemon."""

from .config import Config
from .lock import hold, running
from .paths import Home
from .peers import edit_peers, load_peers, save_peers

__all__ = ["Config", "Home", "edit_peers", "hold", "load_peers", "running", "save_peers"]
