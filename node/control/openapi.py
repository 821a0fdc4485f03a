"""The control API as an OpenAPI document, made of the types that its endpoints answer with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from ..views import shapes, shapes_ledger, shapes_membership, shapes_privacy
from . import replies
from .client import VERSION

_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TEXTS = {"type": "array", "items": _TEXT}
_LISTS = {"type": "array", "items": _TEXTS}
_LIMITS = {"since": {**_WHOLE, "minimum": 0, "maximum": 2**40}, "limit": {**_WHOLE, "minimum": 0, "maximum": 1000}}
_LOCAL = {**_WHOLE, "minimum": 0, "maximum": 1}
_DAYS = {**_WHOLE, "minimum": 1, "maximum": 365}
SCOPE: Mapping[str, Any] = {"components": _TEXTS, "first": _WHOLE, "last": _WHOLE, "updates": _TEXTS}
STREAM, PLAIN = "text/event-stream", "text/plain"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and method: what it does, the type of its answer, the fields of its body, its query parameters."""

    method: str
    path: str
    summary: str
    answer: Any
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    media: str = "application/json"


_GET: tuple[tuple[str, str, Any, Mapping[str, Any]], ...] = (
    ("/status", "The node at a glance (`node status`)", shapes.NodeStatus, {}),
    ("/peers", "All present and former members (`peer list`)", shapes.Peers, {}),
    ("/components", "Every component (`component list`)", list[shapes.ComponentShown], {}),
    ("/rounds", "The last closed rounds (`round list`)", list[shapes.RoundSummary], {"component": _TEXT, **_LIMITS}),
    ("/rounds/{component}/{round}", "One closed round (`round show`)", shapes.RoundDetail, {"local": _LOCAL}),
    (
        "/ledger/log",
        "The last agreed records (`ledger log`)",
        list[shapes_ledger.RecordLine],
        {"author": _TEXT, "kind": _TEXT, "component": _TEXT, **_LIMITS},
    ),
    (
        "/ledger/{reference}",
        "A block or a record (`ledger show`)",
        shapes_ledger.BlockShown | shapes_ledger.RecordShown,
        {},
    ),
    ("/privacy", "The budget of this node's students (`privacy show`)", shapes_privacy.PrivacyShown, {}),
    ("/unlearn", "Every withdrawal (`unlearn status`)", shapes_membership.Withdrawals, {}),
    ("/motions", "Open and ended motions (`peer motions`)", shapes_membership.Motions, {}),
    ("/members/{who}", "One member (`peer show`)", shapes_membership.MemberShown, {}),
    ("/invitations", "The invitations of this node (`peer invitations`)", replies.Invitations, {}),
)
_MOTION = {"who": _TEXT, "reason": _TEXT, "heights": _WHOLE}
_OTHERS = (
    Endpoint("POST", "/peers", "Remember an address and dial it", replies.PeerAdded, {"address": _TEXT}),
    Endpoint("DELETE", "/peers", "Forget an address", replies.PeerRemoved, {"address": _TEXT}),
    Endpoint("POST", "/motions", "Propose a motion", replies.Submitted,
             {"action": _TEXT, "statement": _TEXT, **_MOTION}, status=202),
    Endpoint("POST", "/ballots", "Vote on a motion", replies.Submitted,
             {"motion": _TEXT, "yes": _FLAG, "anyway": _FLAG}, status=202),
    Endpoint("POST", "/invitations", "Invite", replies.InvitationGiven,
             {"name": _TEXT, "days": _DAYS, "key": _TEXT, "hold": _FLAG, "charter": _FLAG}),
    Endpoint("DELETE", "/invitations", "Withdraw an invitation", replies.InvitationWithdrawn, {"invitation": _TEXT}),
    Endpoint("POST", "/unlearn", "Withdraw own contributions", replies.WithdrawalAsked, SCOPE, status=202),
    Endpoint("POST", "/unlearn/motions", "Propose a withdrawal", replies.WithdrawalProposed,
             {**SCOPE, **_MOTION, "mode": _TEXT, "anyway": _FLAG}, status=202),
    Endpoint("POST", "/unlearn/carried", "Carry a withdrawal", replies.WithdrawalCarried, {"statement": _TEXT},
             status=202),
    Endpoint("POST", "/unlearn/look", "Look for students", replies.StudentsLook, {"subjects": _TEXTS}),
    Endpoint("POST", "/unlearn/students", "Remove students", replies.StudentsForgotten,
             {"subjects": _TEXTS, "pause": _FLAG, "at_most": _WHOLE}, status=202),
    Endpoint("POST", "/unlearn/schedule", "Remove students, and withdraw at a time", replies.StudentsPutOff,
             {"students": _LISTS, "at": _WHOLE, "pause": _FLAG, "at_most": _WHOLE}, status=202),
    Endpoint("POST", "/unlearn/cancel", "Take back a withdrawal to come", replies.Cancelled, {"subjects": _TEXTS},
             status=202),
    Endpoint("POST", "/unlearn/settled", "Whether updates count no more", replies.Settled, {"updates": _TEXTS}),
    Endpoint("POST", "/unlearn/resume", "Train again after a restored home", replies.TrainingResumed, {}, status=202),
    Endpoint("POST", "/pause", "Pause or resume training", replies.PauseSet, {"paused": _FLAG}),
    Endpoint("POST", "/stop", "Stop the daemon", replies.Stopping, {}, status=202),
)  # fmt: skip
EVENTS = (
    replies.BlockEvent,
    replies.RoundEvent,
    replies.PeerEvent,
    replies.MotionEvent,
    replies.WithdrawalEvent,
    replies.LearnerEvent,
)
ENDPOINTS = (
    Endpoint("GET", "/health", "Whether the daemon answers; it costs nothing", replies.Health),
    Endpoint("GET", "/metrics", "The state for Prometheus (docs/operations.md)", str, media=PLAIN),
    Endpoint("GET", "/openapi.json", "This document", dict[str, object]),
    Endpoint("GET", f"{VERSION}/events", "What is, then `ready`, then what changes", str, media=STREAM),
    *(Endpoint("GET", VERSION + path, what, answer, query=query) for path, what, answer, query in _GET),
    *(Endpoint(e.method, VERSION + e.path, e.summary, e.answer, e.body, e.query, e.status) for e in _OTHERS),
)


