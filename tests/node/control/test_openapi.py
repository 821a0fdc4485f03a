"""The OpenAPI document is of the endpoints that there are: paths, methods, bodies, status, and types of the answers."""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from starlette.routing import BaseRoute, Mount, Route

from collegium.node.control.app import build
from collegium.node.control.openapi import ENDPOINTS, Endpoint, document

from .test_app import call
from .test_types import problem

if TYPE_CHECKING:
    from .conftest import FakeDaemon

KINDS = {"string": "x", "integer": 1, "boolean": True, "array": []}


def served(routes: list[BaseRoute], above: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from served(list(route.routes), above + route.path)
        elif isinstance(route, Route):
            path = re.sub(r":\w+}", "}", above + route.path)
            yield from ((method, path) for method in route.methods or () if method != "HEAD")


def ask(daemon: "FakeDaemon", method: str, path: str, **options: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(daemon))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await client.request(method, path, **options)

    return trio.run(asked)


def test_every_endpoint_is_described_and_no_other(daemon: "FakeDaemon") -> None:
    described = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    assert sorted(described) == sorted(served(build(daemon).routes))
    assert len(set(described)) == len(described)


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.body is not None], ids=lambda e: f"{e.method} {e.path}")
def test_a_body_has_the_fields_and_kinds_that_are_described(daemon: "FakeDaemon", endpoint: Endpoint) -> None:
    assert endpoint.body is not None
    refused = ask(daemon, endpoint.method, endpoint.path, json={"nonsense": 1})
    assert refused.status_code == 400
    assert refused.json()["error"] == f"the body is not an object with the fields {sorted(endpoint.body)}"
    whole = {name: KINDS[kind["type"]] for name, kind in endpoint.body.items()}
    for name in whole:
        answer = ask(daemon, endpoint.method, endpoint.path, json={**whole, name: None})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(f"{name} is not a ")
    if endpoint.path not in {"/v1/pause", "/v1/stop"}:  # well formed: it may be refused, but not for its form
        answer = ask(daemon, endpoint.method, endpoint.path, json=whole)
        assert not answer.json().get("error", "").startswith(("the body", *(f"{name} is not a" for name in whole)))


@pytest.mark.parametrize(
    "path", ["/health", "/v1/status", "/v1/peers", "/v1/components", "/v1/rounds", "/v1/privacy", "/v1/unlearn"]
)
def test_an_answer_is_of_the_described_type(daemon: "FakeDaemon", path: str) -> None:
    endpoint = next(e for e in ENDPOINTS if (e.method, e.path) == ("GET", path))
    answer = ask(daemon, "GET", path)
    assert answer.status_code == endpoint.status
    assert problem(answer.json(), endpoint.answer) == ""


def test_the_document_is_whole(daemon: "FakeDaemon") -> None:
    found = ask(daemon, "GET", "/openapi.json").json()
    assert found == json.loads(json.dumps(document()))
    text = json.dumps(found)
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert {"NodeStatus", "MemberName", "Refused"} <= referred <= found["components"]["schemas"].keys()
    assert all(found["components"]["schemas"].values())
    status = found["components"]["schemas"]["NodeStatus"]["properties"]
    assert status["height"] == {"type": "integer"}
    assert status["live"] == {"anyOf": [{"$ref": "#/components/schemas/LiveShown"}, {"type": "null"}]}


def test_a_path_without_its_version_is_not_there(daemon: "FakeDaemon") -> None:
    assert ask(daemon, "GET", "/status").status_code == 404
    assert call(daemon, "GET", "/status").status_code == 200
