"""The interface of verifiers."""

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
    """Every proposal is accepted or rejected; `reason` says why any was rejected."""

    accepted: frozenset[ExecutionID]
    rejected: frozenset[ExecutionID]
    reason: str = ""


class Verifier(Protocol):
    """Decides which proposals of a job are right. One object serves all jobs of a node."""

    @property
    def type(self) -> str:
        """Its name in a job's `Verifier.Type`, lower case."""
        ...

    def faults(self, spec: JobSpec) -> list[Fault]:
        """Why it cannot verify such a job, by path (`Verifier.Params.Confidence`). Pure and fast."""
        ...

    async def verify(self, spec: JobSpec, proposals: Sequence[Proposal]) -> Verdict:
        """Judge the proposals of one job, at most one from each node. Raises VerifierError."""
        ...
