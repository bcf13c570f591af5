"""What the commands that run a job do with it: print it, submit it, wait for it, fetch its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bacalhau_p2p.cli.connection import JSON, Connection
from bacalhau_p2p.cli.faults import INTERRUPTED
from bacalhau_p2p.cli.spec import Input, default_target, ipfs_source, parse_input
from bacalhau_p2p.errors import ContentError, InvalidCID, JobFailed, JobNotFinished

FIRST_PATIENCE = 1.0
LONG_PATIENCE = 60.0
"""Seconds that one request waits for the job to end. They grow, so that a change of its state is seen
soon at first and at little cost later."""

ENDED = frozenset({"Completed", "Failed", "Stopped"})
_EXPLAINED = frozenset({"Failed", "Stopped"})
"""States whose message is told as the error of the command."""


@dataclass(frozen=True, slots=True)
class Follow:
    """The flags of `follow_options`."""

    id_only: bool
    wait: bool | None
    download: bool
    output_dir: str | None
    dry_run: bool

    @property
    def waits(self) -> bool:
        return self.download or (not self.id_only if self.wait is None else self.wait)


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


def fetch_results(
    connection: Connection, job: JSON, executions: list[JSON], output_dir: str | None, *, quiet: bool
) -> None:
    """Write the results of a completed job to a folder: as they are when its executions agree, else one
    folder a result, by CID. Raises ContentError."""
    job_id = str(job.get("ID", ""))
    published = published_results(executions) or _providers_by_cid(connection.results(job_id))
    if not published:
        raise JobNotFinished(f"job {short_id(job_id)} has published no result")
    folder = Path(output_dir or f"job-{short_id(job_id)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ContentError(f"{folder} exists already; choose another folder with --output-dir")
    if not quiet:
        click.echo(f"Fetching results of job '{short_id(job_id)}'...")
    (folder.parent if len(published) == 1 else folder).mkdir(parents=True, exist_ok=True)
    for cid, providers in published.items():
        target = folder if len(published) == 1 else folder / cid
        connection.fetch(cid, target, providers=providers)
    if not quiet:
        click.echo(f"Results for job '{short_id(job_id)}' have been written to {folder.absolute()}")


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
    from bacalhau_p2p.content.unixfs import cid_of

    return str(cid_of(path))


def cid_or_none(text: str) -> str | None:
    from bacalhau_p2p.content.cid import CID

    try:
        return str(CID.parse(text))
    except InvalidCID:
        return None


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
