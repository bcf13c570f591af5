"""Runs a container, or follows one that runs already, to its end."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.container_monitor import ContainerMonitor
from bacalhau_p2p.executors.docker.container_output import AttachedOutput, LoggedOutput
from bacalhau_p2p.executors.docker.containers import Containers
from bacalhau_p2p.executors.docker.disk_quotas import DiskQuotas
from bacalhau_p2p.executors.docker.engine import DockerEngine
from bacalhau_p2p.executors.docker.engine_errors import is_permanent
from bacalhau_p2p.executors.docker.ownership import JobUser
from bacalhau_p2p.executors.docker.writable_folders import can_make_writable, make_writable
from bacalhau_p2p.executors.layout import Layout
from bacalhau_p2p.executors.results import ResultsFolder

if TYPE_CHECKING:
    pass

_INIT_FAILED = re.compile(rb"\A\[FATAL tini \(\d+\)\] (exec .+ failed: .+)\n")
_INIT_STATUSES = (126, 127)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContainer:
    """A container that is to be created, from arguments for the SDK's `create_container`."""

    config: Mapping[str, Any]
    user: JobUser
    layout: Layout
    quotas: DiskQuotas

    def start(self, monitor: ContainerMonitor) -> None:
        """Create and start it, with its output attached, and with folders that its user may write into.

        Blocks; all in one thread, because to change it takes as long as some of these calls.
        """
        client, name = monitor.client, monitor.name
        container_id = self.quotas.create(client, self.config)
        # Attached before the start: attaching later misses the first lines.
        monitor.output = AttachedOutput(client, name)
        if self.user.uid and can_make_writable():
            make_writable(client, name, self.user)
        client.start(name)
        monitor.usage.open(container_id)


async def run_container(
    engine: DockerEngine,
    containers: Containers,
    monitor: ContainerMonitor,
    new: NewContainer | None,
) -> int:
    """The exit status of a new container, or without one of an existing one.

    Raises ExecutorError. The container is removed in every case: one that has ended by itself beside what
    follows, any other before this returns.
    """
    client, name = monitor.client, monitor.name
    failure: ExecutorError | None = None
    async with trio.open_nursery() as nursery:
        try:
            if new is None:
                monitor.output = await engine.call(LoggedOutput, client, name)
                nursery.start_soon(monitor.run, containers)
            else:
                containers.check_open()
                await engine.call(new.start, monitor)
                nursery.start_soon(monitor.run, containers)
            await monitor.ended.wait()
        except ExecutorError as error:  # to come out of the nursery as it is
            failure = error
        finally:
            with trio.CancelScope(shield=True):
                monitor.usage.sample()
                if not monitor.removes_ended:
                    monitor.stopping = True
                    await containers.remove(name)
                await monitor.stop()
    if failure is not None:
        raise failure
    containers.check_open()
    status = monitor.exit_status()
    _raise_if_never_started(status, monitor.results)
    return status


def _raise_if_never_started(status: int, results: ResultsFolder) -> None:
    """The engine starts the init, so a command that cannot be run is an error of the init."""
    if status not in _INIT_STATUSES or results.stdout.kept:
        return
    if match := _INIT_FAILED.match(results.stderr.head()):
        message = match[1].decode(errors="replace")
        raise ExecutorError(message, permanent=is_permanent(message))


_PERMISSION_WORDS = (b"ermission denied", b"peration not permitted", b"ead-only file system")
_DISK_WORDS = (b"o space left on device", b"isk quota exceeded")
_LAST_WORDS = 4096
"""Bytes of the end of stderr that are looked at."""


def explain_permissions(results: ResultsFolder, user: JobUser) -> None:
    """Say which user a job ran as, at the end of its stderr, if that speaks of permissions. Blocks."""
    stderr = results.stderr
    if _speaks_of(_PERMISSION_WORDS, results):
        whose = "that of the image" if user.of_image else "that of this node for jobs"
        stderr.write(
            f"\nhint: the job ran as user {user}, {whose}; it may write to its result paths, HOME, /tmp and"
            " files of that user; inputs are read-only\n".encode()
        )


def explain_disk(results: ResultsFolder, disk: int) -> None:
    """Say what a job may write, at the end of its stderr, if that speaks of a full disk. Blocks."""
    if _speaks_of(_DISK_WORDS, results):
        text = f"\nhint: the job may write {disk} bytes beside its result paths (Resources.Disk)\n"
        results.stderr.write(text.encode())


def _speaks_of(words: Sequence[bytes], results: ResultsFolder) -> bool:
    """Whether the end of stderr has any of these words."""
    stderr = results.stderr
    said = os.pread(stderr.fileno(), _LAST_WORDS, max(0, stderr.kept - _LAST_WORDS))
    return any(each in said for each in words)
