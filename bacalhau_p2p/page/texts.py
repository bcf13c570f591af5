"""Values as text on the page. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.event_text import news
from bacalhau_p2p.model.history import HistoryEvent
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.runtime.text import printable


def harmless(value: Any) -> Any:
    """Text of strangers without characters that turn the direction of writing or cannot be encoded. Jinja
    escapes what HTML gives a meaning to."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return printable(value, keep_lines=True)


def moment(time: UnixSeconds, on_day_of: UnixSeconds | None = None, *, exact: bool = False) -> Markup:
    """A time in UTC, to the second or `exact` to the millisecond. Its title is all of it.

    Without its date if that is the one of `on_day_of`.
    """
    at, day = _utc(time), _utc(on_day_of) if on_day_of is not None else None
    if at is None:
        return Markup("?")
    iso = at.isoformat(timespec="milliseconds")
    text = at.strftime("%H:%M:%S") + (f".{at.microsecond // 1000:03}" if exact else "")
    if day is None or at.date() != day.date():
        text = f"{at:%Y-%m-%d} {text}"
    return Markup('<time datetime="{iso}" title="{iso}">{text}</time>').format(iso=iso, text=text)


def _utc(time: UnixSeconds) -> datetime | None:
    """None for a time beyond every calendar."""
    try:
        return datetime.fromtimestamp(time, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def told(event: HistoryEvent) -> str:
    """The message of an event, without the kind that stands beside it."""
    return news(event.kind, event.message)


def short(identifier: str) -> str:
    """The beginning of an id, and of a peer id its end: those of Ed25519 keys all begin alike."""
    return f"…{identifier[-8:]}" if identifier.startswith("12D3Koo") else identifier[:8]


def usage(used: Usage | None) -> str:
    """What an execution used, as far as it was measured."""
    return "" if used is None else str(used)


def percent(part: float, whole: float) -> int:
    """0 to 100; 0 of nothing."""
    return round(100 * min(max(part / whole, 0.0), 1.0)) if whole > 0 else 0
