"""What a decision changes for the federation, in sentences: one member more or less, a withdrawal."""

from collections.abc import Collection

from ...protocol.blocks import quorum, tolerated
from ..core.contribution import RECOVERY_ROUNDS
from .shapes import NodeStatus


def of_losing(status: NodeStatus, hosted: Collection[str]) -> list[str]:
    """Return what the federation loses with a member that is an active host of the components in `hosted`."""
    federation = status["federation"]
    left, model = federation["members"] - 1, federation["fault_model"]
    if left < 1:
        return ["this is the last member: nobody could decide anything any more"]
    sentences = []
    if tolerated(left, model) < federation["tolerated_losses"]:
        sentences.append(
            f"{left} members would remain, of whom {quorum(left, model)} have to agree: the federation would tolerate"
            f" {tolerated(left, model)} lost members instead of {federation['tolerated_losses']}"
        )
    least = 4 if model == "byzantine" else 2
    sentences += [
        f"{c['component']} would have {c['active_hosts'] - 1} hosts: its states would be uncertified"
        for c in status["components"]
        if c["component"] in hosted and c["active_hosts"] - 1 < least <= c["active_hosts"]
    ]
    return sentences


def of_gaining(status: NodeStatus) -> str:
    """Return what one more member changes."""
    federation = status["federation"]
    more, model = federation["members"] + 1, federation["fault_model"]
    return (
        f"{more} members would be in, of whom {quorum(more, model)} have to agree, instead of"
        f" {federation['quorum']} of {federation['members']}; {tolerated(more, model)} may be lost"
    )


def of_withdrawing() -> str:
    """Return the cost of a withdrawal for all members."""
    return (
        f"{RECOVERY_ROUNDS} recovery rounds follow: every member that trains in them pays ε for it, if need be from its"
        " reserve."
    )
