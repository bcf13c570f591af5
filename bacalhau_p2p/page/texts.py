"""Values as text on the page. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.quantities import duration, size_text
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.runtime.text import printable


def harmless(value: Any) -> Any:
    """Text of strangers without characters that turn the direction of writing or cannot be encoded. Jinja
    escapes what HTML gives a meaning to."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return printable(value, keep_lines=True)


def moment(time: UnixSeconds) -> Markup:
    """A time in UTC, to the second, with milliseconds for whoever points at it."""
    try:
        exact = datetime.fromtimestamp(time, UTC)
    except (OverflowError, OSError, ValueError):
        return Markup("?")
    return Markup('<time datetime="{iso}" title="{iso}">{text}</time>').format(
        iso=exact.isoformat(timespec="milliseconds"), text=exact.strftime("%Y-%m-%d %H:%M:%S")
    )


def short(identifier: str) -> str:
    """The beginning of an id, and of a peer id its end: those of Ed25519 keys all begin alike."""
    return f"…{identifier[-8:]}" if identifier.startswith("12D3Koo") else identifier[:8]


def usage(used: Usage | None) -> str:
    """What an execution used of the processor and of memory, as far as it was measured."""
    if used is None:
        return ""
    parts = []
    if used.cpu_seconds is not None:
        parts.append(f"{duration(used.cpu_seconds)} of CPU")
    if used.peak_memory:
        parts.append(size_text(used.peak_memory))
    return ", ".join(parts)


def percent(part: float, whole: float) -> int:
    """0 to 100; 0 of nothing."""
    return round(100 * min(max(part / whole, 0.0), 1.0)) if whole > 0 else 0
