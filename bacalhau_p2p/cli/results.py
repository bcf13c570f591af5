"""Fetches results of jobs, and other content, to files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import Enum
from pathlib import Path

import click

from bacalhau_p2p.cli.job_view import (
    JSON,
    cid_of_text,
    id_of,
    partition_of,
    providers_by_cid,
    published_results,
    short_id,
)
from bacalhau_p2p.cli.options import DEFAULT_MAX_SIZE
from bacalhau_p2p.cli.printing import print_line, report_left_out
from bacalhau_p2p.cli.progress import ProgressLine
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.merging import MergedResults
from bacalhau_p2p.errors import ContentError, ContentTooLarge, InvalidCID, JobNotFinished
from bacalhau_p2p.model.fields import RESERVED_RESULTS
from bacalhau_p2p.model.quantities import size_text


class Layout(Enum):
    """How the results of several executions are laid out in the folder of their job."""

    DISTINCT = "one folder per partition; else one result if all are equal; else like CIDS"
    MERGED = "as DISTINCT, but one folder for all, which only stdout, stderr and exitCode are not in"
    CIDS = "one folder per CID"
    EXECUTIONS = "one folder per execution"
    NODES = "one folder per node, of an ops job"


def fetch_results(
    connection: BlockingConnection,
    job: JSON,
    executions: Sequence[JSON],
    output_dir: str | None,
    *,
    quiet: bool,
    layout: Layout = Layout.DISTINCT,
    max_size: int = DEFAULT_MAX_SIZE,
) -> None:
    """Write the results of a completed job to a folder. Raises ContentError."""
    job_id = id_of(job)
    published = published_results(executions)
    if not published:
        listed = connection.call(calls.list_results(job_id))
        published = providers_by_cid(listed)
    if not published:
        raise JobNotFinished(f"job {short_id(job_id)} has no published result")
    folder = Path(output_dir or folder_name(f"job-{short_id(job_id)}"))
    targets = _targets(list(published), executions, folder, _for_job(layout, job))
    for _, target in targets:
        check_output_dir(target)
    if not quiet:
        print_line(f"Fetching results of job '{short_id(job_id)}'...")
        for cid in published:
            print_line(f"Result: ipfs://{cid}")
    allowance = Allowance(max_size)
    with ExitStack() as stack:
        merged: MergedResults | None = None
        if layout is Layout.MERGED and targets[0][1] != folder:
            folder.parent.mkdir(parents=True, exist_ok=True)
            merged = stack.enter_context(MergedResults(folder))
        for cid, target in targets:
            place = merged.place(target.name) if merged is not None else target
            place.parent.mkdir(parents=True, exist_ok=True)
            _fetch(connection, cid, place, allowance, providers=published[cid], quiet=quiet)
        if merged is not None:
            merged.finish()
    if not quiet:
        print_line(f"Results for job '{short_id(job_id)}' have been written to {folder.absolute()}")


def _for_job(layout: Layout, job: JSON) -> Layout:
    """How the results of this job are told apart."""
    if layout not in (Layout.DISTINCT, Layout.MERGED):
        return layout
    return Layout.NODES if job.get("Type") == "ops" else Layout.DISTINCT


def fetch_failed(
    connection: BlockingConnection,
    job: JSON,
    executions: Sequence[JSON],
    output_dir: str | None,
    *,
    max_size: int,
) -> None:
    """Write what failed executions of a job left, each to a folder of its own. Raises ContentError."""
    short = short_id(id_of(job))
    kept = [(e, cid) for e in executions if (cid := cid_of_text(e.get("FailedResultCID")))]
    if not kept:
        asked = job.get("KeepFailedResults")
        why = "none has failed yet, or it left nothing" if asked else "it needs --keep-failed-results"
        raise JobNotFinished(f"nothing of failed executions of job {short} is kept: {why}")
    folder = Path(output_dir or folder_name(f"job-{short}-failed"))
    targets = [(cid, folder / folder_name(id_of(execution))) for execution, cid in kept]
    for _, target in targets:
        check_output_dir(target)
    allowance = Allowance(max_size)
    for cid, target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(connection, cid, target, allowance)
        print_line(f"What execution {target.name} left has been written to {target.absolute()}")


def fetch_content(
    connection: BlockingConnection,
    cid: str,
    path: Sequence[str],
    output_dir: str | None,
    *,
    max_size: int = DEFAULT_MAX_SIZE,
) -> None:
    """Write the content at a path below a CID to `output_dir`, or to its own name in the current folder.

    Raises ContentError.
    """
    target = Path(output_dir or (path[-1] if path else cid))
    _check_place(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    print_line(f"Fetching {'/'.join((cid, *path))}...")
    _fetch(connection, cid, target, Allowance(max_size), path=path)
    print_line(f"Content has been written to {target.absolute()}")


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
    if layout is Layout.DISTINCT and (by_partition := _by_partition(executions)):
        return [(cid, folder / f"partition-{index}") for index, cid in sorted(by_partition.items())]
    if layout is Layout.DISTINCT and len(cids) == 1:
        return [(cids[0], folder)]
    if layout in (Layout.EXECUTIONS, Layout.NODES):
        key = "NodeID" if layout is Layout.NODES else "ID"
        by_execution = [
            (cid, folder / folder_name(str(execution.get(key))))
            for execution in executions
            for cid in published_results([execution])
        ]
        if by_execution:
            return by_execution
    return [(cid, folder / folder_name(cid)) for cid in cids]


def _by_partition(executions: Sequence[JSON]) -> dict[int, str]:
    """The result of each partition, if the job has several."""
    found: dict[int, str] = {}
    for execution in executions:
        index = partition_of(execution)
        for cid in published_results([execution]):
            if index.isdecimal():
                found.setdefault(int(index), cid)
    return found


def folder_name(text: str) -> str:
    """A folder for this id or CID. These come from nodes: the name must not lead out of its parent."""
    allowed = (char if (char.isascii() and char.isalnum()) or char in "-_" else "_" for char in text)
    return "".join(allowed)[:100] or "_"


class Allowance:
    """The bytes that a command may write before it asks."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._confirmed = False

    @property
    def left(self) -> int:
        return max(self._left, 0)

    def spend(self, written: int) -> None:
        self._left -= written

    def extend(self, error: ContentTooLarge) -> None:
        """Ask whether the content that is too large is wanted. Raises the error if not."""
        from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS

        if self._confirmed or error.size is None:
            raise error
        if not _is_terminal():
            raise ContentTooLarge(f"{error}; to fetch more, use --max-size") from None
        size = size_text(error.size)
        if not click.confirm(f"The content has at least {size}. Fetch all of it?", err=True):
            raise error
        self._left, self._confirmed = DEFAULT_LIMITS.bytes, True


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _fetch(
    connection: BlockingConnection,
    cid: str,
    target: Path,
    allowance: Allowance,
    *,
    path: Sequence[str] = (),
    providers: Sequence[str] = (),
    quiet: bool = False,
) -> None:
    """Write content to a new path or an empty folder. Asks before it writes more than the allowance."""
    while True:
        try:
            written = _fetch_at_most(
                allowance.left, connection, cid, target, path=path, providers=providers, quiet=quiet
            )
        except ContentTooLarge as error:
            allowance.extend(error)
        else:
            return allowance.spend(written)


