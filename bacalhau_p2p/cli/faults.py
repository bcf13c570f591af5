"""How the command line says what went wrong: the cause, on one line of stderr, and an exit status."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bacalhau_p2p.errors import BacalhauError, InvalidJob

FAILED = 1
INTERRUPTED = 130
"""As a shell has it for SIGINT."""


def status_of(error: BaseException) -> int | None:
    """Say on stderr what went wrong and return the exit status; None for what only a traceback explains.

    Of an ExceptionGroup the first error that explains itself is told.
    """
    causes = list(_leaves(error))
    if any(_lines(cause) is None for cause in causes):
        return None
    told = next((cause for cause in causes if not isinstance(cause, KeyboardInterrupt)), None)
    if told is None:
        return INTERRUPTED
    for line in _lines(told) or ():
        click.echo(line, err=True)
    return FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _lines(error: BaseException) -> list[str] | None:
    if isinstance(error, InvalidJob) and len(error.faults) > 1:
        return ["Error: the job is not valid:", *(f"  {fault}" for fault in error.faults)]
    if isinstance(error, BacalhauError):
        return ["Error: " + " ".join(str(error).split())]
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return [f"Error: {where}{error.strerror}"]
    return [] if isinstance(error, KeyboardInterrupt) else None
