"""`logs`: what a job writes to stdout and stderr."""

from __future__ import annotations

import sys

import click

from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.cli.printing import OutputPrinter
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.model.logs import LogStream


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines of each stream."
)
@click.option("--execution", metavar="ID", default="", help="The execution whose output to show.")
@node_options
def logs(
    connection: BlockingConnection, job_id: str, tail: int | None, execution: str, *, follow: bool
) -> None:
    """Show what a job has written to stdout and stderr, while it runs and afterwards.

    ID may be a prefix of the id, as `list` shows it. What the job wrote to stdout goes to stdout, the rest to
    stderr. Shown is the latest execution, or one with a result. What an execution without a result wrote is
    kept for a day, up to 1 MiB of each stream.
    """
    printers = {LogStream.STDOUT: OutputPrinter(sys.stdout), LogStream.STDERR: OutputPrinter(sys.stderr)}
    for piece in connection.lines(calls.read_logs(job_id, follow=follow, tail=tail, execution=execution)):
        printers[piece.stream].write(piece.data)
