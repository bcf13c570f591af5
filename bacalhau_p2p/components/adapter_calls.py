"""Calls to adapters, which may be anybody's code: whatever they raise fails one job and not the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bacalhau_p2p.errors import BacalhauError, ExecutionError
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

_T = TypeVar("_T")


async def call_adapter(what: str, call: Callable[[], Awaitable[_T]], **context: object) -> _T:
    """What the call returns, with `adapter_errors`."""
    with adapter_errors(what, **context):
        return await call()


@contextmanager
def adapter_errors(what: str, **context: object) -> Iterator[None]:
    """Whatever an adapter raises in the block becomes an ExecutionError. `what` names the call in errors,
    and `context` in the log.

    An ExecutionError stays as it is, and any other exception becomes a failure that another node, or another
    attempt, may not have. An exception that adapters should not raise is logged with its traceback.
    """
    try:
        yield
    except ExecutionError:
        raise
    except (BacalhauError, OSError) as error:
        raise ExecutionError(str(error)) from error
    except Exception as error:
        log.exception("adapter_fault", call=what, **context)
        raise ExecutionError(f"{type(error).__name__} in this node's {what}: {error}") from error
