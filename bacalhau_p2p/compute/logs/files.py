"""The streams of one execution as files: in its results folder, or as they were kept. Blocking, but short."""

from __future__ import annotations

import os
from pathlib import Path

from bacalhau_p2p.executors.results import STDERR, STDOUT
from bacalhau_p2p.model.logs import LogStream, Offsets

NAMES = {LogStream.STDOUT: STDOUT, LogStream.STDERR: STDERR}
SKIPPED = ".skipped"
"""Beside a stream of which only the end was kept: a file with the number of bytes before it."""
MAX_TAIL_BYTES = 1024 * 1024
"""Bytes from the end in which lines are looked for."""
_BLOCK = 64 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class StreamFiles:
    """Reads both streams from a folder that may not have them yet. What is open stays readable when the
    folder is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[LogStream, tuple[int, int]] = {}
        """By stream, the descriptor, and the bytes before the first one in the file."""

    def read(self, stream: LogStream, offset: int, most: int) -> tuple[int, bytes]:
        """Up to `most` bytes of what is there at `offset`, and where they begin: later, if what was there was
        not kept."""
        opened = self._opened(stream)
        if opened is None:
            return offset, b""
        fd, skipped = opened
        begin = max(offset, skipped)
        return begin, os.pread(fd, most, begin - skipped)

    def tail(self, lines: int) -> Offsets:
        """Where the last `lines` lines of each stream begin."""
        stdout, stderr = (self._tail(stream, lines) for stream in LogStream)
        return stdout, stderr

    def last_lines(self, lines: int, most: int) -> str:
        """The last lines of stderr, or of stdout if that is empty: at most so many characters."""
        for stream in (LogStream.STDERR, LogStream.STDOUT):
            begin = self._tail(stream, lines)
            text = b""
            while piece := self.read(stream, begin + len(text), _BLOCK)[1]:
                text += piece
            if text.strip():
                return text.decode(errors="replace").strip("\r\n")[-most:]
        return ""

    def close(self) -> None:
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def _opened(self, stream: LogStream) -> tuple[int, int] | None:
        if stream not in self._open:
            path = self._folder / NAMES[stream]
            try:
                fd = os.open(path, _OPEN)
            except OSError:
                return None
            self._open[stream] = fd, _skipped(path)
        return self._open[stream]

    def _tail(self, stream: LogStream, lines: int) -> int:
        opened = self._opened(stream)
        if opened is None:
            return 0
        fd, skipped = opened
        size = os.fstat(fd).st_size
        begin, end = size, max(0, size - MAX_TAIL_BYTES) if lines else size
        wanted = lines
        while begin > end:
            block = os.pread(fd, min(_BLOCK, begin - end), max(end, begin - _BLOCK))
            if begin == size and block.endswith(b"\n"):
                wanted += 1  # the end of the last line
            found = block.count(b"\n")
            if found >= wanted:
                for _ in range(wanted - 1):
                    block = block[: block.rindex(b"\n")]
                return skipped + begin - min(_BLOCK, begin - end) + block.rindex(b"\n") + 1
            wanted -= found
            begin -= len(block)
        return skipped + end


def _skipped(path: Path) -> int:
    try:
        return int(path.with_name(path.name + SKIPPED).read_text())
    except (OSError, ValueError):
        return 0
