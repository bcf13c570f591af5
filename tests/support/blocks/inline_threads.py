"""Blocking calls without threads, for tests whose clock jumps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

from bacalhau_p2p.runtime.threads import Threads

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class InlineThreads(Threads):
    """Runs each call in the event loop: a clock that jumps would jump while a thread works."""

    def __init__(self) -> None:
        super().__init__(1)

    async def run(self, call: Callable[[*_Args], _T], *args: *_Args) -> _T:
        await trio.lowlevel.checkpoint()
        return call(*args)
