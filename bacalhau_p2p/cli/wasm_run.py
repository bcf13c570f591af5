"""`wasm run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bacalhau_p2p.cli.connection import JSON, Connection
from bacalhau_p2p.cli.options import Follow, follow_options, job_options, node_options
from bacalhau_p2p.cli.spec import MODULES, build_job, ipfs_source, parse_source, wasm_engine
from bacalhau_p2p.cli.submission import add, cid_or_none, follow, prepared_inputs


@click.group()
def wasm() -> None:
    """Run a WebAssembly module as a job."""


@wasm.command()
@click.argument("module")
@click.argument("arguments", nargs=-1, metavar="[-- ARGS...]")
@follow_options
@job_options
@click.option("--entrypoint", metavar="NAME", help="The exported function to call [default: _start].")
@node_options
def run(
    connection: Connection,
    module: str,
    arguments: tuple[str, ...],
    entrypoint: str | None,
    *,
    how: Follow,
    **flags: Any,
) -> None:
    """Run MODULE on the nodes of the network: a local file, a CID (ipfs://CID too) or a URL.

    Prints the job's id, waits for its end and shows what it wrote.
    """
    entry = _module_input(connection, module, dry_run=how.dry_run)
    inputs = [entry, *prepared_inputs(connection, flags["inputs"], dry_run=how.dry_run)]
    engine = wasm_engine(entry["Target"], arguments, entrypoint=entrypoint)
    job = build_job(engine, inputs, flags, os.environ)
    follow(connection, job, how)


def _module_input(connection: Connection, module: str, *, dry_run: bool) -> JSON:
    """The module as an input source of its own, out of the way of the job's data."""
    given = parse_source(module)
    if given.source:
        return given.at(f"{MODULES}/entry.wasm")
    path = Path(given.path)
    if path.is_file():
        cid = add(connection, path, dry_run=dry_run)
        return {"Target": f"{MODULES}/{path.name}", "Source": ipfs_source(cid)}
    if cid_ := cid_or_none(given.path):
        return {"Target": f"{MODULES}/entry.wasm", "Source": ipfs_source(cid_)}
    raise click.UsageError(f"{module!r} is not a file, a CID or a URL")
