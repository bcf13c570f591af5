"""Structured log lines, written through the standard library's `logging`.

log = get_logger(__name__)
log.info("job", job=job_id, state="Running")
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import structlog

from bacalhau_p2p.runtime.text import printable

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("pretty", "json")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for events with named values. By default `logging` shows only warnings and errors."""
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                _render,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        ),
    )


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Add these ids, such as `job` and `execution`, to what this task logs within the block, and to what the
    tasks log that it starts there."""
    with structlog.contextvars.bound_contextvars(**ids):
        yield


class _Event(str):
    """The line of an event, which still has its values."""

    __slots__ = ("values",)

    values: dict[str, Any]


_key_values = structlog.processors.KeyValueRenderer(key_order=["event"])


def _render(logger: Any, method: str, values: Any) -> str:
    kept = dict(values)
    line = _Event(_key_values(logger, method, values))
    line.values = kept
    return line


class JSONFormatter(logging.Formatter):
    """One JSON object a line, with `time` (ISO 8601, UTC), `level`, `logger`, `event`, and the values of the
    event by their names. Everything beyond ASCII is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        values = record.msg.values if isinstance(record.msg, _Event) else {"event": record.getMessage()}
        if record.exc_info:
            values = {**values, "exception": self.formatException(record.exc_info)}
        return json.dumps(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "logger": record.name,
                **{name: value for name, value in values.items() if name not in ("time", "level", "logger")},
            },
            default=str,
        )


class PrintableFormatter(logging.Formatter):
    """Makes lines that cannot command a terminal, or imitate other lines: they quote strangers."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in `logging`
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep_lines=True)  # with the lines of a traceback


def configure(level: str, form: str = "pretty") -> None:
    """For programs: write events of this package from `level` on, and errors of libraries, to stderr, in one
    of `FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    pretty = PrintableFormatter("%(asctime)s %(levelname)-7s %(name)s %(message)s")
    handler.setFormatter(JSONFormatter() if form == "json" else pretty)
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    logging.getLogger("bacalhau_p2p").setLevel(level.upper())
