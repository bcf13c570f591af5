"""A line on stderr that shows the progress of a transfer."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from bacalhau_p2p.cli.formatting import size_text

_UPDATE_INTERVAL = 0.1


class ProgressLine:
    """Shows and overwrites the bytes so far, for a `with` block; shows nothing if stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._stream: TextIO = sys.stderr
        self._shown = not quiet and self._stream.isatty()
        self._next_update = 0.0
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line."""
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def update(self, done: int, total: int | None) -> None:
        if not self._shown or (now := time.monotonic()) < self._next_update:
            return
        self._next_update = now + _UPDATE_INTERVAL
        if total:
            done = min(done, total)  # the blocks of a CAR are slightly larger than the files
            text = f"  {size_text(done)} of {size_text(total)} ({100 * done // total} %)"
        else:
            text = f"  {size_text(done)}"
        self._write(text)

    def _write(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)
