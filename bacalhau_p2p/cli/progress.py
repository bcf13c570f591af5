"""A line on stderr that shows how far a transfer or a start is."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO

from bacalhau_p2p.cli.terminal import cut, is_terminal, size_of
from bacalhau_p2p.model.quantities import duration, size_text

_UPDATE_INTERVAL = 0.1
"""Seconds between two texts on a terminal."""
_PLAIN_INTERVAL = 5.0
"""Seconds between two lines where stderr is no terminal; what is done sooner prints none."""
_RATE_SPAN = 5.0
"""Seconds over which the rate of a transfer is measured."""
_BAR = 24
"""Columns of a bar."""


class StatusLine:
    """Shows and overwrites one line, for a `with` block. In a pipe it prints plain lines, but few."""

    def __init__(self) -> None:
        self._stream: TextIO = sys.stderr
        self._moves = is_terminal(self._stream)
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
            self._overwrite(cut(text, size_of(self._stream)[0] - 1))
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _overwrite(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)


class ProgressLine(StatusLine):
    """Shows a bar with the bytes of a transfer so far, their rate, and the time that is left. Shows nothing
    if stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self._shown = not quiet and self._moves
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, done: int, total: int | None) -> None:
        if self._shown:
            self.show(progress_text(done, total, self._rate(time.monotonic(), done)))

    def counted(self, pieces: bytes | Iterable[bytes], total: int) -> Iterator[bytes]:
        """The pieces of something that is sent, while its progress is shown."""
        done = 0
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            yield piece
            done += len(piece)
            self.update(done, total)

    def _rate(self, now: float, done: int) -> float:
        """Bytes a second, of late; 0 as long as it is unknown."""
        if not self._samples or now - self._samples[-1][0] >= _UPDATE_INTERVAL:
            self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_SPAN:
            self._samples.popleft()
        since, before = self._samples[0]
        return (done - before) / (now - since) if now > since else 0.0


def progress_text(done: int, total: int | None, rate: float, *, columns: int = _BAR) -> str:
    """Such as `  [######------]  3.0 MB of 6.0 MB  1.5 MB/s  2.0 s left`, with a bar of so many columns."""
    speed = f"  {size_text(round(rate))}/s" if rate else ""
    if not total:
        return f"  {size_text(done)}{speed}"
    done = min(done, total)  # the blocks of a CAR are slightly larger than the files
    bar = f"  [{('#' * (columns * done // total)).ljust(columns, '-')}]" if columns else ""
    left = f"  {duration((total - done) / rate)} left" if rate and done < total else ""
    return f"{bar}  {size_text(done)} of {size_text(total)}{speed}{left}"
