"""Prints lists of things in the formats that all commands share: table, wide, json, yaml, csv and id."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import click

from bacalhau_p2p.cli.printing import print_lines, print_styled, print_text
from bacalhau_p2p.cli.table import Column, table_lines
from bacalhau_p2p.cli.terminal import size_of

JSON = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])

_FORMULA = re.compile(r"\s*[=+@-](?![\d.]*$)", re.ASCII)
"""What a spreadsheet would work out: not a number, and not a sign alone."""

LIST_FORMATS = ("table", "wide", "json", "yaml", "csv", "id")
ITEM_FORMATS = ("yaml", "json", "table", "wide", "csv", "id")
_BATCH = 500
"""Items of a list in JSON or YAML that are printed at once."""


def output_format(*formats: str) -> Callable[[Function], Function]:
    """The flag `--output`; the first format is the default. Bacalhau's flags for its look are accepted."""

    def decorate(command: Function) -> Function:
        for name in ("--pretty", "--no-style", "--quiet"):
            command = click.option(name, is_flag=True, hidden=True, expose_value=False)(command)
        return click.option(
            "-o",
            "--output",
            type=click.Choice(formats),
            metavar="FORMAT",
            default=formats[0],
            show_default=True,
            help=f"{', '.join(formats[:-1])} or {formats[-1]}.",
        )(command)

    return decorate


HIDE_HEADER = click.option("--hide-header", is_flag=True, help="Print no header.")
WIDE = click.option("--wide", is_flag=True, hidden=True, help="As --output wide.")


def print_list(
    items: Iterable[JSON],
    columns: Sequence[Column],
    output: str,
    *,
    id_of: Callable[[JSON], str],
    hide_header: bool = False,
) -> None:
    """Print items in one of LIST_FORMATS. All but a table begin before the last item is there."""
    if output == "json":
        _print_json_list(items)
    elif output == "yaml":
        _print_yaml_list(items)
    elif output == "id":
        print_lines(id_of(item) for item in items)
    else:
        _print_rows(items, columns, output, hide_header=hide_header)


def print_item(item: JSON, output: str, columns: Sequence[Column], *, id_of: Callable[[JSON], str]) -> None:
    """Print one thing: as a whole in YAML or JSON, or as a list of one."""
    if output == "json":
        print_json(item)
    elif output == "yaml":
        print_yaml(item)
    else:
        print_list([item], columns, output, id_of=id_of)


def print_json(value: object) -> None:
    """Print a value as JSON: in ASCII, so that what strangers wrote is harmless and whole."""
    print_styled(json.dumps(value, indent=2))


def _print_json_list(items: Iterable[JSON]) -> None:
    first = True
    for some in _batches(items):
        text = _json_of_many(some) if len(some) == _BATCH else json.dumps(some, indent=2)
        print_styled(("[" if first else ",") + text[1:-2], end="")
        first = False
    print_styled("[]" if first else "\n]")


def _json_of_many(items: Sequence[JSON]) -> str:
    """The same as `json.dumps` makes, eight times as fast, but slow to import."""
    from pydantic_core import to_json

    try:
        text = to_json(items, indent=2, ensure_ascii=True).decode()
    except ValueError:  # half of a surrogate pair
        return json.dumps(items, indent=2)
    return text.replace("\x7f", "\\u007f")


def _print_yaml_list(items: Iterable[JSON]) -> None:
    empty = True
    for some in _batches(items):
        print_yaml(some)
        empty = False
    if empty:
        print_yaml([])


def _batches(items: Iterable[JSON]) -> Iterator[list[JSON]]:
    left = iter(items)
    while some := list(islice(left, _BATCH)):
        yield some


def print_yaml(value: object) -> None:
    """Print a value as YAML, with text of several lines as it is."""
    from bacalhau_p2p.model.yaml_text import yaml_text

    print_text(yaml_text(value))


def _print_rows(items: Iterable[JSON], columns: Sequence[Column], output: str, *, hide_header: bool) -> None:
    wide = output in ("wide", "csv")
    shown = [column for column in columns if wide or not column.only_wide]
    rows = (tuple(column.cell(item, wide=wide) for column in shown) for item in items)
    header = [] if hide_header else [tuple(column.header for column in shown)]
    if output == "csv":
        print_lines(map(csv_row, chain(header, rows)))
        return
    width = size_of(sys.stdout)[0] if output == "table" and sys.stdout.isatty() else None
    if lines := table_lines(shown, header, list(rows), width):
        print_styled("\n".join(lines))


def csv_row(cells: Sequence[str]) -> str:
    return ",".join(map(_quoted, cells))


def _quoted(cell: str) -> str:
    """A cell of a CSV, by RFC 4180. Newlines become spaces: a row is a line. An apostrophe keeps spreadsheets
    from taking text for a formula."""
    text = " ".join(cell.splitlines())
    if _FORMULA.match(text):
        text = "'" + text
    if any(character in text for character in ',"') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
