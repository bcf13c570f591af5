"""Why a job's process gave no result."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from bacalhau_p2p.errors import ExecutorError

TICK_PRECISION = 0.5
"""Share of a limit of CPU time above which a process that was killed is held to have reached it."""


def run_failed(report: Mapping[str, Any], doing: str, *, stopping: bool) -> ExecutorError:
    """The error for a process that reported a failure, or ended without a report.

    `doing` says what it did; `stopping`: the executor is closed, which ends all processes.
    """
    if "failed" in report:
        return ExecutorError(report["failed"], permanent=report.get("permanent", False))
    if stopping:
        return ExecutorError("this node is stopping")
    status = report.get("status", -signal.SIGKILL)
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return ExecutorError(f"WebAssembly process killed by {name} while {doing}; out of memory?")
    return ExecutorError(f"WebAssembly process exited with status {status} while {doing}")


def used_up_cpu(report: Mapping[str, Any], limit: int) -> bool:
    """Whether the process was ended because it reached its limit of CPU seconds.

    The kernel ends it with SIGKILL then. It counts in ticks, which under load may be far from the exact sum.
    """
    used = report.get("cpu_seconds", 0)
    return report.get("status") in (-signal.SIGKILL, -signal.SIGXCPU) and used > limit * TICK_PRECISION > 0
