"""One process of a simulated node: its clock, and when it stands still or dies."""

from __future__ import annotations

from collections.abc import Callable, Collection

from bacalhau_p2p.model.base import JobID, PeerID
from tests.simulation.nodes.disk import Disk
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Point


class Died(BaseException):
    """The process ends here and now; nothing of it runs on."""

    def __init__(self, peer: PeerID, down: float, *, power: bool) -> None:
        """The node starts again after `down` seconds. With `power` its machine lost power, too."""
        super().__init__(peer)
        self.peer = peer
        self.down = down
        self.power = power


class Process:
    """Ends with a kill; the next start of the node makes a new one."""

    def __init__(self, timeline: Timeline, disk: Disk, skew: float) -> None:
        """`skew` is how far the node's clock is ahead, in seconds."""
        self.timeline = timeline
        self.peer = disk.peer
        self.dead = False
        self.began = timeline.now
        self.busy_until = 0.0
        """Until when a slow disk holds the process up."""
        self._disk = disk
        self._skew = skew
        self._clock = 0.0

    # --- time -----------------------------------------------------------------------------------

    def clock(self) -> float:
        """This node's clock, which never goes back."""
        self._clock = max(self._clock, self.timeline.now + self._skew)
        return self._clock

    def advance_clock(self, then: float) -> None:
        """Rounding must not let a deadline that has come lie a little ahead."""
        self._clock = max(self._clock, then)

    def world_time(self, clock: float) -> float:
        """When this node's clock shows this."""
        return clock - self._skew

    def at(self, when: float, work: Callable[[], None]) -> None:
        """Schedule work, unless the process has ended by then."""

        def if_alive() -> None:
            if not self.dead:
                work()

        self.timeline.at(when, if_alive)

    def postpones(self, work: Callable[[], None]) -> bool:
        """Whether the disk holds the process up; then the work is scheduled for when it has done its part."""
        if self.timeline.now >= self.busy_until:
            return False
        self.at(self.busy_until, work)
        return True

    # --- the disk -------------------------------------------------------------------------------

    def begin_commit(self) -> None:
        """Raises Died where a crash is planned or the disk is full."""
        self._disk.commits += 1
        self.crash_point("before commit")
        if self._disk.is_full():
            self.timeline.count_fault("full disk")
            raise Died(self.peer, 1.0, power=False)
        if (takes := self._disk.commit_seconds()) > 0:
            self.timeline.count_fault("slow disk")
            self.busy_until = self.timeline.now + takes

    def handler_raises(self, jobs: Collection[JobID]) -> bool:
        """Whether the handler of the next event, which concerns these jobs, is planned to raise."""
        raises = bool(jobs) and self._disk.handler_raises()
        if raises:
            self.timeline.count_fault("handler raises")
            self.timeline.disturbed.update(jobs)
        return raises

    def refuses(self, job_id: JobID) -> bool:
        """Whether the store is planned to refuse the next record, which is of this job."""
        refuses = self._disk.refuses_record()
        if refuses:
            self.timeline.count_fault("record refused")
            self.timeline.disturbed.add(job_id)
        return refuses

    def crash_point(self, point: Point) -> None:
        """A place at which the process may be planned to die. Raises Died."""
        fault = self._disk.take_crash(point)
        if fault is not None:
            self.timeline.count_fault(f"crash {point}")
            raise Died(self.peer, fault.down, power=fault.power)
