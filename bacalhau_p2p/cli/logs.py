"""`logs`: what a job writes to stdout and stderr."""

from __future__ import annotations

import sys

import click

from bacalhau_p2p.cli.completion import JOB_ID, complete_execution_id
from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.job_view import id_of, state_of
from bacalhau_p2p.cli.node_away import said_patience
from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.cli.printing import OutputPrinter, print_line
from bacalhau_p2p.cli.usage import Number
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.model.logs import LogStream

_WAITING = frozenset({"Pending", "Queued"})
"""States of a job in which it writes nothing yet, which is told to those who wait for it."""


@click.command(cls=Command, examples=["logs --follow 095be3fd"])
@JOB_ID
@click.option("-f", "--follow", is_flag=True, help="Show the output as it comes.")
@click.option(
    "--tail",
    type=Number(min=0),
    metavar="N",
    show_default="all",
    help="Number of lines from the end.",
)
@click.option(
    "--execution",
    metavar="ID",
    default="",
    shell_complete=complete_execution_id,
    help="Show the output of this execution.",
)
@node_options
def logs(
    connection: BlockingConnection, job_id: str, tail: int | None, execution: str, *, follow: bool
) -> None:
    """Show the output of a job.

    JOB is an id, the beginning of one, or a name. Its stdout goes to stdout, and its stderr to stderr.
    Of several executions, one with a result is shown, or else the latest. The output of an execution without
    a result is kept for a day, up to 1 MiB of each stream.
    """
    printers = {LogStream.STDOUT: OutputPrinter(sys.stdout), LogStream.STDERR: OutputPrinter(sys.stderr)}
    if follow:
        patience = said_patience()
        found = connection.call_patiently(calls.get_job(job_id), patience)
        state, message = state_of(found)
        if state in _WAITING:
            print_line(f"  {state}{f': {message}' if message else ''}", err=True)
        pieces = connection.output(id_of(found), patience, tail=tail, execution=execution)
    else:
        pieces = connection.lines(calls.read_logs(job_id, follow=False, tail=tail, execution=execution))
    for piece in pieces:
        printers[piece.stream].write(piece.data)
