"""A process that has no descriptor left: the limit of open files, lowered for a while to what is open."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit(descriptors: int) -> Iterator[None]:
    """Allow this process so many open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def next_descriptor() -> int:
    """Return the number that the next file gets: a limit of it allows not one more, as long as none below is closed."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor
