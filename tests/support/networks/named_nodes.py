"""Nodes in processes of their own that a test kills and starts again."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.networks.networks import Network, Node


class Nodes:
    """Nodes by name. A node that is started again has the same folder, port and flags."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}
        self._flags: dict[str, tuple[str, ...]] = {}
        self.by_name: dict[str, Node] = {}

    def start(self, name: str, *flags: str) -> Node:
        """Start a node, or start it again as it was."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = self._ports.setdefault(name, str(free.getsockname()[1]))
        flags = self._flags.setdefault(name, flags)
        node = self.by_name[name] = Node(self._folder / name, "--swarm-port", port, *flags)
        return node

    def requester(self) -> Network:
        return self.start("requester", "--no-compute").network

    def compute(self, name: str, *engines: str) -> Node:
        flags = [flag for engine in engines for flag in ("--engine", engine)]
        return self.start(name, "--no-requester", "--peer", self.by_name["requester"].address, *flags)

    def kill(self, *names: str) -> None:
        for name in names:
            self.by_name[name].process.kill()
        for name in names:
            self.by_name[name].process.communicate()
