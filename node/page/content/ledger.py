"""The ledger with its search, and withdrawals with their receipts."""

from collections.abc import Mapping, Sequence

from ... import views
from ...views.shapes_ledger import BlockShown, RecordLine, RecordShown, Said
from ...views.shapes_membership import ScheduledBatch, WithdrawalShown
from ..blocks import (
    Badge,
    Cell,
    Code,
    Facts,
    Field,
    Form,
    Input,
    Link,
    Many,
    Moment,
    Page,
    Search,
    Section,
    Table,
    Words,
)
from ..source import Reading
from . import cells

KINDS = ("", "offer", "update", "attest", "evidence", "withdrawal", "motion", "ballot")
LIMIT = 100
COLUMNS = ("height", "author", "kind", "about", "record")


def ledger(read: Reading, query: Mapping[str, str]) -> Page:
    """Return the last agreed records that match a search."""
    asked = {name: query.get(name, "").strip() for name in ("author", "kind", "component", "reference")}
    status = read(lambda client: client.status(), views.status)
    if asked["reference"]:
        return entry(read, {"reference": asked["reference"]})
    author, kind, component = asked["author"] or None, asked["kind"] or None, asked["component"] or None
    found = read(
        lambda client: client.ledger_log(author=author, kind=kind, component=component, limit=LIMIT),
        lambda context: views.ledger_log(
            context,
            author=views.find_member(context, author) if author else None,
            kind=kind,
            component=component,
            limit=LIMIT,
        ),
    )
    names = [c["component"] for c in status["components"]]
    search = Search(
        "/ledger",
        (
            Field("author", "Author: a name, or a prefix of a key", asked["author"]),
            Field("kind", "Kind", asked["kind"], KINDS),
            Field("component", "Component", asked["component"], ("", *names)),
            Field("reference", "Or a height, or the beginning of a digest", ""),
        ),
    )
    rows = [_line(one) for one in reversed(found)]
    options = "".join(f" --{name} {value}" for name, value in asked.items() if value)
    told = f"The last {LIMIT} at the most." if len(found) == LIMIT else f"{len(found)} records."
    blocks = (search, Words(told), Table("Records, last first", COLUMNS, rows, "No record matches."))
    state: list[tuple[str, Cell]] = [
        ("height", status["height"]),
        ("block", cells.record(status["block"]) if status["height"] else None),
        ("records in the tree", status["tree_size"]),
    ]
    attribution: list[list[Cell]] = [[name, Code(f"collegium ledger blame {name}")] for name in names]
    return Page(
        "Ledger",
        (
            Section(
                "state",
                "State",
                (Facts(state), Form("/act/verify-ledger", "Verify all of it")),
                ("collegium node status", "collegium ledger verify"),
            ),
            Section("records", "Records", blocks, (f"collegium ledger log{options}",)),
            Section(
                "attribution",
                "Who is in a state",
                (
                    Words(
                        "Contributors to a component's state, with their weights, are computed by a command:"
                        " it verifies the whole ledger first."
                    ),
                    Table("Commands by component", ("component", "command"), attribution, "No components."),
                ),
                ("collegium ledger blame COMPONENT", "collegium ledger export FILE"),
                live=False,
            ),
            CHECK,
        ),
    )


CHECK = Section(
    "check",
    "Check a file that somebody gave you",
    (
        Words("A proof, a ledger, a certificate of a withdrawal, or a student's deletion receipt with its id and key."),
        Form(
            "/act/check-file",
            "Check it",
            inputs=(
                Input("file", "File, of 16 MB at most", sort="file"),
                Input("student", "Of a receipt: the student's id"),
                Input("key", "Of a receipt: its key"),
            ),
        ),
    ),
    (
        "collegium ledger verify FILE",
        "collegium unlearn verify FILE",
        "collegium unlearn verify FILE --subject - --key KEY",
    ),
    live=False,
)


def _line(one: RecordLine) -> list[Cell]:
    height = one["height"]
    return [
        None if height is None else cells.record(str(height), str(height)),
        cells.member(one["author"]),
        one["kind"],
        _about(one["about"]),
        cells.record(one["digest"]),
    ]


