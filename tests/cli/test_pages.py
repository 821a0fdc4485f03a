"""What the pages tell people to type exists: every command, with every option that is named beside it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from collegium.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TREE = typer.main.get_command(app)
NOUNS = sorted(TREE.commands)  # type: ignore[attr-defined]  # it is a group
INLINE = re.compile(rf"`(?:collegium )?((?:{'|'.join(NOUNS)}|--home) [^`=]+)`")
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)
TYPED = re.compile(r"^(?:[\w-]*\$ )?(?:sudo )?(collegium [^\n]*)", re.M)
ENDS = ("|", ">", ";", "&&", "#", "\\|")


def commands(text: str) -> Iterator[str]:
    """Yield what is typed in blocks and between backticks, lines that go on put together."""
    for block in FENCED.findall(text):
        yield from TYPED.findall(re.sub(r"\\\n\s*", "", block))
    for line in FENCED.sub("", text).replace("`collegium\n", "`collegium ").splitlines():
        yield from (f"collegium {rest}" for rest in INLINE.findall(line))


def words(command: str) -> list[str]:
    """Return the words of one command, without what a shell does with it afterwards."""
    found = []
    for word in shlex.split(command.replace("'", ""), posix=False)[1:]:
        if word in ENDS or word[0] in "|#>":
            break
        found.append(word.rstrip(",;"))
    return found


def wrong(command: str) -> str:
    """Return what of a command does not exist; empty if all of it does."""
    known = TREE
    rest = words(command)
    while rest and rest[0].startswith("--") and getattr(known, "commands", None):
        if rest[0] in ("--version", "--help", "--install-completion", "--show-completion"):
            return ""
        rest = rest[2:]  # --home DIR
    while rest and (children := getattr(known, "commands", None)):
        name = {"ls": "list"}.get(rest[0], rest[0])
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            return ""  # a noun with … or VERB
        if name not in children:
            return f"no command {name!r}"
        known, rest = children[name], rest[1:]
    options = {option for parameter in known.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        option = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*", option) and option not in options | {"--help"}:
            return f"no option {option}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    found = list(commands(page.read_text(encoding="utf-8")))
    assert [(command, why) for command in found if (why := wrong(command))] == []


def test_the_pages_name_many_commands_and_a_wrong_one_is_found() -> None:
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 400
    assert wrong("collegium charter draw") == "no command 'draw'"
    assert wrong("collegium --home A node start --weight 3 | tee log") == "no option --weight"
    assert wrong("collegium peer ls --json # --nothing") == ""
