"""A copy of a node's home in one file, made while the daemon runs, and a home made from one."""

from .archive import FORMAT, Head
from .make import Backup, opened
from .restore import Contents, check, unpack

__all__ = ["FORMAT", "Backup", "Contents", "Head", "check", "opened", "unpack"]
