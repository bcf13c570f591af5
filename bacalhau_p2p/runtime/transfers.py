"""Counts what is fetched for something, wherever below it the bytes arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock


class Transfer:
    """Bytes that were fetched so far. Threads may count, too."""

    def __init__(self) -> None:
        self.bytes = 0
        """What is fetched again, because an attempt failed, is counted again."""
        self._lock = Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count


_current: ContextVar[Transfer | None] = ContextVar("_current", default=None)


@contextmanager
def counted_in(transfer: Transfer) -> Iterator[None]:
    """What is fetched in this block, and in tasks and threads that begin in it, is counted in `transfer`."""
    token = _current.set(transfer)
    try:
        yield
    finally:
        _current.reset(token)


def note_fetched(count: int) -> None:
    """So many bytes came from elsewhere: for the transfer of this task, if there is one."""
    if (transfer := _current.get()) is not None:
        transfer.add(count)
