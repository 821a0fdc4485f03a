"""A webhook gets the message by POST, and whatever it answers but success is reported with advice."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio

from collegium.crypto.errors import OperatorError, UsageError
from collegium.node.alarms.deliver import deliver
from collegium.node.alarms.due import trial
from collegium.node.home.config import Alarm, parse


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted; answers with the server's `status`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.headers["Content-Type"], body))  # type: ignore[attr-defined]  # of the fixture
        self.send_response(self.server.status)  # type: ignore[attr-defined]  # of the fixture
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        server.bodies, server.status = [], 204  # type: ignore[attr-defined]  # read by Hook
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_gets_the_message_and_its_refusal_is_told(hook: HTTPServer) -> None:
    to = Alarm(webhook=f"http://127.0.0.1:{hook.server_port}/alarms")
    trio.run(deliver, to, trial("Zürich", "schools", 0.0))
    ((kind, body),) = hook.bodies  # type: ignore[attr-defined]  # of the fixture
    assert kind == "application/json"
    assert json.loads(body) == trial("Zürich", "schools", 0.0)
    for status in (302, 500):
        hook.status = status  # type: ignore[attr-defined]  # of the fixture
        with pytest.raises(OperatorError, match=f"status {status}"):
            trio.run(deliver, to, trial("n", "f", 0.0))


class Endless(BaseHTTPRequestHandler):
    """Answers with a body that does not end."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        pass


def test_g9_an_answer_without_end_is_not_read() -> None:
    with HTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            to = Alarm(webhook=f"http://127.0.0.1:{server.server_port}/")
            trio.run(deliver, to, trial("n", "f", 0.0))  # ends, and the answer was a success
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.node.alarms.deliver.LIMIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        to = Alarm(webhook=f"http://127.0.0.1:{mute.getsockname()[1]}/")
        with pytest.raises(OperatorError, match="did not answer within"):
            trio.run(deliver, to, trial("n", "f", 0.0))


def test_a_webhook_that_is_not_there_is_told() -> None:
    with pytest.raises(OperatorError, match="does not answer") as error:
        trio.run(deliver, Alarm(webhook="http://127.0.0.1:9/"), trial("n", "f", 0.0))
    assert "[alarm] webhook" in error.value.advice


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "//a", "https://", "http://a:99999/", "http://a b/", "file:///etc/passwd"]
)
def test_what_is_no_webhook_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="webhook"):
        parse(f'[alarm]\nwebhook = "{url}"\n', "config.toml")


def test_a_command_and_a_webhook_do_not_go_together() -> None:
    """While one fails, the other would report the same again at every look."""
    with pytest.raises(UsageError, match="a command and a webhook"):
        parse('[alarm]\ncommand = ["true"]\nwebhook = "https://example.org/"\n', "config.toml")