def document() -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for kind in EVENTS:
        _schema(kind, schemas)
    refused = {
        "description": "Refused: what happened, what to do, and the exit code that a command would end with",
        "content": {"application/json": {"schema": _schema(replies.Refused, schemas)}},
    }
    for endpoint in ENDPOINTS:
        schema = _schema(endpoint.answer, schemas)
        operation: dict[str, Any] = {
            "summary": endpoint.summary,
            "parameters": _parameters(endpoint),
            "responses": {
                str(endpoint.status): {"description": "Answered", "content": {endpoint.media: {"schema": schema}}},
                "default": refused,
            },
        }
        if endpoint.body is not None:
            body = {
                "type": "object",
                "properties": dict(endpoint.body),
                "required": sorted(endpoint.body),
                "additionalProperties": False,
            }
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Collegium: the control API of a node",
            "version": VERSION[1:],
            "description": "On the node's Unix socket; `collegium dashboard` forwards what only reads.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _WHOLE if name == "round" else _TEXT} for name in names
    ]
    return parameters + [{"name": name, "in": "query", "schema": kind} for name, kind in endpoint.query.items()]


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a type; typed dictionaries go into `schemas` and are referred to."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        if kind.__name__ not in schemas:
            schemas[kind.__name__] = {}  # a type may refer to itself
            hints = get_type_hints(kind)
            schemas[kind.__name__] = {
                "type": "object",
                "description": (kind.__doc__ or "").split("\n\n")[0],
                "properties": {name: _schema(hint, schemas) for name, hint in hints.items()},
                "required": sorted(kind.__required_keys__),
                "additionalProperties": False,
            }
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(part, schemas) for part in parts]}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin is list:
        return {"type": "array", "items": _schema(parts[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(parts[1], schemas)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    plain = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}
    return {"type": plain[kind]} if kind in plain else {}
