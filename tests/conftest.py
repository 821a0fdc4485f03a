"""The order of the tests, and how many threads they use.

What takes longest begins first, so that no worker is left alone with it at the end.
`--no-loadscope-reorder` keeps this order: else pytest-xdist begins with the files that have the most tests, which are
the quick ones.
"""

import os

import pytest

# The tests run side by side already: threads of torch and numpy that wait for each other cost a third more CPU.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files by their measured length, longest first. Others in the folders of daemons come next.
DAEMONS = {"firstweek", "runtime"}
LONGEST = (
    "runtime/test_membership.py",
    "sims/test_demo.py",
    "runtime/test_federation.py",
    "runtime/test_crash_points.py",
    "runtime/test_hosts.py",
    "runtime/test_soak.py",
    "runtime/test_private.py",
    "runtime/test_student.py",
    "blueprint/test_mixed.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = "/".join(item.path.parts[-2:])
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + DAEMONS.isdisjoint(item.path.parts)

    items.sort(key=place)
