"""What a page is made of: the daemon's answers or, where none answers, what its disk has."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar

from ...crypto.errors import OperatorError, UnreachableError
from ..control.client import Client
from ..control.within import Job, TooLongError
from ..explaining import Explanation, Role
from ..home.paths import Home
from ..store.database import Store
from ..store.observations import Metric
from ..views.context import Context

T = TypeVar("T")
FIGURES = 5000
SOON = 1.5  # seconds that a page waits for what takes seconds


class FromStore(Protocol):
    """Calls a view on the node's files, whether or not a daemon runs (cli/read.py)."""

    def __call__(self, view: Callable[[Context], T], /) -> T:
        """Return what the view makes of them."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of students whose removal was asked for.

    `seen` is a sentence for each of `ids`, `question` confirms the removal, `updates` would be withdrawn.
    """

    ids: tuple[str, ...]
    seen: tuple[str, ...]
    question: str
    updates: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A student's deletion receipt and its key; or, in `remark`, why there is none or what it does not show yet."""

    student: str
    content: bytes | None
    key: str
    remark: str


class Students(Protocol):
    """The steps of a removal, as the command takes them (cli/page_students.py)."""

    def similar(self, ids: Sequence[str], /) -> list[str]:
        """Return ids in the data that may be other spellings of these."""
        ...

    def look(self, ids: Sequence[str], /) -> Look:
        """Return what is known of these students. Raises RefusedError if nobody here has one of them."""
        ...

    def price(self, updates: Collection[bytes], /) -> list[str]:
        """Return what the withdrawal of these updates costs, in sentences. It takes seconds."""
        ...

    def forget(self, ids: Sequence[str], tell: Callable[[str], None], /, at_most: int | None) -> list[Receipt]:
        """Carry the removal out, and wait until it is certified; `tell` is called with its progress.

        Raises RefusedError, and changes nothing, if more than `at_most` updates would be withdrawn.
        """
        ...


class Explains(Protocol):
    """Explains a table's results to a role, as the command does (cli/explain.py)."""

    def __call__(self, file: str, role: Role, task: str | None, record: str | None, /) -> Explanation:
        """Return the explanation. Takes seconds. Raises UsageError, RefusedError."""
        ...


class Reading:
    """One look at a node: every question goes to the daemon, or every question to its files."""

    def __init__(self, source: "Source", client: Client | None, context: Context | None) -> None:
        self.source, self._client, self._context = source, client, context

    @property
    def home(self) -> Home:
        """The node's directory."""
        return self.source.home

    @property
    def live(self) -> bool:
        """Whether a daemon answers."""
        return self._client is not None

    @property
    def acts(self) -> bool:
        """Whether this page may act, and a daemon is there that would."""
        return self.live and self.source.students is not None

    def __call__(self, ask: Callable[[Client], T], view: Callable[[Context], T]) -> T:
        """Ask the daemon, or else make the view."""
        if self._client is not None:
            return ask(self._client)
        assert self._context is not None
        return view(self._context)

    def files(self, view: Callable[[Context], T]) -> T:
        """Make a view of the files in any case: it needs more time than a daemon has."""
        return view(self._context) if self._context is not None else self.source.from_store(view)


class Source:
    """The node of one home. Without `students` the page shows, and does nothing. It explains by `explains`, if any."""

    def __init__(
        self,
        home: Home,
        from_store: FromStore,
        students: Students | None = None,
        explains: Explains | None = None,
    ) -> None:
        self.home, self.from_store, self.students, self.explains = home, from_store, students, explains
        self._kept: dict[str, tuple[object, Job[Any]]] = {}  # what takes seconds, with what it is computed from
        self._making = Lock()

    def read(self, make: Callable[[Reading], T]) -> tuple[T, OperatorError | None]:
        """Return what `make` makes of a reading, and why no daemon answers if none does."""
        client = Client(self.home)
        try:
            client.probe()
            return make(Reading(self, client, None)), None
        except UnreachableError as error:
            return self.from_store(lambda context: make(Reading(self, None, context))), error

    def figures(self) -> list[Metric]:
        """Return this node's own last figures, in order of round."""
        with Store.open_readonly(self.home.database) as store:
            return store.metrics(limit=FIGURES)

    def once(self, what: str, of: object, make: Callable[[], T]) -> T | None:
        """Return what `make` returns, made once for the same `of`; None while it is still being made."""
        with self._making:
            if what not in self._kept or self._kept[what][0] != of:
                self._kept[what] = (of, Job(make))
            job: Job[T] = self._kept[what][1]
        try:
            return job.result(SOON)
        except TooLongError:
            return None
