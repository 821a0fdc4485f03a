"""Every command that a page, a message or a docstring names is there, with the options that are named beside it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from collegium.cli.explain import FileFirst
from collegium.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
SOURCES = [path for room in ("cli", "node", "sims", "protocol", "consensus") for path in (ROOT / room).rglob("*.py")]
BLOCK = re.compile(r"^```(?:sh|console|bash)?\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`(?:[A-Z_]+=\S+ )*collegium ([^`]+)`")
LINE = re.compile(r"^\s*(?:\$ |sudo |[A-Z_]+=\S+ )*collegium ([a-z-][^`\n]*)$", re.M)

COMMANDS = typer.main.get_command(app)


def words(text: str) -> Iterator[list[str]]:
    """Yield the words after `collegium`, of each command in a text."""
    named = INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for block in BLOCK.findall(text):
        named += LINE.findall(re.sub(r"\\\n\s*", " ", block))
    for one in named:
        command = re.split(r"\s#\s|[;&|>]\s", " ".join(one.split()))[0]
        yield command.split()


def missing(command: list[str]) -> str:
    """Return what of a command there is not; alternatives such as `pause|resume` are looked up each."""
    groups = [COMMANDS]
    rest = list(command)
    while rest and rest[0] == "--home":
        rest = rest[2:]
    while rest and all(hasattr(group, "commands") for group in groups) and re.fullmatch(r"[a-z][a-z-|]*", rest[0]):
        names = rest.pop(0).split("|")
        below = [group.commands.get(name) for group in groups for name in names]  # type: ignore[attr-defined]
        if None in below:
            return f"no command {' '.join(names)}"
        groups = below
    groups = [group.commands["file"] if isinstance(group, FileFirst) else group for group in groups]
    for word in rest:
        option = re.match(r"\[?(--[a-z][a-z-]*)", word)
        known = {name for group in groups for p in group.params for name in (*p.opts, *p.secondary_opts)}
        if option and option[1] not in known | {"--help", "--home"}:
            return f"no option {option[1]}"
    return ""


def test_every_command_of_a_page_is_there() -> None:
    wrong = {
        f"{page.relative_to(ROOT)}: {' '.join(command)}: {what}"
        for page in PAGES
        for command in words(page.read_text(encoding="utf-8"))
        if (what := missing(command))
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_every_command_that_the_code_proposes_is_there() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {' '.join(command)}: {what}"
        for path in SOURCES
        for command in words(path.read_text(encoding="utf-8"))
        if (what := missing(command))
    }
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(
    "command", ["node begin", "unlearn subject ID --now", "data check FOLDER --plots", "explain X.csv --reader"]
)
def test_a_command_that_is_not_there_is_found(command: str) -> None:
    assert missing(command.split())
