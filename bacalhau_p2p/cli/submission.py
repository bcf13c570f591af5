"""What the commands that run a job do with it: print it, submit it, wait for it, fetch its results."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Any

import click

from bacalhau_p2p.cli.connection import JSON, Connection
from bacalhau_p2p.cli.faults import INTERRUPTED
from bacalhau_p2p.cli.options import Follow
from bacalhau_p2p.cli.progress import ProgressLine
from bacalhau_p2p.cli.spec import Input, default_target, ipfs_source, parse_input
from bacalhau_p2p.errors import ContentError, InvalidCID, JobFailed, JobNotFinished

FIRST_PATIENCE = 1.0
LONG_PATIENCE = 60.0
"""Seconds that one request waits for the job to end. They grow, so that a change of its state is seen
soon at first and at little cost later."""

ENDED = frozenset({"Completed", "Failed", "Stopped"})
_EXPLAINED = frozenset({"Failed", "Stopped"})
"""States whose message is told as the error of the command."""


def follow(connection: Connection, job: JSON, how: Follow) -> None:
    """Submit a job and do with it what the flags say. Raises JobFailed when it fails while we wait.

    The job's id and stdout go to stdout, everything about it to stderr.
    """
    if how.dry_run:
        return print_job(job)
    job_id = connection.submit(job)
    click.echo(job_id)  # at once: whatever happens while we wait, the job is not lost
    if not how.waits:
        return None
    try:
        ended, executions = wait(connection, job_id, quiet=how.id_only)
    except KeyboardInterrupt:
        short = short_id(job_id)
        click.echo(f"\nJob {short} goes on; to stop it: bacalhau-p2p cancel {short}", err=True)
        click.get_current_context().exit(INTERRUPTED)
    require_completed(ended)
    if how.download:
        fetch_results(connection, ended, executions, how.output_dir, quiet=how.id_only)
    elif not how.id_only:
        _print_output(job_id, executions)
    return None


def print_job(job: JSON) -> None:
    """The job as YAML, in the normal form in which it would be submitted. Raises InvalidJob."""
    import yaml

    from bacalhau_p2p.model.parsing import job_from_mapping

    normal = job_from_mapping(job).model_dump(mode="json", by_alias=True)
    click.echo(yaml.safe_dump(normal, sort_keys=False, allow_unicode=True), nl=False)


def wait(connection: Connection, job_id: str, *, quiet: bool) -> tuple[JSON, list[JSON]]:
    """The job once it has ended, with its executions; unless quiet, changes of its state are told."""
    told, patience = "", LONG_PATIENCE if quiet else FIRST_PATIENCE
    while True:
        job, executions = connection.job(job_id, wait=patience)
        state, message = state_of(job)
        if not quiet and state != told:
            click.echo(f"  {state}{f': {message}' if message and state not in _EXPLAINED else ''}", err=True)
            told = state
        if state in ENDED:
            return job, executions
        patience = min(2 * patience, LONG_PATIENCE)


def require_completed(job: JSON) -> None:
    """Raises JobFailed or JobNotFinished, the job's own message first."""
    state, message = state_of(job)
    if state == "Completed":
        return
    short = short_id(str(job.get("ID", "")))
    if state in ENDED:
        raise JobFailed(f"{message or 'no reason is given'} (job {short} has {state.lower()})")
    raise JobNotFinished(f"job {short} is {state.lower()}: it has no result yet")


class Layout(Enum):
    """How the results of several executions lie in the folder of their job."""

    MERGED = "as they are when all are equal, else as CIDS"
    CIDS = "each in a folder named by its CID"
    EXECUTIONS = "each execution's in a folder named by its id"


def fetch_results(
    connection: Connection,
    job: JSON,
    executions: list[JSON],
    output_dir: str | None,
    *,
    quiet: bool,
    layout: Layout = Layout.MERGED,
) -> None:
    """Write the results of a completed job to a folder. Raises ContentError."""
    job_id = str(job.get("ID", ""))
    published = published_results(executions) or _providers_by_cid(connection.results(job_id))
    if not published:
        raise JobNotFinished(f"job {short_id(job_id)} has published no result")
    folder = Path(output_dir or f"job-{short_id(job_id)}")
    _require_free(folder)
    if not quiet:
        click.echo(f"Fetching results of job '{short_id(job_id)}'...")
    targets = [(cid, folder / cid) for cid in published]
    if layout is Layout.EXECUTIONS:
        targets = _by_execution(executions, folder) or targets
    elif layout is Layout.MERGED and len(published) == 1:
        targets = [(next(iter(published)), folder)]
    for cid, target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(connection, cid, target, providers=published[cid], quiet=quiet)
    if not quiet:
        click.echo(f"Results for job '{short_id(job_id)}' have been written to {folder.absolute()}")


def _by_execution(executions: list[JSON], folder: Path) -> list[tuple[str, Path]]:
    named = [(_cid_of(execution), str(execution.get("ID", ""))) for execution in executions]
    return [(cid, folder / safe_name(name)) for cid, name in named if cid]


