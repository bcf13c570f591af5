"""`docker run`."""

from __future__ import annotations

import os
from typing import Any

import click

from bacalhau_p2p.cli.connection import Connection
from bacalhau_p2p.cli.options import Follow, follow_options, job_options, node_options
from bacalhau_p2p.cli.spec import build_job, docker_engine
from bacalhau_p2p.cli.submission import follow, prepared_inputs


@click.group()
def docker() -> None:
    """Run a job in a Docker container."""


@docker.command()
@click.argument("image")
@click.argument("arguments", nargs=-1, metavar="[-- CMD ARGS...]")
@follow_options
@job_options
@click.option("--entrypoint", multiple=True, help="Replaces the image's entry point, one word a flag.")
@click.option("-w", "--workdir", metavar="DIR", help="The working directory inside the container.")
@node_options
def run(
    connection: Connection,
    image: str,
    arguments: tuple[str, ...],
    entrypoint: tuple[str, ...],
    workdir: str | None,
    *,
    how: Follow,
    **flags: Any,
) -> None:
    """Run CMD in a container of IMAGE on the nodes of the network.

    Prints the job's id, waits for its end and shows what it wrote.
    """
    inputs = prepared_inputs(connection, flags["inputs"], dry_run=how.dry_run)
    engine = docker_engine(image, arguments, entrypoint=entrypoint, workdir=workdir)
    job = build_job(engine, inputs, flags, os.environ)
    follow(connection, job, how)
