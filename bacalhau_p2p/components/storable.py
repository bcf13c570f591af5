"""Finds what cannot be stored, so that one record does not keep the others from being committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.errors import StoreFailed

Rehearse = Callable[[Commit], None]
"""Writes a commit and rolls it back. Raises what the commit would raise."""

_PARTS = ("records", "history", "outbox", "processed")


def storable(commit: Commit, rehearse: Rehearse) -> tuple[Commit, list[tuple[Any, Exception]]]:
    """The commit without the parts that cannot be stored, and these parts with their errors.

    Raises StoreFailed.
    """
    left_out: list[tuple[Any, Exception]] = []
    kept = replace(commit, records=(), history=(), outbox=(), processed=())
    for part in _PARTS:
        kept = _with(kept, part, getattr(commit, part), rehearse, left_out)
    return kept, left_out


def _with(
    kept: Commit, part: str, items: Sequence[Any], rehearse: Rehearse, left_out: list[tuple[Any, Exception]]
) -> Commit:
    """`kept` and those of the items that can be stored with it. Halves what fails until it is one item."""
    if not items:
        return kept
    changed: dict[str, Any] = {part: (*getattr(kept, part), *items)}
    candidate = replace(kept, **changed)
    try:
        rehearse(candidate)
    except StoreFailed:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a record of a stranger's making causes
        if len(items) == 1:
            left_out.append((items[0], error))
            return kept
        middle = len(items) // 2
        kept = _with(kept, part, items[:middle], rehearse, left_out)
        return _with(kept, part, items[middle:], rehearse, left_out)
    return candidate
