"""A node's own measurements and observations. They stay here, are shown to the operator, and decide nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ...crypto.errors import LocalProtocolError

NOTE_LIMIT = 64 << 10  # bytes of JSON
MIN_CELL = 50  # groups of fewer subjects get no figure: it would reveal single persons


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of an evaluation on this node's own held-out subjects. `value` may be NaN: not defined there.

    `cell` is "" for all subjects, else a sensitive group as "gender=F"; `home_layer`: with it.
    `count` None: the group has under MIN_CELL subjects, and neither figure nor count is kept. `recorded` is Unix time
    in seconds, as everywhere in the store.
    """

    round: int
    generation: int
    task: str
    metric: str
    value: float
    count: int | None
    recorded: float
    cell: str = ""
    home_layer: bool = False


@dataclass(frozen=True, slots=True)
class RoundNote:
    """What this node saw of a closed round: its updates, missing members and why, bytes, seconds. `data` is JSON."""

    round: int
    component: str
    height: int
    data: Mapping[str, object]
    recorded: float


def dump_note(data: Mapping[str, object]) -> str:
    """Return a note's JSON. Raises LocalProtocolError if it is no JSON or too long."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"a round's note must be JSON: {error}") from error
    if size > NOTE_LIMIT:
        raise LocalProtocolError(f"a round's note has {size} bytes; at most {NOTE_LIMIT} are kept")
    return text
