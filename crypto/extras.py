"""Packages that only some commands need, and a node runs without: `pip install 'collegium[NAME]'` brings them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from .errors import UsageError

Extra = Literal["audit", "image", "languages", "plots", "sims", "speech", "text", "writer", "xlsx"]


def advice(name: Extra) -> str:
    """Return the command that installs an extra's packages."""
    return f"pip install 'collegium[{name}]'"


@contextmanager
def extra(name: Extra) -> Iterator[None]:
    """Import packages of an extra in here. Raises UsageError with the command that installs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs the package {error.name}, which is not installed", advice(name)) from error
