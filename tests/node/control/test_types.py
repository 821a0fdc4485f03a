"""What the daemon answers on its socket is of the types that commands read it by: the client only casts."""

from collections.abc import Callable
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from collegium.node.control import client as control
from collegium.node.control import replies
from collegium.node.control.client import Client
from collegium.node.views import shapes, shapes_ledger, shapes_membership, shapes_privacy

from .test_client import serving

if TYPE_CHECKING:
    from .conftest import FakeDaemon

SHAPES = {
    name: member
    for module in (shapes, shapes_ledger, shapes_membership, shapes_privacy, replies)
    for name, member in vars(module).items()
}


def problem(value: Any, kind: Any, where: str = "it") -> str:
    """Return the first place where a value of JSON is not of a type; "" if it is."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        if not isinstance(value, dict) or not kind.__required_keys__ <= value.keys() <= hints.keys():
            return f"{where} is no {kind.__name__}: {value}"
        return next(filter(None, (problem(item, hints[name], f"{where}.{name}") for name, item in value.items())), "")
    if origin in (Union, UnionType):
        problems = [problem(value, part, where) for part in parts]
        return "" if "" in problems else " and ".join(problems)
    if origin is Literal:
        return "" if value in parts else f"{where} is none of {parts}: {value}"
    if origin in (list, dict) and not isinstance(value, origin):
        return f"{where} is no {origin.__name__}: {value!r}"
    if origin is list:
        return next(filter(None, (problem(item, parts[0], f"{where}[]") for item in value)), "")
    if origin is dict:
        return next(filter(None, (problem(item, parts[1], f"{where}.{name}") for name, item in value.items())), "")
    if issubclass(kind, Enum):
        return "" if value in list(kind) else f"{where} is no {kind.__name__}: {value}"
    allowed = (int, float) if kind is float else kind
    return "" if isinstance(value, allowed) else f"{where} is no {kind.__name__}: {value!r}"


READS: dict[str, Callable[[Client], object]] = {
    "status": lambda client: client.status(),
    "peers": lambda client: client.peers(),
    "components": lambda client: client.components(),
    "rounds": lambda client: client.rounds(),
    "round": lambda client: client.round("head/task0", 1, local=True),
    "ledger_log": lambda client: client.ledger_log(limit=1000),
    "record": lambda client: client.record("1"),
    "privacy": lambda client: client.privacy(),
    "withdrawals": lambda client: client.withdrawals(),
    "motions": lambda client: client.motions(),
    "member": lambda client: client.member(client.peers()["peers"][0]["key"]),
    "invitations": lambda client: client.invitations(),
    "request_withdrawal": lambda client: client.request_withdrawal(),
    "look_for_students": lambda client: client.look_for_students("nobody"),
    "forget_students": lambda client: client.forget_students("nobody"),
    "resume_training": lambda client: client.resume_training(),
}


def test_every_answer_is_of_its_type(daemon: "FakeDaemon") -> None:
    with serving(daemon) as client:
        for name, ask in READS.items():
            kind = get_type_hints(getattr(Client, name), vars(control) | SHAPES)["return"]
            assert problem(ask(client), kind) == "", name
        assert problem(client.record(client.ledger_log(limit=1)[0]["digest"]), shapes_ledger.RecordShown) == ""


def test_every_path_that_is_shown_has_its_function() -> None:
    shown = {name for name in vars(Client) if not name.startswith("_")}
    assert shown >= READS.keys()
    for name in shown - {"get"}:
        kind = get_type_hints(getattr(Client, name), vars(control) | SHAPES)["return"]
        assert kind is not Any, name
        assert kind is not object, name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"submitted": True}, ""),
        ({"submitted": 1.5}, "it.submitted is no bool"),
        ({}, "it is no Submitted"),
        ({"submitted": True, "more": 1}, "it is no Submitted"),
        ({"submitted": True, "motion": 3}, "it.motion is no str"),
    ],
)
def test_the_check_sees_what_is_wrong(value: object, message: str) -> None:
    assert problem(value, replies.Submitted).startswith(message)
    assert bool(problem(value, replies.Submitted)) == bool(message)
