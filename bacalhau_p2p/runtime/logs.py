"""Structured log lines, written through the standard library's `logging`.

log = get_logger(__name__)
log.info("job", job=job_id, state="Running")
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog

from bacalhau_p2p.runtime.text import printable

LEVELS = ("debug", "info", "warning", "error")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for events with named values. By default `logging` shows only warnings and errors."""
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        ),
    )


class PrintableFormatter(logging.Formatter):
    """Makes lines that cannot command a terminal, or imitate other lines: they quote strangers."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in `logging`
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep_lines=True)  # with the lines of a traceback


def configure(level: str) -> None:
    """For programs: write events of this package from `level` on, and errors of libraries, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    logging.getLogger("bacalhau_p2p").setLevel(level.upper())
