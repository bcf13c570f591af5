"""`events`: what happens to all jobs of the node."""

from __future__ import annotations

import time
from datetime import datetime

import click

from bacalhau_p2p.cli.completion import complete_job_id
from bacalhau_p2p.cli.event_printer import EventPrinter
from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.listing import HIDE_HEADER, LIST_FORMATS, output_format
from bacalhau_p2p.cli.node_away import said_patience
from bacalhau_p2p.cli.options import node_options, repeatable
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection

_EARLIEST_UNIX_TIME = 1e9
"""Numbers from here on are UNIX seconds, and smaller ones are seconds ago."""


@click.command(cls=Command, examples=["events --kind Failed --since 1h"])
@repeatable("--job", "jobs", metavar="JOB", shell_complete=complete_job_id, help="Only events of this job.")
@repeatable("-l", "--labels", metavar="SELECTOR", help="Only jobs whose labels match, such as a=b,!c.")
@repeatable("--kind", "kinds", metavar="KIND", help="Only events such as Failed or Ended.")
@click.option(
    "--since",
    metavar="TIME",
    show_default="now",
    help="Begin at a time, such as 10m (ago) or 2026-11-30T09:00.",
)
@click.option(
    "-f/-F",
    "--follow/--no-follow",
    default=True,
    show_default="follow",
    help="Go on until Ctrl-C.",
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
    """Show what happens to all jobs.

    A line has the job, the time, the event, the execution and its node, and what there is to say about it.
    With --output json, each event is a line. --no-follow shows the events that are kept.
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
