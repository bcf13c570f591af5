"""Submits a job, waits until it has ended, and shows or fetches its results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bacalhau_p2p.cli.error_report import INTERRUPTED
from bacalhau_p2p.cli.following import Shown, follow_job
from bacalhau_p2p.cli.job_view import (
    ENDED,
    JSON,
    exit_codes,
    first_output,
    published_results,
    require_completed,
    short_id,
    state_of,
)
from bacalhau_p2p.cli.listing import print_yaml
from bacalhau_p2p.cli.node_away import said_patience
from bacalhau_p2p.cli.options import FollowOptions
from bacalhau_p2p.cli.printing import print_line, print_output
from bacalhau_p2p.cli.terminal import is_terminal
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection

FIRST_POLL = 1.0
"""Seconds of the first long poll. Polls get longer, so that the first changes of state are seen soon."""

_FAILED = frozenset({"Failed", "Stopped"})
"""States whose message is the error of the command."""


def submit_and_follow(
    connection: BlockingConnection, job: JSON, options: FollowOptions, *, left_out: Sequence[str] = ()
) -> None:
    """Submit a job and follow it as the flags say. Raises JobFailed if it fails while we wait.

    `left_out` is what is missing in inputs that were added for it.

    The job's id and stdout go to stdout, everything about it to stderr.
    """
    if options.dry_run:
        return _print_job(job)
    return _follow(connection, calls.submit_job(job, left_out=left_out), options)


def rerun_and_follow(connection: BlockingConnection, job_id: str, options: FollowOptions) -> None:
    """Submit a job once more, and follow it as by `submit_and_follow`."""
    if options.dry_run:
        return _print_job(connection.call(calls.get_job(job_id)))
    return _follow(connection, calls.rerun_job(job_id), options)


def _follow(connection: BlockingConnection, submission: calls.Call[str], options: FollowOptions) -> None:
    if options.download and options.output_dir:
        from bacalhau_p2p.cli.results import check_output_dir

        check_output_dir(Path(options.output_dir))  # before the job runs in vain
    job_id = connection.call(submission)
    print_line(job_id)  # at once, so that the job is not lost if waiting fails
    if not options.waits:
        return
    shown: Shown | None = None
    try:
        if options.follow or (not options.id_only and is_terminal(sys.stderr)):
            shown = follow_job(connection, job_id)
        ended, executions = wait_for_job(connection, job_id, quiet=options.id_only or shown is not None)
    except KeyboardInterrupt:
        short = short_id(job_id)
        print_line("", err=True)
        print_line(f"Job {short} continues; to stop it: bacalhau-p2p stop {short}", err=True)
        click.get_current_context().exit(INTERRUPTED)
    require_completed(ended, executions)
    if options.download:
        from bacalhau_p2p.cli.results import Layout, fetch_results

        layout = Layout.MERGED if options.merge else Layout.DISTINCT
        folder, quiet = options.output_dir, options.id_only
        fetch_results(connection, ended, executions, folder, quiet=quiet, layout=layout)
        print_exit_codes(executions)
    elif not options.id_only:
        _print_output(job_id, executions, shown or Shown())
    if status := exit_status(executions):
        click.get_current_context().exit(status)
    return


def exit_status(executions: Sequence[JSON]) -> int:
    """That of the program, as a shell has it: what does not fit into a byte is 255. Of several, as of
    partitions, the first that is not 0."""
    code = next(filter(None, exit_codes(executions)), 0)
    return min(code, 255) if code >= 0 else 255


def wait_for_job(
    connection: BlockingConnection,
    job_id: str,
    *,
    quiet: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[JSON, list[JSON]]:
    """The job once it has ended, with its executions. Prints each change of its state unless `quiet`.

    A node that restarts meanwhile is asked again.
    """
    patience = said_patience(from_start=True)
    shown, poll = "", calls.LONG_POLL if quiet else FIRST_POLL
    while True:
        asked_at = clock()
        call = calls.get_job_with_executions(job_id, wait=poll)
        job, executions = connection.call_patiently(call, patience)
        state, message = state_of(job)
        if not quiet and state != shown:
            print_line(f"  {state}{f': {message}' if message and state not in _FAILED else ''}", err=True)
            shown = state
        if state in ENDED:
            return job, executions
        sleep(calls.pause_between_polls(poll, clock() - asked_at))
        poll = min(2 * poll, calls.LONG_POLL)


def _print_job(job: JSON) -> None:
    """The job as YAML, in the normal form in which it would be submitted. Raises InvalidJob."""
    from bacalhau_p2p.model.parsing import job_from_mapping

    print_yaml(job_from_mapping(job).model_dump(mode="json", by_alias=True))


def _print_output(job_id: str, executions: Sequence[JSON], shown: Shown) -> None:
    """The beginning of what the job wrote, unless it was shown, and how to get the rest."""
    output = first_output(executions)
    if output is not None:
        if not shown.executions:
            _print_stream(output.get("Stdout"), err=False)
            _print_stream(output.get("stderr"), err=True)
        print_exit_codes(executions)
        if output.get("StdoutTruncated") or output.get("StderrTruncated"):
            if not shown.complete:
                print_line("(output truncated; the results have all of it)", err=True)
        elif shown.executions and not shown.complete:
            print_line("(output incomplete; the results have all of it)", err=True)
    short = short_id(job_id)
    print_line("", err=True)
    for cid in published_results(executions):
        print_line(f"Result: ipfs://{cid}", err=True)
    print_line(f"To get the results:  bacalhau-p2p get {short}", err=True)
    print_line(f"To see the details:  bacalhau-p2p describe {short}", err=True)


def print_exit_codes(executions: Sequence[JSON]) -> None:
    """The exit code of the job, unless it is 0; those of all executions where they differ."""
    codes = exit_codes(executions)
    if any(codes):
        several = len(set(codes)) > 1
        listed = ", ".join(map(str, codes if several else codes[:1]))
        print_line(f"exit code{'s' if several else ''}: {listed}", err=True)


def _print_stream(text: object, *, err: bool) -> None:
    if isinstance(text, str) and text:
        print_output(text, err=err)
