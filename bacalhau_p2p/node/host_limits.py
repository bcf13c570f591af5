"""How much of the computer a node uses: for jobs, for content, and what stays free."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from bacalhau_p2p.compute.bidding import no_disk_for_inputs
from bacalhau_p2p.model.quantities import parse_bytes
from bacalhau_p2p.model.resources import Resources, parse_resources
from bacalhau_p2p.settings import Limits, Settings

DEFAULT_SHARE = 0.8
"""The part of memory and disk that a node uses if its settings do not limit it."""


def job_capacity(limits: Limits, folder: Path, gpus: int = 0) -> Resources:
    """What all jobs together may use. `gpus`: how many this computer has."""
    given = parse_resources(limits)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Resources(
        cpu=given.cpu or float(os.cpu_count() or 1),
        memory=given.memory or int(memory * DEFAULT_SHARE),
        disk=given.disk or int(shutil.disk_usage(folder).free * DEFAULT_SHARE),
        gpu=given.gpu if limits.gpu else gpus,
    )


def content_quota(settings: Settings) -> int:
    """Bytes that the block store may use."""
    if settings.content_quota:
        return parse_bytes(settings.content_quota)
    return int(shutil.disk_usage(settings.data_dir).total * DEFAULT_SHARE)


def disk_shortage(folder: Path, min_free: int) -> Callable[[int], str | None]:
    """A function of the bytes of a job's inputs: why the disk has no room for the job, or None.

    It asks the disk on each call, which takes microseconds.
    """

    def shortage(inputs: int) -> str | None:
        free = shutil.disk_usage(folder).free - min_free
        if free < 0:
            return "has almost no free disk"
        return no_disk_for_inputs(inputs=inputs, job=0, free=free) if inputs > free else None

    return shortage
