"""The one place where exceptions are contained that peers can cause in handlers and libraries."""

from __future__ import annotations

import logging
from collections import Counter
from types import TracebackType

import trio

from bacalhau_p2p.errors import RemoteProtocolError

_log = logging.getLogger(__name__)


class FaultBarrier:
    """A `with` block that contains an `Exception`: it is counted under `counter` and logged.

    Other exceptions (cancellation, Ctrl-C) pass, also within an exception group. `expected` exceptions, and
    groups of only these, are contained without count and log. `fault` is the contained exception. The default
    level is for faults that any peer can cause as often as it likes. A peer that breaks the protocol or times
    out is always logged at that level, so that it cannot fill the log with warnings.
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
        _log.log(level, "%s failed: %s: %s", self._what, type(fault).__name__, fault)
        _log.debug("%s", self._what, exc_info=fault)
        return True
