"""One student is forgotten, as the command tells it: what it waits for, what it warns of, and the receipt's key."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import unlearn
from collegium.node.home import Home

from .conftest import fill

if TYPE_CHECKING:
    from collegium.sims.cluster import Cluster

    from .conftest import Run


@pytest.fixture
def receipt(cluster: "Cluster", tmp_path: Path) -> dict[str, Any]:
    """A receipt by the member that withdrew all: none of its updates is in force."""
    home, file = Home(tmp_path / "withdrawn"), tmp_path / "anna.receipt"
    fill(home, cluster, cluster.nodes[0])
    return {"file": file, **unlearn._receipt(home, "anna", file)}


def test_a_receipt_is_verified_with_its_key_which_is_not_in_it(run: "Run", receipt: dict[str, Any]) -> None:
    file, key = receipt["file"], receipt["key"]
    found = run("unlearn", "verify", file, "--subject", "anna", "--key", key, "--json").value
    assert (found["verified"], found["updates_in_force"]) == (True, 0)
    assert bytes.fromhex(key) not in file.read_bytes()
    assert key.encode() not in file.read_bytes()
    assert "key" not in found


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--subject", "anna"), 2, "--key HEX"),
        (("--key", "00" * 32), 2, "--subject ID"),
        (("--subject", "anna", "--key", "00" * 31), 2, "64 hexadecimal"),
        (("--subject", "anna", "--key", "no"), 2, "64 hexadecimal"),
        (("--subject", "anna", "--key", "00" * 32), 6, "not the one of this receipt"),
    ],
)
def test_without_its_key_a_receipt_is_not_read(
    run: "Run", receipt: dict[str, Any], words: tuple[str, ...], code: int, said: str
) -> None:
    answer = run("unlearn", "verify", receipt["file"], *words)
    assert (answer.code, said in answer.err) == (code, True), answer.err
