"""Which GPUs this computer has."""

from __future__ import annotations

import shutil
import subprocess

from bacalhau_p2p.model.quantities import MAX_GPU
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

QUERY_TIMEOUT = 10.0
"""Seconds for nvidia-smi to answer: the driver may have to be loaded first."""


def find_gpus() -> tuple[str, ...]:
    """The ids of NVIDIA's GPUs, as container engines take them; none without `nvidia-smi`. Blocks."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        listed = subprocess.run(  # noqa: S603 - a program of this computer
            [program, "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=QUERY_TIMEOUT,
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("gpus_not_found", reason=str(error))
        return ()
    return tuple(dict.fromkeys(line.strip() for line in listed.splitlines() if line.strip()))[:MAX_GPU]
