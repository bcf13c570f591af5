"""What the jobs of a function ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionOptions:
    """What the jobs of a function ask for."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """By path in the job, a CID: content that every call finds there."""
    requires: Sequence[str | Path] = ()
    """Pure-Python packages: names, also with `==VERSION`, of what is installed here, or paths of wheels."""
    count: int = 1
    """On how many nodes each call runs. With more than one, their results are compared."""
    cpu: float | str = 1
    memory: str = "256mb"
    timeout: float | str = 0
    """Seconds that one run may take, or text such as `10m`; 0 means the default of jobs."""
    job: Mapping[str, Any] = field(default_factory=dict)
    """More of the job, such as `{"Priority": 5, "Labels": {"team": "x"}}`."""
