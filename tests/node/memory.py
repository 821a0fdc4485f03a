from dataclasses import dataclass


@dataclass(frozen=True)
class Memory:
    """Bytes as a node holds them."""

    blobs: dict[bytes, bytes]

    def get(self, digest: bytes) -> bytes | None:
        return self.blobs.get(digest)

    def has(self, digest: bytes) -> bool:
        return digest in self.blobs
