"""Prints text for people: whatever strangers wrote, it cannot command the terminal.

Every line of the command line goes through here; reasons, names, ids and output come from other nodes.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TextIO

import click

from bacalhau_p2p.runtime.text import printable

_AT_ONCE = 500
"""Lines that are written at once: each writing takes as long as 20 lines."""


def print_line(text: str, *, err: bool = False) -> None:
    """One line; newlines in it are replaced too, because they could imitate lines of ours."""
    click.echo(printable(text), err=err)


def print_lines(lines: Iterable[str]) -> None:
    """Many lines, each as `print_line` prints it, as soon as some are there."""
    left = iter(lines)
    while some := [printable(line) for line in islice(left, _AT_ONCE)]:
        click.echo("\n".join(some))


def print_text(text: str, *, err: bool = False) -> None:
    """Several lines."""
    click.echo(printable(text, keep_lines=True), nl=not text.endswith("\n"), err=err)


def print_styled(text: str, *, err: bool = False, end: str = "\n") -> None:
    """What is harmless already, in colours of ours, which a pipe does not get."""
    click.echo(text + end, nl=False, err=err)


def erase_lines(count: int) -> None:
    """Remove the last lines of the terminal of stderr."""
    sys.stderr.write(f"\r\x1b[{count}A\x1b[J")
    sys.stderr.flush()


MAX_LEFT_OUT = 20
"""What was left out, as far as it is named; more is counted."""


def report_left_out(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Say on stderr which paths were left out, and why; these lines without their beginning."""
    lines = [f"{path or '.'}: {reason}" for path, reason in left_out[:MAX_LEFT_OUT]]
    if len(left_out) > MAX_LEFT_OUT:
        lines.append(f"{len(left_out) - MAX_LEFT_OUT} more")
    for line in lines:
        print_line(f"left out: {line}", err=True)
    return lines


def print_output(text: str, *, err: bool = False) -> None:
    """What a job wrote: as it is, so that programs can read it, unless a terminal would."""
    if (sys.stderr if err else sys.stdout).isatty():
        print_text(text, err=err)
    else:
        click.echo(text.encode(errors="replace"), nl=not text.endswith("\n"), err=err)


class OutputPrinter:
    """Prints what a job writes, piece by piece: as it is, unless a terminal would read it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if stream.isatty() else None

    def write(self, data: bytes) -> None:
        if self._decoder is not None:
            self._stream.write(printable(self._decoder.decode(data), keep_lines=True))
        else:
            self._stream.flush()
            self._stream.buffer.write(data)
        self._stream.flush()
