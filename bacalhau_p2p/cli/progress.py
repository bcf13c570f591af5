"""A line on stderr that shows how far a transfer or a start is."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from bacalhau_p2p.model.quantities import size_text

_UPDATE_INTERVAL = 0.1
"""Seconds between two texts on a terminal."""
_PLAIN_INTERVAL = 5.0
"""Seconds between two lines where stderr is no terminal; what is done sooner prints none."""


class StatusLine:
    """Shows and overwrites one line, for a `with` block. In a pipe it prints plain lines, but few."""

    def __init__(self) -> None:
        self._stream: TextIO = sys.stderr
        self._moves = self._stream.isatty()
        self._next_update = 0.0 if self._moves else time.monotonic() + _PLAIN_INTERVAL
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line."""
        if self._width:
            self._overwrite("")
            self._stream.write("\r")
            self._stream.flush()

    def show(self, text: str) -> None:
        if (now := time.monotonic()) < self._next_update:
            return
        self._next_update = now + (_UPDATE_INTERVAL if self._moves else _PLAIN_INTERVAL)
        if self._moves:
            self._overwrite(text)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _overwrite(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)


class ProgressLine(StatusLine):
    """Shows the bytes of a transfer so far; shows nothing if stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self._shown = not quiet and self._moves

    def update(self, done: int, total: int | None) -> None:
        if not self._shown:
            return
        if total:
            done = min(done, total)  # the blocks of a CAR are slightly larger than the files
            self.show(f"  {size_text(done)} of {size_text(total)} ({100 * done // total} %)")
        else:
            self.show(f"  {size_text(done)}")
