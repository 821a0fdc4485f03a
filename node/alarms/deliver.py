"""Delivering a message: to a command's standard input, or to a webhook."""

import json
import subprocess

import trio

from ...crypto.errors import OperatorError
from ..home.config import Alarm
from .due import Message

LIMIT = 30.0  # seconds
MAX_SAID = 300  # characters of a command's complaint that are shown


async def deliver(to: Alarm, message: Message) -> None:
    """Deliver a message. Raises OperatorError with the reason if the command or the webhook did not take it."""
    body = json.dumps(message, ensure_ascii=False).encode()
    if to.command:
        await _run(to.command, body)
    elif to.webhook:
        await _post(to.webhook, body)


async def _run(command: tuple[str, ...], body: bytes) -> None:
    advice = "Correct [alarm] command in config.toml; `collegium node alarms --test` tries it."
    try:
        with trio.fail_after(LIMIT):
            ended = await trio.run_process(
                list(command), stdin=body, stdout=subprocess.DEVNULL, capture_stderr=True, check=False
            )
    except OSError as error:
        raise OperatorError(f"the alarm command {command[0]} cannot be run: {error.strerror}", advice) from error
    except trio.TooSlowError as error:
        raise OperatorError(f"the alarm command {command[0]} did not end within {LIMIT:g} s", advice) from error
    if ended.returncode:
        output = ended.stderr.decode(errors="replace").strip()[-MAX_SAID:]
        ending = f": {output}" if output else ""
        raise OperatorError(f"the alarm command {command[0]} ended with {ended.returncode}{ending}", advice)


async def _post(url: str, body: bytes) -> None:
    import httpx  # noqa: PLC0415 - it takes a quarter of a second

    advice = "Correct [alarm] webhook in config.toml; `collegium node alarms --test` tries it."
    try:
        with trio.fail_after(LIMIT):  # in all: httpx bounds single reads and writes only
            async with httpx.AsyncClient(timeout=LIMIT, follow_redirects=False, trust_env=False) as http:
                request = http.build_request("POST", url, content=body, headers={"Content-Type": "application/json"})
                answer = await http.send(request, stream=True)  # its status; its body could be without end
                await answer.aclose()
    except httpx.HTTPError as error:
        raise OperatorError(f"the alarm webhook does not answer: {error or type(error).__name__}", advice) from error
    except trio.TooSlowError as error:
        raise OperatorError(f"the alarm webhook did not answer within {LIMIT:g} s", advice) from error
    if not answer.is_success:
        raise OperatorError(f"the alarm webhook answers with status {answer.status_code}", advice)
