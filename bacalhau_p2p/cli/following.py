"""Follows a job while it runs: what happens to it, and what it writes, as both come."""

from __future__ import annotations

import codecs
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, Protocol

from bacalhau_p2p.cli.job_view import JSON
from bacalhau_p2p.cli.live_view import LiveView
from bacalhau_p2p.cli.node_away import NODE_AWAY
from bacalhau_p2p.cli.printing import OutputPrinter, print_line, print_styled, print_text
from bacalhau_p2p.cli.terminal import Block, cut, is_terminal, size_of
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.retry import Patience
from bacalhau_p2p.errors import BacalhauError, LogsUnavailable, NodeUnavailable
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.runtime.text import printable

TICK = 0.2
"""Seconds after which what is shown is drawn again."""
LAST_OUTPUT = 10.0
"""Seconds to wait for the end of the output when the job has ended."""
MAX_WAITING = 100
"""Events and pieces of output that wait to be shown. The node is read no faster."""
MAX_UNFINISHED = 8192
"""Characters of a line without an end that are held back."""

_Item = JSON | LogPiece | BaseException | str | None
"""An event, a piece of output, what went wrong, a remark, or None at the end of events or output."""


class Screen(Protocol):
    """Where a job is shown."""

    def take(self, event: JSON) -> None: ...

    def write(self, piece: LogPiece) -> None: ...

    def remark(self, line: str) -> None: ...

    def draw(self) -> None: ...

    def end(self) -> None: ...


class Shown(NamedTuple):
    """What was shown of the output of a job."""

    executions: frozenset[str] = frozenset()
    """The ids of those whose output was shown."""
    complete: bool = False
    """Whether it was shown to its end."""


def follow_job(connection: BlockingConnection, job_id: str) -> Shown:
    """Show what happens to a job and what it writes, until it has ended, also when the node restarts.

    Raises NodeUnavailable when the node stays away, and other errors of the node.
    """
    screen: Screen = TerminalScreen(job_id) if is_terminal(sys.stderr) else PlainScreen()
    shown: set[str] = set()
    try:
        with _reading(connection, job_id) as (items, writing):
            ends, deadline = 0, float("inf")
            while ends < 2 and time.monotonic() < deadline:
                try:
                    item = items.get(timeout=TICK)
                except queue.Empty:
                    screen.draw()
                    continue
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, LogPiece):
                    screen.write(item)
                    shown.add(item.execution_id)
                elif isinstance(item, str):
                    screen.remark(item)
                elif item is not None:
                    screen.take(item)
                    if item.get("Kind") == "Ended":
                        deadline = time.monotonic() + LAST_OUTPUT
                else:
                    ends += 1
                if items.empty():
                    screen.draw()
            return Shown(frozenset(shown), not writing.is_set())
    finally:
        screen.end()


@contextmanager
def _reading(
    connection: BlockingConnection, job_id: str
) -> Iterator[tuple[queue.Queue[_Item], threading.Event]]:
    """Reads the events and the output of a job, each in a thread of its own, for the length of the block. The
    event is set as long as not all of the output was read."""
    items: queue.Queue[_Item] = queue.Queue(MAX_WAITING)
    writing, stopped = threading.Event(), threading.Event()
    writing.set()

    def put(item: _Item) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                return items.put(item, timeout=TICK)
        raise _Stopped

    def sleep(seconds: float) -> None:
        if stopped.wait(seconds):
            raise _Stopped

    def read(what: Callable[[BlockingConnection], None], through: BlockingConnection) -> None:
        with suppress(_Stopped):
            try:
                with through:
                    what(through)
            except BacalhauError as error:
                put(error)
            else:
                put(None)

    readers = [
        (partial(_read_events, job_id, put, sleep), connection.another()),
        (partial(_read_output, job_id, put, sleep, writing), connection.another()),
    ]
    for what, through in readers:
        threading.Thread(target=read, args=(what, through), daemon=True).start()
    try:
        yield items, writing
    finally:
        stopped.set()
        for _, through in readers:
            through.abort()


class _Stopped(Exception):
    """Nobody reads any more."""


