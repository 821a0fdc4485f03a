"""`collegium charter found`: found a federation over the network, from the invitations to the last signature."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..crypto.fingerprint import fingerprint
from . import founding
from . import review as reviewing
from .drawing import (
    AnywayOption,
    DeadlineOption,
    DeltaOption,
    Drawn,
    EpsilonOption,
    FaultModelOption,
    MinStudentsOption,
    ModelOption,
    NameOption,
    NoDpOption,
    PaceOption,
    PresetOption,
    RoundsOption,
    RuleOption,
    StartOption,
    Terms,
    draw_up,
)
from .options import HomeOption, JsonOption, PassphraseOption, existing_home, key_passphrase
from .output import confirm, console, facts, prose, say, solid, table
from .proposals import elsewhere

if TYPE_CHECKING:
    from rich.text import Text

    from ..node.founding.desk import Desk, Place

GLANCE = 0.3  # seconds between two looks at what the desk wrote
AGAIN = "Ctrl-C loses nothing: the same command goes on."


def found(
    name: NameOption,
    invite: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another member, by a name of yours; repeat it for each.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Go on without one that was invited, before another member signed."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long an invitation is good.")] = 7,
    preset: PresetOption = None,
    model: ModelOption = None,
    epsilon: EpsilonOption = None,
    delta: DeltaOption = None,
    rounds: RoundsOption = None,
    no_dp: NoDpOption = False,
    rule: RuleOption = None,
    fault_model: FaultModelOption = "byzantine",
    deadline: DeadlineOption = 60.0,
    pace: PaceOption = "0",
    start: StartOption = "",
    min_students: MinStudentsOption = 20,
    anyway: AnywayOption = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Sign without asking; the review is printed all the same.")
    ] = False,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Found a federation over the network: invite members, draw up the charter when all are in, collect signatures.

    It stays in the foreground until all have the signed charter. Ctrl-C loses nothing: the same command goes on. With
    --json it prints one value a line, one for each change.
    """
    import structlog

    from ..node.founding.desk import Desk, opened
    from ..node.founding.record import alone
    from ..node.home import keys
    from ..node.home.addresses import own_problem
    from ..node.home.config import load as load_config

    place = existing_home(home)
    config = load_config(place.config)
    problem, advice = own_problem(config.node.listen, config.node.advertise)
    if problem:
        raise UsageError(problem, advice)
    names = _names(invite or [], config.node.name)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))  # stdout is for the answer
    with alone(place):
        identity = keys.load(place, key_passphrase(place, passphrase_file))
        desk = Desk(place, identity, config.node.name, (config.node.advertise or config.node.listen)[:8], anyway)
        drawn = desk.draft[0].rules.start if desk.draft is not None else 0
        terms = Terms(
            name,
            preset,
            model,
            epsilon,
            delta,
            rounds,
            no_dp,
            rule,
            fault_model,
            deadline,
            pace,
            founding.start_of(start, drawn),
            min_students,
            anyway,
        )
        terms.check()
        desk.leave_out(without or [])
        names = [name for name in names if name not in (without or [])]
        if not names and not desk.places():
            raise UsageError("Nobody is invited", "Give --invite NAME for each other member.")
        _try(desk, terms, names)
        desk.invite(names, days)
        if _all_in(desk):
            _draw(desk, terms)
        if desk.complete and _all_kept(desk):
            _end(desk, as_json)
            return
        with opened(desk, identity.seed, config.node.listen) as check, _going_on():
            board = Board(desk, check, as_json)
            board.invitations()
            board.until(lambda: _all_in(desk))
            if desk.draft is None:
                _draw(desk, terms)
            if not desk.out:
                assert desk.draft is not None
                review = reviewing.examine(place, *desk.draft, anyway=anyway, printed=not as_json)
                if as_json:
                    _line({"review": review})
                confirm("Sign this charter, and put it to the others?", yes)
                desk.sign()
            board.until(lambda: desk.complete)
            board.until(lambda: _all_kept(desk))
        _end(desk, as_json)


def _names(invite: Sequence[str], own: str) -> list[str]:
    from ..protocol.names import person_problem
    from ..protocol.schema import MAX_MEMBERS

    for name in invite:
        problem = person_problem(name) or ("it is this node's own" if name == own else "")
        if problem or invite.count(name) > 1:
            raise UsageError(f"--invite {name!r}: {problem or 'it is given twice'}", "Give each other member once.")
    if len(invite) >= MAX_MEMBERS:
        raise UsageError(f"{len(invite)} are invited; a federation has at most {MAX_MEMBERS} members")
    return list(invite)


def _all_in(desk: "Desk") -> bool:
    return all(place.key for place in desk.places())


def _all_kept(desk: "Desk") -> bool:
    return all(place.state == "kept" for place in desk.places())


def _draw(desk: "Desk", terms: Terms) -> None:
    from ..protocol import schema

    drawn = _drawn(desk, terms, desk.people(), addresses=True)
    for warning in drawn.warnings:
        say(f"warning: {warning}")
    desk.put(drawn.charter, schema.dump(drawn.charter))


