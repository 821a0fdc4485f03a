"""The two verifiers of files as functions: the product's, and the independent one of docs/verifier."""

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from nacl.bindings import crypto_sign_open

from ...crypto import identity
from ...crypto.errors import CorruptError, UsageError, VerificationError
from ...node.verify import files
from ...protocol import schema

VERIFIER = Path(__file__).resolve().parents[2] / "docs" / "verifier" / "collegium_verify.py"
Verifier = Callable[[bytes], str | None]  # why the file is refused, or None: accepted


def product(data: bytes) -> str | None:
    """Verify a file as `collegium ledger verify` does."""
    try:
        files.verify_file(io.BytesIO(data), "the file")
    except (CorruptError, VerificationError) as error:
        return error.message
    return None


def load_independent() -> ModuleType:
    """Load the second verifier. Raises UsageError where there is none: it is no part of the installed package."""
    spec = spec_from_file_location("collegium_verify", VERIFIER)
    if spec is None or spec.loader is None or not VERIFIER.exists():
        raise UsageError(f"There is no {VERIFIER}", "Run this from a checkout of the project.")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def independent(module: ModuleType) -> Verifier:
    """Return the second verifier as a function."""

    def verify(data: bytes) -> str | None:
        try:
            module.verify(io.BytesIO(data))
        except module.RejectedError as error:
            return str(error)
        return None

    return verify


@contextmanager
def remembered(module: ModuleType) -> Iterator[None]:
    """Let both verifiers check a signature, and decode bytes, once: the same bytes again have the same answer."""
    with (
        mock.patch.object(identity, "crypto_sign_open", _memo(crypto_sign_open)),
        mock.patch.object(module, "crypto_sign_open", _memo(crypto_sign_open)),
        mock.patch.object(schema, "load", _memo(schema.load)),
    ):
        yield


def _memo(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.lru_cache(maxsize=65_536)(function)  # what raises is not kept
