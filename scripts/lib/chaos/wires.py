"""The wires between the nodes: where each listens, and how it is cut off from the others."""

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


class Wires(Protocol):
    manners: Sequence[str]
    """How these wires can be cut: `silent`, when nothing passes, or `reset`, when both ends learn of it."""

    def plug(self, number: int) -> None:
        """Make room for a node of this number."""

    def prefix(self, number: int) -> Sequence[str]:
        """What a node's command begins with."""

    def place(self, number: int) -> tuple[str, int, int]:
        """A node's IP address, API port and swarm port."""

    def dialled(self, number: int) -> tuple[str, int]:
        """The IP address and port at which other nodes dial it."""

    def belongs_to(self, number: int, process: Callable[[], int | None]) -> None:
        """This node is the process of this id, while there is one."""

    def cut(self, number: int, manner: str) -> None:
        """Nothing reaches this node any more, nor leaves it."""

    def isolate(self, first: int, second: int, manner: str) -> None:
        """Nothing passes between these two."""

    def heal(self, *numbers: int) -> None:
        """Everything reaches these nodes again."""

    def past_the_wires(self) -> list[str]:
        """Connections between nodes which cannot be cut; there must be none."""


class Namespaces:
    """Each node in a network namespace of its own, all on one bridge. Needs root and `ip`.

    The bridge has a namespace too: in that of the machine, Docker's firewall would filter what it carries.
    """

    manners = ("silent",)

    def __init__(self) -> None:
        """Raises OSError, CalledProcessError where this machine does not allow it."""
        tag = f"{os.getpid():x}"[-6:]
        self._net = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self._prefix = f"chaos-{tag}"
        self._switch = f"{self._prefix}-switch"
        self._spaces: list[str] = []
        try:
            self._add_space(self._switch)
            _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", "bridge", "up")
            self._wire("here", "ch" + tag, None, f"{self._net}.1")
        except BaseException:
            self.close()
            raise

    def plug(self, number: int) -> None:
        self._add_space(self._space(number))
        self._wire(f"node-{number}", "eth0", self._space(number), f"{self._net}.{10 + number}")

    def prefix(self, number: int) -> Sequence[str]:
        return ("ip", "netns", "exec", self._space(number))

    def place(self, number: int) -> tuple[str, int, int]:
        return f"{self._net}.{10 + number}", API_PORT, SWARM_PORT

    def dialled(self, number: int) -> tuple[str, int]:
        host, _, swarm = self.place(number)
        return host, swarm

    def belongs_to(self, number: int, process: Callable[[], int | None]) -> None:
        """Its namespace tells."""

    def past_the_wires(self) -> list[str]:
        return []

    def cut(self, number: int, manner: str) -> None:
        self._set(number, "down")

    def isolate(self, first: int, second: int, manner: str) -> None:
        for number in (first, second):
            self._set(number, "type", "bridge_slave", "isolated", "on")

    def heal(self, *numbers: int) -> None:
        for number in numbers:
            self._set(number, "up")
            self._set(number, "type", "bridge_slave", "isolated", "off")

    def close(self) -> None:
        """Nothing of the wires is left."""
        for space in reversed(self._spaces):  # with a namespace its wires go
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", space)
        self._spaces.clear()

    def _add_space(self, space: str) -> None:
        _run("ip", "netns", "add", space)
        self._spaces.append(space)

    def _wire(self, port: str, name: str, space: str | None, address: str) -> None:
        """From a port of the bridge to an interface of this name and address."""
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
async def open_wires(*, proxies: bool) -> AsyncIterator[Wires]:
    """Namespaces where this machine allows them, unless `proxies` are wanted."""
    spaces = None
    if not proxies and os.geteuid() == 0 and shutil.which("ip"):
        with suppress(OSError, subprocess.CalledProcessError):
            spaces = Namespaces()
    if spaces is None:
        async with open_proxies() as wires:
            yield wires
        return
    try:
        yield spaces
    finally:
        spaces.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)
