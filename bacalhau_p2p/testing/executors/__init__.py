"""Conformance suite for executors: what every engine must do, whatever it runs.

To test an engine, implement `Programs` for it, as shell commands or as modules, and run each check of
`EXECUTOR_CHECKS`:

    @pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
    async def test_executor_conforms(check, tmp_path):
        async with aclosing(MyExecutor()) as executor:
            await check(ExecutorKit(executor=executor, programs=MyPrograms(), folder=tmp_path))

A check passes by returning, and fails by raising AssertionError. It never sleeps; a check that hangs
fails after `ExecutorKit.patience` seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

import trio

from bacalhau_p2p.testing.executors import lifetimes, results
from bacalhau_p2p.testing.executors.background import BackgroundRun, Pipe, running
from bacalhau_p2p.testing.executors.kit import LINE, ExecutorKit, Program, Programs

__all__ = [
    "EXECUTOR_CHECKS",
    "LINE",
    "BackgroundRun",
    "Check",
    "ExecutorKit",
    "Pipe",
    "Program",
    "Programs",
    "running",
]


Check = Callable[[ExecutorKit], Awaitable[None]]


def _within_patience(check: Check) -> Check:
    @wraps(check)
    async def limited(kit: ExecutorKit) -> None:
        with trio.fail_after(kit.patience):
            await check(kit)

    return limited


EXECUTOR_CHECKS: tuple[Check, ...] = tuple(
    _within_patience(value)
    for checks in (results, lifetimes)
    for name, value in vars(checks).items()
    if name.startswith("check_")
)
"""Every check of these modules. Each needs a kit of its own: `await check(kit)`."""
