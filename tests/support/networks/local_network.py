"""A local network for tests: machines in network namespaces of their own, on one bridge.

Nothing in it reaches the network of this computer.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000

HOLD = "echo ready && exec cat"
"""Keeps the namespaces of a shell until its stdin is closed."""


@dataclass(frozen=True)
class Machine:
    prefix: Sequence[str]
    """The words before a command that is to run on this machine."""
    ip: str
    ip6: str
    pid: int = 0
    """A process that lives as long as the machine."""

    def run(self, *command: str) -> str:
        """What a command prints that runs on this machine, as root of this computer."""
        return _run(*self.prefix, *command)

    def call(self, work: Callable[[], _T]) -> _T:
        """Do something in the network of this machine, such as making a socket, which stays there."""
        return in_network_of(self.pid, work)


@contextmanager
def local_network(machines: int) -> Iterator[list[Machine]]:
    """So many machines, 10.77.0.1, 10.77.0.2 and so on. Skips the test if this user may not make them."""
    root = os.geteuid() == 0
    user = () if root else ("-U", "--preserve-credentials")
    with ExitStack() as stack:
        switch = _hold(stack, "unshare", "-n" if root else "-Urn")
        if switch is None or not shutil.which("ip"):
            pytest.skip("this user may not make network namespaces")
        inside = ("nsenter", "-t", f"{switch}", *user, "-n", "--")
        _run(*inside, "ip", "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _run(*inside, "ip", "link", "set", "bridge", "up")
        made = []
        for number in range(1, machines + 1):
            pid = _hold(stack, *inside, "unshare", "-n")
            machine = Machine(
                ("nsenter", "-t", f"{pid}", *user, "-n", "--"),
                f"10.77.0.{number}",
                f"fd77::{number}",
                pid or 0,
            )
            port = f"machine-{number}"
            _run(
                *inside, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", f"{pid}"
            )
            _run(*inside, "ip", "link", "set", port, "master", "bridge", "up")
            _run(*machine.prefix, "ip", "address", "add", f"{machine.ip}/24", "dev", "eth0")
            _run(*machine.prefix, "ip", "address", "add", f"{machine.ip6}/64", "dev", "eth0", "nodad")
            _run(*machine.prefix, "ip", "link", "set", "eth0", "up")
            _run(*machine.prefix, "ip", "link", "set", "lo", "up")
            made.append(machine)
        yield made


def _hold(stack: ExitStack, *command: str) -> int | None:
    """The id of a process that keeps the namespaces that the command makes; None if it cannot."""
    process = stack.enter_context(
        subprocess.Popen(
            [*command, "sh", "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    )
    assert process.stdout is not None
    return process.pid if process.stdout.readline() == "ready\n" else None


def in_network_of(pid: int, work: Callable[[], _T]) -> _T:
    """Call `work` in a thread that has entered the network namespace of a process."""
    libc, made = ctypes.CDLL(None, use_errno=True), list[_T]()

    def enter() -> None:
        with open(f"/proc/{pid}/ns/net") as namespace:  # noqa: PTH123 - a descriptor is what is needed
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns failed")
        made.append(work())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout
