"""Calls to adapters, which may be anybody's code: whatever they do fails one job and not the node.

An adapter may raise anything, return anything, and take for ever. Every call to one goes through here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType, UnionType
from typing import TypeVar

import trio

from bacalhau_p2p.errors import BacalhauError, ExecutionError, Fault
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

_T = TypeVar("_T")

CLEANUP_TIMEOUT = 60.0
"""Seconds for the clean-up of an input."""
SWEEP_TIMEOUT = 60.0
"""Seconds for one sweep of an engine."""
VERIFY_TIMEOUT = 300.0
"""Seconds for a verifier to judge the proposals of a job."""
CLOSE_TIMEOUT = 30.0
"""Seconds for an executor to close."""
MAX_FAULT_REASON = 4096
"""Characters that are kept of what an adapter says."""

# Preparing, running and publishing have no limit here: the compute machine stops them at theirs.


async def call_adapter(
    what: str, call: Callable[[], Awaitable[_T]], *, timeout: float = inf, **context: object
) -> _T:
    """What the call returns, with `adapter_errors`. Raises ExecutionError also after `timeout` seconds."""
    with adapter_errors(what, **context):
        if timeout == inf:
            return await call()
        with trio.move_on_after(timeout):
            return await call()
        raise ExecutionError(f"this node's {what} did not end within {timeout:g} s")


class adapter_errors:  # noqa: N801 - used like contextlib.suppress
    """Whatever an adapter raises in the block becomes an ExecutionError. `what` names the call in errors,
    and `context` in the log.

    An ExecutionError stays as it is, and any other exception becomes a failure that another node, or another
    attempt, may not have. An exception that adapters should not raise is logged with its traceback. Only
    cancellation and KeyboardInterrupt pass; what a cancelled adapter raises beside that is logged.
    """

    __slots__ = ("_context", "_what")

    def __init__(self, what: str, **context: object) -> None:
        self._what = what
        self._context = context

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, ExecutionError):
            return
        if isinstance(error, BacalhauError | OSError):
            raise ExecutionError(reason_of(error)) from error
        if isinstance(error, trio.Cancelled | KeyboardInterrupt | GeneratorExit):
            return
        passing, fault = _split(error)
        if fault is not None:
            log.exception("adapter_fault", call=self._what, **self._context)
        if passing is not None:
            raise passing from None
        name = type(error).__name__
        raise ExecutionError(f"{name} in this node's {self._what}: {reason_of(error)}") from error


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What must pass, and the rest."""
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    return error.split((trio.Cancelled, KeyboardInterrupt, GeneratorExit))


def expected(value: object, kind: type[_T] | UnionType, what: str) -> _T:
    """The value, if an adapter returned one of this kind. Raises ExecutionError."""
    if not isinstance(value, kind):
        wanted = getattr(kind, "__name__", str(kind))
        raise ExecutionError(f"this node's {what} returned {type(value).__name__} instead of {wanted}")
    return value


def expected_faults(value: object, what: str) -> list[Fault]:
    """The value, if an adapter returned a list of faults. Raises ExecutionError."""
    faults = expected(value, list, what)
    for each in faults:
        expected(each, Fault, what)
    return faults


def reason_of(error: BaseException) -> str:
    """The text of an exception, with a limited length, and such that it can be encoded."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the adapter's own class
        text = type(error).__name__
    return text[:MAX_FAULT_REASON].encode("utf-8", "replace").decode()
