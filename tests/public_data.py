"""Where the public education data lie: named by COLLEGIUM_DATA, else beside the project. They are no part of it."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("COLLEGIUM_DATA") or Path(__file__).parents[2] / "shared" / "data")


def public_data(name: str) -> Path:
    """Return the folder of a public data set, or skip the test and say which folder it wants."""
    if not (DATA / name).is_dir():
        pytest.skip(f"there is no folder {DATA / name}: set COLLEGIUM_DATA to the folder that holds {name}/")
    return DATA / name
