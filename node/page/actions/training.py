"""Pause and resume."""

from ...control.client import Client
from ..source import Source
from .steps import Fields, Outcome, Plan, Step, Tell

UNDER_WAY = "A training run was under way: its cost is spent already, so it ends, and its update is sent."


def pause(source: Source, _fields: Fields) -> Step:
    """Ask whether to pause this node's training."""
    command = "collegium node pause"
    Client(source.home).probe()  # so that nobody is asked in vain

    def do(_tell: Tell) -> Outcome:
        change = Client(source.home).set_paused(on=True)
        said = ["It was paused already." if change["was"] else "Paused: this node trains nothing until it is resumed."]
        return Outcome("Paused", [*said, *([UNDER_WAY] if change["training"] else [])], command)

    return Plan(
        "Pause training?",
        "Pause this node's training?",
        (
            "It trains nothing and spends no ε until it is resumed, across restarts.",
            "It goes on voting, folding and storing. Rounds do not wait for it; they close with those who train.",
            "A training run that is under way ends, and its update is sent: its cost is spent already.",
        ),
        "Pause",
        command,
        do,
    )


def resume(source: Source, _fields: Fields) -> Step:
    """Ask whether to resume it."""
    command = "collegium node resume"
    Client(source.home).probe()

    def do(_tell: Tell) -> Outcome:
        change = Client(source.home).set_paused(on=False)
        said = "Resumed: this node trains again." if change["was"] else "Nothing to resume: it was not paused."
        return Outcome("Resumed", [said], command)

    return Plan(
        "Resume training?",
        "Resume this node's training?",
        ("It trains again from the next round on, and spends ε of its budget as before.",),
        "Resume",
        command,
        do,
    )
