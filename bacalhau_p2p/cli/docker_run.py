"""`docker run`."""

from __future__ import annotations

import os
from typing import Any

import click

from bacalhau_p2p.cli.inputs import prepare_inputs
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
from bacalhau_p2p.client.job_map import docker_engine


@click.group()
def docker() -> None:
    """Run a job in a Docker container."""


@docker.command(cls=ProgramCommand)
@click.argument("image")
@click.argument("arguments", nargs=-1, metavar="[-- CMD ARGS...]")
@follow_options
@job_options
@repeatable("--entrypoint", help="Replace the entry point of the image, one word per flag.")
@click.option("-w", "--workdir", metavar="DIR", help="Working directory in the container.")
@node_options
def run(
    connection: BlockingConnection,
    image: str,
    arguments: tuple[str, ...],
    entrypoint: tuple[str, ...],
    workdir: str | None,
    *,
    follow: FollowOptions,
    **flags: Any,
) -> None:
    """Run CMD in a container of IMAGE on nodes of the network.

    Prints the job's id, waits until the job has ended and prints its output. Options may follow IMAGE. Put
    -- before a CMD with options of its own, as in: docker run busybox -- sh -c 'echo $PATH'
    """
    left_out: list[str] = []
    inputs = prepare_inputs(connection, flags["inputs"], dry_run=follow.dry_run, left_out=left_out)
    engine = docker_engine(image, arguments, entrypoint=entrypoint, workdir=workdir)
    job = build_job(engine, inputs, flags, os.environ)
    submit_and_follow(connection, job, follow, left_out=left_out)
