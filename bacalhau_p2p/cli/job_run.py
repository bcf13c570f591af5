"""`job run`, `create` and `validate`: jobs from files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bacalhau_p2p.cli.connection import Connection
from bacalhau_p2p.cli.options import Follow, follow_options, node_options
from bacalhau_p2p.cli.submission import follow
from bacalhau_p2p.model.documents import MAX_DOCUMENT

_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))


@click.group()
def job() -> None:
    """Run a job from a file."""


@job.command()
@_FILE
@follow_options
@node_options
def run(connection: Connection, file: Path, *, how: Follow) -> None:
    """Submit the job that a JSON or YAML file describes; `-` is standard input.

    Prints the job's id, waits for its end and shows what it wrote.
    """
    from bacalhau_p2p.model.parsing import parse_job

    job = parse_job(_read(file)).model_dump(mode="json", by_alias=True)
    follow(connection, job, how)


@click.command()
@_FILE
def validate(file: Path) -> None:
    """Check a job file and name every fault in it; `-` is standard input.

    No node is asked: whether one has the engine and the data is another question.
    """
    from bacalhau_p2p.model.parsing import parse_job

    parse_job(_read(file))
    click.echo("The job is valid.")


def _read(file: Path) -> bytes:
    """At most a little more than can be parsed, so that the parser says that it is too much."""
    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_DOCUMENT + 1)
    with file.open("rb") as opened:
        return opened.read(MAX_DOCUMENT + 1)
