"""One node of a devstack: a process forked from one that has imported what a node needs.

The process that forks has no event loop. It holds the write end of a pipe to each node, so that the nodes end
when it ends, in whatever way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from bacalhau_p2p.cli.node_run import run_node
from bacalhau_p2p.errors import BacalhauError
from bacalhau_p2p.node import Node
from bacalhau_p2p.runtime.removal import discard_tree
from bacalhau_p2p.runtime.text import printable
from bacalhau_p2p.settings import Settings

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True, eq=False)
class NodeProcess:
    """A running node, as its parent sees it."""

    name: str
    pid: int
    lifeline: int
    """A pipe: the node ends when it is closed."""
    report: int
    """A pipe on which the node says that it listens."""
    log: Path
    started: float = field(default_factory=time.monotonic)
    addresses: dict[str, Any] = field(default_factory=dict)
    """`PeerID`, `Swarm` and `API` of a node that listens."""
    _received: bytes = b""

    def read_report(self) -> bool:
        """Read what there is, after `select`; True when the node listens.

        Raises ClickException if it has ended.
        """
        piece = os.read(self.report, 65536)
        self._received += piece
        if piece and not piece.endswith(b"\n"):
            return False
        os.close(self.report)
        if not piece:
            raise self.failure("did not start")
        self.addresses = json.loads(self._received)
        _import(self.addresses.pop("Modules"))
        return True

    def failure(self, what: str) -> click.ClickException:
        """An error that names the node, and its last words."""
        return click.ClickException(f"node {self.name} {what}: {self._last_words()}")

    def has_ended(self, deadline: float) -> bool:
        """Whether the process ends before the deadline (`time.monotonic`)."""
        while True:
            done, _ = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return printable(lines[-1]) if lines else "no output"


def fork_node(name: str, settings: Settings, others: list[NodeProcess]) -> NodeProcess:
    """Fork a node and append it to `others`, in whose lifelines it has no part.

    Ctrl-C waits until that is done, so that no process is forgotten.
    """
    lifeline, lifeline_held = os.pipe()
    report, report_to_parent = os.pipe()
    log = settings.data_dir.with_suffix(".log")
    sys.stdout.flush()
    parent = os.getpid()
    with _undisturbed():
        pid = os.fork()
        if pid == 0:
            for other in others:
                os.close(other.lifeline)
            os.close(lifeline_held)
            os.close(report)
            _run_child(settings, parent, lifeline, report_to_parent, log)
        os.close(lifeline)
        os.close(report_to_parent)
        process = NodeProcess(name, pid, lifeline_held, report, log)
        others.append(process)
    return process


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that stop the devstack wait until the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_child(settings: Settings, parent: int, lifeline: int, report: int, log: Path) -> None:
    """Run a node in a forked child. Never returns."""
    status = 1
    try:
        os.setsid()  # Ctrl-C in the terminal only reaches the parent, which stops us gracefully
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        imported = frozenset(sys.modules)

        def listens(node: Node, url: str) -> None:
            _report(report, node, url, sys.modules.keys() - imported)

        run_node(settings, listens, lifeline=lifeline, ephemeral=True)
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


def _report(pipe: int, node: Node, url: str, modules: Iterable[str]) -> None:
    """Tell the parent where the node listens, and what it had to import, in one line of JSON."""
    line = {"PeerID": node.peer_id, "Swarm": node.addresses, "API": url, "Modules": sorted(modules)}
    os.write(pipe, f"{json.dumps(line)}\n".encode())
    os.close(pipe)


def _import(modules: Iterable[str]) -> None:
    """Import what a node had to import by itself, so that those forked later share it."""
    for name in modules:
        with suppress(ImportError):  # libraries make modules that are in no file
            import_module(name)
