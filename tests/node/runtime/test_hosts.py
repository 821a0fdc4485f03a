"""Real hosts: daemons in network namespaces, whose wires are cut, slowed down and renumbered (wires.py)."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from collegium.node.control.client import Client
from collegium.sims.processes.observe import fold_ledger

from .wires import Wires, permitted, wires

WHY_NOT = permitted()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"needs network namespaces: {WHY_NOT}")
Make = Callable[..., Any]
HEAVY: dict[str, Any] = {"dimension": 50_000, "deadline_ms": 4000, "rounds": 40}  # an update takes a slow link seconds
LATE = {"no update", "its update reached too few hosts", "acknowledged too late"}


@pytest.fixture
def switch() -> Iterator[Wires]:
    with wires(4) as networks:
        yield networks


@pytest.fixture
def hosts(switch: Wires, federation: Make) -> Make:
    """A federation with one daemon on each host."""

    def make(**more: Any) -> Any:
        return on(switch, federation, **more)

    return make


def on(switch: Wires, federation: Make, count: int = 4, inward: Sequence[int] = (), **more: Any) -> Any:
    """Start daemons on the first `count` hosts; those `inward` listen to their own host only."""
    addresses = [switch.address(n) for n in range(count)]
    these = federation(count=count, hosts=addresses, **{"rounds": 0, "deadline_ms": 1500} | more)
    for number, daemon in enumerate(these.daemons):
        daemon.prefix = switch.command(number)
        if number in inward:
            config = daemon.institution.home.config
            config.write_text(config.read_text().replace(addresses[number], "127.0.0.1"))
    these.start()
    return these


def closed(four: Any, node: int = 0) -> int:
    """The last round that a node has folded."""
    four.look()
    return max((r for (_, r), note in four.views[node].notes.items() if "digest" in note), default=0)


def live(four: Any, node: int) -> Any:
    return Client(four.institutions[node].home).status()


def connected(four: Any, node: int) -> set[str]:
    return {member["name"] for member in live(four, node)["live"]["connected"]}


def absences(four: Any, since: int) -> dict[str, set[str]]:
    """Who was not in the rounds since, and why, as `round show` tells it at node-0: the log says the same (G3)."""
    home = four.institutions[0].home
    lines = [json.loads(line) for line in home.log.read_text().splitlines() if line.startswith("{")]
    logged = {line["round"]: line["missing"] for line in lines if line["event"] == "round-closed"}
    absent: dict[str, set[str]] = {}
    for number in range(since + 1, closed(four) + 1):
        shown = Client(home).round("head/task0", number)
        assert logged[number] == {member["key"][:16]: member["why"] for member in shown["missing"]}
        for member in shown["missing"]:
            absent.setdefault(member["name"], set()).add(member["why"])
    return absent


def test_members_without_addresses_find_each_other_by_mdns(hosts: Make) -> None:
    two = hosts(count=2, mdns=True)
    two.wait_rounds(2)


def test_two_members_that_nobody_can_dial_take_part_through_the_two_that_can_be(
    switch: Wires, federation: Make
) -> None:
    """As behind NAT without a forwarded port (docs/network.md): they listen where nobody else gets to."""
    four = on(switch, federation, inward=(2, 3))
    four.wait_rounds(2)
    assert connected(four, 2) == connected(four, 3) == {"node-0", "node-1"}
    node = Client(four.institutions[0].home)
    four.wait(lambda: len(node.rounds(limit=1)[-1]["counted"]) == 4)


@pytest.fixture(scope="module")
def heavy(lasting: Make) -> Iterator[tuple[Wires, Any]]:
    """Four whose updates are large, for two tests; the last one leaves a link slow."""
    with wires(4) as networks:
        four = on(networks, lasting, **HEAVY)
        four.wait_rounds(1)
        yield networks, four
        for daemon in four.daemons:  # before their network goes
            daemon.kill()


def test_a_partition_stops_the_side_without_a_quorum_which_says_so_and_joins_again(heavy: tuple[Wires, Any]) -> None:
    switch, four = heavy
    for number in (2, 3):
        switch.plug(number, "br1")
    four.wait(lambda: all(len(connected(four, n)) == 1 for n in range(4)))
    before: list[int] = []

    def settled() -> bool:
        """What was decided before the cut is folded by all of a side."""
        before[:] = [closed(four, n) for n in range(4)]
        time.sleep(1)
        return before == [closed(four, n) for n in range(4)]

    four.wait(settled)
    for number in range(4):
        assert any("Connected to 1 of the 3 other members" in note for note in live(four, number)["notes"])
        assert "too few members connected for a quorum" in four.institutions[number].home.log.read_text()
    time.sleep(3)
    assert [closed(four, n) for n in range(4)] == before, "nobody has a quorum"
    for number in (2, 3):
        switch.plug(number)
    four.wait_rounds(max(before) + 2)
    assert not any("Connected to" in note for note in live(four, 0)["notes"])


@pytest.mark.soak  # half a minute of deadlines; scenario "silent-host" is the short form
def test_a_host_that_falls_silent_costs_deadlines_is_named_and_is_found_again(switch: Wires, hosts: Make) -> None:
    """A half-open connection: the others' packets vanish, and nobody closes anything."""
    four = hosts()
    four.wait_rounds(1)
    switch.unplug(3)
    began = closed(four)
    four.wait_rounds(began + 3, nodes=[0, 1, 2])
    assert absences(four, began + 1) == {"node-3": {"no update"}}, "its connection has not ended yet"
    four.wait(lambda: "node-3" not in connected(four, 0))
    switch.plug(3)
    four.wait_rounds(closed(four) + 2)


@pytest.mark.soak  # half a minute of waiting
def test_a_host_with_a_new_address_is_found_again_and_offers_it(switch: Wires, hosts: Make) -> None:
    four = hosts(anywhere=True)
    four.wait_rounds(1)
    switch.renumber(3, "10.77.0.99")
    four.wait_rounds(closed(four) + 2)
    author = four.institutions[3].identity.public_key

    def offered() -> bool:
        offer = fold_ledger(four.institutions[0], four.charter).offers.get(author)  # none while it is suspended
        return offer is not None and any(address.startswith("/ip4/10.77.0.99/") for address in offer.addresses)

    four.wait(offered)


def test_a_slow_link_delays_a_round_by_its_deadline_at_most(heavy: tuple[Wires, Any]) -> None:
    switch, four = heavy
    slow_down(switch, four, 1000)


@pytest.mark.soak  # the short form is above, of one speed
@pytest.mark.parametrize("kbit", [8000, 250])
def test_slower_and_faster_links_too(switch: Wires, hosts: Make, kbit: int) -> None:
    four = hosts(**HEAVY)
    four.wait_rounds(1)
    slow_down(switch, four, kbit)


def slow_down(switch: Wires, four: Any, kbit: int) -> None:
    switch.slow(3, kbit)
    began = closed(four)
    four.wait_rounds(began + 3, nodes=[0, 1, 2])
    absent = absences(four, began + 1)
    assert absent.keys() <= {"node-3"}
    assert absent.get("node-3", set()) <= LATE
    assert absent or kbit > 500, "it cannot carry a round's bytes within the deadline"
    four.wait_rounds(began + 3)  # the slow one folds them in the end, when the others wait
    assert closed(four, 3) >= began + 3
