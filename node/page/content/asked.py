"""The page of one action: what would happen, the question, how far it is, and what came of it."""

from collections.abc import Sequence
from typing import assert_never

from ....crypto.errors import CollegiumError, OperatorError
from ..actions.steps import Choice, Outcome, Plan
from ..actions.tickets import Ticket
from ..blocks import Block, Cell, Download, Finding, Findings, Form, Link, Many, Page, Section, Words

NOTHING = "Nothing was done."


def asked(ticket: Ticket, name: str, patience: float) -> Page:
    """Return it as it stands after at most `patience` seconds of waiting for the next step."""
    number = ticket.number
    try:
        step = ticket.step(patience)
    except CollegiumError as error:
        text, advice = (error.message, error.advice) if isinstance(error, OperatorError) else (str(error), "")
        block = Findings((Finding("critical", text, advice),), "")
        said = tuple(Words(line) for line in ticket.told)
        return _page(ticket.title, f"{number}-failed", (Section("asked", "Not done", (*said, block), live=False),))
    match step:
        case None:
            lines = tuple(Words(line) for line in ticket.told)
            working = Words("It is under way; this page goes on by itself. It may take a while." if number else
                            "It is being looked up; this page goes on by itself.", again=True)  # fmt: skip
            return _page(ticket.title, f"{number}-works", (Section("asked", "Under way", (*lines, working)),))
        case Plan():
            return _plan(ticket, step, f"/asked/{name}", number)
        case Choice():
            forms = tuple(
                Form(f"/asked/{name}", option.button, {"number": str(number), "option": str(place)})
                for place, option in enumerate(step.options)
            )
            blocks = (Words(step.question), *step.blocks, *forms)
            section = Section("asked", "Your answer", blocks, (step.command,), live=False)
            return _page(step.title, f"{number}-asks", (section, _leave(step.back)))
        case Outcome():
            return _outcome(step, name, f"{number}-done")
        case _:
            assert_never(step)


def _plan(ticket: Ticket, plan: Plan, path: str, number: int) -> Page:
    consequences = Section(
        "consequences", "What happens", (_list(plan.consequences), *plan.blocks), (plan.command,), live=False
    )
    sections = [consequences]
    if plan.price is not None:
        lines = ticket.price()
        waits = Words("It is being measured here; it appears by itself. You can confirm without waiting.", again=True)
        blocks: tuple[Block, ...] = (waits,) if lines is None else tuple(map(Words, lines))
        sections.append(Section("price", "What it costs", blocks, (plan.command,)))
    confirm = Form(path, plan.button, {"number": str(number), "option": "0"})
    sections.append(Section("asked", "Your answer", (Words(plan.question), confirm), (plan.command,), live=False))
    return _page(plan.title, f"{number}-asks", (*sections, _leave(plan.back)))


def _outcome(step: Outcome, name: str, stage: str) -> Page:
    files: tuple[Cell, ...] = tuple(
        Download(f"Keep {file.what} ({file.name})", f"/asked/{name}/file/{place}")
        for place, file in enumerate(step.files)
    )
    blocks: list[Block] = [_list(step.said)] if step.good else [
        Findings(tuple(Finding("critical", line, "") for line in step.said), "")
    ]  # fmt: skip
    if files:
        blocks.append(_list(files))
    section = Section("asked", "Result", (*blocks, *step.blocks), (step.command,), live=False)
    back = Section("back", "Go on", (_list((Link("Back to its page", step.back),)),), live=False)
    return _page(step.title, stage, (section, back))


def _leave(back: str) -> Section:
    link = Link("Leave it, and do nothing", back)
    return Section("leave", "Or", (_list((link,)),), live=False)


def _list(cells: Sequence[Cell]) -> Block:
    return Many(tuple(cells))


def _page(title: str, stage: str, sections: Sequence[Section]) -> Page:
    return Page(title, sections, stage=stage)
