"""`history`: what happened to a job, and what happens to it."""

from __future__ import annotations

import json
import time

import click

from bacalhau_p2p.cli.completion import JOB_ID
from bacalhau_p2p.cli.job_view import timeline_entry
from bacalhau_p2p.cli.listing import output_format
from bacalhau_p2p.cli.options import node_options
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection


@click.command()
@JOB_ID
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@output_format("table", "json")
@node_options
def history(connection: BlockingConnection, job_id: str, output: str, *, follow: bool) -> None:
    """Show what happened to a job, in order.

    A line has the time, the event, the execution and its node, and the reason. ID may be a prefix of the
    id, as `list` shows it. With --output json, each event is a line.
    """
    after, wait = 0, 0.0
    while True:
        asked_at = time.monotonic()
        events, ended = connection.call(calls.list_events(job_id, after=after, wait=wait))
        for event in events:
            print_line(json.dumps(event) if output == "json" else timeline_entry(event))
            after = event["SeqNum"]
        if ended or not (follow or events):
            return
        if not events:
            time.sleep(calls.pause_between_polls(wait, time.monotonic() - asked_at))
        wait = calls.LONG_POLL if follow else 0.0
