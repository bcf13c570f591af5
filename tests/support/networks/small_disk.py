"""A disk that can be filled: a real file system of a few MiB, or a limit on the size of files."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

HOLD = 'mount -t tmpfs -o size="$2" none "$1" && echo ready && exec cat'
"""Mounts in a namespace of its own, and keeps that until its stdin ends."""


class SmallDisk(Protocol):
    folder: Path
    """Where a node that is started behind `prefix` has the disk."""
    prefix: Sequence[str]

    def fill(self, pid: int, *, leave: int = 0) -> None:
        """Leave so many bytes for what the node of this process writes."""

    def empty(self) -> None:
        """Make the room again; with it, another process may be started."""


class Mounted:
    """A tmpfs which only those see who are started behind `prefix`."""

    def __init__(self, folder: Path, holder: subprocess.Popen[str], *, root: bool) -> None:
        self.folder = folder
        user = () if root else ("-U", "--preserve-credentials")
        self.prefix = ("nsenter", "-t", str(holder.pid), *user, "-m", "--")
        self._filling = Path(f"/proc/{holder.pid}/root{folder}/filling")

    def fill(self, pid: int, *, leave: int = 0) -> None:
        with self._filling.open("ab", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(max(0, file.tell() - leave))

    def empty(self) -> None:
        self._filling.unlink()


class Limited:
    """No file of the node may grow beyond a size: its writes fail as those to a full disk do."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.prefix = ("prlimit", f"--fsize={size}:unlimited", "--")

    def fill(self, pid: int, *, leave: int = 0) -> None:
        logs = [path.stat().st_size for path in self.folder.rglob("*.db-wal")]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (min(logs) + leave, resource.RLIM_INFINITY))

    def empty(self) -> None:
        """The limit went with its process."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of `size` bytes: a real one wherever this user may mount, in a namespace, else limited files."""
    folder.mkdir()
    root = os.geteuid() == 0
    command = ["unshare", "-m" if root else "-Urm", "sh", "-c", HOLD, "sh", str(folder), str(size)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            yield Limited(folder, size)
            return
        try:
            yield Mounted(folder, holder, root=root)
        finally:
            holder.send_signal(signal.SIGTERM)
