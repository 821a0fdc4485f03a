"""The JSON of the views of the charter in force, as types: keys are part of the interface (docs/cli.md)."""

from typing import TypedDict


class Difference(TypedDict):
    """One thing that two charters have otherwise; None: one of them has it not at all."""

    what: str
    before: str | None
    after: str | None


class AmendmentShown(TypedDict):
    """One amendment in force."""

    number: int
    passed_at_height: int
    in_force_from_height: int
    charter: str
    changes: list[Difference]


class CharterHistory(TypedDict):
    """The founding charter's digest, which is the federation's id, the amendments, and the charter in force."""

    federation: str
    founding: str
    height: int
    in_force: str
    amendments: list[AmendmentShown]


class Exposure(TypedDict):
    """What an amendment does to this node's students, by modality: the ε of one more planned lifetime of rounds.

    `noise` is σ_eff of one step over the components that the modality's data reach here, 0 without noise; `epsilon` is
    that of the charter's planned rounds, None without a bound.
    """

    modality: str
    reaches_before: list[str]
    reaches_after: list[str]
    noise_before: float | None
    noise_after: float | None
    epsilon_before: float | None
    epsilon_after: float | None
    spent: float
    limit: float | None  # the budget without what is kept for recovery: planned rounds spend no more
    budget: float | None
    refused_here: dict[str, str]
