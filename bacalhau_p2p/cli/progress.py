"""How far a transfer is, for people."""

from __future__ import annotations

import sys
import time
from typing import TextIO


def size_text(size: object) -> str:
    """Bytes for people: `12.3 MB`; a question mark where they are not known."""
    if not isinstance(size, int):
        return "?"
    if size < 1000:
        return f"{size} B"
    amount, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        del units[0]
    return f"{amount:.1f} {units[0]}"


class ProgressLine:
    """Bytes on their way, as a line on stderr that is written over; nothing unless that is a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._stream: TextIO = sys.stderr
        self._shown = not quiet and self._stream.isatty()
        self._next = 0.0
        self._width = 0

    def __call__(self, done: int, total: int | None) -> None:
        if not self._shown or (now := time.monotonic()) < self._next:
            return
        self._next = now + 0.1
        if total:
            done = min(done, total)  # blocks are a little more than the files
            text = f"  {size_text(done)} of {size_text(total)} ({100 * done // total} %)"
        else:
            text = f"  {size_text(done)}"
        self._write(text)

    def end(self) -> None:
        """Remove the line."""
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)
