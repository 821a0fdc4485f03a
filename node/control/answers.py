"""How endpoints of the control API answer, and what they accept."""

import json
import traceback
from collections.abc import Awaitable, Callable
from functools import wraps

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...crypto.errors import (
    CollegiumError,
    CorruptError,
    OperatorError,
    RefusedError,
    UnreachableError,
    UsageError,
    VerificationError,
)

log = structlog.get_logger(__name__)

BODY_LIMIT = 64 << 10
QUERY_LIMIT = 4096
_STATUS: dict[type[CollegiumError], int] = {
    UsageError: 400,
    CorruptError: 500,
    UnreachableError: 502,
    RefusedError: 409,
    VerificationError: 422,
}

Endpoint = Callable[[Request], Awaitable[Response]]
Body = dict[str, object]


def answering(endpoint: Endpoint) -> Endpoint:
    """Turn what an endpoint raises into an answer: nothing that a client sends may reach the daemon's nursery."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            if len(request.scope.get("query_string", b"")) > QUERY_LIMIT:
                raise UsageError("the query is too long")
            return await endpoint(request)
        except CollegiumError as error:
            return _error(error)
        except HTTPException as error:
            return await http_error(request, error)
        except Exception as error:  # noqa: BLE001 - it is logged, without its message: it may quote a body, a student's id
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("control request failed", path=request.url.path, error=type(error).__name__, where=where)
            return _error(OperatorError(f"internal error: {type(error).__name__}", "See the daemon's log."))

    return answer


def _error(error: CollegiumError) -> Response:
    message = error.message if isinstance(error, OperatorError) else str(error)
    advice = error.advice if isinstance(error, OperatorError) else ""
    return JSONResponse(
        {"error": message, "advice": advice, "exit_code": error.exit_code}, _STATUS.get(type(error), 500)
    )


async def http_error(_request: Request, error: Exception) -> Response:
    """Answer what the framework refused."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "internal error"
    advice = "The daemon may be of another release than this command."
    return JSONResponse({"error": detail, "advice": advice, "exit_code": 2}, status)


async def body_of(request: Request, fields: dict[str, type]) -> Body:
    """Read a JSON object with exactly these fields; nothing over BODY_LIMIT is kept."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT:
            raise HTTPException(413, f"the body is over {BODY_LIMIT} bytes")
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise UsageError(f"the body is not an object with the fields {sorted(fields)}")
    for name, kind in fields.items():
        if type(value[name]) is not kind:
            raise UsageError(f"{name} is not a {kind.__name__}")
    return value
