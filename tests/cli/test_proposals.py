"""What messages propose can be typed as it stands: with the --home that was given, on either side of the verb."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer.main

from collegium.cli import options, proposals
from collegium.cli.main import app
from collegium.node.home import Home

if TYPE_CHECKING:
    from .conftest import Run


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.SETTINGS, "named", Path("my node"))


@pytest.mark.usefixtures("named")
def test_each_command_gets_the_home_once_and_as_a_shell_reads_it() -> None:
    text = "Stop it: collegium node stop. Then `collegium unlearn status`; collegium demo and Collegium stay."
    whole = proposals.at_home(text)
    assert whole == (
        "Stop it: collegium --home 'my node' node stop. Then `collegium --home 'my node' unlearn status`;"
        " collegium demo and Collegium stay."
    )
    assert proposals.at_home(whole) == whole
    assert proposals.at_home("`collegium node start`", Path("other")) == "`collegium --home other node start`"
    assert proposals.at_home(proposals.elsewhere("send: collegium join TEXT")) == "send: collegium join TEXT"


def test_without_the_option_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.SETTINGS, "named", None)
    assert proposals.at_home("collegium node start") == "collegium node start"


def test_the_commands_without_a_home_are_all_of_them() -> None:
    without: set[str] = set()

    def walk(command: object, name: str) -> bool:
        inner = getattr(command, "commands", None)
        if inner is None:
            has = any("--home" in parameter.opts for parameter in command.params)  # type: ignore[attr-defined]
        else:
            has = sum(walk(child, f"{name} {word}".strip()) for word, child in inner.items()) > 0
        if not has and not getattr(command, "hidden", False):
            without.add(name)
        return has

    walk(typer.main.get_command(app), "")
    listed = set(proposals.WITHOUT_HOME)
    assert {name for name in without if name not in listed and name.split()[0] not in listed} == set()
    assert listed <= without


def test_errors_questions_and_notes_name_the_home_that_was_given(
    run: "Run", home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.database.unlink()
    for words in (("--home", home.root, "component", "list"), ("component", "list", "--home", home.root)):
        assert f"collegium --home {home.root} node start" in run(*words).err
    assert f"collegium --home {home.root} node start" in run("component", "list", "--home", home.root, "--json").out
    assert f"collegium --home {home.root} node start" in run("doctor", "--no-data", "--home", home.root).out
    monkeypatch.setenv("COLLEGIUM_HOME", str(home.root))
    assert "Start it: collegium node start." in run("component", "list").err
    absent = tmp_path / "absent"
    assert f"collegium --home {absent} init" in run("node", "status", "--home", absent).err


def test_a_restored_home_is_started_by_its_own_name(run: "Run", home: Home, tmp_path: Path) -> None:
    assert run("node", "backup", tmp_path / "b.tar", "--home", home.root).code == 0
    screen = run("node", "restore", tmp_path / "b.tar", tmp_path / "new").out
    assert f"`collegium --home {tmp_path / 'new'} node start`" in " ".join(screen.split())


def test_what_others_type_has_no_home_of_ours(run: "Run", home: Home, tmp_path: Path) -> None:
    screen = run("ledger", "export", tmp_path / "l", "--home", home.root).out
    assert f"anybody checks it: collegium ledger verify {tmp_path / 'l'}" in screen
