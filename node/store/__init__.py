"""A node's storage: the database, update bytes by digest, component states.

It decides nothing. Damaged files and rows are reported by name and never used.
"""

from .blobs import BLOB_LIMIT, Blobs, BlobWriter
from .database import Store
from .errors import DiskFullError
from .observations import Metric, RoundNote
from .states import States

__all__ = ["BLOB_LIMIT", "BlobWriter", "Blobs", "DiskFullError", "Metric", "RoundNote", "States", "Store"]
