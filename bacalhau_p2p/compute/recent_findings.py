"""Findings of inspections that may be used again when the same job is announced again soon.

Pure, as a part of the compute machine. Without this the bids of nodes whose inspections take differently long
would never be in one round, and a job that waits for several bids would get none of them.
"""

from __future__ import annotations

from hashlib import sha256

from bacalhau_p2p.components.undo import UndoableDict
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.job import JobSpec

VALID_FOR = 120.0
"""Seconds for which findings may be used again: two of the longest rounds, and the pauses between them."""
MAX_JOBS = 1000
"""Jobs whose findings are remembered, the latest ones."""


class RecentFindings:
    """What lately led to a bid. A refusal, or a lack of room, is found out anew."""

    def __init__(self) -> None:
        self._found: dict[tuple[PeerID, JobID], tuple[bytes, Findings, UnixSeconds]] = UndoableDict()

    def remember(
        self, requester: PeerID, job_id: JobID, spec: JobSpec, findings: Findings, now: UnixSeconds
    ) -> None:
        """The findings of an inspection that has just ended."""
        key = (requester, job_id)
        self._found.pop(key, None)
        if findings.refusal is not None or findings.shortage is not None:
            return
        self._found[key] = (_digest(spec), findings, now + VALID_FOR)
        if len(self._found) > MAX_JOBS:
            del self._found[next(iter(self._found))]

    def recall(self, requester: PeerID, job_id: JobID, spec: JobSpec, now: UnixSeconds) -> Findings | None:
        """What was found for this very job, or None if that is unknown or too old."""
        digest, findings, until = self._found.get((requester, job_id), (b"", None, now))
        return findings if until > now and digest == _digest(spec) else None

    def forget(self, requester: PeerID, job_id: JobID) -> None:
        """The job is not announced again."""
        self._found.pop((requester, job_id), None)


def _digest(spec: JobSpec) -> bytes:
    return sha256(spec.model_dump_json().encode()).digest()
