"""Addresses that nobody can dial are told from those that somebody can, before they are signed or published."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collegium.crypto.identity import Identity
from collegium.node.home.addresses import (
    check_advertised,
    check_peer,
    free_loopback,
    is_loopback,
    members_problems,
    own_problem,
    peer_id,
    published,
    with_peer,
)
from collegium.node.network import identity

GOOD = ("/ip4/192.168.1.20/tcp/4001", "/ip6/2001:db8::2/tcp/4001", "/dns4/node.example.org/tcp/4001")
LOCAL = (
    "/ip4/127.0.0.1/tcp/4001", "/ip4/127.8.9.1/tcp/1", "/ip6/::1/tcp/4001", "/dns4/localhost/tcp/4001",
    "/dns/a.localhost/tcp/1",
)  # fmt: skip
NOBODY = {
    "/ip4/0.0.0.0/tcp/4001": "0.0.0.0", "/ip6/::/tcp/4001": "::", "/ip4/192.168.1.20/tcp/0": "port 0",
    "/dns4/a.org/tcp/0": "port 0", "/ip4/224.0.0.1/tcp/4001": "single host",
    "/ip4/255.255.255.255/tcp/4001": "single host", "192.168.1.20:4001": "not an address", "": "not an address",
    "/ip4/1.2.3.4/udp/4001": "not an address", "/ip4/1.2.3.4/tcp/70000": "not an address",
}  # fmt: skip


@pytest.mark.parametrize("address", NOBODY)
def test_what_nobody_can_dial_is_refused_with_the_reason(address: str) -> None:
    assert NOBODY[address] in check_advertised(address)


@pytest.mark.parametrize("address", [*GOOD, *LOCAL])
def test_what_can_be_dialled_is_taken(address: str) -> None:
    assert check_advertised(address) == ""
    assert is_loopback(address) == (address in LOCAL)


@settings(deadline=None)
@example("/ip4/0.0.0.0/tcp/0")
@example("ip4/0.0.0.0/tcp/0")
@given(st.text(max_size=40))
def test_no_text_makes_the_checks_fail(text: str) -> None:
    for address in (text, f"/ip4/{text}/tcp/1", f"/dns4/{text}/tcp/1", f"/{text}"):
        check_advertised(address)
        is_loopback(address)
        members_problems([("a", [address]), ("b", [])])


def test_where_a_node_listens_is_not_always_what_it_can_tell_others() -> None:
    assert own_problem(GOOD, ()) == own_problem(["/ip4/0.0.0.0/tcp/4001"], GOOD) == ("", "")
    problem, advice = own_problem(["/ip4/0.0.0.0/tcp/4001"], ())
    assert "nobody can dial" in problem
    assert re.search(r"--advertise /ip4/[0-9.]+/tcp/4001", advice)
    assert "port 0" in own_problem(["/ip4/127.0.0.1/tcp/0"], ())[0]
    assert "0.0.0.0" in own_problem(GOOD, ["/ip4/0.0.0.0/tcp/4001"])[0]


def test_members_of_a_charter_can_reach_each_other_or_it_says_why() -> None:
    def problems(*addresses: list[str]) -> str:
        return "; ".join(members_problems([(f"n{n}", own) for n, own in enumerate(addresses)]))

    assert problems(*([address] for address in GOOD)) == ""
    assert problems(*([address] for address in LOCAL)) == ""  # a federation on one machine
    assert problems([]) == ""  # alone
    assert "n1 has no address" in problems([GOOD[0]], [])
    assert "n0 and n1 have the same address" in problems([GOOD[0]], [GOOD[0]])
    assert "n1 has only an address of its own machine" in problems([GOOD[0]], [LOCAL[0]])
    assert problems([GOOD[0]], [GOOD[1], LOCAL[0]]) == ""
    assert "nobody can dial" in problems([GOOD[0]], ["/ip4/0.0.0.0/tcp/1"])


def test_an_offer_never_tells_others_to_dial_themselves() -> None:
    assert published([GOOD[0], LOCAL[0]], LOCAL) == (GOOD[0],)
    assert published([LOCAL[0]], [*LOCAL, GOOD[0]]) == ()
    assert published([LOCAL[0]], LOCAL) == published([LOCAL[0]], []) == (LOCAL[0],)
    assert published([f"{LOCAL[0]}/p2p/x", GOOD[0]], []) == (GOOD[0],)


def test_the_peer_id_is_libp2ps() -> None:
    for _ in range(5):
        key = Identity.generate().public_key
        assert peer_id(key) == str(identity.peer_id(key))
        whole = with_peer(GOOD[0], key)
        assert identity.parse_address(whole)[2] == key
        assert with_peer(whole, key) == whole


def test_a_free_port_is_none_that_is_taken() -> None:
    assert check_advertised(free_loopback()) == ""


@pytest.mark.parametrize(
    "where", ["ip4/224.0.0.1/tcp/4001", "ip4/0.0.0.0/tcp/4001", "ip4/192.0.2.7/tcp/0", "ip6/ff02::1/tcp/1"]
)
def test_a_peers_address_that_nobody_can_dial_is_none(where: str) -> None:
    peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
    assert "nobody can dial that" in check_peer(f"/{where}/p2p/{peer}")
    assert check_peer(f"/ip4/192.0.2.7/tcp/4001/p2p/{peer}") == ""
