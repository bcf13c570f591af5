"""The whole state of a machine as a value, to compare it before and after an event."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel

NOT_STATE = {"_rng", "_execution_ids", "ignored", "faults", "actions", "_heap", "_open_proposal"}
"""What an event that is dropped may change: random numbers, counters, and heaps with outdated entries."""


def fingerprint(thing: Any, seen: tuple[int, ...] = ()) -> Any:
    """Equal for machines that behave alike."""
    if id(thing) in seen:
        return "..."
    seen = (*seen, id(thing))
    if isinstance(thing, BaseModel | str | bytes | int | float | frozenset | type(None)) or callable(thing):
        return thing
    if isinstance(thing, Counter | dict):
        return {key: fingerprint(value, seen) for key, value in thing.items()}
    if isinstance(thing, set):
        return set(thing)
    if isinstance(thing, list | tuple):
        return [fingerprint(each, seen) for each in thing]
    slots = (name for each in type(thing).__mro__ for name in getattr(each, "__slots__", ()))
    names = {*getattr(thing, "__dict__", {}), *slots} - NOT_STATE
    return {name: fingerprint(getattr(thing, name), seen) for name in names if hasattr(thing, name)}
