"""`docker run`."""

from __future__ import annotations

import os
from typing import Any

import click

from bacalhau_p2p.cli.help_pages import Group
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


@click.group(cls=Group)
def docker() -> None:
    """Run a job in a Docker container."""


_ENGINE = [
    repeatable("--entrypoint", metavar="WORD", help="Replace the entry point of the image."),
    click.option("-w", "--workdir", metavar="DIR", help="Working directory in the container."),
]


@docker.command(
    cls=ProgramCommand,
    examples=["docker run busybox -- echo hello", "docker run -i data busybox -- ls -l /inputs"],
)
@click.argument("image")
@click.argument("arguments", nargs=-1, metavar="[-- CMD [ARG]...]")
@follow_options
@job_options(_ENGINE)
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
    """Run CMD in a container of IMAGE.

    Prints the id of the job, waits until it has ended, and prints its output. Ctrl-C leaves the job running.
    Options may follow IMAGE; put -- before a CMD that has options of its own.
    """
    left_out: list[str] = []
    inputs = prepare_inputs(connection, flags["inputs"], dry_run=follow.dry_run, left_out=left_out)
    engine = docker_engine(image, arguments, entrypoint=entrypoint, workdir=workdir)
    job = build_job(engine, inputs, flags, os.environ)
    submit_and_follow(connection, job, follow, left_out=left_out)