def _read_events(
    job_id: str,
    put: Callable[[_Item], None],
    sleep: Callable[[float], None],
    connection: BlockingConnection,
) -> None:
    after, ended, patience = 0, False, Patience(on_loss=partial(put, NODE_AWAY))
    while not ended:
        asked_at = time.monotonic()
        call = calls.list_events(job_id, after=after, wait=calls.LONG_POLL)
        events, ended = connection.call_patiently(call, patience, sleep=sleep)
        for event in events:
            put(event)
            after = event["SeqNum"]
        if not events and not ended:
            sleep(calls.pause_between_polls(calls.LONG_POLL, time.monotonic() - asked_at))


def _read_output(
    job_id: str,
    put: Callable[[_Item], None],
    sleep: Callable[[float], None],
    writing: threading.Event,
    connection: BlockingConnection,
) -> None:
    """What cannot be read is in the result, if there is one."""
    with suppress(LogsUnavailable, NodeUnavailable):
        for piece in connection.output(job_id, Patience(), sleep=sleep):
            put(piece)
        writing.clear()


class PlainScreen:
    """Where stderr is no terminal: the changes of the job's state as lines, and the output as it is."""

    def __init__(self) -> None:
        self._printers = {
            LogStream.STDOUT: OutputPrinter(sys.stdout),
            LogStream.STDERR: OutputPrinter(sys.stderr),
        }

    def take(self, event: JSON) -> None:
        details = (event.get("Event") or {}).get("Details") or {}
        if details.get("NewState") and not event.get("ExecutionID"):
            print_line(f"  {details['NewState']}", err=True)

    def write(self, piece: LogPiece) -> None:
        self._printers[piece.stream].write(piece.data)

    def remark(self, line: str) -> None:
        print_line(line, err=True)

    def draw(self) -> None:
        pass

    def end(self) -> None:
        pass


class TerminalScreen:
    """A terminal: below the output is what moves, drawn again and again."""

    def __init__(self, job_id: str, *, clock: Callable[[], float] = time.time) -> None:
        self._view = LiveView(job_id)
        self._clock = clock
        self._block = Block()
        self._lines = {LogStream.STDOUT: _Lines(), LogStream.STDERR: _Lines()}
        self._raw = None if sys.stdout.isatty() else OutputPrinter(sys.stdout)

    def take(self, event: JSON) -> None:
        self._view.take(event, self._clock())

    def write(self, piece: LogPiece) -> None:
        self._view.wrote(piece.execution_id)
        if piece.stream is LogStream.STDOUT and self._raw is not None:
            self._block.clear()
            self._raw.write(piece.data)
        elif whole := self._lines[piece.stream].take(piece.data):
            self._print(piece.stream, whole)

    def remark(self, line: str) -> None:
        self._print(LogStream.STDERR, line + "\n")

    def draw(self) -> None:
        width, height = size_of(sys.stderr)
        unfinished = [cut(lines.unfinished, width - 1) for lines in self._lines.values() if lines.unfinished]
        self._block.draw([*unfinished, *self._view.lines(self._clock(), width - 1, height - len(unfinished))])

    def end(self) -> None:
        self._block.clear()
        for stream, lines in self._lines.items():
            if lines.unfinished:
                self._print(stream, lines.unfinished + "\n")
        width, _ = size_of(sys.stderr)
        for line in self._view.ended_lines(self._clock(), width - 1):
            print_styled(line, err=True)

    def _print(self, stream: LogStream, text: str) -> None:
        self._block.clear()
        print_text(text, err=stream is LogStream.STDERR)


class _Lines:
    """Text of a stream as lines for a terminal; the last one waits for its end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    @property
    def unfinished(self) -> str:
        return _last_written(self._rest)

    def take(self, data: bytes) -> str:
        """The whole lines that these bytes end. What goes back to the beginning of a line replaces it, as
        on a terminal."""
        *whole, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        if len(self._rest) > MAX_UNFINISHED:
            whole.append(self._rest)
            self._rest = ""
        return "".join(f"{_last_written(line)}\n" for line in whole)


def _last_written(line: str) -> str:
    return printable(line.rstrip("\r").rpartition("\r")[2], keep_lines=True)
