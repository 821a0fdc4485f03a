"""What a page consists of, apart from HTML. The one template (templates/blocks.html) draws and escapes all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Link:
    """A text that leads to another page of this server, by its path."""

    kind: ClassVar[str] = "link"
    text: str
    path: str


@dataclass(frozen=True, slots=True)
class Code:
    """A digest, an address or a command: it can be copied as it is."""

    kind: ClassVar[str] = "code"
    text: str
    short: str = ""  # what is shown of it, if not all


@dataclass(frozen=True, slots=True)
class Badge:
    """A state in a word; the level ("ok", "info", "warning", "critical") adds a colour and never replaces the word."""

    kind: ClassVar[str] = "badge"
    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time in ISO 8601, shown in UTC."""

    kind: ClassVar[str] = "moment"
    at: str | None


@dataclass(frozen=True, slots=True)
class Many:
    """Several cells, one below the other."""

    kind: ClassVar[str] = "many"
    cells: tuple["Cell", ...]


@dataclass(frozen=True, slots=True)
class Input:
    """A field of a form: a line, several lines, a choice of options, a box to tick ("yes"), or a file."""

    name: str
    label: str
    value: str = ""
    options: Sequence[str] = ()
    lines: int = 1
    sort: Literal["text", "box", "file"] = "text"
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """A form that asks for an action (node/page/actions). `label` says what the button alone leaves open.

    As a cell it has hidden values only.
    """

    kind: ClassVar[str] = "form"
    path: str
    button: str
    hidden: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[Input] = ()
    label: str = ""

    @property
    def with_file(self) -> bool:
        """Whether a file is sent with it."""
        return any(each.sort == "file" for each in self.inputs)

    @property
    def name(self) -> str:
        """The beginning of its fields' ids."""
        return self.path.strip("/").replace("/", "-")


@dataclass(frozen=True, slots=True)
class Download:
    """A file to be kept."""

    kind: ClassVar[str] = "download"
    text: str
    path: str


Cell = Link | Code | Badge | Moment | Many | Form | Download | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; `empty` is said in place of a table without rows."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    empty: str


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph. `again`: something is being computed, and the page asks for it again by itself."""

    kind: ClassVar[str] = "words"
    text: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A note of the node: what it found and what to do."""

    level: str
    found: str
    advice: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The notes of a node."""

    kind: ClassVar[str] = "findings"
    found: Sequence[Finding]
    empty: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a log, as they are."""

    kind: ClassVar[str] = "lines"
    label: str
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Dot:
    """A member in the graph; places are those of the drawing."""

    name: str
    state: str  # "me", "up", "down", "unknown"
    said: str
    x: float
    y: float
    anchor: str  # of its name: "start", "middle", "end"
    text_x: float
    text_y: float


@dataclass(frozen=True, slots=True)
class Graph:
    """This node and the other members around it."""

    kind: ClassVar[str] = "graph"
    label: str
    middle: Dot
    dots: Sequence[Dot]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Field:
    """An input of a search, or a choice if there are options."""

    name: str
    label: str
    value: str
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """A form that asks for the same page again."""

    kind: ClassVar[str] = "search"
    path: str
    fields: Sequence[Field]


Block = Facts | Table | Words | Findings | Lines | Graph | Search | Form | Many


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, with the commands that print its numbers. A live one is drawn anew when something happens."""

    name: str
    title: str
    blocks: Sequence[Block]
    commands: Sequence[str] = ()
    live: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """A page."""

    title: str
    sections: Sequence[Section]
    lead: str = ""
    print_button: bool = field(default=False)
    stage: str = ""  # of an action: when it changes, the page is loaded anew
