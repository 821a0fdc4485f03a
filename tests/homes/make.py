"""Make a home as this release makes it, for later ones to open: `python -m tests.homes.make` (a minute).

A member alone, in a federation of its own, trains its rounds on made-up pupils, pauses, and withdraws one round of
one component. Its backup is put beside this file under the version of its database. Keep the older ones:
tests/cli/test_upgrade.py says what becomes of each.
"""

import gzip
import tempfile
from pathlib import Path

from collegium.node.store.schema import VERSION

from ..firstweek.schools import collegium, federations
from ..firstweek.test_changes import pupils

FOLDER = Path(__file__).parent


def make(target: Path, root: Path) -> None:
    """Write the backup of such a home, packed, to `target`."""
    data = pupils(root / "data", 1)
    (root / "model.toml").write_text(collegium("charter", "model", data).out)
    with federations(root) as found:
        federation = found()
        alone = federation.init("alone", data, lot_size=12)
        federation.charter("--model", root / "model.toml", "--fault-model", "crash", "--rounds", 8)
        federation.start()
        federation.wait_rounds(2)
        alone.command("node", "pause")
        first = alone.get("/rounds", limit=1000)[0]
        alone.command("unlearn", "request", "--component", first["component"], "--rounds", first["round"], "--yes")
        federation.wait(lambda: alone.ask("unlearn", "status")["withdrawals"], "the withdrawal is agreed")
        federation.stop()
        alone.command("node", "backup", root / "alone.tar")
    target.write_bytes(gzip.compress((root / "alone.tar").read_bytes(), mtime=0))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(FOLDER / f"database-{VERSION}.tar.gz", Path(folder))
