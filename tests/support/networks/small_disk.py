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

MOUNT_AND_HOLD = 'mount -t tmpfs -o size="$2" none "$1" && echo ready && exec cat'
"""Mounts a tmpfs in a new namespace, and keeps that until stdin is closed."""


class SmallDisk(Protocol):
    folder: Path
    """The disk, for a node that is started with `prefix`."""
    prefix: Sequence[str]

    def fill(self, pid: int, *, leave: int = 0) -> None:
        """Fill the disk, but leave so many bytes for the node of this process."""

    def empty(self) -> None:
        """Free the disk again. Another process can be started on it."""


class Mounted:
    """A tmpfs that only processes see that are started with `prefix`."""

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
    """A limit on the size of each file of the node: its writes fail as on a full disk."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.prefix = ("prlimit", f"--fsize={size}:unlimited", "--")

    def fill(self, pid: int, *, leave: int = 0) -> None:
        logs = [path.stat().st_size for path in self.folder.rglob("*.db-wal")]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (min(logs) + leave, resource.RLIM_INFINITY))

    def empty(self) -> None:
        """The limit ended with its process."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of `size` bytes: a tmpfs if this user may mount one, else a limit on the size of files."""
    folder.mkdir()
    root = os.geteuid() == 0
    command = ["unshare", "-m" if root else "-Urm", "sh", "-c", MOUNT_AND_HOLD, "sh", str(folder), str(size)]
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
