"""This node's quiet hours in words: for `node status`, and beside the pace of a charter under review."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..node.home.paths import Home
    from ..node.views.shapes import QuietShown
    from ..protocol.charter import Charter


def quiet_words(shown: "QuietShown") -> str:
    """Say the spans, whether one is on, when that changes, and the rounds that come due in them."""
    text = f"{', '.join(shown['spans'])} local time"
    if shown["changes_at"] is not None:
        time = f"{datetime.fromisoformat(shown['changes_at']).astimezone():%a %Y-%m-%d %H:%M %Z}"
        text += f"; {'now, until' if shown['now'] else 'the next from'} {time}"
    return text + missed_words(shown["rounds_missed"], shown["rounds_due"])


def missed_words(missed: int, due: int) -> str:
    """Say how many of a week's rounds close without this node; "" where the pace makes none due."""
    if not due:
        return ""
    of = f"of the {due} rounds due within a week" if due > 1 else "the next round is due"
    if due == 1:
        return f"; {of} in them, and closes without this node" if missed else f"; {of} outside of them"
    return f"; {of}, {missed or 'none'} come{'s' if missed == 1 else ''} due in them" + (
        ", and close without this node" if missed > 1 else ", and closes without this node" if missed else ""
    )


def of_home(home: "Home", charter: "Charter") -> dict[str, Any] | None:
    """Return the quiet hours of a home's config.toml, and what they are to a charter; None without any.

    Raises UsageError for a config.toml that cannot be read.
    """
    from ..node.home import config as settings
    from ..node.home.quiet import QuietHours
    from ..node.views.quiet import missed_rounds

    if not home.config.exists():
        return None
    hours = QuietHours(settings.load(home.config).learning.quiet_hours)
    if not hours:
        return None
    start = float(charter.rules.start) or None
    missed, due = missed_rounds(hours, charter.rules.pace / 1000, start) if start else (0, 0)
    return {"spans": list(hours.spans), "rounds_due": due, "rounds_missed": missed}
