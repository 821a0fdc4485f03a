"""`python -m collegium.node.learner`: answer frames on standard input, on standard output, until the input ends.

Exit status: 0 at the end of the input, 3 if the stream of frames is broken, 1 if the daemon is gone.
"""

import json
import os
import signal
import sys
import traceback
from typing import BinaryIO

from ...crypto.errors import CollegiumError, OperatorError
from .protocol import BrokenStreamError, Message, read_frame, write_frame
from .worker import Worker


def log(event: str, **fields: object) -> None:
    """Write one JSON line to standard error."""
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)  # noqa: T201  # the worker's log


def serve(requests: BinaryIO, responses: BinaryIO) -> int:
    """Answer requests until they end; return the exit status."""
    worker = Worker()
    while True:
        try:
            request = read_frame(requests)
        except BrokenStreamError as error:
            log("stream-broken", error=str(error))
            write_frame(responses, _failure(None, error))
            return 3
        except CollegiumError as error:
            log("frame-refused", error=str(error))
            write_frame(responses, _failure(None, error))
            continue
        if request is None:
            return 0
        write_frame(responses, _answer(worker, request, responses))


def _answer(worker: Worker, request: Message, responses: BinaryIO) -> Message:
    number = request.get("id")

    def progress(done: int, total: int) -> None:
        write_frame(responses, {"id": number, "progress": done, "total": total})

    try:
        return {"id": number, "ok": True, **worker.handle(request, progress)}
    except BrokenPipeError:
        raise
    except CollegiumError as error:
        return _failure(number, error)
    except Exception as error:  # noqa: BLE001  # a bug in one request must not cost the daemon its worker
        log("request-failed", op=str(request.get("op")), trace=traceback.format_exc())
        return _failure(number, error)


def _failure(number: object, error: Exception) -> Message:
    if isinstance(error, OperatorError):
        told = {"error": error.message, "advice": error.advice, "exit_code": error.exit_code}
        return {"id": number, "ok": False, **told}
    advice = "" if isinstance(error, CollegiumError) else "The worker's log has the details."
    return {"id": number, "ok": False, "error": f"{type(error).__name__}: {error}", "advice": advice}


def main() -> int:
    """Keep standard output for frames alone, and serve."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever a model's files ask for: nothing is downloaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon stops the worker by closing its input
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # also what libraries in C print goes to the log
    sys.stdout = sys.stderr
    try:
        return serve(sys.stdin.buffer, responses)
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    status = main()
    sys.stdout = None
    sys.exit(status)
