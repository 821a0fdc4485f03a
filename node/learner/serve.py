"""The worker's process: it reads request frames from standard input and answers on standard output.

Exit status: 0 at the end of the input, 3 if the stream of frames is broken, 1 if the daemon is gone, 4 if a helper is.
"""

import json
import os
import signal
import sys
import traceback
from typing import BinaryIO

from ...crypto.errors import CollegiumError
from .answers import BadRequestError, Failed, Progress, Reply
from .coding import decode_request, encode
from .crew import ENDED
from .frames import BrokenStreamError, read_frame, write_frame
from .messages import Request
from .worker import OnProgress, Worker


def log(event: str, **fields: object) -> None:
    """Write one JSON line to standard error."""
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)  # noqa: T201  # the worker's log


def serve(worker: Worker, requests: BinaryIO, responses: BinaryIO) -> int:
    """Answer requests until they end; return the exit status."""

    def reply(number: int, message: Reply) -> None:
        write_frame(responses, encode(number, message))

    while True:
        try:
            body = read_frame(requests)
        except BrokenStreamError as error:
            log("stream-broken", error=str(error))
            reply(0, Failed.of(error))
            return 3
        if body is None:
            return 0
        try:
            number, request = decode_request(body)
        except BadRequestError as error:
            log("request-refused", error=str(error))
            reply(error.number, Failed.of(error))
            continue

        def progress(done: int, total: int, number: int = number) -> None:
            reply(number, Progress(done, total))

        reply(number, _answer(worker, request, progress))
        if worker.lost:
            return ENDED


def _answer(worker: Worker, request: Request, progress: OnProgress) -> Reply:
    try:
        return worker.handle(request, progress)
    except BrokenPipeError:
        raise
    except CollegiumError as error:
        return Failed.of(error)
    except Exception as error:  # noqa: BLE001  # a bug in one request must not cost the daemon its worker
        log("request-failed", request=type(request).__name__, trace=traceback.format_exc())
        return Failed.of(error)


def main(worker: Worker) -> int:
    """Keep standard output for frames alone, and serve."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for any model's files: nothing is downloaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon stops the worker by closing its input
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of C libraries goes to the log, too
    sys.stdout = sys.stderr
    try:
        return serve(worker, sys.stdin.buffer, responses)
    except BrokenPipeError:
        return 1
