"""What a verifier does with the proposals of one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Every proposal is in exactly one of the two; `reason` says in words why any was rejected."""

    accepted: frozenset[ExecutionID]
    rejected: frozenset[ExecutionID]
    reason: str = ""


class Verifier(Protocol):
    @property
    def type(self) -> str:
        """Its name in a job's `Verifier.Type`, lower case."""
        ...

    def faults(self, spec: JobSpec) -> list[Fault]:
        """Why it cannot verify such a job, by path (`Verifier.Params.Confidence`). Pure and fast."""
        ...

    async def verify(self, spec: JobSpec, proposals: Sequence[Proposal]) -> Verdict:
        """Judge the proposals of one job, at most one a node. Raises VerifierError."""
        ...