def _about(said: Said) -> Cell:
    """Return the content of a record, in a line for each fact."""
    return Many(tuple(f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in said.items())) if said else None


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return (
            str(value["name"])
            if "name" in value
            else ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
        )
    if isinstance(value, list):
        return "; ".join(map(_plain, value)) or "none"
    return "none" if value in (None, "") else str(value)


def entry(read: Reading, query: Mapping[str, str]) -> Page:
    """Return a block or a record."""
    reference = query["reference"]
    found = read(lambda client: client.record(reference), lambda context: views.ledger_show(context, reference))
    return _block(found) if found["type"] == "block" else _record(found)


def _block(found: BlockShown) -> Page:
    signed = found["certificate"]["signed_by"]
    closed = tuple(
        Link(f"{one['component']} {one['round']}", f"/rounds/{one['component']}/{one['round']}")
        for one in found["close"]
    )
    facts: list[tuple[str, Cell]] = [
        ("id", Code(found["id"])),
        ("block before", cells.record(str(found["height"] - 1), found["prev"][:16]) if found["height"] > 1 else None),
        ("decided here", Moment(found["stored_at"])),
        ("tree", f"{found['tree_size']} records"),
        ("root of the tree", Code(found["tree_root"])),
        ("state of the ledger", Code(found["fold"])),
        ("view", found["certificate"]["view"]),
        ("signed by", cells.members(signed)),
        ("closes rounds", Many(closed) if closed else None),
    ]
    command = (f"collegium ledger show {found['height']}",)
    rows = [_line(one) for one in found["records"]]
    return Page(
        f"Block {found['height']}",
        (
            Section("block", "Block", (Facts(facts),), command),
            Section("records", "Its records", (Table("Records", COLUMNS, rows, "It has none."),), command),
        ),
    )


def _record(found: RecordShown) -> Page:
    height = found["height"]
    facts: list[tuple[str, Cell]] = [
        ("digest", Code(found["digest"])),
        ("author", cells.member(found["author"])),
        ("number in its feed", found["seq"]),
        ("height", None if height is None else cells.record(str(height), str(height))),
        ("about", _about(found["about"])),
        ("record before", cells.digest(found["prev"])),
        ("bytes", found["bytes"]),
        ("received", Moment(found["received_at"])),
        ("signature", Code(found["signature"])),
    ]
    prove = Words(
        "A proof that this record is in the ledger, for somebody without the ledger, is a file. It is checked at once."
    )
    button = (Form("/act/prove", "Prove it", {"record": found["digest"]}),) if height is not None else ()
    short = found["digest"][:16]
    return Page(
        f"Record {short}",
        (
            Section("record", found["kind"].capitalize(), (Facts(facts),), (f"collegium ledger show {short}",)),
            Section("proof", "Proof", (prove, *button), (f"collegium ledger prove {short} FILE",), live=False),
        ),
    )


