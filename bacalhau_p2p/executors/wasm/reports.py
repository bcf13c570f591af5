"""What the process of a job says about itself.

A program that breaks out of WebAssembly can write to the same socket, so nothing in a report is trusted: what
is not as it must be is left out.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from bacalhau_p2p.runtime.text import printable

REPORT_SIZE = 65536
"""Bytes of one message."""
TEXT_LIMIT = 8192
"""Characters of a reason."""
_SHA256 = re.compile("[0-9a-f]{64}")


def read_report(message: bytes) -> dict[str, Any]:
    """The valid fields of a message."""
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    report = {
        name: found[name] for name, is_valid in _FIELDS.items() if name in found and is_valid(found[name])
    }
    for name in ("failed", "refused"):
        if name in report:
            report[name] = printable(report[name][:TEXT_LIMIT])
    return report


def _integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str)


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "exit": _integer(0, 2**32 - 1),
    "status": _integer(-signal.NSIG, 255),
    "stale": _text,
    "failed": _text,
    "permanent": lambda value: isinstance(value, bool),
    "compiled": lambda value: isinstance(value, str) and _SHA256.fullmatch(value) is not None,
    "refused": _text,
    "cpu_seconds": lambda value: type(value) in (int, float) and 0 <= value < inf,
    "peak_memory": _integer(0, 2**62),
}
"""Of each field, whether its value is possible."""
