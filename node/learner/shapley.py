"""Exact Shapley values of few players: all coalitions are valued once (Shapley 1953). No torch."""

from math import factorial

import numpy as np
import numpy.typing as npt

MAX_PLAYERS = 12  # 4,096 coalitions

Floats = npt.NDArray[np.float64]


def coalitions(players: int) -> npt.NDArray[np.bool_]:
    """Return all coalitions, [2^players, players] bool: row r has the players whose bit is set in r."""
    rows: npt.NDArray[np.bool_] = (np.arange(1 << players)[:, None] >> np.arange(players)[None]) % 2 == 1
    return rows


def shapley(worth: Floats) -> Floats:
    """Return each player's value, [players], from the worth of every coalition [2^players], in `coalitions`' order.

    They add up to the worth of all players less that of none. With n players a coalition of s others has the weight
    s! (n - s - 1)! / n! in a player's mean of what its joining changes.
    """
    n = int(worth.size).bit_length() - 1
    rows = np.arange(worth.size)
    sizes = coalitions(n).sum(axis=1)
    weights = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    values = np.zeros(n)
    for player in range(n):
        without = rows[(rows >> player) % 2 == 0]
        values[player] = float((weights[sizes[without]] * (worth[without | (1 << player)] - worth[without])).sum())
    return values