def withdrawals(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return every withdrawal and its progress, with the commands that write its receipts."""
    found = read(lambda client: client.withdrawals(), views.unlearn)
    sections = [_withdrawal(number, one) for number, one in reversed(list(enumerate(found["withdrawals"], 1)))]
    waits = Words("A withdrawal of this node waits to be signed, until enough members are connected.")
    none = Words("Nothing was withdrawn.")
    first = Section(
        "state",
        "State",
        (
            Facts([("withdrawals in the ledger", len(sections))]),
            *((waits,) if found["waiting_to_sign"] else ()),
            *(() if sections else (none,)),
        ),
        ("collegium unlearn status",),
    )
    how = Section(
        "how",
        "To withdraw, and to prove it",
        (
            Table(
                "Commands; each says what it costs before it asks",
                ("to", "command"),
                [
                    ["forget one student", Code("collegium unlearn subject ID")],
                    ["withdraw all that this node contributed", Code("collegium unlearn request")],
                    ["propose that another member's be withdrawn", Code("collegium unlearn propose MEMBER")],
                    ["prove to anybody, offline, that a withdrawal holds", Code("collegium unlearn certificate")],
                    ["check a withdrawal from this node's own files", Code("collegium unlearn verify MEMBER")],
                ],
                "",
            ),
        ),
        ("collegium unlearn --help",),
        live=False,
    )
    names = [c["component"] for c in read(lambda client: client.status(), views.status)["components"]]
    asking = _asking(names) if read.acts else ()
    return Page("Withdrawals", (first, *_to_come(found["scheduled"]), *asking, *sections, how))


def _to_come(batches: Sequence[ScheduledBatch]) -> tuple[Section, ...]:
    """Return the withdrawals of students that this node puts off to a time; nothing where there are none."""
    if not batches:
        return ()
    rows: list[Sequence[Cell]] = [
        [Moment(b["at"]), b["students"], b["lapsed"], b["updates"], "yes" if b["pauses"] else "no"] for b in batches
    ]
    return (
        Section(
            "to-come",
            "To come",
            (
                Words(
                    "These students are left out already. The updates that saw them are withdrawn at the time. Until"
                    " then `unlearn cancel` takes a withdrawal back, and the student is trained on again."
                    " Of lapsed consents only a new consent in the data folder does that."
                ),
                Table(
                    "Withdrawals to come", ("time", "students", "of them lapsed", "updates", "then paused"), rows, ""
                ),
            ),
            ("collegium unlearn status", "collegium unlearn cancel ID"),
        ),
    )


def _asking(names: Sequence[str]) -> tuple[Section, ...]:
    """Return the forms that ask for a withdrawal. Each says what it costs before it asks."""
    students = Form(
        "/act/forget",
        "Look for them",
        inputs=(Input("students", "Students' ids, as the data have them; one a line", lines=3),),
    )
    own = Form(
        "/act/withdraw",
        "Go on",
        inputs=(
            Input("component", "Component", "", ("", *names), hint="everything"),
            Input("rounds", "Rounds of the component, A..B; empty: all"),
        ),
    )
    return (
        Section(
            "forget",
            "Forget students",
            (
                Words("The next page says how many updates saw them and what it costs; nothing is done before."),
                students,
            ),
            ("collegium unlearn subject -",),
            live=False,
        ),
        Section(
            "withdraw",
            "Withdraw what this node contributed",
            (Words("The next page says what it takes out and what it costs; nothing is done before."), own),
            ("collegium unlearn request --component NAME --rounds A..B",),
            live=False,
        ),
    )


def _withdrawal(number: int, one: WithdrawalShown) -> Section:
    done = all(c["settled"] and not c["blobs_to_erase"] for c in one["components"])
    facts: list[tuple[str, Cell]] = [
        ("member", cells.member(one["member"])),
        ("what", one["what"]),
        ("how", one["mode"]),
        ("agreed", Moment(one["agreed_at"])),
        ("at height", cells.record(str(one["height"]), str(one["height"]))),
        ("by motion", cells.record(one["motion"]) if one["motion"] else None),
        ("state", Badge(one["state"], "ok" if done else "info")),
    ]
    rows: list[list[Cell]] = [
        [
            c["component"],
            c["round"],
            c["generation"],
            c["reaches_back_to_round"],
            c["label"],
            c["blobs_to_erase"],
            c["updates_beyond_refold_horizon"],
        ]
        for c in one["components"]
    ]
    columns = ("component", "round", "generation", "back to round", "new state", "bytes to erase", "out of reach")
    key, name = one["member"]["key"], one["member"]["name"]
    forms = (
        Form("/act/verify-withdrawal", "Verify it here", {"who": key}, label=f"Verify it here: withdrawals of {name}"),
        Form("/act/certificate", "Certificate", {"who": key}, label=f"Certificate of the withdrawals of {name}"),
    )
    commands = (f"collegium unlearn verify {key[:16]}", f"collegium unlearn certificate {key[:16]} --out FILE")
    return Section(
        f"withdrawal-{number}",
        f"Withdrawal {number}",
        (Facts(facts), Table("Progress by component", columns, rows, "None."), *forms),
        ("collegium unlearn status", *commands),
    )
