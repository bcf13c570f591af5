"""The jobs that a node keeps in memory for each requester, and the bytes of their specs.

Pure, as a part of the compute machine. A job is held from the announcement that the node may bid on to the
end of its execution. Strangers choose how many jobs there are, and how large.
"""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.validation import size_of

MAX_JOBS = 11_000
MAX_JOBS_OF_ONE = 5_000
"""Jobs of one requester, so that it does not need all that there may be."""
MAX_SPEC_BYTES = 32 * 1024 * 1024
MAX_SPEC_BYTES_OF_ONE = 8 * 1024 * 1024
"""Characters of specs as JSON. In memory they take several times that."""

Key = tuple[PeerID, JobID]


@dataclass(slots=True)
class _Sum(Undoable):
    jobs: int = 0
    size: int = 0

    def add(self, jobs: int, size: int) -> None:
        self.jobs += jobs
        self.size += size

    def fits(self, size: int, max_jobs: int, max_size: int) -> bool:
        return self.jobs < max_jobs and self.size + size <= max_size


class HeldJobs:
    """Which jobs are held, and how large their specs are."""

    def __init__(self) -> None:
        self._sizes: dict[Key, int] = UndoableDict()
        self._of_one: dict[PeerID, _Sum] = UndoableDict()
        self._all = _Sum()

    def has_room_for(self, requester: PeerID, job_id: JobID, spec: JobSpec) -> bool:
        """Whether this job may be held, too."""
        if (requester, job_id) in self._sizes:
            return True
        size, mine = size_of(spec), self._of_one.get(requester, _Sum())
        return mine.fits(size, MAX_JOBS_OF_ONE, MAX_SPEC_BYTES_OF_ONE) and self._all.fits(
            size, MAX_JOBS, MAX_SPEC_BYTES
        )

    def hold(self, requester: PeerID, job_id: JobID, spec: JobSpec) -> None:
        """From now on the job is held."""
        key = (requester, job_id)
        if key in self._sizes:
            return
        size = self._sizes[key] = size_of(spec)
        if requester not in self._of_one:
            self._of_one[requester] = _Sum()
        self._of_one[requester].add(1, size)
        self._all.add(1, size)

    def drop(self, requester: PeerID, job_id: JobID) -> None:
        """The job is held no more."""
        size = self._sizes.pop((requester, job_id), None)
        if size is None:
            return
        mine = self._of_one[requester]
        mine.add(-1, -size)
        self._all.add(-1, -size)
        if not mine.jobs:
            del self._of_one[requester]
