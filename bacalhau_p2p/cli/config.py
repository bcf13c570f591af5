"""`config list`: the settings that a node would have here, and where each comes from."""

from __future__ import annotations

from pathlib import Path

import click

from bacalhau_p2p.cli.help_pages import Group
from bacalhau_p2p.cli.listing import HIDE_HEADER, LIST_FORMATS, WIDE, output_format, print_list
from bacalhau_p2p.cli.table import Column
from bacalhau_p2p.settings import load_settings


@click.group(cls=Group)
def config() -> None:
    """Show the settings of a node."""


@config.command("list")
@click.option(
    "--config", "file", metavar="FILE", type=click.Path(path_type=Path), help="YAML file with settings."
)
@HIDE_HEADER
@WIDE
@output_format(*LIST_FORMATS)
def list_settings(file: Path | None, *, hide_header: bool, wide: bool, output: str) -> None:
    """List the settings of a node that is started here.

    For each setting there is its value and where it comes from: an environment variable, the file, or the
    default. Secrets are not shown.
    """
    settings = [
        {"Name": name, "Value": value, "Origin": origin}
        for name, value, origin in load_settings(file=file).listed()
    ]
    columns = [
        Column("NAME", lambda s: str(s["Name"])),
        Column("VALUE", lambda s: _text(s["Value"])),
        Column("FROM", lambda s: str(s["Origin"])),
    ]
    print_list(settings, columns, output, id_of=lambda s: str(s["Name"]), hide_header=hide_header)


def _text(value: object) -> str:
    """A value as one writes it into a variable."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={_text(item)}" for name, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
