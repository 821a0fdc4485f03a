"""Domain-separated SHA-256: a digest made for one purpose is never equal to one made for another."""

from functools import lru_cache
from hashlib import sha256 as _sha256

from .errors import LocalProtocolError

# The version is part of every digest and every signed message: a later protocol cannot reuse bytes of this one.
PREFIX = b"collegium/1"


@lru_cache(maxsize=256)
def domain_tag(domain: str) -> bytes:
    """`PREFIX`, one length byte, the domain in UTF-8: no tag is a prefix of another domain's tag.

    Raises `LocalProtocolError` for a domain of 0 or more than 255 bytes; domains are constants of ours.
    """
    name = domain.encode()
    if not 0 < len(name) < 256:
        raise LocalProtocolError(f"a domain is 1 to 255 bytes of UTF-8, got {len(name)}")
    return PREFIX + bytes((len(name),)) + name


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 of `domain_tag(domain)` and, for each part, its length (8 bytes, big-endian) and its bytes. 32 bytes.

    The lengths make the framing injective: moving a byte from one part to the next changes the digest.
    """
    state = _sha256(domain_tag(domain))
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def sha256(data: bytes) -> bytes:
    """SHA-256 without a domain, 32 bytes: for content addresses that other programs compute as well."""
    return _sha256(data).digest()
