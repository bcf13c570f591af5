"""The inputs and modules that flags name, as input sources of a job; local ones are added to the node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from bacalhau_p2p.cli.job_builder import (
    InputFlag,
    check_targets,
    is_single_file,
    parse_input,
    parse_source,
    relative_target,
)
from bacalhau_p2p.cli.printing import report_left_out
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.job_map import INPUTS, JSON, MODULES, ipfs_source
from bacalhau_p2p.errors import InvalidCID


def prepare_inputs(
    connection: BlockingConnection, flags: Sequence[str], *, dry_run: bool, left_out: list[str]
) -> list[JSON]:
    """The input sources of `--input` flags. Local ones are added to the node or, in a dry run, hashed.

    What is left out of them is named on stderr, and added to `left_out` for the history of the job.

    Raises click's usage error before anything is added, ContentError.
    """
    given = [_recognised(parse_input(flag)) for flag in flags]
    check_targets([(each, each.target) for each in given if not is_single_file(each)])
    return [_prepare(connection, each, dry_run=dry_run, left_out=left_out) for each in given]


def prepare_module(
    connection: BlockingConnection, module: str, *, dry_run: bool, name: str = "entry.wasm"
) -> JSON:
    """A WebAssembly module as an input source, in a folder apart from the job's data.

    A local file has its own name there, any other module `name`.
    """
    given = parse_source(module)
    if given.source:
        return given.at(f"{MODULES}/{name}")
    path = Path(given.path)
    if path.is_file():
        cid = _add(connection, path, dry_run=dry_run, left_out=[])  # a file is added whole
        return {"Target": f"{MODULES}/{path.name}", "Source": ipfs_source(cid)}
    if parsed := _cid_or_none(given.path):
        return {"Target": f"{MODULES}/{name}", "Source": ipfs_source(parsed)}
    raise click.UsageError(f"{module!r} is not a file, a CID or a URL")


def _recognised(given: InputFlag) -> InputFlag:
    """The input with its target, and with its source unless it is a local path. Raises a usage error."""
    if given.source:
        return replace(given, target=given.target or INPUTS)
    path = Path(given.path)
    if path.exists():
        if given.params and not path.is_dir():
            raise click.UsageError(f"input {given.path!r} is a file, and only folders can be divided")
        return replace(given, target=given.target or (INPUTS if path.is_dir() else f"{INPUTS}/{path.name}"))
    if cid := _cid_or_none(given.path):
        return InputFlag(_added(cid, given), given.target or INPUTS)
    if target := relative_target(given.path):
        source = given.path.removesuffix(f":{target}")
        raise click.UsageError(f"input {given.path!r}: DST must begin with /, as in {source}:/{target}")
    raise click.UsageError(f"input {given.path!r} is not a file, a folder, a CID or a URL")


def _prepare(connection: BlockingConnection, given: InputFlag, *, dry_run: bool, left_out: list[str]) -> JSON:
    if given.source:
        return {"Target": given.target, "Source": given.source}
    missing: list[str] = []
    cid = _add(connection, Path(given.path), dry_run=dry_run, left_out=missing)
    left_out += [f"{given.target}: {line}" for line in missing]
    return {"Target": given.target, "Source": _added(cid, given)}


def _added(cid: str, given: InputFlag) -> JSON:
    """The source of what a path names, with what the flag says about it."""
    source = ipfs_source(cid)
    return {**source, "Params": {**source["Params"], **given.params}}


def _add(connection: BlockingConnection, path: Path, *, dry_run: bool, left_out: list[str]) -> str:
    """The CID of a local file or folder, which is on the node afterwards unless this is a dry run.

    All of it that a job can use is added, hidden files too; what is left out is named on stderr. A symlink
    that the user named is followed.
    """
    path = path.resolve()
    if dry_run:
        from bacalhau_p2p.ipfs.files.importer import cid_of

        return str(cid_of(path, hidden=True, programs=True, symlinks="inside"))
    from bacalhau_p2p.client.upload import upload

    call = upload(
        path,
        hidden=True,
        programs=True,
        symlinks="inside",
        report=lambda added: left_out.extend(report_left_out(added.skipped)),
    )
    return connection.call(call)


def _cid_or_none(text: str) -> str | None:
    """`CID` or `CID/path`; None for any other text."""
    from bacalhau_p2p.ipfs.files.reader import split_path

    try:
        cid, names = split_path(text)
    except InvalidCID:
        return None
    return "/".join((str(cid), *names))
