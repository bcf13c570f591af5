"""Values as text for people."""

from __future__ import annotations

from datetime import datetime

NANOSECONDS = 1_000_000_000


def day_and_minute(nanoseconds: object) -> str:
    """A local time such as `26-11-22 18:59`; empty if there is none."""
    if not isinstance(nanoseconds, int):
        return ""
    return datetime.fromtimestamp(nanoseconds / NANOSECONDS).strftime("%y-%m-%d %H:%M")


def time_of_day(nanoseconds: object, now: datetime) -> str:
    """A local time such as `18:59:25`, with its date unless it is today; empty if there is none."""
    if not isinstance(nanoseconds, int):
        return ""
    time = datetime.fromtimestamp(nanoseconds // NANOSECONDS)
    return time.strftime("%H:%M:%S" if time.date() == now.date() else "%y-%m-%d-%H:%M:%S")


def whole_time(nanoseconds: object) -> str:
    """As `exact_time`; empty if there is none."""
    return str(exact_time(nanoseconds)) if isinstance(nanoseconds, int) else ""


def exact_time(nanoseconds: object) -> object:
    """A local time with milliseconds and UTC offset; anything else as it is."""
    if not isinstance(nanoseconds, int):
        return nanoseconds
    time = datetime.fromtimestamp(nanoseconds / NANOSECONDS).astimezone()
    return time.isoformat(sep=" ", timespec="milliseconds")
