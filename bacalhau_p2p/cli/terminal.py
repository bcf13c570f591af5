"""What a terminal can show: its size, colours, and lines that are drawn again.

In a pipe nothing of this is written: there a line is text and stays as it is.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO

import click

from bacalhau_p2p.cli.printing import erase_lines, print_styled

_COLOURS = {
    **dict.fromkeys(("Completed", "CONNECTED"), "green"),
    **dict.fromkeys(("Failed", "Lost", "ResultRejected", "DISCONNECTED", "Error"), "red"),
    **dict.fromkeys(("Running", "BidAccepted", "ResultProposed", "ResultAccepted"), "cyan"),
    **dict.fromkeys(("Pending", "Queued", "BidReceived", "Preparing", "Publishing"), "yellow"),
    **dict.fromkeys(("Stopped", "Cancelled", "BidRejected"), "magenta"),
}
"""Of states of jobs, executions and nodes."""
_ELLIPSIS = "..."
_USUAL_SIZE = (80, 24)


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at what is written here, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def wants_no_colour() -> bool:
    """Whether the environment asks for none, as in https://no-color.org."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def size_of(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the terminal of a stream: as it is now, since users change it."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _USUAL_SIZE
    return (size.columns, size.lines) if size.columns and size.lines else _USUAL_SIZE


def coloured(text: str, state: str) -> str:
    """The text in the colour of a state. `print_styled` leaves it out where it is not wanted."""
    colour = _COLOURS.get(state)
    return click.style(text, fg=colour) if colour else text


def columns_of(text: str) -> int:
    """How many columns a line takes: those of East Asia take two for a character, combining ones none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def cut(text: str, width: int) -> str:
    """At most so many columns of a text; what is cut ends with dots."""
    if columns_of(text) <= width:
        return text
    dots = _ELLIPSIS if width > 2 * len(_ELLIPSIS) else ""
    while columns_of(text) > width - len(dots):
        text = text[: min(len(text) - 1, width - len(dots))]
    return text + dots


def padded(text: str, width: int) -> str:
    return text + " " * (width - columns_of(text))


class Block:
    """Lines at the bottom of the terminal of stderr that are drawn again and again, below what stays.

    The lines that it gets fit into the terminal and are harmless, but for colours.
    """

    def __init__(self) -> None:
        self._shown: list[str] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those before."""
        if list(lines) == self._shown:
            return
        self.clear()
        for line in lines:
            print_styled(line, err=True)
        self._shown = list(lines)

    def clear(self) -> None:
        """Remove the lines, so that something may be written where they were."""
        if self._shown:
            erase_lines(len(self._shown))
            self._shown = []
