"""`list`, `describe`, `get` and `cancel`: submitted jobs and their results."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from bacalhau_p2p.cli.formatting import exact_time, shortened, table, time_of_day
from bacalhau_p2p.cli.job_view import (
    ENDED,
    JSON,
    cid_of_text,
    executions_of,
    id_of,
    published_results,
    require_completed,
    short_id,
    state_of,
    summary,
    timeline_entry,
    verified,
)
from bacalhau_p2p.cli.options import MAX_SIZE, OUTPUT_DIR, node_options, output_format
from bacalhau_p2p.cli.printing import print_line, print_text
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection

HEADER = ("CREATED", "ID", "JOB", "STATE", "VERIFIED", "PUBLISHED")
_SUMMARY_WIDTH = 24
_LINE_WIDTH = 200
"""Characters after which a long text continues on the next line."""


@click.command("list")
@click.option("--id-filter", metavar="ID", default="", help="List only jobs whose id starts with ID.")
@click.option(
    "-n", "--number", type=click.IntRange(1, 1000), default=10, show_default=True, help="Number of jobs."
)
@output_format("table", "json")
@click.option("--wide", is_flag=True, help="Do not shorten columns.")
@node_options
def list_jobs(connection: BlockingConnection, id_filter: str, number: int, output: str, wide: bool) -> None:
    """List the latest jobs, newest first."""
    jobs = connection.call(calls.list_jobs(limit=number, id_prefix=id_filter, executions=True))
    if output == "json":
        print_text(json.dumps(jobs, indent=2))
        return
    now = datetime.now()
    rows = [_row(job, now, wide=wide) for job in jobs]
    for line in table([HEADER, *rows]):
        print_line(line)


@click.command()
@click.argument("job_id", metavar="ID")
@output_format("yaml", "json")
@node_options
def describe(connection: BlockingConnection, job_id: str, output: str) -> None:
    """Show a job, its state, its executions and its history.

    ID may be a prefix of the id, as `list` shows it.
    """
    job, executions = connection.call(calls.get_job_with_executions(job_id))
    events, _ = connection.call(calls.list_events(id_of(job)))
    if output == "json":
        whole = {"Job": job, "Executions": {"Items": executions}, "History": {"Items": events}}
        print_text(json.dumps(whole, indent=2))
        return
    import yaml

    readable = {
        "Job": _readable(job),
        "Executions": [_readable(execution) for execution in executions],
        "History": [timeline_entry(event) for event in events],
    }
    print_text(yaml.safe_dump(readable, sort_keys=False, allow_unicode=True, width=_LINE_WIDTH))


@click.command()
@click.argument("wanted", metavar="ID|CID[/PATH]")
@OUTPUT_DIR
@click.option(
    "--all", "each", is_flag=True, help="Write one folder per execution, even if results are equal."
)
@click.option("--raw", is_flag=True, help="Write one folder per CID, even if there is only one.")
@MAX_SIZE
@node_options
def get(
    connection: BlockingConnection,
    wanted: str,
    output_dir: str | None,
    max_size: int,
    *,
    each: bool,
    raw: bool,
) -> None:
    """Fetch the results of a job, or the content of any CID, and verify every block against its CID.

    ID may be a prefix of a job's id, as `list` shows it. Equal results of several executions are written
    once, different ones side by side. Content of a CID is written to a file or folder named after it.
    The folder may be in use, but nothing in it is overwritten. Symlinks are written if they stay inside. More
    than --max-size is written only after you confirm it. After an interruption, run the command again: the
    node keeps what it has received.
    """
    from bacalhau_p2p.cli.results import (
        Layout,
        content_path_or_none,
        fetch_content,
        fetch_results,
    )

    if (content := content_path_or_none(wanted)) is not None:
        if each or raw:
            raise click.UsageError("--all and --raw apply to the results of jobs, not to CIDs")
        fetch_content(connection, *content, output_dir, max_size=max_size)
        return
    if each and raw:
        raise click.UsageError("--all and --raw exclude each other")
    job, executions = connection.call(calls.get_job_with_executions(wanted))
    require_completed(job)
    layout = Layout.EXECUTIONS if each else Layout.CIDS if raw else Layout.MERGED
    fetch_results(connection, job, executions, output_dir, quiet=False, layout=layout, max_size=max_size)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--reason", default="cancelled by the user", show_default=True, help="Reason to record in the job."
)
@node_options
def cancel(connection: BlockingConnection, job_id: str, reason: str) -> None:
    """Stop a job.

    ID may be a prefix of the id, as `list` shows it.
    """
    job = connection.call(calls.get_job(job_id))
    full_id = id_of(job)
    state, _ = state_of(job)
    if state in ENDED:
        print_line(f"Job '{short_id(full_id)}' has already ended: {state.lower()}.")
        return
    connection.call(calls.cancel_job(full_id, reason=reason))
    print_line(f"Job '{short_id(full_id)}' cancelled.")


def _row(job: JSON, now: datetime, *, wide: bool) -> tuple[str, ...]:
    job_id, what, executions = id_of(job), summary(job), executions_of(job)
    cid = next(iter(published_results(executions)), "")
    return (
        time_of_day(job.get("CreateTime"), now),
        job_id if wide else short_id(job_id),
        what if wide else shortened(what, _SUMMARY_WIDTH),
        state_of(job)[0],
        verified(job, executions),
        (f"ipfs://{cid}" if wide else f"ipfs://{cid[:7]}...") if cid else "",
    )


def _readable(item: Any) -> Any:
    """With times as text, without empty values, and only what parses as CIDs."""
    if isinstance(item, list):
        return [_readable(value) for value in item]
    if not isinstance(item, dict):
        return item
    shown = {
        key: _CONVERTED[key](value) if key in _CONVERTED else _readable(value) for key, value in item.items()
    }
    if isinstance(shown.get("State"), str):
        shown.pop("StateType", None)  # the number of this state
    return {key: value for key, value in shown.items() if value not in (None, "", [], {})}


def _cid_or_remark(value: Any) -> str:
    return cid_of_text(value) or "not a CID" if value else ""


_CONVERTED: dict[str, Callable[[Any], object]] = {
    "CreateTime": exact_time,
    "ModifyTime": exact_time,
    "CID": _cid_or_remark,
    "ResultCID": _cid_or_remark,
}
