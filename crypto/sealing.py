"""Sealing bytes under a random key: without it only their length can be learned (XSalsa20-Poly1305)."""

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

KEY_BYTES = SecretBox.KEY_SIZE


def new_key() -> bytes:
    """Return a key from the operating system's randomness, 32 bytes."""
    return random(KEY_BYTES)


def seal(key: bytes, content: bytes) -> bytes:
    """Return a random nonce (24 bytes), an authenticator (16) and as many bytes as `content` has."""
    return bytes(SecretBox(key).encrypt(content))


def unseal(key: bytes, sealed: bytes) -> bytes | None:
    """Return the content; None if it was sealed under another key or was changed."""
    if len(sealed) < SecretBox.NONCE_SIZE + SecretBox.MACBYTES:
        return None
    try:
        return SecretBox(key).decrypt(sealed)
    except CryptoError:
        return None
