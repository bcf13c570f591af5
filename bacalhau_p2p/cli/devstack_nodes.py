"""The nodes of a devstack, each in its own process.

They are forked from this process after it has imported what they need, which takes a second once
instead of once per node. Few start at a time, and each is told a few of those that run already, so that no
node has to answer all others at once.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from bacalhau_p2p.cli.node_process import NodeProcess, fork_node
from bacalhau_p2p.cli.options import ENV_DEVSTACK
from bacalhau_p2p.cli.printing import print_line
from bacalhau_p2p.cli.progress import StatusLine
from bacalhau_p2p.cli.terminal import is_terminal
from bacalhau_p2p.client import calls
from bacalhau_p2p.client.blocking_connection import BlockingConnection
from bacalhau_p2p.client.environment import ENV_HOST, ENV_PORT
from bacalhau_p2p.errors import NodeUnavailable
from bacalhau_p2p.node.registry import find_plugins
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.settings import Settings, load_settings, user_cache_dir

START_TIMEOUT = 60.0
"""Seconds for one node to listen, and for all nodes to be known."""
STOP_TIMEOUT = 15.0
"""Seconds for the nodes to end before they are killed."""
STARTING = 4
"""Nodes that start at the same time. More would only wait for a processor, and for each other."""
PEERS = 2
"""Running nodes that a new node is told, chosen at random. It finds the others through them."""


class DevStack:
    """The processes of one network and the folder that they share."""

    def __init__(self, shared: dict[str, Any]) -> None:
        self._shared = shared
        self._compiled_modules = _compiled_modules()
        self._nodes: list[NodeProcess] = []
        # Last: an interruption after it must find something to stop.
        self._folder = Path(tempfile.mkdtemp(prefix="bacalhau-p2p-devstack-"))

    def start(self, compute_nodes: int, api_port: int) -> None:
        """Start the nodes and wait until the requester knows them. Raises ClickException."""
        importlib.import_module("bacalhau_p2p.transports.libp2p.transport")  # others are imported on report
        find_plugins()
        with StatusLine() as status:
            # The first of each kind starts alone: what it has to import, the others share.
            self._start_some([self._settings("requester", compute=False, api_port=api_port)], status)
            names = [f"compute-{number}" for number in range(compute_nodes)]
            for some in (names[:1], names[1:]):
                gc.collect()
                gc.freeze()  # pages are shared with the children until either writes to them
                self._start_some([self._settings(name, requester=False) for name in some], status)
            self._await_members(compute_nodes, status)

    @property
    def api(self) -> tuple[str, int]:
        """Host and port of the requester's API."""
        parts = urlsplit(self._nodes[0].addresses["API"])
        return parts.hostname or "127.0.0.1", parts.port or 0

    def run(self, command: Sequence[str]) -> int:
        """Run a command next to the network; returns its exit status. Ctrl-C also reaches the command."""
        host, port = self.api
        urls = " ".join(node.addresses["API"] for node in self._nodes)
        environment = {**os.environ, ENV_HOST: host, ENV_PORT: str(port), ENV_DEVSTACK: urls}
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
        if is_terminal(sys.stderr):  # whose reader has just seen how to get the results of a job
            print_line("The network has ended, and its jobs and results with it.", err=True)
        return 128 - status if status < 0 else status

    def wait(self) -> int:
        """Print the addresses of the nodes and wait until one of them ends. Raises ClickException."""
        host, port = self.api
        for node in self._nodes:
            print_line(f"{node.name:<12} {node.addresses['Swarm'][0]}")
        print_line("")
        print_line(f"export {ENV_HOST}={host} {ENV_PORT}={port}")
        print_line(f"Page: http://{host}:{port}/")
        print_line("Running; stop with Ctrl-C.")
        sys.stdout.flush()
        pid, _ = os.wait()
        ended = next((node for node in self._nodes if node.pid == pid), None)
        if ended is None:
            return 1
        self._nodes.remove(ended)
        raise ended.failure("has ended")

    def stop(self) -> None:
        """Stop every node and remove the folder. Safe to call at any time."""
        for node in self._nodes:
            os.close(node.lifeline)
        deadline = time.monotonic() + STOP_TIMEOUT
        for node in self._nodes:
            if not node.has_ended(deadline):
                os.kill(node.pid, signal.SIGKILL)
                os.waitpid(node.pid, 0)
        self._nodes.clear()
        discard_tree(self._folder)

    def _settings(self, name: str, **flags: Any) -> dict[str, Any]:
        """The flags of one node."""
        return {
            "data_dir": self._folder / name,
            "power_safe": False,  # the folder is removed at the end
            "compiled_modules": self._compiled_modules,
            "network": f"devstack-{os.getpid()}",
            "swarm_host": "127.0.0.1",
            "swarm_port": 0,
            "api_port": 0,
            "labels": {"name": name},
            **self._shared,
            **flags,
        }

    def _start_some(self, waiting: list[dict[str, Any]], status: StatusLine) -> None:
        """Start these nodes, STARTING at a time, and wait until all listen. Raises ClickException."""
        total, starting = len(self._nodes) + len(waiting), dict[int, NodeProcess]()
        while waiting or starting:
            while waiting and len(starting) < STARTING:
                node = self._fork(waiting.pop(0), set(starting.values()))
                starting[node.report] = node
            status.show(f"started {total - len(waiting) - len(starting)} of {total} nodes")
            oldest = min(starting.values(), key=lambda node: node.started)
            remaining = oldest.started + START_TIMEOUT - time.monotonic()
            ready, _, _ = select.select(list(starting), [], [], max(0.0, remaining))
            if not ready:
                raise oldest.failure(f"did not start within {START_TIMEOUT:g} s")
            for pipe in ready:
                if starting[pipe].read_report():
                    del starting[pipe]

    def _fork(self, flags: dict[str, Any], starting: set[NodeProcess]) -> NodeProcess:
        running = [node for node in self._nodes if node not in starting]
        chosen = random.sample(running, min(PEERS, len(running)))
        peers = [node.addresses["Swarm"][0] for node in chosen]
        settings: Settings = load_settings(environ={}, flags={**flags, "peers": peers})
        settings.data_dir.mkdir()
        return fork_node(settings.data_dir.name, settings, self._nodes)

    def _await_members(self, compute_nodes: int, status: StatusLine) -> None:
        deadline, known = time.monotonic() + START_TIMEOUT, 0
        while time.monotonic() < deadline:
            with suppress(NodeUnavailable), BlockingConnection(*self.api) as connection:
                nodes = connection.call(calls.list_nodes())
                known = sum("ComputeNodeInfo" in node.get("Info", {}) for node in nodes)
            if known >= compute_nodes:
                return
            status.show(f"the requester knows {known} of {compute_nodes} compute nodes")
            time.sleep(max(0.05, compute_nodes / 200))  # the answer is long where there are many
        raise click.ClickException(
            f"the requester knows only {known} of {compute_nodes} compute nodes after {START_TIMEOUT:g} s"
        )


def _compiled_modules() -> str:
    """The folder for compiled WebAssembly modules of this and later devstacks of this user; empty if there is
    none that can be written."""
    folder = user_cache_dir() / "wasm"
    try:
        if folder.is_absolute():  # this user has a home
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK | os.X_OK) else ""
