"""Runs trio so that a seed decides everything that would differ from run to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import trio
import trio.testing

_EPOCH = 1_700_000_000.0
"""The wall clock at the beginning, in UNIX seconds."""


@contextmanager
def deterministic(seed: int) -> Iterator[trio.abc.Clock]:
    """For one `trio.run` with this clock: the scheduler is seeded, threads run inline, and time passes only
    when nothing can run."""
    from trio._core import _run  # trio has no public switch

    clock = trio.testing.MockClock(autojump_threshold=0)
    with (
        mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(trio.to_thread, "run_sync", _run_inline),
        mock.patch.object(trio.from_thread, "check_cancelled"),
        mock.patch.object(time, "time", side_effect=lambda: _EPOCH + clock.current_time()),
    ):
        _run._r.seed(seed)
        yield clock


async def _run_inline(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


def fast_folder() -> str | None:
    """Where temporary files are in memory, on machines that have such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
