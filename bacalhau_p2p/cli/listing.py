"""Prints lists of things in the formats that all commands share: table, wide, json, yaml, csv and id."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from bacalhau_p2p.cli.printing import print_line, print_styled, print_text
from bacalhau_p2p.cli.table import Column, table_lines
from bacalhau_p2p.cli.terminal import size_of

JSON = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

LIST_FORMATS = ("table", "wide", "json", "yaml", "csv", "id")
ITEM_FORMATS = ("yaml", "json", "table", "wide", "csv", "id")
_YAML_WIDTH = 200
"""Characters after which a long text continues on the next line."""


def output_format(*formats: str) -> Callable[[Command], Command]:
    """The flag `--output`; the first format is the default. Bacalhau's flags for its look are accepted."""

    def decorate(command: Command) -> Command:
        for name in ("--pretty", "--no-style", "--quiet"):
            command = click.option(name, is_flag=True, hidden=True, expose_value=False)(command)
        return click.option(
            "-o",
            "--output",
            type=click.Choice(formats),
            default=formats[0],
            show_default=True,
            help="Output format.",
        )(command)

    return decorate


HIDE_HEADER = click.option("--hide-header", is_flag=True, help="Print no line with the names of columns.")
WIDE = click.option("--wide", is_flag=True, hidden=True, help="The same as --output wide.")


def print_list(
    items: Sequence[JSON],
    columns: Sequence[Column],
    output: str,
    *,
    id_of: Callable[[JSON], str],
    hide_header: bool = False,
) -> None:
    """Print items in one of LIST_FORMATS."""
    if output == "json":
        print_text(json.dumps(items, indent=2))
    elif output == "yaml":
        print_yaml(items)
    elif output == "id":
        for item in items:
            print_line(id_of(item))
    else:
        _print_rows(items, columns, output, hide_header=hide_header)


def print_item(item: JSON, output: str, columns: Sequence[Column], *, id_of: Callable[[JSON], str]) -> None:
    """Print one thing: as a whole in YAML or JSON, or as a list of one."""
    if output == "json":
        print_text(json.dumps(item, indent=2))
    elif output == "yaml":
        print_yaml(item)
    else:
        print_list([item], columns, output, id_of=id_of)


def print_yaml(value: object) -> None:
    """Print a value as YAML, with text of several lines as it is."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def represent_str(self, text: str) -> yaml.ScalarNode:
            style = "|" if "\n" in text else None
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, Dumper.represent_str)
    print_text(yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_YAML_WIDTH))


def _print_rows(items: Sequence[JSON], columns: Sequence[Column], output: str, *, hide_header: bool) -> None:
    wide = output in ("wide", "csv")
    shown = [column for column in columns if wide or not column.only_wide]
    rows = [tuple(column.cell(item, wide=wide) for column in shown) for item in items]
    header = [] if hide_header else [tuple(column.header for column in shown)]
    if output == "csv":
        for row in (*header, *rows):
            print_line(csv_row(row))
        return
    width = size_of(sys.stdout)[0] if output == "table" and sys.stdout.isatty() else None
    for line in table_lines(shown, header, rows, width):
        print_styled(line)


def csv_row(cells: Sequence[str]) -> str:
    return ",".join(map(_quoted, cells))


def _quoted(cell: str) -> str:
    """A cell of a CSV, by RFC 4180. Newlines become spaces: a row is a line."""
    text = " ".join(cell.splitlines())
    if any(character in text for character in ',"') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
