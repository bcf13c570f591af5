"""Parses and formats amounts as people write them: `500m` cores, `256mb`, `1Gi`, `30m`.

Each parser returns a number in base units (cores, bytes, seconds), or raises ValueError with a message for
the user.
"""

from __future__ import annotations

import math
import re

_CPU = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(m?)", re.ASCII)
_BYTES = re.compile(r"(\d+(?:\.\d+)?|\.\d+)([kmgtpe]?)(i?)b?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(?:(?:\d+(?:\.\d+)?|\.\d+)(?:ms|s|m|h|d))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)
_PREFIXES = "kmgtpe"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

MAX_QUANTITY = 64
"""Characters of an amount: every check of a text takes time that grows with its length."""

MAX_CPU = 10_000.0
"""Cores. More than any machine has; bounds the rounding errors of sums."""

MAX_BYTES = 2**60
MAX_GPU = 1024
MAX_DURATION = 366 * 86400.0
"""Seconds of a leap year."""


def parse_cpu(text: str) -> float:
    """Cores: `2`, `0.5`, or in thousandths, `500m`."""
    match = _CPU.fullmatch(_without_spaces(text))
    if match is None:
        raise ValueError(f"{text!r} is not a number of cores, such as 0.5 or 500m")
    cores = float(match[1]) / (1000 if match[2] else 1)
    if cores > MAX_CPU:
        raise ValueError(f"must be at most {MAX_CPU:g} cores")
    return cores


def parse_bytes(text: str) -> int:
    """Bytes: `1048576`; `256mb` and `1g` in powers of 1000; `1Gi` and `1GiB` in powers of 1024."""
    match = _BYTES.fullmatch(_without_spaces(text))
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is not a size in bytes, such as 256mb or 1Gi")
    base = 1024 if match[3] else 1000
    power = _PREFIXES.index(match[2].lower()) + 1 if match[2] else 0
    # Whole numbers stay integers: a float would round 2**53 + 1.
    amount = float(match[1]) * base**power if "." in match[1] else int(match[1]) * base**power
    if amount > MAX_BYTES:
        raise ValueError("must be at most 1Ei")
    return int(amount)


def format_bytes(amount: int) -> str:
    """Bytes for people, in powers of 1000: `950 bytes`, `1.5 MB`, `12 GB`. `parse_bytes` can read it."""
    if amount < 1000:
        return f"{amount} byte{'' if amount == 1 else 's'}"
    power = min((len(str(amount)) - 1) // 3, len(_PREFIXES))
    shown = amount / 1000**power
    digits = f"{shown:.1f}".removesuffix(".0") if shown < 99.95 else f"{shown:.0f}"
    if digits == "1000" and power < len(_PREFIXES):
        return f"1 {_PREFIXES[power].upper()}B"
    unit = _PREFIXES[power - 1]
    return f"{digits} {'k' if unit == 'k' else unit.upper()}B"


def parse_gpu(text: str) -> int:
    """A whole number of GPUs."""
    text = _without_spaces(text)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number of GPUs")
    if len(text) > len(str(MAX_GPU)) or int(text) > MAX_GPU:
        raise ValueError(f"must be at most {MAX_GPU} GPUs")
    return int(text)


def parse_duration(value: object) -> float:
    """Seconds: a number, or text such as `90`, `30m` or `1h30m`. At most MAX_DURATION."""
    seconds = parse_seconds(value)
    if seconds > MAX_DURATION:
        raise ValueError("must be at most 366 days")
    return seconds


def parse_timeout(value: object) -> float:
    """As `parse_duration`, but more than MAX_DURATION means MAX_DURATION: nobody waits that long, and users
    write such numbers for "no limit"."""
    return min(parse_seconds(value), MAX_DURATION)


def parse_seconds(value: object) -> float:
    """Seconds as `parse_duration` reads them, without an upper limit."""
    if isinstance(value, str):
        return _finite(_duration_text(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of seconds, or text such as 30m")
    try:
        return _finite(float(value))
    except OverflowError:
        raise ValueError("must be a smaller number") from None


def _duration_text(text: str) -> float:
    compact = _without_spaces(text)
    if _NUMBER.fullmatch(compact):
        return float(compact)
    if not _DURATION.fullmatch(compact):
        raise ValueError(f"{text!r} is not a duration, such as 90 (seconds), 30m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(compact))


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise ValueError("must be finite")
    if seconds < 0:
        raise ValueError("must be at least 0")
    return seconds


def _without_spaces(text: str) -> str:
    if len(text) > MAX_QUANTITY:
        raise ValueError(f"must have at most {MAX_QUANTITY} characters")
    return text.replace(" ", "").replace("\n", "")


def duration(seconds: float) -> str:
    """Such as `0.2 s`, `3 min 20 s` or `2 d 5 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {part_name}"
    return f"{whole} s"


def size_text(size: object) -> str:
    """Bytes, such as `12.3 MB`; a question mark if they are not known."""
    if not isinstance(size, int | float):
        return "?"
    if size < 1000:
        return f"{size:.0f} B"
    amount, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        del units[0]
    return f"{amount:.1f} {units[0]}"
