"""`collegium man`: the manual page, written from the commands as they are."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from .options import HOME_VARIABLE, JsonOption
from .output import emit

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = (
    ("key.json", "The node's key. Whoever has it is this member."),
    ("config.toml", "The operator's settings; every key is explained in it."),
    ("charter.bin", "What the members agreed on, with their signatures."),
    ("node.db, blobs, states", "The ledger, the bytes of updates, the states of components."),
    ("node.log", "What the daemon says when it runs in the background."),
    ("control.sock", "Where the commands reach the daemon."),
)
SIGNS = {"\\": r"\e", "-": r"\-", '"': r"\(dq", "'": r"\(aq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha"}


def man(context: typer.Context, as_json: JsonOption = False) -> None:
    """Print the manual page of all commands: `collegium man > ~/.local/share/man/man1/collegium.1`."""
    from importlib.metadata import version

    from .main import EXIT_CODES

    root = context.find_root()
    text = page(root.command, version("collegium"), EXIT_CODES)
    emit({"man": text}, as_json, lambda out: out.print(text.rstrip("\n"), soft_wrap=True))


def page(root: Any, version: str, exit_codes: "Mapping[int, str]") -> str:
    """Return a manual page in roff, for man(1), with every command that is not hidden."""
    lines = [
        f'.TH COLLEGIUM 1 "" "collegium {_roff(version)}" "User Commands"',
        ".SH NAME",
        f"collegium \\- {_roff(root.help.rstrip('.').replace(': ', ', '))}",
        ".SH SYNOPSIS",
        r".B collegium",
        _roff("[--home DIR] NOUN VERB [OPTIONS] [ARGUMENTS]"),
        ".SH DESCRIPTION",
        _roff(root.help),
        _roff(
            "Commands that read take --json. `ls` works for `list`. A command that asks does nothing where there is"
            " no terminal; --yes confirms beforehand."
        ),
        ".SH OPTIONS",
        *_options(root, typer.Context(root, info_name="collegium")),
        ".SH COMMANDS",
    ]
    for words, command, context in commands(root, typer.Context(root, info_name="collegium")):
        lines += [f'.SS "{_roff(" ".join(words + command.collect_usage_pieces(context)))}"', _roff(command.help or "")]
        lines += _options(command, context)
    lines.append(".SH EXIT STATUS")
    for code, meaning in exit_codes.items():
        lines += [".TP", f".B {code}", _roff(meaning)]
    lines += [".SH ENVIRONMENT", ".TP", f".B {HOME_VARIABLE}", "The node's directory, where no \\-\\-home is given."]
    lines += [".TP", ".B COLLEGIUM_PASSPHRASE", "The passphrase of a sealed key."]
    lines.append(".SH FILES")
    lines.append("In the node's directory, ~/.collegium if nothing else is said:")
    for name, meaning in FILES:
        lines += [".TP", f".I {_roff(name)}", _roff(meaning)]
    return "\n".join(lines) + "\n"


def commands(command: Any, context: typer.Context) -> Iterator[tuple[list[str], Any, typer.Context]]:
    """Yield each command that is not hidden and is no noun, by the words that are typed, in the order of the help."""
    words = context.command_path.split()
    if not hasattr(command, "list_commands"):
        yield words, command, context
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if not child.hidden:
            yield from commands(child, typer.Context(child, info_name=name, parent=context))


def _options(command: Any, context: typer.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and (command is context.find_root().command or "help" not in (parameter.name or "")):
            names, meaning = record
            yield from (".TP", f".B {_roff(names)}", _roff(meaning))


def _roff(text: str) -> str:
    """Return text as roff reads it: one line, nothing in it a request, signs beyond ASCII by their numbers."""
    plain = "".join(SIGNS.get(s, s) if s.isascii() else f"\\[u{ord(s):04X}]" for s in " ".join(text.split()))
    return rf"\&{plain}" if plain.startswith(".") else plain
