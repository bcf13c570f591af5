"""`job run`, `create` and `validate`: jobs from files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bacalhau_p2p.cli.options import FollowOptions, follow_options, node_options
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.submit import submit_and_follow
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.model.documents import MAX_DOCUMENT

_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))


@click.group()
def job() -> None:
    """Run a job from a file."""


@job.command()
@_FILE
@follow_options
@node_options
def run(connection: BlockingConnection, file: Path, *, follow: FollowOptions) -> None:
    """Submit a job from a JSON or YAML file; `-` is standard input.

    Prints the job's id, waits until the job has ended and prints its output.
    """
    from bacalhau_p2p.model.parsing import parse_job

    job = parse_job(_read(file)).model_dump(mode="json", by_alias=True)
    submit_and_follow(connection, job, follow)


@click.command()
@_FILE
def validate(file: Path) -> None:
    """Check a job file and list every fault in it; `-` is standard input.

    Does not ask any node, so it does not check whether a node has the engine and the data.
    """
    from bacalhau_p2p.model.parsing import parse_job

    parse_job(_read(file))
    print_line("The job is valid.")


def _read(file: Path) -> bytes:
    """The file, up to one byte more than the parser accepts: the parser reports that it is too large."""
    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_DOCUMENT + 1)
    with file.open("rb") as opened:
        return opened.read(MAX_DOCUMENT + 1)
