"""Notices when something holds the event loop, and logs where.

One call that computes for seconds delays everything that the node does. `EventLoopWatchdog` measures each
pass of trio's scheduler, and a thread beside it takes the stack of one that lasts too long.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from traceback import walk_stack
from types import FrameType

import trio

from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

HELD_TOO_LONG = 0.5
"""Seconds that a pass of the scheduler may last before it is logged."""
SAMPLE_INTERVAL = 0.2
"""Seconds between two looks at the loop."""
SLOW_PASS = 0.005
"""Seconds that a pass may last before it is reported to `on_slow_pass`."""
STACK_DEPTH = 12
"""Frames of the stack that are logged, the innermost ones."""


class EventLoopWatchdog(trio.abc.Instrument):
    """Use it with `watching`; `stalls` and `longest` are for reports and tests."""

    def __init__(
        self,
        limit: float = HELD_TOO_LONG,
        *,
        counters: Counter[str] | None = None,
        on_slow_pass: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """For the thread that makes it. `limit` and `clock` in seconds. `counters` counts the stalls too;
        `on_slow_pass` gets the seconds of each pass above `SLOW_PASS`."""
        self._counters = Counter() if counters is None else counters
        self._on_slow_pass = on_slow_pass
        self._limit = limit
        self._clock = clock
        self._busy_since: float | None = None
        self._stack = ""
        self._loop_thread = threading.get_ident()
        self.stalls = 0
        """Passes that lasted longer than the limit."""
        self.longest = 0.0
        """Seconds of the longest one."""

    # --- in the thread of the loop, around each wait for I/O ---

    def after_io_wait(self, timeout: float) -> None:
        self._busy_since = self._clock()

    def before_io_wait(self, timeout: float) -> None:
        since, self._busy_since = self._busy_since, None
        if since is None:
            return
        held = self._clock() - since
        if held > SLOW_PASS and self._on_slow_pass is not None:
            self._on_slow_pass(held)
        if held > self._limit:
            self.stalls += 1
            self._counters["event_loop_stalls"] += 1
            self.longest = max(self.longest, held)
            log.warning("event_loop_held", seconds=round(held, 2), where=self._stack or "unknown")
            self._stack = ""

    # --- in the thread of the watchdog ---

    @property
    def looked(self) -> bool:
        """Whether the stack of the present pass has been taken."""
        return bool(self._stack)

    def sample(self) -> None:
        """Remember the stack of the loop's thread if the present pass already lasts too long."""
        since = self._busy_since
        if since is None or self._stack or self._clock() - since < self._limit:
            return
        frame = sys._current_frames().get(self._loop_thread)
        if frame is not None:
            self._stack = " < ".join(_place(*each) for each in islice(walk_stack(frame), STACK_DEPTH))


def _place(frame: FrameType, line: int) -> str:
    """Without the text of the line: Python would keep the source of every file that occurs, a megabyte."""
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{line})"


@contextmanager
def watching(
    limit: float = HELD_TOO_LONG,
    *,
    counters: Counter[str] | None = None,
    on_slow_pass: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[EventLoopWatchdog]:
    """Watch the running event loop for the length of the block. The parameters are `EventLoopWatchdog`'s."""
    watchdog = EventLoopWatchdog(limit, counters=counters, on_slow_pass=on_slow_pass, clock=clock)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(min(SAMPLE_INTERVAL, limit / 2)):
            watchdog.sample()

    thread = threading.Thread(target=sample, name="event-loop-watchdog", daemon=True)
    trio.lowlevel.add_instrument(watchdog)
    thread.start()
    try:
        yield watchdog
    finally:
        ended.set()
        trio.lowlevel.remove_instrument(watchdog)
