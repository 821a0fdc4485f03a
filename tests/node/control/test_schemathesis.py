"""The control API held to its own OpenAPI document: requests as it describes them, and requests that it rules out.

Schemathesis makes both, the same ones in every run. Whatever comes, the answer is one that the document has, and never
a fault of the daemon; a request that is not as described is refused.
"""

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from collegium.node.control.app import build
from collegium.node.control.openapi import ENDPOINTS, STREAM, Endpoint, document
from collegium.node.core.events import Event, PutFlag, SetPaused
from collegium.node.core.state import PAUSED_FLAG

if TYPE_CHECKING:
    from .conftest import FakeDaemon

EXAMPLES = 8  # of each endpoint and of each kind
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(document())))
ASKED = [endpoint for endpoint in ENDPOINTS if endpoint.media != STREAM]  # a stream does not end


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def obedient(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> "FakeDaemon":
    """A daemon whose core does what a pause asks for: the answer waits for it."""
    submit = daemon.submit

    def obey(event: Event) -> None:
        submit(event)
        if isinstance(event, SetPaused):
            daemon.store.apply([PutFlag(PAUSED_FLAG, int(event.on))])

    monkeypatch.setattr(daemon, "submit", obey)
    return daemon


def answered(app: Any, case: schemathesis.Case[Any]) -> httpx.Response:
    """Send a case to the application as a client of the socket would."""
    sent = requests.Request(**case.as_transport_kwargs(base_url="http://node")).prepare()
    body = sent.body.encode() if isinstance(sent.body, str) else sent.body

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://node") as client:
            return await client.request(str(sent.method), sent.path_url, headers=dict(sent.headers), content=body)

    return trio.run(ask)


def plausible(daemon: "FakeDaemon", body: Any) -> Any:
    """Return a body about what there is, so that the request gets past its first check."""
    if not isinstance(body, dict):
        return body
    component, round_ = next((name, c.rounds[-1]) for name, c in daemon.core.ledger.components.items() if c.rounds)
    there = {
        "who": daemon.network.members[1].hex(),
        "components": [component],
        "updates": [],
        "subjects": ["s-17"],
        "name": "school",
        "key": "",
    }
    if body.get("updates"):
        return {**body, "components": [], "first": 0, "last": 0, "updates": [round_.entries[0].update.hex()]}
    return {name: there.get(name, value) for name, value in body.items()}


@pytest.mark.parametrize("endpoint", ASKED, ids=named)
def test_every_answer_is_one_that_is_described(obedient: "FakeDaemon", endpoint: Endpoint) -> None:
    app = build(obedient)

    @BOUNDED
    @given(case=SCHEMA[endpoint.path][endpoint.method].as_strategy())
    def check(case: schemathesis.Case[Any]) -> None:
        case.validate_response(answered(app, case), checks=CHECKS)

    check()


@pytest.mark.parametrize("endpoint", [e for e in ASKED if e.query or e.body is not None], ids=named)
def test_what_is_not_as_described_is_refused(obedient: "FakeDaemon", endpoint: Endpoint) -> None:
    app = build(obedient)

    @BOUNDED
    @given(case=SCHEMA[endpoint.path][endpoint.method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def check(case: schemathesis.Case[Any]) -> None:
        case.validate_response(answered(app, case), checks=[*CHECKS, negative_data_rejection])

    check()


@pytest.mark.parametrize("endpoint", [e for e in ASKED if e.body], ids=named)
def test_a_request_about_what_there_is_gets_an_answer_that_is_described(
    obedient: "FakeDaemon", endpoint: Endpoint
) -> None:
    app = build(obedient)

    @BOUNDED
    @given(case=SCHEMA[endpoint.path][endpoint.method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: schemathesis.Case[Any]) -> None:
        case.body = plausible(obedient, case.body)
        case.validate_response(answered(app, case), checks=CHECKS)

    check()
