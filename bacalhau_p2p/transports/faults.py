"""The one place where a fault of a guest is contained: handlers and libraries that peers can provoke."""

from __future__ import annotations

import logging
from collections import Counter
from types import TracebackType

import trio

from bacalhau_p2p.errors import RemoteProtocolError

_log = logging.getLogger(__name__)


class FaultBarrier:
    """A `with` block that an `Exception` does not leave: it is counted under `counter` and logged.

    What is not an `Exception` (cancellation, Ctrl-C) passes, also within an exception group. What is
    `expected`, or a group of nothing else, is contained without a word. `fault` is what was contained.
    The default level is for what strangers provoke as often as they like, and a peer that breaks the rules or
    is idle is logged at no other; a fault of ours is a warning.
    """

    def __init__(
        self,
        counters: Counter[str],
        counter: str,
        what: str,
        *,
        expected: type[Exception] | tuple[type[Exception], ...] = (),
        level: int = logging.INFO,
    ) -> None:
        self._counters = counters
        self._counter = counter
        self._what = what
        self._expected = expected
        self._level = level
        self.fault: Exception | None = None

    def __enter__(self) -> FaultBarrier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(fault, Exception):
            return False
        self.fault = fault
        if isinstance(fault, self._expected) or (
            isinstance(fault, ExceptionGroup) and fault.split(self._expected)[1] is None
        ):
            return True
        self._counters[self._counter] += 1
        level = logging.INFO if isinstance(fault, RemoteProtocolError | trio.TooSlowError) else self._level
        _log.log(level, "%s failed and was contained: %s: %s", self._what, type(fault).__name__, fault)
        _log.debug("%s", self._what, exc_info=fault)
        return True
