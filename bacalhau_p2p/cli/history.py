"""`history`: what happened to a job, and what happens to it."""

from __future__ import annotations

import time

import click

from bacalhau_p2p.cli.completion import JOB_ID
from bacalhau_p2p.cli.event_printer import EventPrinter
from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.listing import HIDE_HEADER, LIST_FORMATS, output_format
from bacalhau_p2p.cli.node_away import said_patience
from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection


@click.command(cls=Command)
@JOB_ID
@click.option("-f", "--follow", is_flag=True, help="Show what happens until the job has ended.")
@HIDE_HEADER
@output_format(*LIST_FORMATS)
@node_options
def history(
    connection: BlockingConnection, job_id: str, output: str, *, follow: bool, hide_header: bool
) -> None:
    """Show what happened to a job.

    JOB is an id, the beginning of one, or a name. A line has the time, the event, the execution and its
    node, and what there is to say about it. With --output json, each event is a line.
    """
    printer = EventPrinter(output, hide_header=hide_header)
    patience, after, wait = said_patience(), 0, 0.0
    while True:
        asked_at = time.monotonic()
        call = calls.list_events(job_id, after=after, wait=wait)
        events, ended = connection.call_patiently(call, patience) if follow else connection.call(call)
        for event in events:
            printer.show(event)
            after = event["SeqNum"]
        if ended or not (follow or events):
            return
        if not events:
            time.sleep(calls.pause_between_polls(wait, time.monotonic() - asked_at))
        wait = calls.LONG_POLL if follow else 0.0
