"""Ed25519 identities (RFC 8032) and domain-separated signatures.

What is signed is `domain_tag(domain) + message`. The tag has a known length, so the message needs no length of its own.
"""

from dataclasses import dataclass, field

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from .errors import LocalProtocolError
from .hashing import domain_tag

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """A member's Ed25519 key pair. Equal when the seeds are; neither `repr` nor `str` shows the seed."""

    _key: SigningKey
    public_key: bytes = field(init=False, repr=False, compare=False)
    """The 32-byte public key: the member's name in every record."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "public_key", bytes(self._key.verify_key))

    @classmethod
    def generate(cls) -> "Identity":
        """Make a new key from the operating system's randomness."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """Derive the key pair from its 32-byte seed (RFC 8032 section 5.1.5)."""
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"an Ed25519 seed is {SEED_BYTES} bytes, got {len(seed)}")
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The secret seed, 32 bytes: for the key file and the transport's peer id only."""
        return bytes(self._key)

    def sign(self, domain: str, message: bytes) -> bytes:
        """Sign `message` for one purpose; 64 bytes. `verify` in another domain fails."""
        return self._key.sign(domain_tag(domain) + message).signature

    def __repr__(self) -> str:
        return f"Identity({fingerprint(self.public_key)})"


def verify(public_key: bytes, domain: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` was made by `public_key` for exactly (`domain`, `message`).

    False for a malformed key or signature too; raises for no bytes that a peer can send. libsodium also rejects keys
    of small order and a non-canonical S, so a third party cannot turn a valid signature into a second valid one.

    Calls the binding directly: a `VerifyKey` only holds the 32 bytes, so caching them would save nothing.
    """
    # The binding reads 32 and 64 bytes whatever it is given; shorter input would be read past its end.
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + domain_tag(domain) + message, public_key)
    except CryptoError:
        return False
    return True


def fingerprint(public_key: bytes) -> str:
    """The first 8 bytes for display, as in `d75a-9801-82b1-0ab7`. Too short to authenticate a key."""
    digits = public_key.hex()[:16]
    return "-".join(digits[i : i + 4] for i in range(0, len(digits), 4))
