"""Cells that many pages have."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from ...views.shapes import MemberName
from ..blocks import Badge, Cell, Code, Link, Many

GOOD = {"certified", "member", "ready", "training"}


def member(one: MemberName) -> Link:
    """Return a member that leads to its page; by its key, which is nobody else's."""
    return Link(one["name"], f"/members/{one['key']}")


def members(several: Iterable[MemberName]) -> Cell:
    """Return the names of members, each on its line."""
    found = tuple(member(one) for one in several)
    return Many(found) if found else None


def one_round(component: str, number: int) -> Link:
    """Return a round that leads to its page."""
    return Link(str(number), f"/rounds/{quote(component)}/{number}")


def digest(text: str | None) -> Cell:
    """Return the beginning of a digest; the whole of it can be copied."""
    return Code(text, text[:16]) if text else None


def record(text: str, short: str = "") -> Link:
    """Return the beginning of a record's digest, that leads to its page."""
    return Link(short or text[:16], f"/ledger/{quote(text)}")


def label(text: str) -> Badge:
    """Return a state's label: a certificate is the aim."""
    return Badge(text, "ok" if text in GOOD else "info")


def size(count: int | None) -> str | None:
    """Return a number of bytes for people."""
    if count is None:
        return None
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def epsilon(value: float | None) -> str:
    """Return an ε for people; None is no bound."""
    return "no bound" if value is None else f"{value:.4g}"


def pairs(values: Mapping[str, object]) -> str | None:
    """Return names and values on a line; None if there are none."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or None


def listed(words: Iterable[str]) -> str | None:
    """Return words on a line; None if there are none."""
    return ", ".join(words) or None
