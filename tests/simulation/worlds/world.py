"""One simulated world: a heap of events, the nodes, their users, and what is noted of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Any

from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.components.commit_plan import QueuedEvent
from bacalhau_p2p.components.transitions import InvalidTransition
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.requester.store import SubmissionToken
from tests.simulation.checks.ending import LOOK_EVERY
from tests.simulation.checks.invariants import Violation, Watch
from tests.simulation.nodes.network import Wires
from tests.simulation.nodes.node import Died, Life, SimulatedNode
from tests.simulation.plans.plan import (
    DATA,
    OUTLIVING,
    Crash,
    Drain,
    Forgery,
    JobPlan,
    Leave,
    Plan,
)
from tests.simulation.plans.rng import rng_for
from tests.simulation.worlds.connections import Connections
from tests.simulation.worlds.stranger import Stranger

START = 10_000.0
"""The clock at the beginning: later than any node's clock is behind."""
MOST_EVENTS = 400_000
"""In a world that ends; more is a loop."""

Note = tuple[float, str, str, Any, Any]
"""When, who, what kind of note, an arrival or nothing, and what it is about."""


@dataclass(slots=True)
class _User:
    """Submits one job, again with the same token until there is an answer; may cancel it."""

    plan: JobPlan
    attempts: int = 0
    asked: Life | None = None
    answer: JobID | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    plan: Plan
    violation: Violation | None
    events: int
    ended: float
    """Seconds of the world's time that it took."""
    struck: Counter[str]
    notes: Sequence[Note] = field(repr=False)


