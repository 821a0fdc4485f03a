"""Who watches a simulated cluster."""

from typing import Protocol, TypeVar

from ...node.core import events as ev

N_contra = TypeVar("N_contra", contravariant=True)


class Observer(Protocol[N_contra]):
    """Sees every step, and raises InvariantError at a broken promise: invariants.py, as a rule."""

    alarms: set[str]  # notices that no honest node may give

    def persisted(self, node: N_contra, puts: list[ev.Put], *, whole: bool = True) -> None:
        """A step made this durable; not `whole`: it was killed in the middle of the write."""

    def sent(self, node: N_contra, data: bytes) -> None:
        """This is about to leave a node."""

    def folded(self, node: N_contra, fold: ev.Fold, digest: bytes) -> None:
        """A node folded, to a state of this digest."""

    def erased(self, node: N_contra, erase: ev.Erase) -> None:
        """A node is about to erase these bytes."""

    def noticed(self, node: N_contra, notice: ev.Notice) -> None:
        """A node gave its operator a notice."""

    def set_back(self, node: N_contra) -> None:
        """A node's disk is lost, or went back in time."""

    def final(self) -> None:
        """The run is over."""
