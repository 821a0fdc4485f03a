"""The key file's text format. Bytes in, bytes out: the caller reads and writes the file (mode 0600).

A JSON object with exactly these fields; byte strings are in hex:

    {"collegium-key": 1, "public_key": <32 bytes>, "seed": <32 bytes>}
    {"collegium-key": 1, "public_key": <32 bytes>, "sealed": {
        "kdf": "argon2id", "ops": <passes>, "mem": <bytes, whole KiB>, "salt": <16 bytes>,
        "ciphertext": <24-byte nonce and XSalsa20-Poly1305 secretbox of the seed, 72 bytes in all>}}

Argon2id is version 1.3 with one lane (RFC 9106), as libsodium computes it.
"""

import json
import unicodedata

from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumRuntimeError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random

from .errors import CorruptError, LocalProtocolError, RefusedError, UsageError
from .identity import PUBLIC_KEY_BYTES, SEED_BYTES, Identity

VERSION = 1
CIPHERTEXT_BYTES = SecretBox.NONCE_SIZE + SecretBox.MACBYTES + SEED_BYTES

# libsodium's MODERATE setting: 3 passes over 256 MiB, above RFC 9106's second recommended option (3 over 64 MiB). A
# daemon unseals once per start; an attacker pays the cost for every guess.
OPS = argon2id.OPSLIMIT_MODERATE
MEM = argon2id.MEMLIMIT_MODERATE

# The largest cost that a file may ask for, checked before anything is allocated: 8 passes over 1 GiB.
OPS_LIMIT = 8
MEM_LIMIT = argon2id.MEMLIMIT_SENSITIVE
FILE_LIMIT = 4096  # bytes; a sealed file has about 400

_RESTORE = "Restore the key file from a backup."


def seal(identity: Identity, passphrase: str | None, *, ops: int = OPS, mem: int = MEM) -> bytes:
    """The key file's content: sealed with `passphrase`, or with the seed in the clear if it is None.

    `ops` (passes) and `mem` (bytes) set Argon2id's cost; only tests change them. Raises `UsageError` for an empty
    passphrase, which would protect nothing, and `LocalProtocolError` for a cost that is not allowed.
    """
    fields: dict[str, object] = {"collegium-key": VERSION, "public_key": identity.public_key.hex()}
    if passphrase is None:
        fields["seed"] = identity.seed.hex()
    else:
        if not passphrase:
            raise UsageError("The passphrase is empty", "Give a passphrase, or leave the key unsealed.")
        if not _cost_is_allowed(ops, mem):
            raise LocalProtocolError(f"no key file may ask for {ops} passes over {mem} bytes")
        salt = random(argon2id.SALTBYTES)
        ciphertext = bytes(_box(passphrase, salt, ops, mem).encrypt(identity.seed)).hex()
        fields["sealed"] = {"kdf": "argon2id", "ops": ops, "mem": mem, "salt": salt.hex(), "ciphertext": ciphertext}
    return (json.dumps(fields, indent=2) + "\n").encode()


def unseal(data: bytes, passphrase: str | None, *, source: str) -> Identity:
    """The identity in a key file's content; `source` names the file in messages.

    A passphrase given for an unsealed key is ignored. Raises `CorruptError` for anything that is not a whole key file
    of a known version or whose seed does not belong to its public key, and `RefusedError` if the passphrase is missing
    or wrong. Damage to the ciphertext cannot be told from a wrong passphrase.
    """
    fields = _parse(data, source)
    public_key = _bytes_field(fields, "public_key", PUBLIC_KEY_BYTES, source)
    if "sealed" in fields:
        seed = _unseal_seed(fields["sealed"], passphrase, source)
    else:
        seed = _bytes_field(fields, "seed", SEED_BYTES, source)
    identity = Identity.from_seed(seed)
    if identity.public_key != public_key:
        raise CorruptError(f"The seed in {source} does not belong to its public key", _RESTORE)
    return identity


def is_sealed(data: bytes) -> bool:
    """Whether `unseal` needs a passphrase. False for a damaged file: `unseal` raises the error for it."""
    try:
        return "sealed" in _parse(data, "")
    except CorruptError:
        return False


def _unseal_seed(sealed: object, passphrase: str | None, source: str) -> bytes:
    if not isinstance(sealed, dict) or sealed.keys() != {"kdf", "ops", "mem", "salt", "ciphertext"}:
        raise CorruptError(f"The sealed part of {source} is not complete", _RESTORE)
    ops, mem = sealed["ops"], sealed["mem"]
    if sealed["kdf"] != "argon2id":
        raise CorruptError(f"{source} names an unknown key derivation", _RESTORE)
    if not _cost_is_allowed(ops, mem):
        limits = f"{OPS_LIMIT} passes over {MEM_LIMIT >> 20} MiB"
        raise CorruptError(f"{source} asks for a key derivation that is not allowed (at most {limits})", _RESTORE)
    salt = _bytes_field(sealed, "salt", argon2id.SALTBYTES, source)
    ciphertext = _bytes_field(sealed, "ciphertext", CIPHERTEXT_BYTES, source)
    if passphrase is None:
        raise RefusedError(f"{source} is sealed and no passphrase was given", "Give the passphrase of this key.")
    try:
        return _box(passphrase, salt, ops, mem).decrypt(ciphertext)
    except SodiumRuntimeError:
        advice = "Free memory and try again."
        raise RefusedError(f"Unsealing {source} needs {mem >> 20} MiB of memory", advice) from None
    except CryptoError:
        advice = "Try again; if you are sure of it, the file is damaged: restore it from a backup."
        raise RefusedError(f"wrong passphrase for {source}", advice) from None


def _box(passphrase: str, salt: bytes, ops: int, mem: int) -> SecretBox:
    # NFKC: the same passphrase typed on another keyboard or system may arrive composed differently. Lone surrogates are
    # Python's form of undecodable bytes in an environment variable; they must not end in a traceback.
    secret = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    return SecretBox(argon2id.kdf(SecretBox.KEY_SIZE, secret, salt, opslimit=ops, memlimit=mem))


def _cost_is_allowed(ops: object, mem: object) -> bool:
    return (
        type(ops) is int
        and type(mem) is int
        and argon2id.OPSLIMIT_MIN <= ops <= OPS_LIMIT
        and argon2id.MEMLIMIT_MIN <= mem <= MEM_LIMIT
        and mem % 1024 == 0  # libsodium rounds down to KiB: two numbers would mean one cost
    )


def _parse(data: bytes, source: str) -> dict[str, object]:
    """The fields of a key file of our version, exactly those of the format and of the right one of its two forms."""
    try:
        # Decoded here because json.loads would also guess UTF-16 and UTF-32. RecursionError: deep nesting.
        fields = json.loads(data.decode("utf-8")) if len(data) <= FILE_LIMIT else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or "collegium-key" not in fields:
        raise CorruptError(f"{source} is not a Collegium key file, or is damaged", _RESTORE)
    version = fields["collegium-key"]
    if type(version) is not int or version != VERSION:
        raise CorruptError(f"{source} has an unknown key file version", f"Upgrade Collegium. Or: {_RESTORE}")
    if fields.keys() - {"collegium-key", "public_key"} not in ({"seed"}, {"sealed"}):
        raise CorruptError(f"{source} lacks a field or has an unknown one", _RESTORE)
    return fields


def _bytes_field(fields: dict[str, object], name: str, size: int, source: str) -> bytes:
    value = fields.get(name)
    try:
        decoded = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        decoded = b""
    if len(decoded) != size:
        raise CorruptError(f"Field {name} of {source} is not {size} bytes in hex", _RESTORE)
    return decoded
