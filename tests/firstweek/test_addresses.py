"""Members that cannot reach each other are told why, and reach each other by what an operator can know."""

from collections.abc import Callable
from typing import Any

from .schools import Federation


def test_a_member_that_is_not_reached_is_explained_and_added_without_a_peer_id(found: Callable[[], Federation]) -> None:
    """north is known by a name that only /etc/hosts has, south by a port on which nobody listens."""
    federation = found()
    north, south = federation.init("north", None), federation.init("south", None)
    here = south.member.partition("@")[2]
    key = south.member.partition("@")[0].partition("=")[2]
    north.member = north.member.replace("/ip4/127.0.0.1/", "/dns4/localhost/")
    south.member = f"south={key}@/ip4/127.0.0.1/tcp/1"
    federation.charter("--preset", "digits", "--fault-model", "crash")

    def of(school: Any, name: str) -> Any:
        return next(peer for peer in school.get("/peers")["peers"] if peer["name"] == name)

    assert north.command("node", "start").code == 0
    federation.schools.remove(south)
    federation.wait(
        lambda: of(north, "south")["why"] and "cannot be reached" in of(north, "south")["why"], "the reason"
    )
    shown = north.command("peer", "list").out
    assert "not connected to south: /ip4/127.0.0.1/tcp/1/p2p/" in shown
    assert of(north, "south")["peer_id"] in shown
    assert "cannot be reached" in north.command("node", "status").out
    federation.schools.append(south)
    assert south.command("node", "start").code == 0  # it dials north by its name, and needs nothing else
    federation.wait(lambda: of(south, "north")["connected"], "south dials north at /dns4/localhost")
    south.command("node", "stop")
    federation.schools.remove(south)
    added = north.command("peer", "add", "south", here, "--json").value
    assert added["connected"] is False
    assert added["address"] == f"{here}/p2p/{of(north, 'south')['peer_id']}"
    federation.schools.append(south)
    south.command("node", "start")
    federation.wait(lambda: of(north, "south")["connected"], "north and south are connected")
    assert of(north, "south")["why"] is None
    federation.stop()
