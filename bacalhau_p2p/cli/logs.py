"""`logs`: what a job writes to stdout and stderr."""

from __future__ import annotations

import sys

import click

from bacalhau_p2p.cli.completion import JOB_ID, complete_execution_id
from bacalhau_p2p.cli.job_view import id_of
from bacalhau_p2p.cli.node_away import said_patience
from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.cli.printing import OutputPrinter
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.model.logs import LogStream


@click.command()
@JOB_ID
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines of each stream."
)
@click.option(
    "--execution",
    metavar="ID",
    default="",
    shell_complete=complete_execution_id,
    help="The execution whose output to show.",
)
@node_options
def logs(
    connection: BlockingConnection, job_id: str, tail: int | None, execution: str, *, follow: bool
) -> None:
    """Show what a job has written to stdout and stderr, while it runs and afterwards.

    ID may be a prefix of the id, as `list` shows it. What the job wrote to stdout goes to stdout, the rest to
    stderr. Shown is the latest execution, or one with a result. What an execution without a result wrote is
    kept for a day, up to 1 MiB of each stream. --follow goes on after a restart of the node.
    """
    printers = {LogStream.STDOUT: OutputPrinter(sys.stdout), LogStream.STDERR: OutputPrinter(sys.stderr)}
    if follow:
        patience = said_patience()
        found = connection.call_patiently(calls.get_job(job_id), patience)
        pieces = connection.output(id_of(found), patience, tail=tail, execution=execution)
    else:
        pieces = connection.lines(calls.read_logs(job_id, follow=False, tail=tail, execution=execution))
    for piece in pieces:
        printers[piece.stream].write(piece.data)
