"""Requests to a worker in this process."""

from typing import TypeVar, cast

from collegium.node.learner.coding import expect
from collegium.node.learner.messages import Asks, Request
from collegium.node.learner.worker import OnProgress, Worker

A = TypeVar("A")


def ask(worker: Worker, request: Asks[A], progress: OnProgress = lambda _done, _total: None) -> A:
    return expect(request, worker.handle(cast("Request", request), progress))
