"""Logging: JSON lines for machines, or a console for people; bytes are shown as short hex."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def configure(format_: str, level: str) -> None:
    """Send structlog and the standard library's warnings to stderr. `format_` is "json" or "console"."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _readable,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _readable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: readable(value) for key, value in event.items()}


def readable(value: Any) -> Any:
    """Return a value fit for JSON: bytes as hex (keys shortened to 16 digits), containers likewise."""
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, dict):
        return {str(readable(key)): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [readable(item) for item in value]
    return value
