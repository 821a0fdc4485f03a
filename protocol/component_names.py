"""Kinds and names of components. Without numpy, so that a command's help does not wait for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never

from ..crypto.errors import UsageError
from . import names as grammar


class ComponentKind(StrEnum):
    """What a component is in the model. Its name begins with its kind."""

    ENCODER = "encoder"
    ADAPTER = "adapter"
    PROMPT = "prompt"
    BACKBONE = "backbone"
    HEAD = "head"
    SKIP = "skip"
    STATISTIC = "statistic"
    GROUPS = "groups"

    @property
    def owner(self) -> Literal["modality", "task", "model"]:
        """Whether a component of this kind belongs to one modality, to one task, or to the whole model."""
        match self:
            case ComponentKind.ENCODER | ComponentKind.ADAPTER | ComponentKind.PROMPT:
                return "modality"
            case ComponentKind.HEAD | ComponentKind.SKIP | ComponentKind.STATISTIC | ComponentKind.GROUPS:
                return "task"
            case ComponentKind.BACKBONE:
                return "model"
            case _:
                assert_never(self)

    def named(self, of: str) -> str:
        """Return the name of the component of this kind that belongs to a modality or task."""
        return str(ComponentName(self, of))


@dataclass(frozen=True, slots=True)
class ComponentName:
    """The name of a component: its kind, and the modality or task `of` which it is ("" for the whole model's)."""

    kind: ComponentKind
    of: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}/{self.of}" if self.of else self.kind.value

    @property
    def modality(self) -> str | None:
        """The modality that it belongs to, or None."""
        return self.of if self.kind.owner == "modality" else None

    @property
    def task(self) -> str | None:
        """The task that it belongs to, or None."""
        return self.of if self.kind.owner == "task" else None


def parse_name(text: str) -> ComponentName:
    """Return the parts of a component's name. Raises UsageError."""
    name = _parsed(text)
    if name is not None:
        return name
    raise UsageError(
        f"{grammar.shown(text)!r} is no name of a component",
        f"Write its kind ({', '.join(ComponentKind)}), a slash, and the name of its modality or task: head/pass."
        f" The {ComponentKind.BACKBONE} has no slash. {grammar.PLAIN_ADVICE}",
    )


def _parsed(text: str) -> ComponentName | None:
    start, slash, of = text.partition("/")
    kind = next((kind for kind in ComponentKind if kind == start), None)
    fits = kind is not None and (not slash if kind.owner == "model" else grammar.plain(of))
    return ComponentName(kind, of) if kind is not None and fits else None


def names_statistic(text: str) -> bool:
    """Whether a text is the name of a statistic: figures are kept by the name of a task or of a statistic."""
    name = _parsed(text)
    return name is not None and name.kind in (ComponentKind.STATISTIC, ComponentKind.GROUPS)


def of_kind(kind: ComponentKind, components: Iterable[str]) -> list[str]:
    """Return the modalities or tasks of those of these components that are of a kind, in the same order."""
    return [name.of for name in map(parse_name, components) if name.kind is kind]
