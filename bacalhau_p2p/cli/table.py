"""Tables for people, as wide as they need to be, or as a terminal is."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bacalhau_p2p.cli.terminal import coloured, columns_of, cut, padded
from bacalhau_p2p.runtime.text import printable

Row = tuple[str, ...]

_GAP = 2
_LEAST_FOLDED = 16
"""Columns of a cell that is folded: in less it could not be read."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    header: str
    short: Callable[[Any], str]
    """The cell in a table for people."""
    whole: Callable[[Any], str] | None = None
    """The cell where nothing is left out; the same if it is None."""
    only_wide: bool = False
    least: int | None = None
    """To how many columns of a terminal a table may cut it; 0 leaves it out, and None never cuts it."""
    is_state: bool = False
    """Whether its cells have the colour of a state."""

    def cell(self, item: Any, *, wide: bool) -> str:
        return (self.whole or self.short)(item) if wide else self.short(item)


def table_lines(
    columns: Sequence[Column], header: Sequence[Row], rows: Sequence[Row], width: int | None
) -> list[str]:
    """The rows as lines that are harmless, with colours of states.

    Each column is as wide as its widest cell. On a terminal, which has a `width`, columns without any value
    are left out, and others are cut or left out until the lines fit: first the last ones.
    """
    rows = [tuple(printable(cell) for cell in row) for row in rows]
    kept = [n for n in range(len(columns)) if width is None or not rows or any(row[n] for row in rows)]
    widths = {n: max((columns_of(row[n]) for row in (*header, *rows)), default=0) for n in kept}
    if width is not None:
        _fit(columns, widths, width)
    lines = [_line([padded(cut(row[n], widths[n]), widths[n]) for n in widths]) for row in header]
    for row in rows:
        cells = []
        for n, column_width in widths.items():
            cell = padded(cut(row[n], column_width), column_width)
            cells.append(coloured(cell, row[n]) if columns[n].is_state else cell)
        lines.append(_line(cells))
    return lines


def folded(start: str, text: str, width: int | None) -> list[str]:
    """A line whose last cell goes on below itself where a terminal, which has a `width`, has no room."""
    room = (width or 0) - columns_of(start)
    if width is None or room < _LEAST_FOLDED or columns_of(text) <= room:
        return [(start + text).rstrip()]
    first, *others = textwrap.wrap(text, room)
    return [start + first, *(" " * columns_of(start) + other for other in others)]


def _fit(columns: Sequence[Column], widths: dict[int, int], width: int) -> None:
    """Change widths, by number of column, until the table fits, as far as its columns allow."""

    def taken(of: Callable[[int], int]) -> int:
        return 1 + sum(map(of, widths)) + _GAP * (len(widths) - 1)

    def least(n: int) -> int:
        return min(widths[n], columns[n].least or widths[n])

    for n in reversed(list(widths)):
        if columns[n].least == 0 and taken(least) > width:
            del widths[n]
    for n in reversed(list(widths)):
        widths[n] = max(least(n), widths[n] - max(0, taken(widths.__getitem__) - width))


def _line(cells: Sequence[str]) -> str:
    return " " + (" " * _GAP).join(cells).rstrip()
