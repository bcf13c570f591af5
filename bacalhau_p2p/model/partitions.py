"""Partitions: the parts into which the work of a job, and its inputs, are divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARTITION = "Partition"
"""The parameter of a source that says how it is divided."""
WHOLE = frozenset({"", "none"})
"""Types of `Partition` that divide nothing."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Which part of its job's work an execution does: part `index`, counted from 0, of `count`."""

    index: int
    count: int


def is_divided(params: Mapping[str, Any]) -> bool:
    """Whether a source with these parameters is divided among the executions of its job."""
    given = params.get(PARTITION)
    if not isinstance(given, Mapping) or "Count" in given:  # with a `Count` it is always the same part
        return False
    kind = given.get("Type")
    return isinstance(kind, str) and kind not in WHOLE


def part_of(params: Mapping[str, Any], partition: Partition) -> Mapping[str, Any]:
    """The parameters of a source for one partition of a job."""
    if not is_divided(params):
        return params
    return {**params, PARTITION: {**params[PARTITION], "Index": partition.index, "Count": partition.count}}
