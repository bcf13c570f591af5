"""The no-op verifier, for users who trust every node."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.verifiers.interface import Verdict


class NoopVerifier:
    """Accepts every proposal."""

    @property
    def type(self) -> str:
        return "noop"

    def faults(self, spec: JobSpec) -> list[Fault]:
        return []

    async def verify(self, spec: JobSpec, proposals: Sequence[Proposal]) -> Verdict:
        await trio.lowlevel.checkpoint()
        return Verdict(
            accepted=frozenset(proposal.execution_id for proposal in proposals), rejected=frozenset()
        )
