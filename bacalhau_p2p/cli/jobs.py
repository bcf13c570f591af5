"""`list`, `describe`, `get` and `cancel`: jobs that were submitted."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from bacalhau_p2p.cli.connection import JSON, Connection, items_of
from bacalhau_p2p.cli.options import OUTPUT_DIR, node_options
from bacalhau_p2p.cli.submission import (
    ENDED,
    Layout,
    content_or_none,
    fetch_content,
    fetch_results,
    published_results,
    require_completed,
    short_id,
    state_of,
)

HEADER = ("CREATED", "ID", "JOB", "STATE", "VERIFIED", "PUBLISHED")
_WIDTH = 24
_NANOSECONDS = 1_000_000_000


@click.command("list")
@click.option("--id-filter", metavar="ID", default="", help="Only jobs whose id begins so.")
@click.option("-n", "--number", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
)
@click.option("--wide", is_flag=True, help="Shorten nothing.")
@node_options
def list_jobs(connection: Connection, id_filter: str, number: int, output: str, wide: bool) -> None:
    """Show the latest jobs, newest first."""
    jobs = connection.jobs(limit=number, id_prefix=id_filter)
    if output == "json":
        click.echo(json.dumps(jobs, indent=2))
        return
    rows = [_row(job, _executions(connection, job), wide=wide) for job in jobs]
    for line in table([HEADER, *rows]):
        click.echo(line)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to print."
)
@node_options
def describe(connection: Connection, job_id: str, output: str) -> None:
    """Show all about one job: what it is, its state, and what became of each execution.

    ID may be the beginning of an id, as `list` shows it.
    """
    job, executions = connection.job(job_id)
    if output == "json":
        click.echo(json.dumps({"Job": job, "Executions": {"Items": executions}}, indent=2))
        return
    import yaml

    readable = {"Job": _readable(job), "Executions": [_readable(execution) for execution in executions]}
    click.echo(yaml.safe_dump(readable, sort_keys=False, allow_unicode=True), nl=False)


@click.command()
@click.argument("wanted", metavar="ID|CID[/PATH]")
@OUTPUT_DIR
@click.option("--all", "each", is_flag=True, help="One folder an execution, equal or not.")
@click.option("--raw", is_flag=True, help="One folder a CID, even when there is just one.")
@node_options
def get(connection: Connection, wanted: str, output_dir: str | None, each: bool, raw: bool) -> None:
    """Fetch the results of a job, or the content of any CID: every block is checked against its CID.

    ID may be the beginning of a job's id, as `list` shows it. Several executions that agree give one
    result; those that do not lie side by side. Content of a CID is written to a file or folder of its
    own name. Nothing that exists is overwritten. When it is interrupted, call it again: what the node
    has by then need not come again.
    """
    if (place := content_or_none(wanted)) is not None:
        if each or raw:
            raise click.UsageError("--all and --raw are for the results of jobs")
        fetch_content(connection, place, output_dir)
        return
    if each and raw:
        raise click.UsageError("--all gives a folder an execution, --raw one a CID: choose one of them")
    job, executions = connection.job(wanted)
    require_completed(job)
    layout = Layout.EXECUTIONS if each else Layout.CIDS if raw else Layout.MERGED
    fetch_results(connection, job, executions, output_dir, quiet=False, layout=layout)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--reason", default="cancelled by its user", show_default=True, help="To be seen in the job.")
@node_options
def cancel(connection: Connection, job_id: str, reason: str) -> None:
    """Stop a job.

    ID may be the beginning of an id, as `list` shows it.
    """
    job, _ = connection.job(job_id)
    found = str(job.get("ID", job_id))
    state, _ = state_of(job)
    if state in ENDED:
        click.echo(f"Job '{short_id(found)}' has {state.lower()} already.")
        return
    connection.cancel(found, reason)
    click.echo(f"Job '{short_id(found)}' is cancelled.")


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        " " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(job: JSON, executions: list[JSON], *, wide: bool) -> tuple[str, ...]:
    job_id = str(job.get("ID", ""))
    what = summary(job)
    cid = next(iter(published_results(executions)), "")
    return (
        created(job, datetime.now()),
        job_id if wide else short_id(job_id),
        what if wide else shortened(what),
        state_of(job)[0],
        verified(job, executions),
        (f"ipfs://{cid}" if wide else f"ipfs://{cid[:7]}...") if cid else "",
    )


def _executions(connection: Connection, job: JSON) -> list[JSON]:
    """The executions of a listed job: they come with the list, or are asked for where they matter."""
    if "Executions" in job:
        return items_of(job["Executions"])
    return connection.job(str(job.get("ID")))[1] if state_of(job)[0] == "Completed" else []


def created(job: JSON, now: datetime) -> str:
    """When a job was submitted, by the local clock; with its date unless that is today."""
    stamp = job.get("CreateTime")
    if not isinstance(stamp, int):
        return ""
    time = datetime.fromtimestamp(stamp // _NANOSECONDS)
    return time.strftime("%H:%M:%S" if time.date() == now.date() else "%y-%m-%d-%H:%M:%S")


def summary(job: JSON) -> str:
    """What a job runs, in a line: `Docker busybox:latest uname -a`."""
    tasks = job.get("Tasks")
    engine = (
        tasks[0].get("Engine") if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else None
    )
    if not isinstance(engine, dict):
        return ""
    params: dict[str, Any] = engine.get("Params") or {}
    kind = str(engine.get("Type", ""))
    words = [kind.capitalize()]
    if kind == "docker":
        words += [str(params.get("Image", "")), *map(str, params.get("Entrypoint") or [])]
    elif kind == "wasm":
        words.append(str(params.get("EntryModule", "")).rpartition("/")[2])
    words += map(str, params.get("Parameters") or [])
    return " ".join(" ".join(words).split())


def shortened(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def verified(job: JSON, executions: list[JSON]) -> str:
    """How many proposals were accepted of those that were judged; empty where nothing is verified."""
    if str((job.get("Verifier") or {}).get("Type", "noop")) == "noop":
        return ""
    states = [(execution.get("ComputeState") or {}).get("StateType") for execution in executions]
    accepted = sum(state in {"ResultAccepted", "Completed"} for state in states)
    judged = accepted + states.count("ResultRejected")
    return f"{accepted}/{judged}" if judged else ""


def _readable(item: Any) -> Any:
    """Times as text of the local clock, and nothing that says nothing."""
    if isinstance(item, list):
        return [_readable(value) for value in item]
    if not isinstance(item, dict):
        return item
    shown = {
        key: _time_text(value) if key in {"CreateTime", "ModifyTime"} else _readable(value)
        for key, value in item.items()
    }
    return {key: value for key, value in shown.items() if value not in (None, "", [], {})}


def _time_text(stamp: object) -> object:
    if not isinstance(stamp, int):
        return stamp
    return (
        datetime.fromtimestamp(stamp / _NANOSECONDS).astimezone().isoformat(sep=" ", timespec="milliseconds")
    )
