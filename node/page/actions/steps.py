"""The steps of an action on the page: a plan that is confirmed or a choice that is made, then an outcome."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..blocks import Block
from ..source import Source

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a form sent: texts by their field, and the bytes of a file."""

    texts: Mapping[str, str]
    upload: bytes = b""

    def get(self, name: str, default: str = "") -> str:
        """Return a text."""
        return self.texts.get(name, default)


@dataclass(frozen=True, slots=True)
class File:
    """A file to be kept: its name, its bytes, and what it is in words."""

    name: str
    content: bytes
    what: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done or found; `good` is False where a check failed."""

    title: str
    said: Sequence[str]
    command: str
    back: str = "/"  # the page that it belongs to
    blocks: Sequence[Block] = ()
    files: Sequence[File] = ()
    good: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done. Nothing is done before it is confirmed.

    `consequences` are sentences; `price` makes more of them and takes seconds, so they come after the question.
    """

    title: str
    question: str
    consequences: Sequence[str]
    button: str
    command: str
    do: "Callable[[Tell], Step]"
    back: str = "/"
    blocks: Sequence[Block] = ()
    price: Callable[[], Sequence[str]] | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """An answer to a choice, and the step that it leads to."""

    button: str
    then: Callable[[], "Step"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with more than one answer, before the plan."""

    title: str
    question: str
    options: Sequence[Option]
    command: str
    back: str = "/"
    blocks: Sequence[Block] = ()


Step = Outcome | Plan | Choice


class Action(Protocol):
    """Makes the first step of what a form asks for. It may take seconds, and changes nothing."""

    def __call__(self, source: Source, fields: Fields, /) -> Step:
        """Return it. Raises CollegiumError."""
        ...
