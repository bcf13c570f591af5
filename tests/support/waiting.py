"""Waits for a condition: in this process without sleeping, and for other processes by polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

from bacalhau_p2p.runtime.events import AutoResetEvent

_T = TypeVar("_T")

POLL_INTERVAL = 0.05
"""Seconds between two looks at other processes."""


class _OtherTasksRan(trio.abc.Instrument):
    """An event that is set whenever a task other than this one has run."""

    def __init__(self) -> None:
        self._own = trio.lowlevel.current_task()
        self._ran = AutoResetEvent()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._own:
            self._ran.set()

    async def wait(self) -> None:
        await self._ran.wait()


async def until(condition: Callable[[], _T], seconds: float = 20) -> _T:
    """The first true value of the condition, which is checked whenever another task has run.

    Raises trio.TooSlowError after so many seconds.
    """
    others = _OtherTasksRan()
    trio.lowlevel.add_instrument(others)
    try:
        with trio.fail_after(seconds):
            while not (value := condition()):
                await others.wait()
            return value
    finally:
        trio.lowlevel.remove_instrument(others)


def eventually(condition: Callable[[], _T], seconds: float = 40) -> _T:
    """The first true value of a condition on other processes."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition did not become true within {seconds:g} s"
        time.sleep(POLL_INTERVAL)
    return value
