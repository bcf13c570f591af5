"""Sends the changing part of a page to browsers, as server-sent events, whenever it has changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import trio

from bacalhau_p2p.runtime.events import BroadcastEvent

LEAST_INTERVAL = 1.0
"""Seconds between two drawings of the same view, however many browsers show it and however much happens."""
MOST_INTERVAL = 5.0
"""Seconds after which a view is drawn again even if no job changed: ages and nodes change too."""
MAX_STREAMS = 128
"""Browsers that can watch at a time. Others see what was when they loaded the page."""


class Changes:
    """How often something has changed, for those who wait for it to change again."""

    def __init__(self) -> None:
        self.count = 0
        self._again = BroadcastEvent()

    def note(self) -> None:
        """It has changed."""
        self.count += 1
        self._again.fire()

    async def wait(self, known: int) -> None:
        """Returns when the count is not `known`."""
        while self.count == known:
            await self._again.wait()


Draw = Callable[[], Awaitable[str]]


class _View:
    """One view, drawn once for all who watch it."""

    def __init__(self, draw: Draw, changes: Changes) -> None:
        self._draw = draw
        self._changes = changes
        self.known = -1
        """The count of changes that it shows."""
        self._lock = trio.Lock()
        self._drawn_at = -float("inf")
        self._text = ""
        self.watchers = 0

    async def text(self) -> str:
        """As it is now, or was less than LEAST_INTERVAL ago."""
        async with self._lock:
            if trio.current_time() - self._drawn_at >= LEAST_INTERVAL:
                self.known = self._changes.count
                self._text = await self._draw()
                self._drawn_at = trio.current_time()
            return self._text


class LiveViews:
    """The views that somebody watches, by name."""

    def __init__(self, changes: Changes) -> None:
        """`changes` are those of jobs and executions."""
        self._changes = changes
        self._views: dict[str, _View] = {}
        self._streams = 0

    @property
    def full(self) -> bool:
        """Whether nobody else can watch now."""
        return self._streams >= MAX_STREAMS

    async def counted(self, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The same events; as long as they are taken they count as one browser."""
        self._streams += 1
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._streams -= 1

    async def watch(self, name: str, draw: Draw) -> AsyncGenerator[bytes, None]:
        """Events with the view, at first and whenever it has changed. Until cancelled, or `draw` raises."""
        view = self._views.setdefault(name, _View(draw, self._changes))
        view.watchers += 1
        try:
            sent = None
            while True:
                text = await view.text()
                if text != sent:
                    sent = text
                    yield event_of(text)
                with trio.move_on_after(MOST_INTERVAL):
                    await self._changes.wait(view.known)
                await trio.sleep(LEAST_INTERVAL)
        finally:
            view.watchers -= 1
            if not view.watchers:
                self._views.pop(name, None)


def event_of(text: str) -> bytes:
    """A server-sent event with this text, which has no carriage returns."""
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"{lines}\n".encode("utf-8", "replace")
