"""Shows a handle in a notebook, and keeps what it shows up to date while its job goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Protocol, cast

from bacalhau_p2p.client.detached import DetachedTask
from bacalhau_p2p.errors import BacalhauError

REFRESH = 0.5
"""Seconds between two refreshes at least."""


class Shown(Protocol):
    """What has a view that changes."""

    def _repr_html_(self) -> str: ...

    def changes(self) -> AsyncGenerator[None, None]:
        """Ends once the view does not change any more."""
        ...


class DisplayHandle(Protocol):
    def update(self, data: dict[str, str], *, raw: bool) -> object: ...


def show(shown: Shown, display: Callable[..., Any] | None = None) -> None:
    """Display it in a notebook. On asyncio, which notebooks run on, it stays up to date by itself."""
    display = display or _display_of_notebook()
    handle: DisplayHandle | None = display(_both(shown), raw=True, display_id=True)
    if handle is None:
        return
    with suppress(RuntimeError):  # no event loop runs here: it stays as it is
        asyncio.get_running_loop()
        DetachedTask(lambda: _keep_up_to_date(shown, handle))


def _display_of_notebook() -> Callable[..., Any]:
    from IPython.display import display

    return cast("Callable[..., Any]", display)


async def _keep_up_to_date(shown: Shown, handle: DisplayHandle) -> None:
    with suppress(BacalhauError):  # whoever waits for the job is told
        async with aclosing(shown.changes()) as changes:
            async for _ in changes:
                handle.update(_both(shown), raw=True)
    handle.update(_both(shown), raw=True)


def _both(shown: Shown) -> dict[str, str]:
    return {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
