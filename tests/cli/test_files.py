"""Files that commands write: one habit for all of them."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer.main

from collegium.cli.main import app
from collegium.node.home import Home

if TYPE_CHECKING:
    from .conftest import Run

FOLDERS = {"sim run", "bench"}  # they write into a folder


def test_another_file_is_replaced_by_force_alone_and_whole(run: "Run", home: Home, tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    file.write_bytes(b"mine")
    words = ("ledger", "export", file, "--home", home.root)
    refused = run(*words)
    assert (refused.code, "--force replaces" in refused.err, file.read_bytes()) == (2, True, b"mine")
    assert run(*words, "--force").code == 0
    assert run("ledger", "verify", file).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"mine")
    home.database.unlink()
    assert run(*words, "--force").code != 0
    assert (file.read_bytes(), [path.name for path in tmp_path.glob("ledger*")]) == (b"mine", ["ledger"])


def test_links_folders_and_files_of_a_node_are_not_replaced(run: "Run", home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    key = home.key.read_bytes()
    for file in (tmp_path / "link", tmp_path / "folder", home.key, home.database, home.charter):
        assert run("ledger", "export", file, "--home", home.root, "--force").code == 2, file
    assert (home.key.read_bytes(), (tmp_path / "elsewhere").exists()) == (key, False)
    own = home.root / "a.ledger"
    own.write_bytes(b"no file of the node's")
    assert run("ledger", "export", own, "--home", home.root, "--force").code == 0


def test_every_command_that_writes_a_file_has_the_option() -> None:
    root = typer.main.get_command(app)
    commands: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is not None:
            for word, child in inner.items():
                walk(child, f"{name} {word}".strip())
            return
        commands[name] = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]

    walk(root, "")
    writing = {name for name, options in commands.items() if options & {"--out", "--plot"}} - FOLDERS
    writing |= {"ledger export", "ledger prove", "node backup"}
    assert len(writing) > 12
    assert [name for name in sorted(writing) if "--force" not in commands[name]] == []