class World:
    """Build it from a plan and `run` it, once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.start = self.now = START
        self.rng = rng_for(plan.seed, "world")
        self.healed = False
        self.job_plans = {job.name: job for job in plan.jobs}
        self.specs = {job.name: spec_of(job) for job in plan.jobs}
        self.wires = Wires(plan, START)
        self.connections = Connections(self)
        self.watch = Watch(self)
        self.notes: list[Note] = []
        self.users = [_User(job) for job in plan.jobs]
        self.repeats = 0
        self.done = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._struck: Counter[str] = Counter()
        self.nodes = {PeerID(node.name): SimulatedNode(self, node) for node in plan.nodes}
        self._stranger = Stranger(self)

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Until all is over, or a promise is broken."""
        self._begin()
        events, violation = 0, None
        try:
            while self._heap and not self.done:
                self.now, _, what = heappop(self._heap)
                events += 1
                if events > MOST_EVENTS * (3 if self.plan.whole_day else 1):
                    raise Violation("endless", "the world does not come to rest")
                try:
                    what()
                except Died as death:
                    self._crashed(death)
        except Violation as found:
            violation = found
        except InvalidTransition as found:
            violation = Violation("table", str(found))
        return Outcome(
            self.plan, violation, events, self.now - self.start, self._struck + self.wires.struck, self.notes
        )

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (max(when, self.now), self._count, what))

    @property
    def since_start(self) -> float:
        return self.now - self.start

    def note(self, who: str, what: str, arrival: Any, about: Any) -> None:
        self.notes.append((self.now, who, what, arrival, about))

    def struck(self, fault: str) -> None:
        """A fault really had a chance to do harm."""
        self._struck[fault] += 1

    def ends(self) -> list[str]:
        """The state in which each job is that was submitted."""
        jobs = [
            self.nodes[PeerID(user.plan.requester)].requester_disk.records.get(user.answer)
            for user in self.users
        ]
        return [str(job.state) for job in jobs if job is not None]

    # --- messages -------------------------------------------------------------------------------

    def transmit(self, sender: PeerID, receiver: PeerID, envelope: Envelope) -> None:
        """Hand one message to the network."""
        node = self.nodes.get(receiver)
        if node is None:
            return
        for when, carried in self.wires.arrivals(sender, receiver, envelope, self.now):
            self.at(when, partial(self._arrive, node, sender, carried))

    def _arrive(self, node: SimulatedNode, sender: PeerID, envelope: Envelope) -> None:
        if node.life is not None:
            node.life.receive(sender, envelope)

    def repeated(self, sender: PeerID, envelope: Envelope) -> None:
        self.repeats += 1

    # --- the plan -------------------------------------------------------------------------------

    def _begin(self) -> None:
        for node in self.nodes.values():
            self.at(self.start + node.plan.joins, node.start)
        for user in self.users:
            self.at(self.start + user.plan.at, partial(self._submit, user))
            if user.plan.cancel_at is not None:
                self.at(self.start + user.plan.cancel_at, partial(self._cancel, user))
        self.connections.plan()
        for fault in self.plan.faults:
            match fault:
                case Crash(at=at):
                    self.at(self.start + at, partial(self._crash, fault))
                case Leave(at=at):
                    self.at(self.start + at, partial(self._leave, fault))
                case Drain(at=at):
                    self.at(self.start + at, partial(self._drain, fault))
                case Forgery(at=at):
                    self.at(self.start + at, partial(self._stranger.speak, fault))
        self.at(self.start + self.plan.heal_at, self._heal)
        self.at(self.start + LOOK_EVERY, self._look)

    def _heal(self) -> None:
        self.healed = True
        self.note("world", "healed", None, "")
        for node in self.nodes.values():
            node.start()

    def _look(self) -> None:
        self.done = self.watch.all_over()
        self.at(self.now + (60.0 if self.plan.whole_day and self.healed else LOOK_EVERY), self._look)

    def _crash(self, fault: Crash) -> None:
        node = self.nodes.get(PeerID(fault.node))
        if node is not None and node.life is not None and not self.healed:
            self.struck("power cut" if fault.power else "crash")
            self._crashed(Died(node, fault.down, power=fault.power))

    def _crashed(self, death: Died) -> None:
        death.node.stop(power=death.power)
        self.at(self.now + death.down, death.node.start)

    def _leave(self, fault: Leave) -> None:
        node = self.nodes.get(PeerID(fault.node))
        if node is not None:
            self.struck("leave")
            node.gone = True
            node.stop()

    def _drain(self, fault: Drain) -> None:
        node = self.nodes.get(PeerID(fault.node))
        if node is None or node.life is None or (compute := node.life.compute) is None:
            return
        self.struck("drain")
        life = node.life
        compute.put(cv.StopBidding())

        def hand_back() -> None:
            compute.put(cv.HandBack())
            self.at(self.now + 1.0, life.guarded(end))

        def end() -> None:
            node.stop()
            self.at(self.now + fault.down, node.start)

        self.at(self.now + fault.grace, life.guarded(hand_back))

    # --- users ----------------------------------------------------------------------------------

    def _submit(self, user: _User) -> None:
        if user.answer is not None:
            return
        self.at(self.now + 1.0, partial(self._submit, user))
        node = self.nodes.get(PeerID(user.plan.requester))
        if node is None or node.life is None or node.life is user.asked or node.life.requester is None:
            return
        if (known := node.requester_disk.tokens.get(user.plan.name)) is not None:
            self._answered(user, JobID(known))
            return
        user.asked = node.life
        user.attempts += 1
        suffix = f".{user.attempts}" if user.attempts > 1 else ""
        job_id = JobID(user.plan.name + suffix)
        node.life.requester.put_item(
            QueuedEvent(
                rv.Submitted(job_id, self.specs[user.plan.name]),
                note=SubmissionToken(job_id, user.plan.name),
                confirm=lambda: self._answered(user, job_id),
            )
        )

    def _answered(self, user: _User, job_id: JobID) -> None:
        user.answer = job_id
        self.watch.answered(user.plan, job_id)

    def _cancel(self, user: _User) -> None:
        node = self.nodes.get(PeerID(user.plan.requester))
        if user.answer is None or node is None or node.life is None or node.life.requester is None:
            self.at(self.now + 1.0, partial(self._cancel, user))
            return
        self.struck("cancel")
        node.life.requester.put(rv.CancelRequested(user.answer, "cancelled by its user"))


def spec_of(job: JobPlan) -> JobSpec:
    """The job as its user would write it."""
    verifier: dict[str, object] = {"Type": job.verifier}
    if job.confidence:
        verifier["Params"] = {"Confidence": job.confidence}
    task: dict[str, object] = {
        "Engine": {"Type": OUTLIVING if job.survives else "noop"},
        "Publisher": {"Type": "ipfs"},
        "Resources": {"CPU": str(job.cpu)},
        "Timeouts": {
            "ExecutionTimeout": job.execution_timeout,
            "QueueTimeout": job.queue_timeout,
            "TotalTimeout": job.total_timeout,
        },
    }
    if job.look is not None:
        task["InputSources"] = [{"Target": "/inputs", "Source": {"Type": DATA}}]
    return job_from_mapping(
        {
            "Name": job.name,
            "Count": job.count,
            "Priority": job.priority,
            "Verifier": verifier,
            "Deal": {"MinBids": job.min_bids},
            "Tasks": [task],
        }
    )
