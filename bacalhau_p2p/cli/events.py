"""`events`: what happens to all jobs of the node."""

from __future__ import annotations

import time
from datetime import datetime

import click

from bacalhau_p2p.cli.completion import complete_job_id
from bacalhau_p2p.cli.event_printer import EventPrinter
from bacalhau_p2p.cli.listing import HIDE_HEADER, LIST_FORMATS, output_format
from bacalhau_p2p.cli.node_away import said_patience
from bacalhau_p2p.cli.options import node_options, repeatable
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection

_EARLIEST_UNIX_TIME = 1e9
"""Numbers from here on are UNIX seconds, and smaller ones are seconds ago."""


@click.command()
@repeatable("--job", "jobs", metavar="ID", shell_complete=complete_job_id, help="Only events of this job.")
@repeatable("-l", "--labels", metavar="SELECTOR", help="Only of jobs whose labels match: a=b,c!=d,!e.")
@repeatable("--kind", "kinds", metavar="KIND", help="Only events of this kind, such as Failed or Ended.")
@click.option(
    "--since",
    metavar="TIME",
    help="Begin with this time, such as 10m (ago), 2026-11-30T09:00 or UNIX seconds.",
)
@click.option(
    "-f/-F",
    "--follow/--no-follow",
    default=True,
    help="Go on until Ctrl-C, or print what there is. [default: go on]",
)
@HIDE_HEADER
@output_format(*LIST_FORMATS)
@node_options
def events(
    connection: BlockingConnection,
    *,
    jobs: tuple[str, ...],
    labels: tuple[str, ...],
    kinds: tuple[str, ...],
    since: str | None,
    follow: bool,
    hide_header: bool,
    output: str,
) -> None:
    """Show what happens to all jobs from now on, or from --since on.

    A line has the job, the time, the event, the execution and its node, and the reason. With --output json,
    each event is a line; id is its place. Without --follow and --since all events are shown that are kept.
    --follow goes on after a restart of the node.
    """
    wanted = calls.EventFilter(jobs=jobs, labels=labels, kinds=kinds)
    start = None if since is None else _moment(since)
    after = 0 if start is None and not follow else None
    printer, patience = EventPrinter(output, of_all=True, hide_header=hide_header), said_patience()
    while True:
        asked_at, wait = time.monotonic(), calls.LONG_POLL if follow and after is not None else 0.0
        call = calls.list_all_events(wanted, after=after, since=start, wait=wait)
        found, place = connection.call_patiently(call, patience) if follow else connection.call(call)
        for event in found:
            printer.show(event)
        if not follow and not found and place == after:
            return
        after = place
        if not found and wait:
            time.sleep(calls.pause_between_polls(wait, time.monotonic() - asked_at))


def _moment(text: str) -> float:
    """UNIX seconds. Raises click.BadParameter."""
    from bacalhau_p2p.model.quantities import parse_seconds

    try:
        seconds = parse_seconds(text)
        return seconds if seconds >= _EARLIEST_UNIX_TIME else time.time() - seconds
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a time such as 2026-11-30T09:00 nor a duration such as 10m",
            param_hint="--since",
        ) from None
