"""Shows a handle in a notebook, and keeps what it shows up to date while its job goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from math import inf
from time import monotonic
from typing import Any, Protocol, cast

from bacalhau_p2p.client.detached import DetachedTask
from bacalhau_p2p.errors import BacalhauError

REFRESH = 0.5
"""Seconds between two refreshes at least."""


class Shown(Protocol):
    """What has a view that changes."""

    def _repr_html_(self) -> str: ...

    def _changes(self) -> AsyncGenerator[None, None]:
        """Ends once the view does not change any more."""
        ...


class DisplayHandle(Protocol):
    def update(self, data: dict[str, str], *, raw: bool) -> object: ...


class Displays:
    """Where a handle is displayed."""

    def __init__(self) -> None:
        self._handles: list[DisplayHandle] = []
        self._refreshed = -inf

    def show(self, shown: Shown, display: Callable[..., Any] | None = None) -> None:
        """Display it in a notebook. On asyncio, which notebooks run on, it stays up to date by itself."""
        display = display or _display_of_notebook()
        handle: DisplayHandle | None = display(_both(shown), raw=True, display_id=True)
        if handle is None:
            return
        self._handles.append(handle)
        if len(self._handles) == 1:
            with suppress(RuntimeError):  # no event loop runs here: it is refreshed when the handle is used
                asyncio.get_running_loop()
                DetachedTask(lambda: self._keep_up_to_date(shown))

    def refresh(self, shown: Shown, *, now: bool = True) -> None:
        """The view has changed. Unless it has to be `now`, several changes are shown as one.

        Programs that run notebooks take note of what is shown while a cell runs, so handles refresh what
        they show whenever they are used.
        """
        time = monotonic()
        if self._handles and (now or time - self._refreshed >= REFRESH):
            self._refreshed = time
            for handle in self._handles:
                handle.update(_both(shown), raw=True)

    async def _keep_up_to_date(self, shown: Shown) -> None:
        with suppress(BacalhauError):  # whoever waits for the job is told
            async with aclosing(shown._changes()) as changes:
                async for _ in changes:
                    self.refresh(shown)
        self.refresh(shown)


def _display_of_notebook() -> Callable[..., Any]:
    from IPython.display import display

    return cast("Callable[..., Any]", display)


def _both(shown: Shown) -> dict[str, str]:
    return {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
