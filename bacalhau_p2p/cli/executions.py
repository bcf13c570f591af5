"""`job executions` and `job rerun`."""

from __future__ import annotations

from datetime import datetime

import click

from bacalhau_p2p.cli.completion import JOB_ID
from bacalhau_p2p.cli.formatting import time_of_day, whole_time
from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.job_view import JSON, cid_of_text, id_of, partition_of, short_id, state_of_execution
from bacalhau_p2p.cli.listing import HIDE_HEADER, LIST_FORMATS, WIDE, output_format, print_list
from bacalhau_p2p.cli.options import FollowOptions, SubmitCommand, follow_options, node_options
from bacalhau_p2p.cli.submit import rerun_and_follow
from bacalhau_p2p.cli.table import Column
from bacalhau_p2p.cli.usage import Number
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection


@click.command(cls=Command)
@JOB_ID
@click.option(
    "--limit",
    metavar="N",
    type=Number(1, 1000),
    default=100,
    show_default=True,
    help="Number of executions.",
)
@click.option(
    "--order-by",
    metavar="FIELD",
    type=click.Choice(["created_at", "modified_at", "id", "state"]),
    help="created_at, modified_at, id or state.",
)
@click.option("--reverse", "--order-reversed", is_flag=True, help="Reverse the order.")
@HIDE_HEADER
@WIDE
@output_format(*LIST_FORMATS)
@node_options
def executions(
    connection: BlockingConnection,
    job_id: str,
    *,
    limit: int,
    order_by: str | None,
    reverse: bool,
    hide_header: bool,
    wide: bool,
    output: str,
) -> None:
    """List the executions of a job.

    JOB is an id, the beginning of one, or a name. An execution is a run on one node, or the bid of a
    node for it. Those that were accepted come first.
    """
    call = calls.list_executions(job_id, limit=limit, order_by=order_by or "", reverse=reverse)
    found = connection.call(call)
    output = "wide" if wide and output == "table" else output
    print_list(
        found,
        _columns(datetime.now(), divided=any(map(partition_of, found))),
        output,
        id_of=id_of,
        hide_header=hide_header,
    )


@click.command(cls=SubmitCommand, examples=["job rerun --download 095be3fd"])
@JOB_ID
@follow_options
@node_options
def rerun(connection: BlockingConnection, job_id: str, *, follow: FollowOptions) -> None:
    """Run a job once more.

    JOB is an id, the beginning of one, or a name. Prints the id of the new job, waits until it has ended, and
    prints its output. Ctrl-C leaves the job running.
    """
    rerun_and_follow(connection, job_id, follow)


def _columns(now: datetime, *, divided: bool) -> list[Column]:
    return [
        *(
            _time_column(header, key, now)
            for header, key in (("CREATED", "CreateTime"), ("MODIFIED", "ModifyTime"))
        ),
        Column("ID", lambda e: short_id(id_of(e)), id_of),
        Column("NODE", lambda e: _node_of(e)[-8:], _node_of),
        *([Column("PARTITION", partition_of)] if divided else []),
        Column("STATE", state_of_execution, is_state=True),
        Column("EXIT", _exit_code),
        Column("USED", _used, only_wide=True),
        Column("RESULT", lambda e: cid_of_text(e.get("ResultCID")), least=0),
        Column("MESSAGE", lambda e: str((e.get("ComputeState") or {}).get("Message") or ""), only_wide=True),
    ]


def _used(execution: JSON) -> str:
    from bacalhau_p2p.model.usage import Usage

    return str(Usage.from_wire(execution["Usage"])) if execution.get("Usage") else ""


def _node_of(execution: JSON) -> str:
    return str(execution.get("NodeID", ""))


def _exit_code(execution: JSON) -> str:
    output = execution.get("RunOutput")
    return str(output.get("ExitCode", "")) if isinstance(output, dict) else ""


def _time_column(header: str, key: str, now: datetime) -> Column:
    return Column(header, lambda e: time_of_day(e.get(key), now), lambda e: whole_time(e.get(key)))
