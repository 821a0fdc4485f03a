"""What a node keeps on disk: the database, update bytes by digest, component states.

Nothing here decides anything; what is damaged is named and never taken for something else.
"""

from .blobs import BLOB_LIMIT, Blobs, BlobWriter
from .database import Store
from .errors import DiskFullError
from .observations import Metric, RoundNote
from .states import States

__all__ = ["BLOB_LIMIT", "BlobWriter", "Blobs", "DiskFullError", "Metric", "RoundNote", "States", "Store"]
