"""`job run` and `job validate`: jobs from files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bacalhau_p2p.cli.help_pages import Command, section
from bacalhau_p2p.cli.options import FollowOptions, SubmitCommand, follow_options, node_options, repeatable
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.submit import submit_and_follow
from bacalhau_p2p.cli.templates import filled_in, variables_of
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.errors import InvalidJob
from bacalhau_p2p.model.documents import MAX_DOCUMENT

if TYPE_CHECKING:
    from bacalhau_p2p.model.job import JobSpec

_FILE = click.argument(
    "file",
    required=False,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)


_TEMPLATES = [
    repeatable(
        "-V", "--template-vars", "variables", metavar="K=V,...", help="Write V for {{.K}} in the file."
    ),
    click.option(
        "-E",
        "--template-envs",
        "environment",
        metavar="REGEX",
        help="Write the environment variables that match for {{.NAME}} in the file.",
    ),
]


@click.command(cls=SubmitCommand, examples=["job run job.yaml"])
@_FILE
@follow_options
@section("Templates", _TEMPLATES)
@click.option("--no-template", is_flag=True, hidden=True, expose_value=False)
@click.option("--force", "--hide-warnings", is_flag=True, hidden=True, expose_value=False)
@node_options
def run(
    connection: BlockingConnection,
    file: Path | None,
    variables: tuple[str, ...],
    environment: str | None,
    *,
    follow: FollowOptions,
) -> None:
    """Run a job from a YAML or JSON file.

    FILE may be - for standard input, and is that by default in a pipe. Prints the id of the job, waits until
    it has ended, and prints its output. Ctrl-C leaves the job running.
    """
    text = _read(file)
    if variables or environment:
        text = filled_in(text, variables_of(variables, environment, os.environ))
    job = _parsed(text, file).model_dump(mode="json", by_alias=True)
    submit_and_follow(connection, job, follow)


@click.command(cls=Command, examples=["job validate job.yaml"])
@_FILE
def validate(file: Path | None) -> None:
    """Check a job file.

    FILE may be - for standard input, and is that by default in a pipe. Lists every fault. No node is asked,
    so whether one has the engine and the inputs is not checked.
    """
    _parsed(_read(file), file)
    print_line("The job is valid.")


def _parsed(text: bytes, file: Path | None) -> JobSpec:
    """The job. Raises InvalidJob, which names the file."""
    from bacalhau_p2p.model.parsing import parse_job

    try:
        return parse_job(text)
    except InvalidJob as error:
        name = "standard input" if file is None or str(file) == "-" else str(file)
        raise InvalidJob(error.faults, file=name) from None


def _read(file: Path | None) -> bytes:
    """The file, up to one byte more than the parser accepts: the parser reports that it is too large."""
    if file is None and sys.stdin.isatty():
        raise click.UsageError("name a file, or - for standard input")
    if file is None or str(file) == "-":
        return sys.stdin.buffer.read(MAX_DOCUMENT + 1)
    with file.open("rb") as opened:
        return opened.read(MAX_DOCUMENT + 1)
