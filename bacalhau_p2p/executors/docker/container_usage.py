"""What a container uses, from its control group.

The group vanishes a moment after its last process has ended, and the engine keeps no figures. So its files
are opened as soon as the container has started, and read at intervals and when its output ends; the last
figures that could be read count. The engine must be on this machine.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from bacalhau_p2p.executors.interface import Meter

GROUPS = Path("/sys/fs/cgroup")
_PLACES = ("docker/{id}", "system.slice/docker-{id}.scope")
"""Where engines make groups, with the drivers cgroupfs and systemd."""
_MAX_FILE = 4096
"""Bytes of a file of a control group that are read."""
_NANOSECONDS, _MICROSECONDS = 1e9, 1e6


class ContainerUsage:
    """The figures of one container. All methods are quick: they read files of the kernel."""

    def __init__(self, groups: Path = GROUPS) -> None:
        self._groups = groups
        self._files: dict[str, int] = {}
        self._cpu_seconds: float | None = None
        self._peak_memory: int | None = None

    def open(self, container_id: str) -> None:
        """Open the files of a container that has started. None are there if it has ended already."""
        for place in (each.format(id=container_id) for each in _PLACES):
            # Version 1 of control groups has a tree for each kind, version 2 one for all.
            self._open("cpu.v1", self._groups / "cpuacct" / place / "cpuacct.usage")
            self._open("memory.v1", self._groups / "memory" / place / "memory.max_usage_in_bytes")
            self._open("cpu.v2", self._groups / place / "cpu.stat")
            self._open("memory.v2", self._groups / place / "memory.peak")
        self.sample()

    def _open(self, name: str, path: Path) -> None:
        if name not in self._files:
            with suppress(OSError):
                self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sample(self) -> None:
        """Read the figures, if the container is still there."""
        if (text := self._read("cpu.v1")).isdigit():
            self._cpu_seconds = int(text) / _NANOSECONDS
        fields = dict(line.split(" ", 1) for line in self._read("cpu.v2").splitlines() if " " in line)
        if (text := fields.get("usage_usec", "")).isdigit():
            self._cpu_seconds = int(text) / _MICROSECONDS
        for name in ("memory.v1", "memory.v2"):
            if (text := self._read(name)).isdigit():
                self._peak_memory = max(int(text), self._peak_memory or 0)

    def _read(self, name: str) -> str:
        with suppress(KeyError, OSError):
            return os.pread(self._files[name], _MAX_FILE, 0).decode("ascii", "replace").strip()
        return ""

    def report(self, meter: Meter) -> None:
        """Put the last figures into the meter of the run."""
        meter.cpu_seconds, meter.peak_memory = self._cpu_seconds, self._peak_memory

    def close(self) -> None:
        """Close the files; the figures stay."""
        while self._files:
            os.close(self._files.popitem()[1])