def _fetch_at_most(
    limit: int,
    connection: BlockingConnection,
    cid: str,
    target: Path,
    *,
    path: Sequence[str],
    providers: Sequence[str],
    quiet: bool,
) -> int:
    """Write content; the result is its bytes. Raises ContentTooLarge beyond the limit."""
    from bacalhau_p2p.client.download import Download
    from bacalhau_p2p.ipfs.format.cid import CID
    from bacalhau_p2p.ipfs.format.limits import DEFAULT_LIMITS

    with (
        ProgressLine(quiet=quiet) as progress,
        Download(
            CID.parse(cid),
            target,
            path=path,
            providers=providers,
            limits=replace(DEFAULT_LIMITS, bytes=min(limit, DEFAULT_LIMITS.bytes)),
            symlinks="keep",
            existing="join" if target.is_dir() else "refuse",
        ) as download,
    ):
        written = connection.download(download, progress=progress.update)
    report_left_out([(path, "a link that leads out of the folder") for path in written.skipped])
    return written.bytes


def check_output_dir(folder: Path) -> None:
    """Raises ContentError when the results of a job cannot be written to this folder.

    It may be in use, as long as no name of a result is.
    """
    _check_place(folder)
    for name in sorted(RESERVED_RESULTS):
        if os.path.lexists(folder / name):
            raise ContentError(f"{folder / name} already exists; choose another path with --output-dir")


def _check_place(target: Path) -> None:
    """Raises ContentError for what is no folder, or cannot be made."""
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
        raise ContentError(f"{target} already exists; choose another path with --output-dir")
    place = target.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ContentError(
            f"cannot write {target}: {place} is not a folder; choose another path with --output-dir"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ContentError(
            f"cannot write {target}: {place} is read-only; choose another path with --output-dir"
        )
