"""What a page is made of: the daemon's answers or, where none answers, what its disk has."""

from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol, TypeVar

from ...crypto.errors import OperatorError, UnreachableError
from ...protocol.charter import Charter
from ..control.client import Client
from ..control.within import Job, TooLongError
from ..home.paths import Home
from ..store.database import Store
from ..store.observations import Metric
from ..verify import read_charter
from ..views.context import Context

T = TypeVar("T")
FIGURES = 5000
SOON = 1.5  # seconds that a page waits for what takes seconds


class FromStore(Protocol):
    """Calls a view on the node's files, whether or not a daemon runs (cli/read.py)."""

    def __call__(self, view: Callable[[Context], T], /) -> T:
        """Return what the view makes of them."""
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
    """The node of one home."""

    def __init__(self, home: Home, from_store: FromStore) -> None:
        self.home, self.from_store = home, from_store
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

    def charter(self) -> Charter:
        """Return the charter."""
        return read_charter(self.home.charter)[0]

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
