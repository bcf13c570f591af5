"""Reports errors of commands: the cause on one line of stderr, and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EDQUOT, ENOSPC
from types import TracebackType

from bacalhau_p2p.cli.printing import print_line, print_text
from bacalhau_p2p.errors import BacalhauError, InvalidJob, JobFailed, NodeUnavailable
from bacalhau_p2p.model.api_errors import hint_of

FAILED = 1
OWN_FAULT = 125
"""Where a command's exit status is that of a program, ours must be another. As of `docker run`."""
FAILURE_STATUS = "bacalhau_p2p.failure_status"
"""Where a command says in its context what its exit status is when it fails."""
INTERRUPTED = 130
"""128 + SIGINT, as in a shell."""


def report_error(error: BaseException) -> int | None:
    """Print an error to stderr and return the exit status; None for a bug, which needs a traceback.

    Of an ExceptionGroup, only the first error is printed.
    """
    causes = list(_leaves(error))
    if any(_lines(cause) is None for cause in causes):
        return None
    first = next((cause for cause in causes if not isinstance(cause, KeyboardInterrupt)), None)
    if first is None:
        return INTERRUPTED
    for line in _lines(first) or ():
        print_line(line, err=True)
    return FAILED


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a bug, as `sys.excepthook`: its message may quote anybody."""
    import traceback

    print_text("".join(traceback.format_exception(kind, error, trace)), err=True)


def _next_step(error: BacalhauError) -> str:
    """What to do about an error, as far as its message does not say it."""
    if isinstance(error, NodeUnavailable) and str(error).startswith("no node listens"):
        return ", or name another with --api-host and --api-port"
    hint = hint_of(error)
    return f"; {hint}" if hint else ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _lines(error: BaseException) -> list[str] | None:
    """What to print for an error; None for an error that no user can act on."""
    if isinstance(error, InvalidJob) and len(error.faults) > 1:
        what = f"invalid job in {error.file}" if error.file else "invalid job"
        return [f"Error: {what}:", *(f"  {fault}" for fault in error.faults)]
    if isinstance(error, JobFailed) and error.last_lines:
        return [f"Error: {error}", *(f"  {line}" for line in error.last_lines.splitlines())]
    if isinstance(error, BacalhauError):
        hint = _next_step(error)
        return ["Error: " + " ".join(str(error).split()) + hint]
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        where = where or ("cannot write: " if error.errno in (ENOSPC, EDQUOT) else "")
        return [f"Error: {where}{error.strerror}"]
    return [] if isinstance(error, KeyboardInterrupt) else None
