"""What a lie is: what comes between an honest core and the others. liars.py has them all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

N = TypeVar("N")
Told = list[tuple[int, bytes]]  # (target's index, message): everything that is sent in place of one message


@dataclass(frozen=True, slots=True)
class Lie(Generic[N]):
    """One way to lie, for nodes of class N. `says` returns None where it does not lie."""

    name: str
    about: str
    says: Callable[[N, bytes], Told | None] | None = None
    serves: Callable[[N, bytes], list[bytes]] | None = None
    acts: Callable[[N], None] | None = None
    every: int = 100
