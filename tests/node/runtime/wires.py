"""Hosts in network namespaces on one switch: real interfaces that can be cut, slowed down and renumbered.

Each host is a namespace with one veth pair, whose other end is a port of a bridge in a namespace of its own: nothing of
it touches this machine's network. Packets of a port that is taken from the bridge are dropped in silence, as by a bad
cable. Needs root and iproute2.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ...waiting import LIMIT

_numbers = count()


class WiresError(Exception):
    """Namespaces cannot be made here."""


class Wires:
    """The switch and its hosts; host n is at 10.77.0.(n + 1)/24, or wherever `renumber` put it."""

    def __init__(self, hosts: int) -> None:
        self._name = f"cg{os.getpid()}x{next(_numbers)}"
        self._made: list[str] = []
        self.hosts = [f"{self._name}h{n}" for n in range(hosts)]
        self._switch = f"{self._name}s"
        try:
            self._make(self._switch)
            for bridge in ("br0", "br1"):
                self._in(self._switch, "ip", "link", "add", bridge, "type", "bridge")
                self._in(self._switch, "ip", "link", "set", bridge, "up")
            for number, host in enumerate(self.hosts):
                self._make(host)
                self._in(host, "ip", "link", "set", "lo", "up")
                port = ("peer", "name", f"p{number}", "netns", self._switch)
                self._in(host, "ip", "link", "add", "eth0", "type", "veth", *port)
                self._in(host, "ip", "link", "set", "eth0", "up")
                self._in(host, "ip", "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
                self._in(host, "ip", "route", "add", "default", "dev", "eth0")
                self._in(self._switch, "ip", "link", "set", f"p{number}", "up")
                self.plug(number)
        except WiresError:
            self.close()
            raise

    def address(self, host: int) -> str:
        """The address that a host is given at first."""
        return f"10.77.0.{host + 1}"

    def command(self, host: int) -> tuple[str, ...]:
        """What runs the command after it on this host."""
        return ("ip", "netns", "exec", self.hosts[host])

    def plug(self, host: int, bridge: str = "br0") -> None:
        """Put a host on one of two switches that have no wire between them, br0 or br1."""
        self._in(self._switch, "ip", "link", "set", f"p{host}", "master", bridge)

    def unplug(self, host: int) -> None:
        """Drop every packet from and to a host; neither side is told."""
        self._in(self._switch, "ip", "link", "set", f"p{host}", "nomaster")

    def slow(self, host: int, kbit: int) -> None:
        """Limit a host's link to so many kbit/s in each direction."""
        limit = ("root", "tbf", "rate", f"{kbit}kbit", "burst", "8kb", "latency", "500ms")
        self._in(self.hosts[host], "tc", "qdisc", "replace", "dev", "eth0", *limit)
        self._in(self._switch, "tc", "qdisc", "replace", "dev", f"p{host}", *limit)

    def renumber(self, host: int, address: str) -> None:
        """Give a host another address in place of its own."""
        self._in(self.hosts[host], "ip", "addr", "flush", "dev", "eth0", "scope", "global")
        self._in(self.hosts[host], "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        self._in(self.hosts[host], "ip", "route", "add", "default", "dev", "eth0")

    def close(self) -> None:
        """Remove every namespace, and with it its interfaces."""
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        self._made.clear()

    def _make(self, name: str) -> None:
        _run("ip", "netns", "add", name)
        self._made.append(name)

    def _in(self, name: str, *command: str) -> None:
        _run("ip", "netns", "exec", name, *command)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    except FileNotFoundError as error:
        raise WiresError(f"there is no {command[0]}: install iproute2") from error
    except subprocess.CalledProcessError as error:
        raise WiresError(f"{' '.join(command)}: {error.stderr.strip()}") from error


@contextmanager
def wires(hosts: int) -> Iterator[Wires]:
    """Wire up some hosts, and take all of it away at the end."""
    made = Wires(hosts)
    try:
        yield made
    finally:
        made.close()


def permitted() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if not Path("/proc/self/ns/net").exists():
        return "this system has no network namespaces"
    try:
        with wires(1) as networks:
            networks.slow(0, 1000)
    except WiresError as error:
        return str(error)
    return ""
