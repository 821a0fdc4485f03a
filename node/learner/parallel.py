"""One training run over several processes: the students of a sample are shared out, and their clipped sums are added.

The worker that the daemon talks to leads; the others are its helpers (crew.py). In a step of DP-SGD

    the leader draws the sample, and tells everybody                    (broadcast)
    each process computes the clipped sum of its part of the sample
    the sums are added                                                  (all-reduce, float64)
    the leader alone adds noise, once, and tells the new weights        (broadcast)

A student is in one part, so nobody's clip changes, and noise is drawn once: the accountant sees the same mechanism. The
result differs from that of one process by the order in which float64 numbers are added.

torch.distributed carries the arrays: gloo on processors, over the loopback interface; NCCL if every process has a GPU
of its own.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from .waiting import Waiting

Floats = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", np.int64, np.float64)
PR_SET_PDEATHSIG = 1
MEETING = timedelta(minutes=10)  # until all have started
PATIENCE = timedelta(days=1)  # for a step: a leader kills who takes too long for it (waiting.py)


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a training run, seen from one of them: its `rank`, 0 for the leader, of `size`.

    `waiting` notes when it waits for the others, and `group` is torch's.
    """

    rank: int = 0
    size: int = 1
    waiting: Waiting = field(default_factory=Waiting)
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process draws, adds noise and answers."""
        return self.rank == 0

    def part(self, sample: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this process's part of a sample: rows of students, [S]."""
        return sample[self.rank :: self.size]

    def from_leader(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return the leader's array, [n]. The others may pass any array of its dtype."""
        if self.size == 1:
            return values
        length = torch.tensor([values.size], device=device(self))
        with self.waiting.for_others():
            distributed.broadcast(length, 0, self.group)
            mine = torch.from_numpy(values if self.leads else np.empty(int(length), values.dtype)).to(device(self))
            distributed.broadcast(mine, 0, self.group)
        return np.asarray(mine.cpu().numpy(), values.dtype)

    def added(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return the sums over all processes, [d] by component."""
        if self.size == 1:
            return dict(sums)
        names = sorted(sums)
        joined = torch.from_numpy(np.concatenate([sums[name] for name in names])).to(device(self))
        with self.waiting.for_others(step=True):
            distributed.all_reduce(joined, group=self.group)
        ends = np.cumsum([sums[name].size for name in names])
        return dict(zip(names, np.split(joined.cpu().numpy(), ends[:-1]), strict=True))


ALONE = Team()


def device(team: Team) -> torch.device:
    """Return where a process of a team computes. Several processes share a GPU only through the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", team.rank) if team.size <= torch.cuda.device_count() else torch.device("cpu")


def join(team: Team, meeting: Path) -> Team:
    """Meet the other processes of a team at a file that all of them name; return the team when they are there."""
    loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", min(loopback))
    distributed.init_process_group(
        "nccl" if device(team).type == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=team.rank,
        world_size=team.size,
        timeout=MEETING,
    )
    distributed.barrier()
    group = distributed.new_group(timeout=PATIENCE)
    distributed.barrier(group)  # all have read the file, and it may go
    return replace(team, group=group)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, also while it is stopped (prctl(2); Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            sys.exit(1)
