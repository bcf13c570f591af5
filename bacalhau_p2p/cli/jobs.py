"""`job list`, `describe`, `get` and `stop`: submitted jobs and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from bacalhau_p2p.cli.completion import JOB_ID, complete_job_id, complete_job_or_pin
from bacalhau_p2p.cli.formatting import NANOSECONDS, exact_time, time_of_day, whole_time
from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.job_view import (
    ENDED,
    JSON,
    cid_of_text,
    executions_of,
    id_of,
    name_of,
    nodes_of,
    partition_of,
    published_results,
    require_completed,
    short_id,
    state_of,
    summary,
    timeline_entry,
    verified,
)
from bacalhau_p2p.cli.listing import (
    HIDE_HEADER,
    ITEM_FORMATS,
    LIST_FORMATS,
    WIDE,
    output_format,
    print_json,
    print_list,
    print_yaml,
)
from bacalhau_p2p.cli.options import MAX_SIZE, OUTPUT_DIR, node_options, repeatable, with_options
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.table import Column
from bacalhau_p2p.cli.usage import Number
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.errors import JobEnded
from bacalhau_p2p.model.quantities import duration

_PAGE = 1000
"""Jobs that are asked for at once at most."""

_LIST_FLAGS = [
    click.option(
        "--id-filter",
        metavar="ID",
        default="",
        shell_complete=complete_job_id,
        help="Only jobs whose id starts with ID.",
    ),
    repeatable("-l", "--labels", metavar="SELECTOR", help="Only jobs whose labels match, such as a=b,!c."),
    click.option(
        "--state",
        type=click.Choice(
            ["Pending", "Queued", "Running", "Completed", "Failed", "Stopped"], case_sensitive=False
        ),
        metavar="STATE",
        help="Only pending, queued, running, completed, failed or stopped jobs.",
    ),
    click.option("--namespace", metavar="NAME", default="", help="Only jobs of this namespace."),
    click.option(
        "-n",
        "--limit",
        "--number",
        "limit",
        metavar="N",
        type=Number(1, 10_000),
        default=10,
        show_default=True,
        help="Number of jobs.",
    ),
    click.option(
        "--order-by",
        metavar="FIELD",
        type=click.Choice(["created_at", "modified_at", "id"]),
        show_default="newest first",
        help="created_at, modified_at or id.",
    ),
    click.option("--reverse", "--order-reversed", is_flag=True, help="Reverse the order of --order-by."),
    click.option("--next-token", hidden=True, default="", help="Of a page of the API."),
    click.option("--all", "every", is_flag=True, hidden=True, expose_value=False),
    HIDE_HEADER,
    WIDE,
    output_format(*LIST_FORMATS),
]


@click.command("list", cls=Command, examples=["list --state failed -n 100"])
@with_options(_LIST_FLAGS)
@node_options
def list_jobs(
    connection: BlockingConnection, *, output: str, wide: bool, hide_header: bool, **flags: Any
) -> None:
    """List jobs.

    The newest come first. A table on a terminal shows what fits; with --output wide, nothing is cut.
    """
    jobs = _listed(connection, executions=output != "id", **flags)
    output = "wide" if wide and output == "table" else output
    print_list(jobs, _columns(datetime.now()), output, id_of=id_of, hide_header=hide_header)


def _listed(connection: BlockingConnection, *, limit: int, **wanted: Any) -> Iterator[JSON]:
    """So many jobs, from as many pages as that takes."""
    pages = _pages(connection, limit=limit, **wanted)
    if limit > _PAGE:
        import gc

        from bacalhau_p2p.cli.read_ahead import read_ahead

        gc.disable()  # a fifth of the time, and next to nothing of so many jobs is garbage
        pages = read_ahead(pages)
    for page in pages:
        yield from page


def _pages(
    connection: BlockingConnection,
    *,
    executions: bool,
    limit: int,
    next_token: str,
    order_by: str | None,
    reverse: bool,
    id_filter: str,
    **wanted: Any,
) -> Iterator[list[JSON]]:
    order: JSON = {"order_by": order_by, "reverse": reverse} if order_by else {}
    given = {name: value for name, value in wanted.items() if value}
    chosen = calls.JobFilter(**{"id_prefix": id_filter, **order, **given})
    while True:
        page = calls.page_of_jobs(
            chosen, limit=min(limit, _PAGE), next_token=next_token, executions=executions
        )
        found, next_token = connection.call(page)
        yield found
        limit -= len(found)
        if not next_token or limit <= 0:
            return


@click.command(cls=Command)
@JOB_ID
@output_format(*ITEM_FORMATS)
@node_options
def describe(connection: BlockingConnection, job_id: str, output: str) -> None:
    """Show a job with its executions and its history.

    JOB is an id, the beginning of one, or a name.
    """
    job, executions = connection.call(calls.get_job_with_executions(job_id))
    if output not in ("json", "yaml"):
        listed = [{**job, "Executions": {"Items": executions}}]
        print_list(listed, _columns(datetime.now()), output, id_of=id_of)
        return
    events, _ = connection.call(calls.list_events(id_of(job)))
    if output == "json":
        whole = {"Job": job, "Executions": {"Items": executions}, "History": {"Items": events}}
        print_json(whole)
        return
    readable = {
        "Job": _readable(job),
        "Executions": [_readable(_told(execution)) for execution in executions],
        "History": [timeline_entry(event) for event in events],
    }
    print_yaml(readable)


@click.command(cls=Command, examples=["get 095be3fd", "get --output-dir texts bafybei.../texts"])
@click.argument("wanted", metavar="JOB|CID[/PATH]", shell_complete=complete_job_or_pin)
@OUTPUT_DIR
@click.option(
    "--all", "all", is_flag=True, help="Write a folder for each execution, even if results are equal."
)
@click.option("--raw", is_flag=True, help="Write a folder for each CID, even if there is only one.")
@click.option("--failed", is_flag=True, help="Get what failed executions left; needs --keep-failed-results.")
@click.option(
    "--merge",
    is_flag=True,
    help="Write the results of all partitions, or of all nodes of an ops job, to one folder.",
)
@MAX_SIZE
@node_options
def get(
    connection: BlockingConnection,
    wanted: str,
    output_dir: str | None,
    max_size: int,
    **flags: bool,
) -> None:
    """Download the results of a job, or content by its CID.

    JOB is an id, the beginning of one, or a name. Every block is checked against its CID. Equal
    results of several executions are written once, different ones side by side. Nothing is overwritten.
    After an interruption, run the command again: the node keeps what it has received.
    """
    from bacalhau_p2p.cli.results import (
        Layout,
        content_path_or_none,
        fetch_content,
        fetch_failed,
        fetch_results,
    )
    from bacalhau_p2p.cli.submit import print_exit_codes

    flag = _one_of(flags)
    if (content := content_path_or_none(wanted)) is not None:
        if flag:
            raise click.UsageError(f"--{flag} is for the results of jobs, not for CIDs")
        fetch_content(connection, *content, output_dir, max_size=max_size)
        return
    job, executions = connection.call(calls.get_job_with_executions(wanted))
    if flag == "failed":
        fetch_failed(connection, job, executions, output_dir, max_size=max_size)
        return
    incomplete = state_of(job)[0] == "Failed" and published_results(executions)
    if not incomplete:
        require_completed(job)
    layouts = {"all": Layout.EXECUTIONS, "raw": Layout.CIDS, "merge": Layout.MERGED}
    layout = layouts.get(flag, Layout.DISTINCT)
    fetch_results(connection, job, executions, output_dir, quiet=False, layout=layout, max_size=max_size)
    print_exit_codes(executions)
    if incomplete:  # what there is has been written, and what is missing is the error
        require_completed(job)


def _one_of(flags: Mapping[str, bool]) -> str:
    """The flag that is given; empty if none is. Raises click.UsageError for several."""
    given = [name for name, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other")
    return given[0] if given else ""


@click.command(cls=Command)
@JOB_ID
@click.option(
    "--reason",
    metavar="TEXT",
    default="cancelled by the user",
    show_default=True,
    help="Reason that the job shows.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@node_options
def stop(connection: BlockingConnection, job_id: str, reason: str, *, quiet: bool) -> None:
    """Stop a job.

    JOB is an id, the beginning of one, or a name.
    """
    job = connection.call(calls.get_job(job_id))
    full_id = id_of(job)
    state, _ = state_of(job)
    said = f"Job '{short_id(full_id)}' stopped."
    if state in ENDED:
        said = f"Job '{short_id(full_id)}' has already ended: {state.lower()}."
    else:
        with suppress(JobEnded):  # since we asked
            connection.call(calls.cancel_job(full_id, reason=reason))
    if not quiet:
        print_line(said)


def _columns(now: datetime) -> list[Column]:
    return [
        Column(
            "CREATED",
            lambda job: time_of_day(job.get("CreateTime"), now),
            lambda job: whole_time(job.get("CreateTime")),
        ),
        Column("ID", lambda job: short_id(id_of(job)), id_of),
        Column("NAME", name_of, least=12),
        Column("STATE", lambda job: state_of(job)[0], is_state=True),
        Column("TIME", lambda job: _run_time(job, now)),
        Column("NODES", lambda job: _nodes(job, short=True), lambda job: _nodes(job, short=False)),
        Column("VERIFIED", lambda job: verified(job, executions_of(job))),
        Column("JOB", summary, least=16),
        Column("PUBLISHED", _published, least=0),
    ]


def _published(job: JSON) -> str:
    cid = next(iter(published_results(executions_of(job))), "")
    return f"ipfs://{cid}" if cid else ""


def _run_time(job: JSON, now: datetime) -> str:
    """How long a job took, or has taken so far."""
    created, modified = job.get("CreateTime"), job.get("ModifyTime")
    if not isinstance(created, int) or not isinstance(modified, int):
        return ""
    end = modified / NANOSECONDS if state_of(job)[0] in ENDED else now.timestamp()
    return duration(end - created / NANOSECONDS)


def _nodes(job: JSON, *, short: bool) -> str:
    """The nodes that run a job, or ran it: in short the first one, and how many more there are."""
    nodes = list(dict.fromkeys(nodes_of(executions_of(job))))
    if not short:
        return " ".join(nodes)
    more = f" +{len(nodes) - 1}" if len(nodes) > 1 else ""
    return nodes[0][-8:] + more if nodes else ""


def _told(execution: JSON) -> JSON:
    """What people want to know of an execution: its partition only if the job has several."""
    hidden = {"Slot"} if partition_of(execution) else {"Slot", "PartitionIndex"}
    return {key: value for key, value in execution.items() if key not in hidden}


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


def _usage(value: Any) -> dict[str, object]:
    """What an execution used, with bytes as text for people."""
    from bacalhau_p2p.model.quantities import format_bytes

    if not isinstance(value, dict):
        return {}
    return {
        key: round(amount, 3)
        if isinstance(amount, float)
        else amount
        if key == "CPUSeconds" or not isinstance(amount, int)
        else format_bytes(amount)
        for key, amount in value.items()
    }


_CONVERTED: dict[str, Callable[[Any], object]] = {
    "CreateTime": exact_time,
    "ModifyTime": exact_time,
    "CID": _cid_or_remark,
    "ResultCID": _cid_or_remark,
    "Usage": _usage,
}