def _try(desk: "Desk", terms: Terms, names: Sequence[str]) -> None:
    """Draw up the charter of whoever is invited, before anybody is: what is wrong with it is said at once."""
    from ..crypto.hashing import digest
    from ..protocol.charter import Member

    invited = dict.fromkeys([*(place.invited_as for place in desk.places()), *names])
    if _all_in(desk) and not set(names) - {place.invited_as for place in desk.places()}:
        return  # it is drawn up as it is
    people = [Member(digest("invited", name.encode()), name, ()) for name in invited if name != desk.me.name]
    _drawn(desk, terms, [desk.me, *people], addresses=False)


def _drawn(desk: "Desk", terms: Terms, people: Any, *, addresses: bool) -> Drawn:
    with reviewing.taking_long("drawing up the charter: calibrating its noise …"):
        return draw_up(terms, people, desk.seed, desk.created, addresses=addresses)


@contextmanager
def _going_on() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, typer.Abort):
        say("Nothing is lost: run the same command again to go on.")
        raise


class Board:
    """What the founder sees of the others: a table at a terminal, else a line for each change."""

    def __init__(self, desk: "Desk", check: Callable[[], None], as_json: bool) -> None:
        self._desk, self._check, self._as_json = desk, check, as_json
        self._seen: dict[str, str] = {}

    def invitations(self) -> None:
        """Print the invitations that wait for their member."""
        from ..node.home.invitations import FOUNDING_PREFIX, to_text

        invitations = [(name, to_text(signed, FOUNDING_PREFIX)) for name, signed in self._desk.invitations()]
        if self._as_json:
            _line({"invitations": [{"name": name, "invitation": text} for name, text in invitations]})
            return
        out = console()
        for name, text in invitations:
            out.print(f"For {name}:")
            out.print(elsewhere(f"collegium join {text}"), soft_wrap=True)
            out.print()
        if invitations:
            prose(
                out,
                "Send each member its own line, in private: whoever has it can take the place. The member adds"
                " --listen, --data and --lot-size, as for `init`, or --home with a home that `init` made."
                f" Your key by telephone: {solid(fingerprint(self._desk.me.key))}",
            )
        sys.stdout.flush()

    def until(self, done: Callable[[], bool]) -> None:
        """Show how the founding stands, and every change, until it is done."""
        out = console()
        if self._as_json or not out.is_terminal:
            while True:
                finished = done()
                self._tell()
                if finished:
                    return
                self._check()
                time.sleep(GLANCE)
        from rich.live import Live

        with Live(self._picture(), console=out, auto_refresh=False) as live:
            while not done():
                self._check()
                time.sleep(GLANCE)
                live.update(self._picture(), refresh=True)
            live.update(self._picture(), refresh=True)

    def _tell(self) -> None:
        places = self._desk.places()
        states = {place.invited_as: place.state for place in places}
        if states == self._seen:
            return
        if self._as_json:
            _line({"members": [_plain(place) for place in places]})
        else:
            for place in places:
                if self._seen.get(place.invited_as) != place.state:
                    console().print(f"{_title(place)}: {_state(place)}")
            sys.stdout.flush()
        self._seen = states

    def _picture(self) -> "Text":
        from rich.text import Text

        page = console(like=console())
        with page.capture() as capture:
            rows = [(_title(p), _state(p), solid(fingerprint(p.key)) if p.key else None) for p in self._desk.places()]
            table(page, ("member", "stands at", "key, to read by telephone"), rows, empty="Nobody is invited.")
            page.print(AGAIN)
        return Text.from_ansi(capture.get())


def _title(place: "Place") -> str:
    return f"{place.invited_as} ({place.name})" if place.name not in ("", place.invited_as) else place.invited_as


def _state(place: "Place") -> str:
    good = time.strftime("%Y-%m-%d", time.gmtime(place.expires))
    return {
        "invited": f"invited, until {good}",
        "expired": "invitation expired: run this again for another",
        "joined": "has come",
        "reviewed": "reads the charter",
        "refused": "REFUSES the charter",
        "signed": "signed",
        "kept": "signed, and has all signatures",
    }[place.state]


def _plain(place: "Place") -> dict[str, Any]:
    return {
        "invited_as": place.invited_as,
        "name": place.name or None,
        "key": place.key.hex() or None,
        "fingerprint": fingerprint(place.key) if place.key else None,
        "state": place.state,
    }


def _line(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _end(desk: "Desk", as_json: bool) -> None:
    assert desk.draft is not None
    result, path = reviewing.overview(*desk.draft), str(desk.home.charter)
    if as_json:
        _line({"file": path, **result})
        return
    out = console()
    facts(
        out,
        [
            ("federation", result["name"]),
            ("charter", f"{result['fingerprint']}, signed by everybody"),
            ("kept in", path),
        ],
    )
    out.print(founding.start_step(desk.home, desk.draft[0]))
