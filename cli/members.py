"""A charter's members, from options and files."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..crypto.errors import UsageError

if TYPE_CHECKING:
    from ..protocol.charter import Member


def parse_member(text: str) -> "Member":
    """Read NAME=HEXKEY@ADDR[,ADDR]. Raises UsageError."""
    name, _, rest = text.partition("=")
    key, _, addresses = rest.partition("@")
    return _member(name, key, [part for part in addresses.split(",") if part], text)


def read_members(path: Path) -> "list[Member]":
    """Read members from a TOML file. Raises UsageError."""
    from ..node import toml

    top = toml.read(path, "Write [[member]] tables with name, key, addresses.", "docs/cli.md")
    members, tables = [], top.tables("member")
    top.done()
    if not tables:
        raise top.fail("no [[member]]", "Write a table for each, with name, key, addresses.")
    for table in tables:
        addresses = list(map(str, table.take("addresses", toml.kind(list), [])))
        members.append(_member(table.text("name"), table.text("key"), addresses, str(path)))
        table.done()
    return members


def _member(name: str, key: str, addresses: list[str], source: str) -> "Member":
    from ..node.home.addresses import check_advertised
    from ..protocol.charter import Member

    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raw = b""
    if not name or not name.isprintable() or len(name.encode()) > 128 or len(raw) != 32:
        raise UsageError(
            f"{source!r} names no member",
            "Write NAME=HEXKEY@ADDR, the key in 64 hexadecimal digits, as `init` prints it.",
        )
    if len(addresses) > 8:
        raise UsageError(f"{name} has {len(addresses)} addresses; at most 8 are allowed")
    for address in addresses:
        problem = check_advertised(address)
        if problem:
            raise UsageError(f"member {name}: {problem}")
    return Member(raw, name, tuple(addresses))
