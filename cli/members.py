"""A charter's members, as options and files name them."""

import tomllib
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
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot read {path}: {error}", "Write [[member]] tables with name, key, addresses."
        ) from error
    entries = tables.get("member")
    if tables.keys() != {"member"} or not isinstance(entries, list):
        raise UsageError(f"{path} holds no [[member]] tables, or something else", "See docs/cli.md.")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or not entry.keys() <= {"name", "key", "addresses"}:
            raise UsageError(f"{path}: a member has name, key and addresses, not {entry!r}")
        addresses = entry.get("addresses", [])
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise UsageError(f"{path}: addresses of {entry.get('name')!r} is not a list of text")
        found.append(_member(str(entry.get("name", "")), str(entry.get("key", "")), addresses, str(path)))
    return found


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
