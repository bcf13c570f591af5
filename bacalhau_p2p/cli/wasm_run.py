"""`wasm run`."""

from __future__ import annotations

import os
from typing import Any

import click

from bacalhau_p2p.cli.help_pages import Group
from bacalhau_p2p.cli.inputs import prepare_inputs, prepare_module
from bacalhau_p2p.cli.job_builder import build_job
from bacalhau_p2p.cli.options import (
    FollowOptions,
    follow_options,
    job_options,
    node_options,
    repeatable,
)
from bacalhau_p2p.cli.program_command import ProgramCommand
from bacalhau_p2p.cli.submit import submit_and_follow
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.job_map import wasm_engine


@click.group(cls=Group)
def wasm() -> None:
    """Run a WebAssembly module as a job."""


_ENGINE = [
    click.option(
        "--entrypoint",
        "--entry-point",
        "entrypoint",
        metavar="NAME",
        show_default="_start",
        help="Exported function to call.",
    ),
    repeatable(
        "-I",
        "--import-modules",
        "imports",
        metavar="MODULE",
        help="Module to link: a file, a CID or a URL.",
    ),
]


@wasm.command(cls=ProgramCommand, examples=["wasm run -i data wordcount.wasm -- -n 5 /inputs"])
@click.argument("module")
@click.argument("arguments", nargs=-1, metavar="[-- ARG...]")
@follow_options
@job_options(_ENGINE)
@node_options
def run(
    connection: BlockingConnection,
    module: str,
    arguments: tuple[str, ...],
    entrypoint: str | None,
    imports: tuple[str, ...],
    *,
    follow: FollowOptions,
    **flags: Any,
) -> None:
    """Run MODULE: a file, a CID or a URL.

    Prints the id of the job, waits until it has ended, and prints its output. Ctrl-C leaves the job running.
    Options may follow MODULE; put -- before ARGs that are options.
    """
    entry = prepare_module(connection, module, dry_run=follow.dry_run)
    linked = [
        prepare_module(connection, each, dry_run=follow.dry_run, name=f"import-{number}.wasm")
        for number, each in enumerate(imports)
    ]
    left_out: list[str] = []
    data = prepare_inputs(connection, flags["inputs"], dry_run=follow.dry_run, left_out=left_out)
    inputs = [entry, *linked, *data]
    targets = [each["Target"] for each in linked]
    engine = wasm_engine(entry["Target"], arguments, entrypoint=entrypoint, imports=targets)
    job = build_job(engine, inputs, flags, os.environ)
    submit_and_follow(connection, job, follow, left_out=left_out)
