"""Fingerprints: digests and keys in digits that two people can compare by telephone."""

from .hashing import digest

DIGITS, GROUP = 25, 5  # 83 bits (docs/membership.md says why so many)


def fingerprint(value: bytes) -> str:
    """Return the fingerprint of a federation id or a public key: 25 digits in groups of five."""
    number = int.from_bytes(digest("fingerprint", value)) % 10**DIGITS
    text = f"{number:0{DIGITS}d}"
    return " ".join(text[start : start + GROUP] for start in range(0, DIGITS, GROUP))
