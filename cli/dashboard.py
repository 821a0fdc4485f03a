"""`collegium dashboard`: this node on a page, in a browser of this machine."""

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .options import HomeOption, JsonOption, existing_home
from .output import emit, say
from .read import from_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..node.views import Context

T = TypeVar("T")


def dashboard(
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or only print the link.")
    ] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of 127.0.0.1; 0: a free one.")] = 0,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="A page that shows and does nothing: to be looked at by others.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a page about this node to a browser of this machine, until Ctrl-C.

    Whoever opens the link acts for this node there, as with the commands. The link can be used once. The daemon may
    run or not: without it the page shows what its disk has.
    """
    import sys
    import webbrowser
    from threading import Thread

    from ..node.page.server import run
    from ..node.page.source import Source
    from ..node.runtime import logs
    from .explain import for_page
    from .page_students import PageStudents

    place = existing_home(home)
    logs.configure("console", "warning")  # to the terminal; standard output has the link alone

    class FromStore:
        def __call__(self, view: "Callable[[Context], T]", /) -> T:
            return from_store(place, view)

    def opened(link: str) -> None:
        result = {"link": link, "token_file": str(place.page_token)}
        emit(result, as_json, lambda out: out.print(link, soft_wrap=True))
        sys.stdout.flush()  # a program waits for it
        say("The link can be used once, by one browser. Ctrl-C ends the page, not the node.")
        if browser:  # in a thread: a browser of the terminal does not come back before it ends
            Thread(target=open_browser, args=(link,), daemon=True).start()

    def open_browser(link: str) -> None:
        if not webbrowser.open(link):
            say("No browser could be opened: open the link yourself.")

    acts = (None, None) if read_only else (PageStudents(place), for_page(place))
    run(Source(place, FromStore(), *acts), port, opened)
