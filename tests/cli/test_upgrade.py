"""A home that an earlier commit made is opened by this one as it was, or refused by its version: none is half read.

The homes are backups in tests/homes, one for each version of the database; tests/homes/make.py makes today's.
"""

import gzip
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from collegium.node.store.schema import VERSION

from ..firstweek.schools import School, collegium, free_address
from ..firstweek.test_changes import pupils

HOMES = Path(__file__).parents[1] / "homes"
MADE = {int(path.name.split("-")[1].split(".")[0]): path for path in HOMES.glob("database-*.tar.gz")}


def test_there_is_a_home_of_todays_version() -> None:
    assert VERSION in MADE, "keep the homes that there are, make one more: python -m tests.homes.make"


def opened(version: int, root: Path) -> tuple[School, Any] | None:
    """The home in this backup, and what its head says; None if this release refuses it by its version."""
    backup = root / "backup.tar"
    backup.write_bytes(gzip.decompress(MADE[version].read_bytes()))
    done = collegium("node", "restore", backup, root / "home")
    if done.code:
        assert (done.code, f"version {version}" in done.err) == (2, True), done.err
        assert not (root / "home").exists()
        return None
    with tarfile.open(backup) as archive:
        head = archive.extractfile("collegium-backup.json")
        assert head is not None
        return School("alone", root / "home"), json.loads(head.read())


@pytest.mark.parametrize("version", sorted(MADE))
def test_a_home_of_an_earlier_commit(version: int, tmp_path: Path) -> None:
    found = opened(version, tmp_path)
    if found is None:
        assert version < VERSION, "a home of today's version is opened"
        return
    alone, head = found
    config = alone.home / "config.toml"
    text = config.read_text()
    text = re.sub(r"^path = .*$", f'path = "{pupils(tmp_path / "data", 1)}"', text, count=1, flags=re.M)
    config.write_text(re.sub(r"^listen = .*$", f'listen = ["{free_address()}"]', text, count=1, flags=re.M))

    verified = alone.ask("ledger", "verify")  # every signature, header and root; and the states, folded again
    assert verified["height"] == head["height"] > 5
    assert alone.command("unlearn", "verify").code == 0
    (person,) = alone.ask("privacy", "show", "--no-forecast")["modalities"]
    assert 0 < person["epsilon_spent"] <= person["epsilon_before_recovery"]
    (withdrawn,) = alone.ask("unlearn", "status")["withdrawals"]
    assert withdrawn["state"] == "refolded, uncertified: too few hosts, erased"  # it is alone
    config.write_text(re.sub(r"^path = .*$", 'path = ""', config.read_text(), count=1, flags=re.M))  # and no worker
    try:
        assert alone.ask("node", "start")["running"]
        status = alone.status()
        assert (status["running"], status["paused"]) == (True, True)
        assert status["height"] >= head["height"]
        (spent,) = alone.ask("privacy", "show", "--no-forecast")["modalities"]
        assert spent == person
    finally:
        alone.kill()
