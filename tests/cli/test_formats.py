"""What another release wrote is refused by its name and version, with what to do, and nothing on disk is changed."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import pytest

from collegium.node.home import Home
from collegium.node.store.schema import VERSION
from collegium.sims.simulator.cluster import Cluster

if TYPE_CHECKING:
    from .conftest import Run

READING = (("node", "status"), ("ledger", "verify"), ("node", "start"))


def overwritten(path: Path, version: int) -> None:
    with path.open("r+b") as file:
        file.seek(60)  # SQLite's user_version
        file.write(version.to_bytes(4, "big"))


def refused(run: "Run", home: Home, message: str, advice: str, *commands: tuple[str, ...]) -> None:
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path != home.log}
    for words in commands:
        answer = run(*words, "--home", home.root)
        assert answer.code == 2, (words, answer.err)
        assert message in answer.err, words
        assert advice in answer.err, words
    checks = run("doctor", "--no-data", "--home", home.root, "--json").value["checks"]
    assert any(c["verdict"] == "fail" and message in c["found"] and advice in c["advice"] for c in checks), checks
    after = {path: path.read_bytes() for path in home.root.rglob("*") if path in before}
    assert after == before


@pytest.mark.parametrize(
    ("version", "message", "advice"),
    [
        (VERSION + 1, f"has version {VERSION + 1}; this release of Collegium reads up to {VERSION}", "or a later one"),
        (VERSION - 1, f"has version {VERSION - 1}, from before the first release", "Found the federation again"),
    ],
)
def test_a_database_of_another_version(run: "Run", home: Home, version: int, message: str, advice: str) -> None:
    overwritten(home.database, version)
    refused(run, home, f"The database {home.database} {message}", advice, *READING)


@pytest.mark.parametrize(("version", "advice"), [(2, "Install the release that wrote it"), (0, "Found the federation")])
def test_a_charter_of_another_version(run: "Run", home: Home, version: int, advice: str) -> None:
    signed = msgpack.unpackb(home.charter.read_bytes())
    charter = msgpack.unpackb(signed["charter"]) | {"version": version}
    signed["charter"] = msgpack.packb({**charter, "zeal": 1})  # with a field that this release does not know
    home.charter.write_bytes(msgpack.packb(signed))
    message = f"The charter {home.charter} has format {version}; this release reads 1"
    refused(run, home, message, advice, *READING, ("charter", "show"), ("charter", "verify"))


def test_a_damaged_charter_is_no_newer_one(run: "Run", home: Home) -> None:
    home.charter.write_bytes(home.charter.read_bytes()[:-1])
    answer = run("charter", "show", "--home", home.root)
    assert (answer.code, "damaged" in answer.err) == (3, True)


def test_a_configuration_of_another_version(run: "Run", home: Home, cluster: Cluster) -> None:
    text = home.config.read_text()
    assert "\nformat = 2 " in text
    home.config.write_text(text.replace("\nformat = 2 ", "\nformat = 3 ") + '\n[zeal]\nmuch = "yes"\n')
    message = f"{home.config} has format 3; this release reads up to 2"
    refused(run, home, message, "Install the release that it was written for", ("node", "start"))
    home.config.write_text(text.replace("\nformat = 2 ", "\n# "))  # as homes were made before
    assert run("node", "status", "--home", home.root).code == 0
    # With private heads, whose place the home layer has taken.
    older = text.replace("\nformat = 2 ", "\nformat = 1 ").replace("\nhome_layer = true", "\nprivate = true")
    home.config.write_text(older)
    assert run("node", "status", "--home", home.root).code == 0
    home.config.write_text(older.replace("\nformat = 1 ", "\nformat = 2 "))
    assert "private" in run("node", "status", "--home", home.root).err
