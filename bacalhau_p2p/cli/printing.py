"""Prints text for people: whatever strangers wrote, it cannot command the terminal.

Every line of the command line goes through here; reasons, names, ids and output come from other nodes.
"""

from __future__ import annotations

import sys

import click

from bacalhau_p2p.runtime.text import printable


def print_line(text: str, *, err: bool = False) -> None:
    """One line; newlines in it are replaced too, because they could imitate lines of ours."""
    click.echo(printable(text), err=err)


def print_text(text: str, *, err: bool = False) -> None:
    """Several lines."""
    click.echo(printable(text, keep_lines=True), nl=not text.endswith("\n"), err=err)


def print_output(text: str, *, err: bool = False) -> None:
    """What a job wrote: as it is, so that programs can read it, unless a terminal would."""
    if (sys.stderr if err else sys.stdout).isatty():
        print_text(text, err=err)
    else:
        click.echo(text.encode(errors="replace"), nl=not text.endswith("\n"), err=err)
