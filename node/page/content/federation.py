"""The members: who is connected, who is awaited and why, who was voted in or out."""

from collections.abc import Mapping, Sequence
from math import cos, pi, sin

from ... import views
from ...control.replies import InvitationShown
from ...views.shapes import ComponentShown, PeerShown
from ...views.shapes_membership import MotionEnded, MotionShown
from ..blocks import Badge, Cell, Code, Dot, Facts, Form, Graph, Input, Link, Many, Moment, Page, Section, Table
from ..source import Reading
from . import cells

WIDTH, HEIGHT, RADIUS = 640, 420, 150
NAME = 22  # characters of a name in the drawing; the table has all of it
MOTIONS = ("proposed", "reason", "by", "yes", "no", "needs", "undecided", "ends after height")


def federation(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return who is connected, and who is awaited."""
    peers = read(lambda client: client.peers(), views.peers)["peers"]
    components = read(lambda client: client.components(), views.components)
    status = read(lambda client: client.status(), views.status)
    present = [peer for peer in peers if peer["state"] in {"member", "never heard of", "withdrew"}]
    live = status["live"]
    refused = live["refused"] if live else {}
    return Page(
        "Federation",
        (
            Section(
                "neighbours",
                "Neighbours",
                (_graph(present), Table("Members", *_neighbours(present), "There are no members.")),
                ("collegium peer list",),
            ),
            Section(
                "awaited",
                "Who is awaited, and why",
                (Table("Open rounds", *_awaited(components, peers), "Nobody is awaited."),),
                ("collegium component list", "collegium peer list"),
            ),
            Section(
                "refused",
                "What this node refused, by reason",
                (
                    Table(
                        "Records and updates refused since the start",
                        ("reason", "times"),
                        [[reason, count] for reason, count in sorted(refused.items())],
                        "Nothing was refused since the start." if live else "Only a running daemon knows.",
                    ),
                ),
                ("collegium node status --json",),
            ),
        ),
    )


def _state(peer: PeerShown) -> tuple[str, str]:
    """Return how a member is drawn, and in words."""
    if peer["me"]:
        return "me", "this node"
    if peer["connected"] is None:
        return "unknown", "not known without a daemon"
    return ("up", "connected") if peer["connected"] else ("down", f"not connected: {peer['why'] or 'no reason known'}")


def _graph(peers: Sequence[PeerShown]) -> Graph:
    me = next((peer for peer in peers if peer["me"]), None)
    others = [peer for peer in peers if not peer["me"]]
    x, y = WIDTH / 2, HEIGHT / 2
    name = _short(me["name"]) if me else "this node"
    middle = Dot(name, "me", "this node", x, y, "middle", x, y + 38)
    dots = []
    for number, peer in enumerate(others):
        angle = 2 * pi * number / max(1, len(others)) - pi / 2
        state, said = _state(peer)
        across, down = cos(angle), sin(angle)
        anchor = "middle" if abs(across) < 0.3 else "start" if across > 0 else "end"
        dots.append(
            Dot(
                _short(peer["name"]),
                state,
                said,
                round(x + RADIUS * across, 1),
                round(y + RADIUS * down, 1),
                anchor,
                round(x + (RADIUS + 18) * across, 1),
                round(y + (RADIUS + 24) * down + 4, 1),
            )
        )
    up = sum(dot.state == "up" for dot in dots)
    label = f"This node and {len(dots)} other members, {up} of them connected; the table below says the same."
    return Graph(label, middle, dots, WIDTH, HEIGHT)


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def _neighbours(peers: Sequence[PeerShown]) -> tuple[tuple[str, ...], list[list[Cell]]]:
    levels = {"me": "info", "up": "ok", "down": "warning", "unknown": "info"}
    rows: list[list[Cell]] = []
    for peer in peers:
        state, said = _state(peer)
        idle = {one["component"]: one["meaning"] for one in peer["idle"]}
        trains = [name for name in peer["components"] if name not in idle]
        why = sorted(set(idle.values()))
        rows.append(
            [
                cells.member(peer),
                Badge(said, levels[state]),
                f"{len(trains)} of {len(peer['components'])} components",
                cells.listed(why),
                peer["records"],
                Moment(peer["last_record_at"]),
            ]
        )
    return ("member", "connection", "trains", "does not train the others because", "records", "last record"), rows


def _awaited(
    components: Sequence[ComponentShown], peers: Sequence[PeerShown]
) -> tuple[tuple[str, ...], list[list[Cell]]]:
    about = {peer["key"]: _state(peer)[1] for peer in peers}
    rows: list[list[Cell]] = []
    for c in components:
        now = c["open_round"]
        waits = tuple(f"{one['name']}: {about.get(one['key'], 'not known')}" for one in now["waiting_for"])
        way = tuple(
            f"{one['name']}: {one['acks']} acknowledgements"
            + ("" if one["bytes_here"] else ", bytes not here")
            + (f", refused: {one['refused']}" if one["refused"] else "")
            for one in now["on_the_way"]
        )
        idle = tuple(f"{one['name']}: {one['meaning']}" for one in c["not_training"])
        rows.append(
            [
                c["component"],
                now["round"],
                Many(waits) if waits else "nobody",
                cells.members(now["ready"]),
                Many(way) if way else None,
                Many(idle) if idle else None,
            ]
        )
    return ("component", "open round", "waits for", "ready", "on the way", "not waited for"), rows


def members(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return members, motions and invitations."""
    peers = read(lambda client: client.peers(), views.peers)["peers"]
    motions = read(lambda client: client.motions(), views.motions)
    invitations = read(lambda client: client.invitations()["invitations"], lambda _: None)
    rows: list[list[Cell]] = [
        [
            cells.member(peer),
            Badge(peer["state"] + (", this node" if peer["me"] else ""), "ok" if peer["state"] == "member" else "info"),
            Many(tuple(Code(address) for address in peer["addresses"])) if peer["addresses"] else None,
            cells.digest(peer["key"]),
        ]
        for peer in peers
    ]
    return Page(
        "Members",
        (
            Section(
                "members",
                "Present and former members",
                (Table("Members", ("member", "state", "addresses", "key"), rows, "There are no members."),),
                ("collegium peer list",),
            ),
            Section(
                "open",
                "Open motions",
                (
                    Table(
                        "Open motions",
                        (*MOTIONS, "your ballot"),
                        [[*_open(one), _ballot(read, one)] for one in motions["open"]],
                        "No open motions.",
                    ),
                ),
                ("collegium peer motions", "collegium peer approve MOTION", "collegium peer refuse MOTION"),
            ),
            Section(
                "ended",
                "Motions that ended",
                (
                    Table(
                        "Motions that ended, last first",
                        ("motion", "reason", "by", "result", "at height", "yes", "no"),
                        [_ended(one) for one in motions["ended"]],
                        "None has ended.",
                    ),
                ),
                ("collegium peer motions",),
            ),
            Section(
                "invitations",
                "Invitations of this node",
                (
                    Table(
                        "Invitations",
                        ("for", "state", "applicant", "expires", "decide"),
                        [_invited(read, one) for one in invitations or ()],
                        "This node has invited nobody." if invitations is not None else "Only a running daemon knows.",
                    ),
                ),
                (
                    "collegium peer invitations",
                    "collegium peer invite --withdraw INVITATION",
                    "collegium peer approve NAME",
                    "collegium peer refuse NAME",
                ),
            ),
            *((INVITE,) if read.acts else ()),
        ),
    )


INVITE = Section(
    "invite",
    "Invite an institution",
    (
        Form(
            "/act/invite",
            "Go on",
            inputs=(
                Input("name", "For whom: a note to yourself"),
                Input("days", "Days for which it is good, 1 to 365", "7"),
                Input("hold", "Hold the application until I approve it", sort="box"),
            ),
        ),
    ),
    ("collegium peer invite NAME",),
    live=False,
)


def _ballot(read: Reading, one: MotionShown) -> Cell:
    """Return this node's ballot, or the buttons that cast it."""
    mine = one["your_ballot"]
    if mine != "not cast" or not read.acts:
        return "no vote here" if mine is None else mine
    return Many(
        tuple(
            Form(
                "/act/vote", f"Vote {word}", {"motion": one["motion"], "yes": word}, label=f"Vote {word}: {one['what']}"
            )
            for word in ("yes", "no")
        )
    )


def _open(one: MotionShown) -> list[Cell]:
    return [
        one["what"],
        one["reason"] or None,
        cells.member(one["by"]),
        cells.members(one["yes"]),
        cells.members(one["no"]),
        one["needed"],
        cells.members(one["undecided"]),
        one["expires_after_height"],
    ]


def _ended(one: MotionEnded) -> list[Cell]:
    result = one["result"] + (f": {one['why']}" if one["why"] else "")
    by = cells.member(one["by"])
    return [
        one["what"],
        one["reason"] or None,
        by,
        result,
        one["at_height"],
        cells.members(one["yes"]),
        cells.members(one["no"]),
    ]


def _invited(read: Reading, one: InvitationShown) -> list[Cell]:
    who, which, state = one["applicant"], one["invitation"], one["state"]
    title = one["name"] or which
    forms: tuple[Cell, ...] = ()
    if read.acts and state == "held" and who is not None:
        forms = tuple(
            Form("/act/vote", button, {"motion": which, "yes": word}, label=f"{button}: {who['name']}")
            for word, button in (("yes", "Approve"), ("no", "Turn down"))
        )
    elif read.acts and not one["withdrawn"] and state == "not used":
        forms = (Form("/act/uninvite", "Withdraw", {"invitation": which}, label=f"Withdraw the invitation {title}"),)
    return [
        one["name"] or "anybody who has it",
        one["state"],
        None if who is None else f"{who['name']} (key {who['key'][:16]})",
        Moment(one["expires"]),
        Many(forms) if forms else None,
    ]


def member(read: Reading, query: Mapping[str, str]) -> Page:
    """Return one member."""
    who = query["who"]
    found = read(
        lambda client: client.member(who), lambda context: views.member(context, views.find_member(context, who))
    )
    facts: list[tuple[str, Cell]] = [
        ("key", Code(found["key"])),
        ("this node", found["me"]),
        ("member since height", found["since_height"]),
        ("admitted by", cells.record(found["admitted_by"]) if found["admitted_by"] else "the charter"),
        ("until height", found["until_height"]),
        ("gone", found["gone"]),
        ("earlier keys", Many(tuple(map(Code, found["earlier_keys"]))) if found["earlier_keys"] else None),
        ("later key", cells.digest(found["later_key"])),
        ("addresses", Many(tuple(map(Code, found["addresses"]))) if found["addresses"] else None),
        ("active host of", cells.listed(found["active_host_of"])),
    ]
    name = found["name"]
    reason = Input("reason", "Reason, shown to all members and kept in the ledger")
    expel = Section(
        "expel",
        "Expel it",
        (Form("/act/expel", f"Propose to expel {name}", {"who": found["key"]}, (reason,)),),
        (f"collegium peer expel {found['key'][:16]} --reason REASON",),
        live=False,
    )
    present = read.acts and not found["me"] and not found["gone"]
    return Page(
        f"Member {name}",
        (
            Section("seat", "Seat", (Facts(facts),), (f"collegium peer show {found['key'][:16]}",)),
            Section(
                "motions",
                "Open motions about it",
                (Table("Open motions", MOTIONS, [_open(one) for one in found["open_motions"]], "None is open."),),
                ("collegium peer motions",),
            ),
            Section(
                "records",
                "Its records",
                (Facts([("in the ledger", Link("all of its records", f"/ledger?author={found['key']}"))]),),
                (f"collegium ledger log --author {found['key'][:16]}",),
            ),
            *((expel,) if present else ()),
        ),
    )
