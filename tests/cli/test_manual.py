"""What a shell and `man` are told of the commands is all of them, as they are."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from collegium.cli.main import EXIT_CODES, app
from collegium.cli.manual import commands

from ..firstweek.schools import COMMAND, collegium

if TYPE_CHECKING:
    from .conftest import Run

TREE = typer.main.get_command(app)
ALL = list(commands(TREE, typer.Context(TREE, info_name="collegium")))
NAMES = [" ".join(words) for words, _, _ in ALL]


def test_every_command_and_option_is_in_the_manual_page(run: "Run") -> None:
    text = run("man").out.replace(r"\-", "-")
    assert len(NAMES) > 60
    for words, command, _ in ALL:
        after = text.partition(f'.SS "{" ".join(words)} ')[2] or text.partition(f'.SS "{" ".join(words)}"')[2]
        section = after.partition("\n.S")[0]
        assert section, words
        for parameter in command.params:
            missing = [o for o in parameter.opts if o.startswith("--") and o != "--help" and o not in section]
            assert parameter.hidden or not missing, (words, missing)
    for code, meaning in EXIT_CODES.items():
        assert f".B {code}\n{meaning.partition(' ')[0]}" in text
    assert run("man", "--json").value == {"man": run("man").out}


def test_the_manual_page_is_roff_without_a_warning(run: "Run", tmp_path: Path) -> None:
    text = run("man").out
    assert text.isascii()
    assert not [line for line in text.splitlines() if line[:1] in ("'", " ") or line[:2] == ".."]
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    (tmp_path / "collegium.1").write_text(text)
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", tmp_path / "collegium.1"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "The node's directory [COLLEGIUM_HOME; ~/.collegium]." in " ".join(done.stdout.split())


def test_every_command_is_in_the_reference() -> None:
    """In docs/cli.md a row may name several verbs of a noun: `charter create`, `review`, `show`."""
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    rows = text.splitlines()
    for name in (each.partition(" ")[2] for each in NAMES):
        noun, _, verb = name.partition(" ")
        beside = verb and any(f"`{noun} " in row and f"`{verb}" in row for row in rows)
        assert f"`{name}" in text or beside, name


@pytest.mark.parametrize(("shell", "line"), [("bash", "complete -o default -F _collegium_completion collegium"),
                                             ("zsh", "#compdef collegium")])  # fmt: skip
def test_a_shell_is_told_how_to_complete(shell: str, line: str) -> None:
    """The shell that asks is found by its process; here it is named, since the other one may not be installed."""
    found = collegium("--show-completion", shell, environment={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert (found.code, found.err) == (0, "")
    assert line in found.out.splitlines()


def test_bash_completes_nouns_verbs_and_options() -> None:
    script = """
source <("$1" --show-completion)
PATH="$(dirname "$1"):$PATH"
complete_line() { COMP_WORDS=($1); COMP_CWORD=$2; _collegium_completion collegium; echo "${COMPREPLY[@]}"; }
complete_line "collegium pee" 1
complete_line "collegium --home x node st" 4
complete_line "collegium node start --wa" 3
"""
    done = subprocess.run(["bash", "-c", script, "bash", COMMAND], capture_output=True, text=True, check=True,
                          stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})  # fmt: skip
    assert done.stdout.splitlines() == ["peer", "start stop status", "--wait"]