def _cid_of(execution: JSON) -> str:
    return next(iter(published_results([execution])), "")


def safe_name(text: str) -> str:
    """An id that a node made up as the name of a folder: it cannot lead elsewhere."""
    return "".join(char if char.isalnum() or char in "-_" else "_" for char in text)[:100] or "_"


def fetch_content(connection: Connection, place: tuple[str, tuple[str, ...]], output_dir: str | None) -> None:
    """Write what lies at a path below a CID to a file or folder, by default of its own name in the current
    folder. Raises ContentError."""
    cid, path = place
    target = Path(output_dir or (path[-1] if path else cid))
    _require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    click.echo(f"Fetching {'/'.join((cid, *path))}...")
    _fetch(connection, cid, target, path=path)
    click.echo(f"It has been written to {target.absolute()}")


def _fetch(connection: Connection, cid: str, target: Path, *, quiet: bool = False, **options: Any) -> None:
    progress = ProgressLine(quiet=quiet)
    try:
        connection.fetch(cid, target, progress=progress, **options)
    finally:
        progress.end()


def _require_free(target: Path) -> None:
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise ContentError(f"{target} exists already; choose another folder with --output-dir")


def prepared_inputs(connection: Connection, texts: tuple[str, ...], *, dry_run: bool) -> list[JSON]:
    """The inputs that flags name; what is local is added to the node first, or, in a dry run, only
    hashed. Raises click's usage error, ContentError."""
    return [_prepared(connection, parse_input(text), dry_run=dry_run) for text in texts]


def _prepared(connection: Connection, given: Input, *, dry_run: bool) -> JSON:
    if given.source:
        return given.at(default_target(given))
    path = Path(given.path)
    if not path.exists():
        if cid := cid_or_none(given.path):
            return Input(ipfs_source(cid), given.target).at(default_target(given))
        raise click.UsageError(f"input {given.path!r}: there is no such file or folder, and it is not a CID")
    added = Input(ipfs_source(add(connection, path, dry_run=dry_run)), given.target)
    return added.at(default_target(given) if path.is_dir() else f"/inputs/{path.name}")


def add(connection: Connection, path: Path, *, dry_run: bool) -> str:
    """The CID of a local file or folder, which the node now has, unless this is a dry run."""
    if not dry_run:
        return connection.add(path)
    from bacalhau_p2p.ipfs.files.importer import cid_of

    return str(cid_of(path))


def cid_or_none(text: str) -> str | None:
    from bacalhau_p2p.ipfs.format.cid import CID

    try:
        return str(CID.parse(text))
    except InvalidCID:
        return None


def content_or_none(text: str) -> tuple[str, tuple[str, ...]] | None:
    """The CID and the path of `CID[/path]`; None for what can only be the id of a job.

    Raises InvalidCID for a path that does not begin with a CID.
    """
    from bacalhau_p2p.ipfs.files.reader import split_path

    try:
        cid, path = split_path(text)
    except InvalidCID:
        if "/" in text:
            raise
        return None
    return str(cid), path


def state_of(job: JSON) -> tuple[str, str]:
    """The state of a job, and the message that explains it."""
    state = job.get("State")
    if not isinstance(state, dict):
        return "Unknown", ""
    return str(state.get("StateType", "Unknown")), str(state.get("Message") or "")


def short_id(job_id: str) -> str:
    return job_id[:8]


def published_results(executions: list[JSON]) -> dict[str, list[str]]:
    """The distinct CIDs that the executions of a job published, in order, each with the multiaddrs of
    those who provide it."""
    published = [execution.get("PublishedResult") for execution in executions]
    return _providers_by_cid([result for result in published if isinstance(result, dict)])


def _providers_by_cid(results: list[JSON]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in results:
        params: dict[str, Any] = result.get("Params") or {}
        if isinstance(cid := params.get("CID"), str) and cid:
            found.setdefault(cid, []).extend(map(str, params.get("Providers") or []))
    return found


def _print_output(job_id: str, executions: list[JSON]) -> None:
    """What the job wrote, as far as it travels with its state, and how to get all of it."""
    completed = [e for e in executions if (e.get("ComputeState") or {}).get("StateType") == "Completed"]
    output = next((e["RunOutput"] for e in completed if isinstance(e.get("RunOutput"), dict)), None)
    if output is not None:
        _print_stream(output.get("Stdout"), err=False)
        _print_stream(output.get("Stderr"), err=True)
        if output.get("ExitCode"):
            click.echo(f"exit code: {output['ExitCode']}", err=True)
        if output.get("StdoutTruncated") or output.get("StderrTruncated"):
            click.echo("(this is the beginning; the results have all of it)", err=True)
    short = short_id(job_id)
    click.echo(f"\nTo get the results:  bacalhau-p2p get {short}", err=True)
    click.echo(f"To see the details:  bacalhau-p2p describe {short}", err=True)


def _print_stream(text: object, *, err: bool) -> None:
    if isinstance(text, str) and text:
        click.echo(text, nl=not text.endswith("\n"), err=err)
