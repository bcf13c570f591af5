"""`devstack`: a network on this machine, with each node in its own process.

The nodes are forked from this process after it has imported what they need, which takes a second once
instead of once per node. This process has no threads and no event loop. It holds the write end of a
pipe to each node, so that the nodes end when it ends, in whatever way.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import click

from bacalhau_p2p.cli.error_report import INTERRUPTED
from bacalhau_p2p.cli.options import ENV_HOST, ENV_PORT
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.serve import ENGINE, LOCAL_PATH, LOG_LEVEL, report_to, run_node
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.errors import BacalhauError, NodeUnavailable
from bacalhau_p2p.runtime import logs
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.text import printable
from bacalhau_p2p.settings import Settings, load_settings

START_TIMEOUT = 60.0
"""Seconds for one node to listen, and for all nodes to know each other."""
STOP_TIMEOUT = 15.0
"""Seconds for the nodes to end before they are killed."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--compute-nodes",
    metavar="N",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Number of compute nodes.",
)
@click.option(
    "--api-port", metavar="N", type=int, default=0, help="Port of the requester's API. [default: any]"
)
@ENGINE
@LOCAL_PATH
@LOG_LEVEL
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def devstack(
    context: click.Context,
    compute_nodes: int,
    api_port: int,
    engines: tuple[str, ...],
    allow_local_paths: tuple[str, ...],
    log_level: str,
    command: tuple[str, ...],
) -> None:
    """Run a network on this machine until Ctrl-C, or until COMMAND ends.

    The network has one requester and N compute nodes. COMMAND runs with BACALHAU_P2P_API_HOST and
    BACALHAU_P2P_API_PORT set to the requester, and its exit status is that of devstack. Everything is
    removed at the end.
    """
    logs.configure(log_level)
    shared = {"engines": engines or None, "allow_local_paths": allow_local_paths or None}
    signal.signal(signal.SIGTERM, _interrupt)
    stack = DevStack(shared)
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


@dataclass(slots=True)
class _Child:
    name: str
    pid: int
    lifeline: int
    report: int
    log: Path
    addresses: dict[str, Any]


class DevStack:
    """The processes of one network and the folder that they share."""

    def __init__(self, shared: dict[str, Any]) -> None:
        self._shared = shared
        self._folder = Path(tempfile.mkdtemp(prefix="bacalhau-p2p-devstack-"))
        self._children: list[_Child] = []

    def start(self, compute_nodes: int, api_port: int) -> None:
        """Start the nodes and wait until they know each other. Raises ClickException."""
        gc.collect()
        gc.freeze()  # pages are shared with the children until either writes to them
        requester = self._fork("requester", compute=False, api_port=api_port)
        self._await_report(requester)
        for number in range(compute_nodes):
            self._fork(f"compute-{number}", requester=False, peers=requester.addresses["Swarm"][:1])
        for child in self._children[1:]:
            self._await_report(child)
        self._await_members(compute_nodes)

    @property
    def api(self) -> tuple[str, int]:
        """Host and port of the requester's API."""
        parts = urlsplit(self._children[0].addresses["API"])
        return parts.hostname or "127.0.0.1", parts.port or 0

    def run(self, command: Sequence[str]) -> int:
        """Run a command next to the network; returns its exit status. Ctrl-C also reaches the command."""
        host, port = self.api
        environment = {**os.environ, ENV_HOST: host, ENV_PORT: str(port)}
        try:
            process = subprocess.Popen(command, env=environment)  # noqa: S603 - the user asks for it
        except OSError as error:
            raise click.ClickException(f"{command[0]}: {error.strerror}") from error
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        return 128 - status if status < 0 else status

    def wait(self) -> int:
        """Print the addresses of the nodes and wait until one of them ends. Raises ClickException."""
        host, port = self.api
        for child in self._children:
            print_line(f"{child.name:<12} {child.addresses['Swarm'][0]}")
        print_line("")
        print_line(f"export {ENV_HOST}={host} {ENV_PORT}={port}")
        print_line("Running; stop with Ctrl-C.")
        sys.stdout.flush()
        pid, _ = os.wait()
        ended = next((child for child in self._children if child.pid == pid), None)
        if ended is None:
            return 1
        self._children.remove(ended)
        raise click.ClickException(f"node {ended.name} has ended: {_last_line(ended.log)}")

    def stop(self) -> None:
        """Stop every node and remove the folder. Safe to call at any time."""
        for child in self._children:
            os.close(child.lifeline)
        deadline = time.monotonic() + STOP_TIMEOUT
        for child in self._children:
            if not _has_ended(child.pid, deadline):
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
        self._children.clear()
        discard_tree(self._folder)

    def _fork(self, name: str, **flags: Any) -> _Child:
        folder = self._folder / name
        folder.mkdir()
        settings = load_settings(
            environ={},
            flags={
                "data_dir": folder,
                "power_safe": False,  # the folder is removed at the end
                "network": f"devstack-{os.getpid()}",
                "swarm_host": "127.0.0.1",
                "swarm_port": 0,
                "api_port": 0,
                "labels": {"name": name},
                **self._shared,
                **flags,
            },
        )
        lifeline, lifeline_held = os.pipe()
        report, report_to_parent = os.pipe()
        log = self._folder / f"{name}.log"
        sys.stdout.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            for other in self._children:
                os.close(other.lifeline)
            os.close(lifeline_held)
            os.close(report)
            _run_child(settings, parent, lifeline, report_to_parent, log)
        os.close(lifeline)
        os.close(report_to_parent)
        child = _Child(name, pid, lifeline_held, report, log, {})
        self._children.append(child)
        return child

    def _await_report(self, child: _Child) -> None:
        ready, _, _ = select.select([child.report], [], [], START_TIMEOUT)
        line = b""
        while ready and not line.endswith(b"\n") and (piece := os.read(child.report, 65536)):
            line += piece
        os.close(child.report)
        if not line.endswith(b"\n"):
            raise click.ClickException(f"node {child.name} did not start: {_last_line(child.log)}")
        child.addresses = json.loads(line)

    def _await_members(self, compute_nodes: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with suppress(NodeUnavailable), BlockingConnection(*self.api) as connection:
                nodes = connection.call(calls.list_nodes())
                if sum(node.get("Compute") is not None for node in nodes) >= compute_nodes:
                    return
            time.sleep(0.05)
        raise click.ClickException(f"the nodes did not find each other within {START_TIMEOUT:g} s")


def _run_child(settings: Settings, parent: int, lifeline: int, report: int, log: Path) -> None:
    """Run a node in a forked child. Never returns."""
    status = 1
    try:
        os.setsid()  # Ctrl-C in the terminal only reaches the parent, which stops us gracefully
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run_node(settings, report_to(report), lifeline=lifeline, ephemeral=True)
        status = 0
    except BacalhauError as error:
        os.write(2, f"{error}\n".encode())
    except BaseException:  # noqa: BLE001 - a forked child must never return to its parent's code
        os.write(2, traceback.format_exc().encode())
    finally:
        if os.getppid() != parent:  # it was killed: the last child removes the folder
            shared = settings.data_dir.parent
            if not any(entry.is_dir() for entry in shared.iterdir()):
                discard_tree(shared)
        os._exit(status)


def _has_ended(pid: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return True
        time.sleep(0.02)
    return False


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return printable(lines[-1]) if lines else "no output"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
