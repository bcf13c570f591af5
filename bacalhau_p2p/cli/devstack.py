"""`devstack`: its flags. What runs nodes takes seconds to import, and is imported after they are checked."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from bacalhau_p2p.cli import installation
from bacalhau_p2p.cli.error_report import INTERRUPTED
from bacalhau_p2p.cli.help_pages import Command
from bacalhau_p2p.cli.serve import ENGINE, LOCAL_PATH, LOGS
from bacalhau_p2p.cli.usage import PORT, Number
from bacalhau_p2p.runtime import logs

if TYPE_CHECKING:
    from bacalhau_p2p.cli.devstack_nodes import DevStack

installation.require_node()


@click.command(
    cls=Command,
    examples=["devstack", "devstack -- bacalhau-p2p docker run busybox -- echo hello"],
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--compute-nodes",
    metavar="N",
    type=Number(1, 100),
    default=3,
    show_default=True,
    help="Number of compute nodes.",
)
@click.option(
    "--api-port",
    metavar="PORT",
    type=PORT,
    default=0,
    show_default="any",
    help="Port of the requester.",
)
@ENGINE
@LOCAL_PATH
@LOGS
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def devstack(
    context: click.Context,
    compute_nodes: int,
    api_port: int,
    engines: tuple[str, ...],
    allow_local_paths: tuple[str, ...],
    log_level: str,
    log_format: str,
    command: tuple[str, ...],
) -> None:
    """Run a network of nodes on this machine.

    It has one requester and some compute nodes. It runs until Ctrl-C, or until COMMAND ends; then its exit
    status is that of COMMAND. Commands in COMMAND talk to the requester; BACALHAU_P2P_DEVSTACK has the URLs
    of all nodes, the requester's first. At the end everything is removed but compiled WebAssembly modules,
    which the next devstack uses.
    """
    logs.configure(log_level, log_format)
    shared = {"engines": engines or None, "allow_local_paths": allow_local_paths or None}
    signal.signal(signal.SIGTERM, _interrupt)
    stack = _stack(shared)
    status = 0
    try:
        stack.start(compute_nodes, api_port)
        status = stack.run(command) if command else stack.wait()
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stack.stop()
    context.exit(status)


def _stack(shared: dict[str, Any]) -> DevStack:
    try:
        from bacalhau_p2p.cli.devstack_nodes import DevStack
    except ModuleNotFoundError as error:
        raise installation.not_installed("devstack", error) from error
    return DevStack(shared)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
