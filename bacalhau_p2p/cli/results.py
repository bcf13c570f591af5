"""Fetches results of jobs, and other content, to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import click

from bacalhau_p2p.cli.job_view import JSON, id_of, providers_by_cid, published_results, short_id
from bacalhau_p2p.cli.progress import ProgressLine
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.errors import ContentError, InvalidCID, JobNotFinished


class Layout(Enum):
    """How the results of several executions are laid out in the folder of their job."""

    MERGED = "one result if all are equal, otherwise like CIDS"
    CIDS = "one folder per CID"
    EXECUTIONS = "one folder per execution"


def fetch_results(
    connection: BlockingConnection,
    job: JSON,
    executions: Sequence[JSON],
    output_dir: str | None,
    *,
    quiet: bool,
    layout: Layout = Layout.MERGED,
) -> None:
    """Write the results of a completed job to a folder. Raises ContentError."""
    job_id = id_of(job)
    published = published_results(executions)
    if not published:
        listed = connection.call(calls.list_results(job_id))
        published = providers_by_cid(listed)
    if not published:
        raise JobNotFinished(f"job {short_id(job_id)} has no published result")
    folder = Path(output_dir or f"job-{short_id(job_id)}")
    _require_free(folder)
    if not quiet:
        click.echo(f"Fetching results of job '{short_id(job_id)}'...")
    for cid, target in _targets(list(published), executions, folder, layout):
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(connection, cid, target, providers=published[cid], quiet=quiet)
    if not quiet:
        click.echo(f"Results for job '{short_id(job_id)}' have been written to {folder.absolute()}")


def fetch_content(
    connection: BlockingConnection, cid: str, path: Sequence[str], output_dir: str | None
) -> None:
    """Write the content at a path below a CID to `output_dir`, or to its own name in the current folder.

    Raises ContentError.
    """
    target = Path(output_dir or (path[-1] if path else cid))
    _require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    click.echo(f"Fetching {'/'.join((cid, *path))}...")
    _fetch(connection, cid, target, path=path)
    click.echo(f"Content has been written to {target.absolute()}")


def content_path_or_none(text: str) -> tuple[str, Sequence[str]] | None:
    """CID and path of `CID[/path]`; None for what can only be the id of a job.

    Raises InvalidCID for a path that does not start with a CID.
    """
    from bacalhau_p2p.ipfs.files.reader import split_path

    try:
        cid, path = split_path(text)
    except InvalidCID:
        if "/" in text:
            raise
        return None
    return str(cid), path


def _targets(
    cids: Sequence[str], executions: Sequence[JSON], folder: Path, layout: Layout
) -> list[tuple[str, Path]]:
    """Each CID to fetch and the folder to write it to."""
    if layout is Layout.MERGED and len(cids) == 1:
        return [(cids[0], folder)]
    if layout is Layout.EXECUTIONS:
        by_execution = [
            (cid, folder / _folder_name(id_of(execution)))
            for execution in executions
            for cid in published_results([execution])
        ]
        if by_execution:
            return by_execution
    return [(cid, folder / cid) for cid in cids]


def _folder_name(execution_id: str) -> str:
    """Ids come from the node: the name of a folder must not lead out of its parent."""
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in execution_id)[:100] or "_"


def _fetch(
    connection: BlockingConnection,
    cid: str,
    target: Path,
    *,
    path: Sequence[str] = (),
    providers: Sequence[str] = (),
    quiet: bool = False,
) -> None:
    """Write content to a new path or an empty folder."""
    from bacalhau_p2p.client.download import Download
    from bacalhau_p2p.ipfs.format.cid import CID

    with (
        ProgressLine(quiet=quiet) as progress,
        Download(
            CID.parse(cid),
            target,
            path=path,
            providers=providers,
            existing="merge" if target.is_dir() else "refuse",
        ) as download,
    ):
        connection.download(download, progress=progress.update)


def _require_free(target: Path) -> None:
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise ContentError(f"{target} already exists; choose another path with --output-dir")
