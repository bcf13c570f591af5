"""The links between nodes: where each node listens, and how it is disconnected from the others."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from proxies import open_proxies

API_PORT = 1234
SWARM_PORT = 1235


class Links(Protocol):
    cut_modes: Sequence[str]
    """How links can be cut: `silent`, so that nothing passes, or `reset`, so that both ends notice."""

    def add_node(self, number: int) -> None:
        """Prepare the links of a node."""

    def command_prefix(self, number: int) -> Sequence[str]:
        """The words before a node's command."""

    def listen_address(self, number: int) -> tuple[str, int, int]:
        """The IP address, API port and swarm port of a node."""

    def dial_address(self, number: int) -> tuple[str, int]:
        """The IP address and port at which other nodes dial a node."""

    def set_process(self, number: int, process: Callable[[], int | None]) -> None:
        """`process` returns the process id of the node, or None while it does not run."""

    def cut(self, number: int, mode: str) -> None:
        """Nothing reaches or leaves this node from now on."""

    def separate(self, first: int, second: int, mode: str) -> None:
        """Nothing passes between these two from now on."""

    def heal(self, *numbers: int) -> None:
        """End the cut of a node, or the one between two."""

    def unproxied_connections(self) -> list[str]:
        """Connections between nodes that cannot be cut. There must be none."""


class Namespaces:
    """A network namespace for each node, all on one bridge. Needs root and `ip`.

    The bridge has its own namespace: in that of the machine, Docker's firewall would filter its traffic.
    """

    cut_modes = ("silent",)

    def __init__(self) -> None:
        """Raises OSError or CalledProcessError if this machine does not allow it."""
        tag = f"{os.getpid():x}"[-6:]
        self._net = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self._prefix = f"chaos-{tag}"
        self._switch = f"{self._prefix}-switch"
        self._spaces: list[str] = []
        try:
            self._add_space(self._switch)
            _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", "bridge", "up")
            self._connect("here", "ch" + tag, None, f"{self._net}.1")
        except BaseException:
            self.close()
            raise

    def add_node(self, number: int) -> None:
        self._add_space(self._space(number))
        self._connect(f"node-{number}", "eth0", self._space(number), f"{self._net}.{10 + number}")

    def command_prefix(self, number: int) -> Sequence[str]:
        return ("ip", "netns", "exec", self._space(number))

    def listen_address(self, number: int) -> tuple[str, int, int]:
        return f"{self._net}.{10 + number}", API_PORT, SWARM_PORT

    def dial_address(self, number: int) -> tuple[str, int]:
        host, _, swarm = self.listen_address(number)
        return host, swarm

    def set_process(self, number: int, process: Callable[[], int | None]) -> None:
        """Not needed: a node is known by its namespace."""

    def unproxied_connections(self) -> list[str]:
        return []

    def cut(self, number: int, mode: str) -> None:
        self._set(number, "down")

    def separate(self, first: int, second: int, mode: str) -> None:
        for number in (first, second):
            self._set(number, "type", "bridge_slave", "isolated", "on")

    def heal(self, *numbers: int) -> None:
        for number in numbers:
            self._set(number, "up")
            self._set(number, "type", "bridge_slave", "isolated", "off")

    def close(self) -> None:
        """Remove everything."""
        for space in reversed(self._spaces):  # a namespace takes its interfaces with it
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", space)
        self._spaces.clear()

    def _add_space(self, space: str) -> None:
        _run("ip", "netns", "add", space)
        self._spaces.append(space)

    def _connect(self, port: str, name: str, space: str | None, address: str) -> None:
        """Connect a port of the bridge to an interface with this name and address."""
        _run("ip", "-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", name)
        _run("ip", "-n", self._switch, "link", "set", name, "netns", space or str(os.getpid()))
        _run("ip", "-n", self._switch, "link", "set", port, "master", "bridge", "up")
        there = ("ip", "-n", space) if space else ("ip",)
        _run(*there, "addr", "add", f"{address}/24", "dev", name)
        _run(*there, "link", "set", name, "up")
        _run(*there, "link", "set", "lo", "up")

    def _set(self, number: int, *what: str) -> None:
        _run("ip", "-n", self._switch, "link", "set", "dev", f"node-{number}", *what)

    def _space(self, number: int) -> str:
        return f"{self._prefix}-{number}"


@asynccontextmanager
async def open_links(*, proxies: bool) -> AsyncIterator[Links]:
    """Network namespaces if this machine allows them; proxies otherwise, or if `proxies` is set."""
    spaces = None
    if not proxies and os.geteuid() == 0 and shutil.which("ip"):
        with suppress(OSError, subprocess.CalledProcessError):
            spaces = Namespaces()
    if spaces is None:
        async with open_proxies() as links:
            yield links
        return
    try:
        yield spaces
    finally:
        spaces.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)
